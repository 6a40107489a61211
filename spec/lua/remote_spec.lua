-- remote_spec.lua: copies of backups on a remote: what is whole there, what breaks off, what
-- comes back. The remote is s3rver, an S3 server on the loopback. No server is backed up.
local script = require "lb.script"
local sources = require "lb.sources"
local support = require "support.lbrun"
local s3 = require "support.s3"
local sshd = require "support.sshd"

local env = script.environment(sources.collect "runbooks/backup.lua")
local backup, calendar = env.backup, env.calendar

describe("the names of backups on the remote #unit", function()
  local function whole(...)
    local list = {}
    for i, name in ipairs { ... } do list[i] = { name = name, complete = true } end
    return list
  end

  it("count what was sent, so that a clock set back makes no backup older", function()
    local list = whole("2026-03-01.9", "2026-02-28.8", "2026-01-01.10")
    assert.equal("2026-03-02.11", backup.next_name(list, "2026-03-02"))
    assert.equal("2026-03-02.1", backup.next_name({}, "2026-03-02"))
    assert.equal("2026-01-01.10", backup.newest_sent(list))
    assert.equal("2026-03-01.9", backup.newest_sent(list, "2026-03-01"))
    assert.is_nil(backup.newest_sent({ { name = "2026-03-01.3", complete = false } }))
    assert.is_nil(backup.remote_name "2026-02-30.1")
    assert.is_nil(backup.remote_name "daily")
  end)

  it("keep, over a year of days with gaps, the last seven and four Sundays, never without a whole one", function()
    local list, made = {}, 0
    for n = 0, 364 do
      local day = calendar.date(20454 + n)
      if n % 5 ~= 3 and not (n > 190 and n < 212) then
        local name = backup.next_name(list, day)
        -- One of eleven breaks off.
        local fine = n % 11 ~= 0 or n == 0
        list[#list + 1] = { name = name, complete = fine }
        if fine then
          made = made + 1
          local gone = {}
          for _, one in ipairs(backup.remote_rotation(list)) do gone[one] = true end
          assert.is_nil(gone[name])
          local left = {}
          for _, item in ipairs(list) do
            if not gone[item.name] then left[#left + 1] = item end
          end
          list = left
          local days, sundays = 0, 0
          for _, item in ipairs(list) do
            days = days + 1
            if calendar.is_sunday((backup.remote_name(item.name))) then sundays = sundays + 1 end
            assert.is_true(item.complete)
          end
          assert.is_true(days >= math.min(made, 7) and days <= 11, day .. " has " .. days)
          assert.is_true(n < 60 or sundays >= 4, day)
        end
      end
    end
  end)

  it("leave alone what is no dated backup, and what breaks off while no later one is whole", function()
    local list = whole("latest", "2026-02-28", "x.1", "2026-02-28.2", "2026-02-28.3")
    list[#list + 1] = { name = "2026-02-27.1", complete = false }
    list[#list + 1] = { name = "2026-03-01.4", complete = false }
    assert.same({ "2026-02-27.1", "2026-02-28.2" }, backup.remote_rotation(list))
  end)
end)

describe("a copy on an S3 remote", function()
  local dir, server, config
  local target = "remote:backups/acme"

  local function remote(verb, ...)
    local words = { "bash", "templates/backup/remote.sh", verb, config, target, ... }
    for i, word in ipairs(words) do words[i] = support.quote(word) end
    return support.sh(("env -i PATH=$PATH LBRUN_REMOTE_LOGS=%s/log %s"):format(dir, table.concat(words, " ")))
  end
  local function rclone(line)
    return support.sh(("env -i PATH=$PATH rclone --config %s %s"):format(config, line))
  end
  local function list()
    local text, status = remote "list"
    assert.equal(0, status, text)
    return text
  end

  setup(function()
    dir = support.temp()
    server = s3.new(dir .. "/s3").start()
    config = dir .. "/rclone.conf"
    support.spit(config, server.config)
    local text, status = support.sh(([[set -e; cd %s; mkdir -p day/volumes "day/nextcloud/files/a b/empty"; cd day
head -c 300000 /dev/urandom >volumes/x.tar.gz; echo dump >ghost.sql.gz
printf 'one\n' >'nextcloud/files/a b/ü'; ln -s 'a b' nextcloud/files/link; chmod 750 'nextcloud/files/a b'; chmod 640 'nextcloud/files/a b/ü'
# A tenant's own files of that name: one beside what it is named after, and one that reads like a list of ours.
mkdir nextcloud/files/x %s/victim; echo cs >nextcloud/files/Player.cs; echo meta >nextcloud/files/Player.cs.meta
printf 'l 777 0 0 1@\0b\0%%s\0' '%s/victim' >nextcloud/files/x.meta; printf 'f 4777 0 0 1@\0shadow\0\0' >nextcloud/files/x/b.meta
echo root >%s/victim/shadow; chmod 600 %s/victim/shadow
touch -d @1700000000 'nextcloud/files/a b/ü' 'nextcloud/files/a b'
find nextcloud/files -printf '%%y %%m %%U %%G %%T@\0%%P\0%%l\0' >nextcloud/files.meta
(cd nextcloud/files && find . -type f -print0 | xargs -0 sha256sum) >nextcloud/files.sha256
sum=$(sha256sum <nextcloud/files.meta | cut -d' ' -f1)
echo '{"parts":{"ghost":{"files":[{"path":"ghost.sql.gz","kind":"sql"}]},"nextcloud":{"files":[{"path":"nextcloud/files.sha256","kind":"snapshot"},{"path":"nextcloud/files.meta","kind":"meta","sha256":"'$sum'"}]}}}' >manifest.json]]):format(dir, dir, dir, dir, dir))
    assert.equal(0, status, text)
  end)
  teardown(function()
    server.stop()
    support.sh("rm -rf " .. dir)
  end)

  it("is none in an empty bucket", function()
    assert.equal("", list())
  end)

  it("is whole when its manifest stands, which is sent last, and `latest` names it", function()
    local text, status = remote("send", "2026-02-26.1", dir .. "/day")
    assert.equal(0, status, text)
    assert.equal("2026-02-26.1\twhole\n2026-02-26.1\tthere\n", list())
    assert.equal("daily/2026-02-26.1\n", rclone("cat " .. target .. "/latest"))
    assert.equal("", (rclone(("check --one-way --skip-links --fast-list %s/day %s/daily/2026-02-26.1 -q"):format(dir, target))))
  end)

  it("comes back with owners, modes, links, times and empty directories, which the store does not keep", function()
    local text, status = remote("fetch", "2026-02-26.1", dir .. "/back/2026-02-26")
    assert.equal(0, status, text)
    assert.equal("", (support.sh(("cd %s && rm back/2026-02-26/.fetched && diff -r day back/2026-02-26"):format(dir))))
    -- No list of a tenant's own was followed.
    assert.equal("600 root\n", (support.sh(("cd %s/victim && stat -c %%a shadow | tr '\\n' ' ' && cat shadow"):format(dir))))
    assert.equal("x.meta\n", (support.sh(("cd %s/back/2026-02-26/nextcloud/files && ls -d x.meta x/b 2>/dev/null; true"):format(dir))))
    local look = "cd %s/nextcloud/files && find . -printf '%%p %%y %%m %%U %%G %%l\\n' | sort && stat -c %%Y 'a b' 'a b/ü'"
    assert.equal(support.sh(look:format(dir .. "/day")), support.sh(look:format(dir .. "/back/2026-02-26")))
  end)

  it("is not followed in a list that is not the one that was backed up", function()
    support.sh(("cp -a %s/day %s/lied && printf 'f 4755 0 0 1@\\0Player.cs\\0\\0' >>%s/lied/nextcloud/files.meta"):format(dir, dir, dir))
    assert.equal(0, select(2, remote("send", "2026-02-27.1", dir .. "/lied")))
    local text, status = remote("fetch", "2026-02-27.1", dir .. "/back/2026-02-27")
    assert.equal(1, status)
    assert.matches("nextcloud/files.meta is not what was backed up", text)
    assert.equal("absent\n", (support.sh(("[ -e %s/back/2026-02-27/.fetched ] || echo absent"):format(dir))))
    assert.equal(0, select(2, remote("drop", "2026-02-27.1")))
    assert.equal(0, select(2, remote("send", "2026-02-26.1", dir .. "/day")))
  end)

  it("comes back of one tool alone", function()
    local text, status = remote("fetch", "2026-02-26.1", dir .. "/one", "nextcloud")
    assert.equal(0, status, text)
    assert.equal("manifest.json\nnextcloud\n", (support.sh("ls " .. dir .. "/one")))
    text, status = remote("fetch", "2026-02-26.1", dir .. "/two", "odoo")
    assert.equal(1, status)
    assert.matches("has nothing of odoo", text)
  end)

  it("refuses a list whose path leads outside", function()
    local text, status = support.sh(([[set -e; cd %s; cp -a day evil; cd evil; printf 'd 700 0 0 1\0../../out\0\0' >nextcloud/files.meta
sum=$(sha256sum <nextcloud/files.meta | cut -d' ' -f1); jq --arg sum "$sum" '.parts.nextcloud.files[1].sha256 = $sum' ../day/manifest.json >manifest.json]])
      :format(dir))
    assert.equal(0, status, text)
    assert.equal(0, select(2, remote("send", "2026-02-20.2", dir .. "/evil")))
    text, status = remote("fetch", "2026-02-20.2", dir .. "/evil-back/x")
    assert.equal(1, status)
    assert.matches("leads outside", text)
    assert.equal(1, select(2, support.sh(("test -e %s/evil-back/out"):format(dir))))
    assert.equal(0, select(2, remote("drop", "2026-02-20.2")))
    assert.equal(0, select(2, remote("send", "2026-02-26.1", dir .. "/day")))
  end)

  it("is not whole when the remote breaks off, with why, and the one before stays; sent again it is", function()
    -- The network goes away when the first bytes of the copy have arrived. The store itself
    -- lives on: s3rver, killed in mid-write, would leave a torn file and answer 500 for ever.
    support.sh(("head -c 40000000 /dev/urandom >%s/day/volumes/big"):format(dir))
    local net = sshd.network("proxy", server.port, 5, 20000000)
    support.spit(config, (server.config:gsub(":" .. server.port .. "\n", ":" .. net.port .. "\n")))
    os.execute(("{ for i in $(seq 6000); do [ -z \"$(find %s/s3 -path '*2026-02-27.2*' -type f 2>/dev/null)\" ] || break; sleep 0.02; done; kill -9 %d; } >/dev/null 2>&1 &")
      :format(dir, net.pid))
    local text, status = remote("send", "2026-02-27.2", dir .. "/day")
    net.stop()
    assert.equal(1, status)
    assert.matches("remote: the copy to remote:backups/acme broke off: .+", text)
    text, status = remote "list"
    assert.equal(1, status)
    assert.matches("cannot be listed", text)
    support.spit(config, server.config)
    local seen = list()
    assert.is_truthy(seen:find("2026-02-26.1\twhole", 1, true))
    assert.is_nil(seen:find("2026-02-27.2\twhole", 1, true))
    assert.equal("daily/2026-02-26.1\n", rclone("cat " .. target .. "/latest"))
    assert.equal(1, select(2, remote("fetch", "2026-02-27.2", dir .. "/none")))
    text, status = remote("send", "2026-02-27.2", dir .. "/day")
    assert.equal(0, status, text)
    assert.is_truthy(list():find("2026-02-27.2\twhole", 1, true))
  end)

  it("goes by its name alone, and nothing else with it", function()
    local text, status = remote("drop", "2026-02-27.2")
    assert.equal(0, status, text)
    assert.equal("2026-02-26.1\twhole\n2026-02-26.1\tthere\n", list())
  end)

  it("is encrypted where the remote is a crypt, and is compared all the same", function()
    local password = support.sh "echo a-word | rclone obscure -":gsub("\n", "")
    support.spit(config, (server.config:gsub("%[remote%]", "[store]")) .. "[remote]\ntype = crypt\nremote = store:backups/sealed\npassword = " .. password .. "\n")
    local text, status = remote("send", "2026-02-28.3", dir .. "/day")
    assert.equal(0, status, text)
    assert.equal("2026-02-28.3\twhole\n2026-02-28.3\tthere\n", list())
    text, status = remote("fetch", "2026-02-28.3", dir .. "/opened")
    assert.equal(0, status, text)
    assert.equal("", (support.sh(("rm %s/opened/.fetched; diff -r %s/day %s/opened"):format(dir, dir, dir))))
    assert.equal("", (support.sh(("find %s/s3 -path '*sealed*' | grep -F ghost"):format(dir))))
  end)
end)
