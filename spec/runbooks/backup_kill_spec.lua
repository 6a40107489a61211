-- backup_kill_spec.lua: a backup and a restore of one tool that are killed at every commit of
-- their journal, and backups whose clock is another: past midnight, set back. The tool's image
-- is a stand-in on a real MySQL (MariaDB) server.
local json = require "json"
local support = require "support.lbrun"
local background = require "support.background"
local vps = require "support.vps"
local provision = require "support.provision"
local three = require "support.three_tools"

local backups, single = "/opt/letsbe/backups", "/opt/letsbe/backups/tool/ghost"
local day = 86400

-- Each day that is published, which must be whole: what its manifest lists is there, byte by byte.
local whole = [[for d in %s/2*; do cd "$d" && jq -e .complete manifest.json >/dev/null &&
jq -r '.parts[].files[] | .sha256 + "  " + .path' manifest.json | sha256sum --quiet -c >&2 && basename "$d" || echo "$d is not whole"; done]]

-- A client that holds a table, so that its dump waits as long as it must.
local hold = [[docker exec -d ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" exec mysql -u root ghost -e "lock tables parents write; select sleep(3600)"'
until docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -N -u root -e "show processlist"' | grep -q 'sleep(3600)'; do sleep 0.2; done]]
local let_go = [[docker exec ghost-db sh -c 'export MYSQL_PWD="$MYSQL_ROOT_PASSWORD"
mysql -N -u root -e "select id from information_schema.processlist where info = \"select sleep(3600)\"" | while read -r id; do mysql -u root -e "kill $id"; done']]

describe("a tool's backups on a bad night #vps #long", function()
  local server, home, before
  local data = three.data_of { "ghost" }

  local function inside(command) return (server:exec(command)) end
  local function told(r) return ("exit %s: %s\n%s"):format(tostring(r.exit), r.last and r.last.message or "", r.err) end
  local function args(book)
    return ("runbooks/%s.lua tool=ghost -t %s -i %s -y --no-input --json"):format(book, server.url, server.key)
  end
  local function same(where)
    local now = inside(data)
    assert(now == before, where .. ":\n" .. provision.difference(before, now))
  end
  local function status() return json.decode(inside("cat " .. backups .. "/backup-status.json")) end
  local function dates(base)
    local list = {}
    for name in inside(whole:format(base)):gmatch "[^\n]+" do list[#list + 1] = name end
    return list
  end

  setup(function()
    server = vps.up("backup-kill", { docker = true, images = provision.images_of { "ghost" } })
    home = support.home()
    local made = home.json(provision.args(server, { more = "tools=ghost --tags nginx,stacks,backups --json" }))
    assert(provision.fine(made))
    local _, failed, err = server:exec(three.fill_of { "ghost" })
    assert.equal(0, failed, err)
    -- Its health is asked more often, or most of the time would be spent on waiting for it.
    inside [[cd /opt/letsbe/stacks/ghost && sed -i 's/^      interval: .*/      interval: 1s/; s/^      start_period: .*/      start_period: 5s/' docker-compose.yml
{ docker compose -p ghost up -d || docker-compose -p ghost up -d; } >/dev/null 2>&1
until [ "$(docker inspect -f '{{.State.Health.Status}}' ghost)" = healthy ]; do sleep 1; done]]
    before = inside(data)
  end)
  teardown(function()
    server:down()
    home.remove()
  end)

  -- A run of the book is killed at each commit, just before and just after in turn. What a person
  -- does then is begin it again, and what it says to do then.
  local function matrix(book, prepare, at_once, check)
    local function run(n)
      return home.run(args(book), { env = { LD_PRELOAD = "./" .. support.killat, KILLAT = tostring(n),
        KILLAT_WHEN = n % 2 == 0 and "before" or "after", KILLAT_COUNT_FILE = home.dir .. "/commits" } })
    end
    prepare()
    local r = run(0)
    assert.equal(0, r.exit, r.err)
    check "without being killed"
    local commits = tonumber(support.slurp(home.dir .. "/commits"):match "%d+")
    assert.is_true(commits > 15, tostring(commits))
    for n = 1, commits do
      local where = ("%s, commit %d of %d"):format(book, n, commits)
      prepare()
      local killed = run(n)
      assert.equal(9, killed.signal, where .. killed.err)
      at_once(where)
      local again = home.json(args(book))
      if again.exit == 8 then
        local id = (again.err .. again.last.message):match "go on with it: lbrun resume ([%w-]+),"
        again = home.json(("resume %s --json --no-input"):format(id))
      end
      assert.equal(0, again.exit, where .. ": " .. told(again))
      check(where)
    end
    assert.equal(0, home.run("verify-journal").exit)
    return commits
  end

  it("goes on from each commit at which a backup was killed: no day is half there, and no good one is gone", function()
    local made = home.json(args "backup")
    assert.equal(0, made.exit, told(made))
    local today = dates(single)[1]
    inside(([[cd %s && for n in 1 2 3 4 5 6 7; do cp -a %s 2020-01-0$n
jq -c --argjson n $n '.date = "2020-01-0\($n)" | .sequence = $n' %s/manifest.json >m && mv m 2020-01-0$n/manifest.json; done
rm -rf %s; cp -a . /root/days]]):format(single, today, today, today))
    local kept = {}
    for n = 2, 7 do kept[n - 1] = "2020-01-0" .. n end
    matrix("backup", function() inside(("rm -rf %s; cp -a /root/days %s"):format(single, single)) end, function(where)
      local have = {}
      for _, name in ipairs(dates(single)) do have[name] = true end
      for _, name in ipairs(kept) do assert.is_true(have[name], where .. ": " .. name) end
      for name in pairs(have) do assert.is_true(name:sub(1, 4) == "2020" or name == today, where .. ": " .. name) end
      assert.is_true(have["2020-01-01"] or have[today], where .. ": the oldest went before the newest was there")
    end, function(where)
      local list = dates(single)
      assert.equal(7, #list, where)
      assert.equal(today, list[7], where)
      local sequence = tonumber((inside(("jq .sequence %s/%s/manifest.json"):format(single, today))))
      assert.is_true(sequence == 8 or sequence == 9, where)
      assert.equal("", inside(("ls -d %s/.??* %s/.stopped-* 2>/dev/null"):format(single, backups)), where)
    end)
    same "after the backups that were killed"
  end)

  it("goes on from each commit at which a restore was killed, and ends with the backup's rows and bytes", function()
    inside(("rm -rf %s"):format(single))
    local made = home.json(args "backup")
    assert.equal(0, made.exit, told(made))
    matrix("restore", function()
      inside [[docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -u root ghost -e "drop table children; delete from parents where id = 2; insert into entries values (77)"'
printf x >"$(docker volume inspect -f '{{.Mountpoint}}' ghost-content)/images/x.png"]]
    end, function(where)
      assert.equal(1, #dates(single), where)
    end, function(where)
      same(where)
      assert.equal("", inside [[ls -d /var/lib/docker/volumes/*/_data.lbrun* /opt/letsbe/backups/.restore* 2>/dev/null
docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -N -u root -e "show databases like \"%lbrun%\""'
docker ps -a --format '{{.Names}} {{.State}}' | grep -v running]], where)
    end)
  end)

  it("is made by one of two that begin at once, whatever journal they write; the other is refused and disturbs nothing", function()
    inside(hold)
    local other = support.home()
    local line = ("runbooks/backup.lua recipients=%s -t %s -i %s -y --no-input --json"):format(provision.recipient, server.url, server.key)
    local first = background.start(home, line)
    inside(("until ls %s/daily/.*/ghost.sql.gz; do sleep 0.1; done"):format(backups))
    local second, third = other.json(line), inside "/opt/letsbe/scripts/backups.sh >/root/said 2>&1; echo $?"
    local running = first:alive()
    inside(let_go)
    local last = first:finish()
    other.remove()
    assert.equal(8, second.exit, told(second))
    assert.equal("8\n", third, inside "cat /root/said")
    assert.is_true(running)
    assert.equal(0, last.exit, last.message)
    local list = dates(backups .. "/daily")
    assert.equal(1, #list)
    assert.equal(last.run .. "\n", inside(("jq -r .run %s/daily/%s/manifest.json"):format(backups, list[1])))
    assert.equal("success", status().status)
    assert.equal("", inside(("ls -d %s/daily/.??* 2>/dev/null"):format(backups)))
    inside(("rm -rf %s/daily %s/latest"):format(backups, backups))
  end)

  -- On the server itself, where everything that tells the time is told another.
  local function set(offset) return ("echo %d >/root/clock.new; mv /root/clock.new /root/clock"):format(offset) end
  local function at(offset, what)
    return set(offset) .. ("; LD_PRELOAD=/root/clockat.so CLOCKAT=@/root/clock %s"):format(what)
  end
  local night = "/opt/letsbe/scripts/backups.sh >/root/said 2>&1; echo $? >/root/status"
  local function ended()
    return inside "until [ -s /root/status ]; do sleep 0.2; done; cat /root/status; rm /root/status"
  end
  local function begin(offset)
    inside(at(offset, ("setsid sh -c '%s' </dev/null >/dev/null 2>&1 &"):format(night)))
  end
  local function waiting()
    inside(("until ls %s/daily/.*/ghost.sql.gz; do sleep 0.1; done"):format(backups))
  end

  it("is the day's in which it began, when midnight passes in the middle of it", function()
    local f = assert(io.open(support.clockat, "rb"))
    server:exec("cat >/root/clockat.so", { stdin = f:read "a" })
    f:close()
    local now = math.tointeger(tonumber((inside "date +%s"))) or 0
    local to_midnight = day - now % day
    inside(hold)
    begin(to_midnight - 600)
    waiting()
    assert.matches("23:5", inside(at(to_midnight - 600, "date -u +%H:%M")), "ten minutes were not enough to begin")
    -- The rest of the day, at once.
    inside(set(to_midnight))
    inside(let_go)
    assert.equal("0\n", ended(), inside "cat /root/said")
    local today = os.date("!%Y-%m-%d", now)
    assert.same({ today }, dates(backups .. "/daily"))
    assert.equal("daily/" .. today .. "\n", inside("readlink " .. backups .. "/latest"))
    local s = status()
    assert.equal(os.date("!%Y-%m-%dT00:", now + day), s.timestamp:sub(1, 14))
    assert.is_true(s.duration_seconds >= 600 and s.duration_seconds < 7200, tostring(s.duration_seconds))
    -- The next night's is a day of its own.
    assert.equal("0\n", (inside(at(to_midnight + 7200, night)) .. ended()))
    assert.same({ today, os.date("!%Y-%m-%d", now + day) }, dates(backups .. "/daily"))
  end)

  it("is the newest when the clock was set back before it, or in the middle of it, and the later days stay", function()
    local now = math.tointeger(tonumber((inside "date +%s"))) or 0
    local here = dates(backups .. "/daily")
    inside(at(-40 * day, night))
    assert.equal("0\n", ended(), inside "cat /root/said")
    local old = os.date("!%Y-%m-%d", now - 40 * day)
    assert.same({ old, here[1], here[2] }, dates(backups .. "/daily"))
    assert.equal("daily/" .. old .. "\n", inside("readlink " .. backups .. "/latest"))
    -- A restore takes what was made last, not what has the latest date.
    inside [[docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -u root ghost -e "delete from children"']]
    local said, bad = server:exec "/opt/letsbe/scripts/restore.sh --tool ghost 2>&1"
    assert.equal(0, bad, said)
    assert.matches("restores /opt/letsbe/backups/daily/" .. old:gsub("%-", "%%-"), said)
    same "after the restore"
    inside(hold)
    begin(-10 * day)
    waiting()
    inside(set(-11 * day))
    inside(let_go)
    assert.equal("0\n", ended(), inside "cat /root/said")
    assert.same({ old, os.date("!%Y-%m-%d", now - 10 * day), here[1], here[2] }, dates(backups .. "/daily"))
    local s = status()
    assert.equal("success", s.status)
    assert.equal(0, s.duration_seconds)
  end)
end)
