-- backup_spec.lua: three tools on a real server are backed up, damaged and restored, with
-- their rows and bytes compared. Their images are stand-ins on real MySQL (MariaDB) and
-- PostgreSQL servers; the remote is s3rver, an S3 server, beside the VPS. What is pure is in
-- spec/lua/backup_spec.lua.
local crypto = require "crypto"
local json = require "json"
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"
local s3 = require "support.s3"
local hub = require "support.hub"
local three = require "support.three_tools"

local fill, data = three.fill, three.data

describe("backup and restore of three tools #vps #slow", function()
  local server, home, identity, before, store, h
  local backups, day = "/opt/letsbe/backups", nil

  local function args(book, more)
    return ("runbooks/%s.lua %s -t %s -i %s -y --no-input"):format(book, more or "", server.url, server.key)
  end
  local function backup(more)
    return home.json(args("backup", "recipients=" .. identity.recipient .. " " .. (more or "") .. " --json"))
  end
  local function restore(more)
    return home.json(args("restore", more .. " --json"))
  end
  local function inside(command)
    return (server:exec(command))
  end
  local function status()
    return json.decode(inside("cat " .. backups .. "/backup-status.json"))
  end
  local function same(what)
    local now = inside(data)
    assert(now == before, what .. ":\n" .. provision.difference(before, now))
  end
  -- For home.run: it is killed as soon as the command succeeds on the server, within minutes.
  local function killed_when(command)
    local pid = home.dir .. "/pid"
    os.execute(("{ for i in $(seq 1200); do if spec/sandbox/vps exec %s -- sh -c %s; then kill -9 $(cat %s); break; fi; sleep 0.05; done; } >/dev/null 2>&1 </dev/null &")
      :format(server.name, support.quote(command), pid))
    return { before = ("sh -c 'echo $$ >%s; exec \"$@\"' sh"):format(pid) }
  end
  local function told(r)
    return ("exit %s: %s\n%s"):format(tostring(r.exit), r.last and r.last.message or "", r.err)
  end

  setup(function()
    server = vps.up("backup", { docker = true, images = provision.images_of { "ghost", "nextcloud", "uptime-kuma" } })
    home = support.home()
    identity = crypto.age_identity()
    local outside = server.address:gsub("%d+$", "1")
    store = s3.new(home.dir .. "/s3", outside).start()
    support.sh(("install -m 600 /dev/null %s/rclone.conf"):format(home.dir))
    support.spit(home.dir .. "/rclone.conf", store.config)
    h = hub.new(home.dir .. "/hub", "canary+Token/of=restores", outside).start()
    local made = home.json(provision.args(server, { more = "tools=ghost,nextcloud,uptime-kuma --tags nginx,stacks,backups --json" }))
    assert(provision.fine(made))
    local _, failed, err = server:exec(fill)
    assert.equal(0, failed, err)
    before = inside(data)
  end)
  teardown(function()
    store.stop()
    h.stop()
    server:down()
    home.remove()
  end)

  it("refuses to begin without somebody whom the credentials are sealed to", function()
    inside "mv /opt/letsbe/env/recipients /root/recipients"
    local r = home.run(args("backup"))
    inside "mv /root/recipients /opt/letsbe/env/recipients"
    assert.equal(2, r.exit, r.err)
    assert.matches("recipients", r.err)
    assert.equal("", inside("ls " .. backups .. " 2>/dev/null"))
  end)

  it("publishes a whole day, with what the manifest says and no secret unsealed", function()
    local started = "docker inspect -f '{{.State.StartedAt}}' uptime-kuma"
    local since = inside(started)
    local r = backup()
    assert.equal(since, inside(started), "a tool on SQLite is backed up without being stopped")
    assert.equal(0, r.exit, told(r))
    day = inside("date +%F"):gsub("\n", "")
    local at = backups .. "/daily/" .. day
    assert.equal("daily/" .. day .. "\n", inside("readlink " .. backups .. "/latest"))
    for _, name in ipairs { "nextcloud/nextcloud-html", "volumes/ghost-content.tar.gz", "nginx/nginx.tar.gz", "credentials.enc", "manifest.json" } do
      assert.equal("yes\n", inside(("test -e %s/%s && echo yes"):format(at, name)), name)
    end
    local m = json.decode(inside("cat " .. at .. "/manifest.json"))
    local rows = {}
    for _, name in ipairs { "nextcloud", "ghost" } do
      for _, t in ipairs(m.parts[name].databases[1].tables) do rows[t.name] = t.rows end
    end
    assert.same({ entries = 1, parents = 3, children = 2, ["public.entries"] = 2001, ['public."odd (name)"'] = 2, ["public.empty"] = 0 }, rows)
    assert.matches("^sha256:", m.parts.ghost.images[1].digest)
    assert.equal("700 root\n", inside("stat -c '%a %U' " .. backups))
    -- The sealed files open with the recipient's key alone, and are what stands on the server: the
    -- copy that provisioning keeps, and all that is secret besides.
    local text = assert(crypto.age_decrypt(inside("cat " .. at .. "/credentials.enc"), identity.identity))
    for line in inside("cat /opt/letsbe/env/credentials.env"):gmatch "[^\n]+" do
      assert.is_truthy(line:sub(1, 1) == "#" or text:find("\n" .. line .. "\n", 1, true), (line:gsub("=.*", "")))
    end
    support.spit(home.dir .. "/server.tar", assert(crypto.age_decrypt(inside("cat " .. at .. "/server.enc"), identity.identity)))
    assert.is_truthy(support.sh(("tar -tf %s/server.tar"):format(home.dir)):find("stacks/ghost/.env", 1, true))
    local s = status()
    assert.equal("success", s.status)
    assert.equal(2, s.databases_backed_up)
    assert.is_true(s.files_backed_up)
    assert.same({}, s.errors)
    same "the backup changed the data"
  end)

  it("is what the server does by itself at night, in a hardened unit, which goes on with what a crash left", function()
    assert.equal("enabled\nenabled\nactive\nactive\n", inside [[set -- letsbe-backup.timer letsbe-restore-test.timer
systemctl is-enabled "$@"; systemctl is-active "$@"]])
    assert.equal("ProtectHome=yes\nProtectSystem=strict\nNoNewPrivileges=yes\n",
      inside "systemctl show letsbe-backup.service -p ProtectSystem,ProtectHome,NoNewPrivileges")
    local unit = inside "cat /etc/systemd/system/letsbe-backup.timer"
    assert.matches("OnCalendar=%*%-%*%-%* 02:00:00\nOnCalendar=%*%-%*%-%* 03:00:00\nPersistent=true", unit)
    assert.equal("", inside "ldd /opt/letsbe/lbrun/current/bin/lbrun | grep 'not found'")
    local manifest = ("cat %s/daily/%s/manifest.json | jq -r .run"):format(backups, day)
    local first = inside(manifest)
    -- lbrun is killed when the first part is there; the next start goes on, then makes its own.
    inside(([[systemctl start --no-block letsbe-backup.service
until ls %s/daily/.*.partial*/.parts/nextcloud; do sleep 0.05; done; systemctl kill --signal=KILL letsbe-backup.service
until systemctl is-failed letsbe-backup.service; do sleep 0.1; done]]):format(backups))
    assert.equal(first, inside(manifest))
    local _, failed = server:exec "systemctl start letsbe-backup.service"
    assert.equal(0, failed, inside "journalctl -u letsbe-backup.service --no-pager | tail -30")
    assert.is_not.equal(first, inside(manifest))
    assert.equal("success", status().status)
    assert.equal("0\n", inside(("ls -d %s/daily/.*.partial* 2>/dev/null | wc -l"):format(backups)))
    local second = inside(manifest)
    assert.equal("done\n", inside "systemctl start letsbe-backup.service && echo done")
    assert.equal(second, inside(manifest), "a night's second try has found its work done")
    -- The other front door.
    assert.equal("2\n", inside "/opt/letsbe/scripts/restore.sh --tool 2>/dev/null; echo $?")
    inside [[printf x >"$(docker volume inspect -f '{{.Mountpoint}}' ghost-content)/images/x.png"]]
    local out, bad = server:exec(("/opt/letsbe/scripts/restore.sh --tool ghost --date %s 2>&1"):format(day))
    assert.equal(0, bad, out)
    same "the server's own backup and restore"
  end)

  it("links an unchanged file to the day before's, and replaces the day by a whole one only", function()
    inside(("cd %s/daily && mv %s 2020-01-05 && ln -sfn daily/2020-01-05 ../latest && jq -c '.date = \"2020-01-05\"' 2020-01-05/manifest.json >m && mv m 2020-01-05/manifest.json")
      :format(backups, day))
    local r = backup()
    assert.equal(0, r.exit, told(r))
    local file = "nextcloud/nextcloud-html/data/big"
    assert.equal("same\n", inside(("cd %s/daily && [ 2020-01-05/%s -ef %s/%s ] && echo same"):format(backups, file, day, file)))
    assert.equal("2020-01-05\n", inside("ls " .. backups .. "/weekly"))
    assert.equal("same\n", inside(("cd %s && [ weekly/2020-01-05/%s -ef daily/2020-01-05/%s ] && echo same"):format(backups, file, file)))
  end)

  -- What a test or a container beside production has put there.
  local beside = [[docker ps -a --format '{{.Names}}' | grep -E -- '-(test|temp)'; docker volume ls -q | grep -E -- '-(test|temp)-'
ls -A /opt/letsbe/backups/.beside; ls -d /opt/letsbe/backups/.restore* /opt/letsbe/backups/.remote* 2>/dev/null]]
  local function tests(tool)
    local list = {}
    for _, one in ipairs(json.decode(inside("cat " .. backups .. "/restore-evidence.json")).tests) do
      if not tool or one.tool == tool then list[#list + 1] = one end
    end
    return list
  end

  it("proves each tool's backup in a container of its own image without a network, and removes it again", function()
    local r = home.json(args("restore-test", "all=true --json"))
    assert.equal(0, r.exit, told(r))
    local results = {}
    for _, one in ipairs(tests()) do
      results[one.tool] = ("%s %s: %d tables, %d rows, program %s"):format(one.result, one.backup, one.tables, one.rows, one.program)
      assert.equal(r.last.run, one.run)
    end
    assert.same({ ghost = ("ok %s: 3 tables, 6 rows, program healthy"):format(day), nextcloud = ("ok %s: 3 tables, 2003 rows, program healthy"):format(day),
      ["uptime-kuma"] = ("ok %s: 0 tables, 0 rows, program healthy"):format(day) }, results)
    assert.equal("", inside(beside))
    same "the tests of all backups"
  end)

  it("tests a tool by chance, goes on after kill -9 in mid-test, and leaves nothing", function()
    local before_it = #tests()
    local killed = home.run(args("restore-test", "--json"), killed_when "docker ps --format '{{.Names}}' | grep -E -- '-test(-db)?$'")
    assert.equal(9, killed.signal, killed.err)
    local r = home.json "resume --json"
    assert.equal(0, r.exit, told(r))
    assert.equal(before_it + 1, #tests())
    assert.equal("", inside(beside))
    same "the test that was killed"
  end)

  it("fails the test of a backup that is not what it was, and says unverified of what cannot be tested", function()
    local at = ("%s/daily/%s"):format(backups, day)
    inside(([[cp -a %s /root/kept; cd %s && printf '\377' | dd of=volumes/uptime-kuma-data.tar.gz bs=1 seek=400 conv=notrunc 2>/dev/null]]):format(at, at))
    local bad = home.json(args("restore-test", "tool=uptime-kuma --json"))
    inside(([[rm -rf %s && cp -a /root/kept %s; cd %s
jq -c '.parts["uptime-kuma"].images[].image = "gone.invalid/kuma:1"' manifest.json >m && mv m manifest.json]]):format(at, at, at))
    home.run("abandon " .. bad.last.run .. " --reason spec")
    local unknown = home.json(args("restore-test", "tool=uptime-kuma --json"))
    inside(("rm -rf %s && mv /root/kept %s"):format(at, at))
    assert.equal(11, bad.exit, told(bad))
    assert.matches("not what was backed up", bad.last.message)
    assert.equal(3, unknown.exit, told(unknown))
    local list = tests "uptime-kuma"
    assert.same({ "failed", "unverified" }, { list[#list - 1].result, list[#list].result })
    assert.matches("its image gone.invalid/kuma:1 is not on this server", list[#list].why)
    assert.equal("", inside(beside))
  end)

  it("shows a tool's data in a container beside production, which is written to and stays as it is", function()
    local count = [[docker exec %s sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -N -u root ghost -e "select count(*) from entries"']]
    inside [[touch /root/writing; setsid sh -c 'i=100; while [ -e /root/writing ]; do i=$((i + 1))
docker exec ghost-db sh -c "MYSQL_PWD=\"\$MYSQL_ROOT_PASSWORD\" mysql -u root ghost -e \"insert into entries values ($i)\"" || echo no >>/root/refused
echo $i >>/root/written; done' >/dev/null 2>&1 </dev/null &]]
    local r = restore "tool=ghost as=temp"
    inside "rm /root/writing; sleep 3"
    assert.equal(0, r.exit, told(r))
    assert.equal("1\n", inside(count:format "ghost-temp-db"))
    assert.equal(tostring(1 + tonumber(inside "wc -l </root/written")) .. "\n", inside(count:format "ghost-db"))
    assert.equal("", inside "cat /root/refused 2>/dev/null")
    assert.equal("lo\n", inside "docker exec ghost-temp-db ls /sys/class/net")
    assert.matches("docker exec %-i ghost%-temp%-db", r.out)
    assert.equal("same\n", inside [[docker cp ghost-temp-db:/restored/ghost-content/images/x.png /root/x.png
cmp /root/x.png "$(docker volume inspect -f '{{.Mountpoint}}' ghost-content)/images/x.png" && echo same; rm /root/x.png]])
    local gone = restore "tool=ghost as=temp remove=true"
    assert.equal(0, gone.exit, told(gone))
    assert.equal("", inside(beside))
    inside [[docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -u root ghost -e "delete from entries where body <> \"first\""']]
    same "the container beside production"
  end)

  it("brings back dropped databases, emptied volumes and corrupt files, row by row and byte by byte", function()
    inside [[docker stop nextcloud nextcloud-cron >/dev/null; docker exec nextcloud-db dropdb -U nextcloud --force nextcloud
rm -rf "$(docker volume inspect -f '{{.Mountpoint}}' nextcloud-html)/data"
docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -u root ghost -e "drop table children; delete from parents; insert into entries values (1)"'
printf x >"$(docker volume inspect -f '{{.Mountpoint}}' ghost-content)/images/x.png"
docker rm -f uptime-kuma >/dev/null; docker volume rm uptime-kuma-data >/dev/null]]
    for _, tool in ipairs { "nextcloud", "ghost", "uptime-kuma" } do
      local r = restore("tool=" .. tool)
      assert.equal(0, r.exit, told(r))
    end
    same "after the restores"
    assert.equal("", inside [[ls -d /var/lib/docker/volumes/*/_data.lbrun* /opt/letsbe/backups/.restore* 2>/dev/null
docker exec nextcloud-db psql -XAt -U nextcloud -c "select datname from pg_database where datname like '%lbrun%'"
docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -N -u root -e "show databases like \"%lbrun%\""']])
  end)

  it("refuses a flipped bit, a truncated dump, a missing file, and a manifest that counts other rows; the live data stays", function()
    local at = ("%s/daily/%s"):format(backups, day)
    local function refused(change, why)
      inside(("cp -a %s /root/kept; cd %s && %s"):format(at, at, change))
      local r = restore("tool=ghost date=" .. day)
      inside(("rm -rf %s && mv /root/kept %s"):format(at, at))
      assert.is_true(r.exit == 5 or r.exit == 6, told(r))
      assert.matches(why, r.last.message)
      same("the refused restore: " .. change)
      home.run("abandon " .. r.last.run .. " --reason spec")
      inside "rm -rf /opt/letsbe/backups/.restore-*"
    end
    refused([[printf '\377' | dd of=ghost.sql.gz bs=1 seek=400 conv=notrunc 2>/dev/null]], "not what was backed up")
    refused("truncate -s -200 ghost.sql.gz", "not what was backed up")
    refused("rm volumes/ghost-content.tar.gz", "not in the backup")
    refused([[jq -c '(.parts.ghost.databases[0].tables[] | select(.name == "parents") | .rows) = 99' manifest.json >m && mv m manifest.json]],
      "parents has 3 rows after the restore, the manifest says 99")
  end)

  it("publishes nothing when the disk fills up in mid-dump, says so in the status, and goes on when there is room", function()
    local published = inside(("cat %s/daily/%s/manifest.json"):format(backups, day))
    -- The disk fills up from the moment that the backup has begun: early, so that what a part
    -- gives back when it fails is enough for the status.
    local _, mounted, why = server:exec([[set -e; f=/opt/letsbe/backups; rm -rf /root/backups; cp -a $f /root/backups
mount -t tmpfs -o size=900m,mode=700 tmpfs $f; cp -a /root/backups/. $f/
setsid sh -c 'until ls -d /opt/letsbe/backups/daily/.*/.parts; do :; done; head -c 1G /dev/zero >/opt/letsbe/backups/filler' \
  >/dev/null 2>&1 </dev/null &]])
    assert.equal(0, mounted, why)
    local r = backup()
    finally(function() server:exec "rm -f /opt/letsbe/backups/filler; ! mountpoint -q /opt/letsbe/backups || umount /opt/letsbe/backups" end)
    assert.is_true(r.exit == 5 or r.exit == 6, told(r))
    -- Whose words it is depends on who is writing just then.
    local words = (r.err .. r.last.message):lower()
    assert.is_true(words:find("no space left on device", 1, true) ~= nil or words:find("write error", 1, true) ~= nil, words)
    assert.equal(published, inside(("cat %s/daily/%s/manifest.json"):format(backups, day)))
    inside "rm /opt/letsbe/backups/filler"
    local again = home.json("resume " .. r.last.run .. " --json")
    -- A disk that was full to the last byte had no room for the status either, and that is told.
    local warnings = table.concat(again.last.warnings, "\n")
    local only = warnings:find("backup-status.json was not written", 1, true)
    assert.is_true(again.exit == 0 or again.exit == 3 and #again.last.warnings == 1 and only ~= nil, told(again) .. warnings)
    assert.is_not.equal(published, inside(("cat %s/daily/%s/manifest.json"):format(backups, day)))
    assert.equal("success", status().status)
  end)

  it("says in the status that it failed, when a database refuses, and keeps the day as it was", function()
    local published = inside(("cat %s/daily/%s/manifest.json"):format(backups, day))
    inside "docker stop ghost-db >/dev/null"
    local r = backup()
    inside "docker start ghost-db >/dev/null; docker restart ghost >/dev/null"
    assert.is_true(r.exit == 5 or r.exit == 6, told(r))
    local s = status()
    assert.equal("failed", s.status)
    assert.matches("mysqldump of the database ghost failed", s.errors[1])
    -- The backup that a test of before has found to be none.
    assert.matches("^restore%-test: the backup .* of uptime%-kuma failed on ", s.errors[2])
    inside("rm " .. backups .. "/restore-evidence.json")
    assert.equal(published, inside(("cat %s/daily/%s/manifest.json"):format(backups, day)))
    home.run("abandon " .. r.last.run .. " --reason spec")
  end)

  it("sends the whole day to the remote, compared there, and says so in the status", function()
    assert.equal("disabled", status().remote_sync)
    local r = backup(("tenant=acme remote_config=@%s/rclone.conf"):format(home.dir))
    assert.equal(0, r.exit, told(r))
    assert.equal("success", status().remote_sync)
    assert.equal("600 root\n", inside "stat -c '%a %U' /opt/letsbe/env/rclone.conf")
    local rclone = "rclone --config /opt/letsbe/env/rclone.conf "
    assert.equal(("daily/%s.1\n"):format(day), inside(rclone .. "cat remote:backups/acme/latest"))
    local sums = "find . -type f ! -path './.parts/*' -print0 | sort -z | xargs -0 sha256sum"
    inside(("mkdir /root/there && %s copy remote:backups/acme/daily/%s.1 /root/there"):format(rclone, day))
    assert.equal(inside(("cd %s/daily/%s && %s"):format(backups, day, sums)), inside("cd /root/there && " .. sums))
    inside "rm -rf /root/there"
    assert.matches("rclone.log", inside "ls /var/log/letsbe")
    local _, bad, why = server:exec "logrotate -d /etc/logrotate.d/letsbe"
    assert.equal(0, bad, why)
  end)

  it("keeps the day and the copy of before when the remote breaks off, and says so; the run goes on when it is back", function()
    store.stop()
    local r = backup "tenant=acme"
    assert.is_true(r.exit == 5 or r.exit == 6, told(r))
    local s = status()
    assert.equal("success", s.status)
    assert.equal("failed", s.remote_sync)
    assert.matches("^remote/send: ", s.errors[1])
    store.start()
    assert.equal(("daily/%s.1\n"):format(day), inside "rclone --config /opt/letsbe/env/rclone.conf cat remote:backups/acme/latest")
    local again = home.json("resume " .. r.last.run .. " --json")
    assert.equal(0, again.exit, told(again))
    assert.equal("success", status().remote_sync)
    assert.same({}, status().errors)
    -- Two of one day: the newer stays.
    assert.equal(("%s.2/\n"):format(day), inside "rclone --config /opt/letsbe/env/rclone.conf lsf remote:backups/acme/daily")
  end)

  it("restores all tools from the remote when the server has no backup any more, byte by byte, and tells the Hub", function()
    inside(([[mv %s/daily /root/kept-daily; mv %s/weekly /root/kept-weekly
docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -u root ghost -e "delete from parents; drop table children"'
docker exec nextcloud-db psql -q -U nextcloud -d nextcloud -c 'delete from entries'
v=$(docker volume inspect -f '{{.Mountpoint}}' nextcloud-html); chown -R root:root "$v/data"; rm "$v/data/link"; printf x >"$v/data/big"]]):format(backups, backups))
    local r = restore(("all=true from=remote tenant=acme hub_url=%s runner_token=@%s"):format(h.url, h.token_file))
    inside(("rm -rf %s/daily %s/weekly; mv /root/kept-daily %s/daily; mv /root/kept-weekly %s/weekly"):format(backups, backups, backups, backups))
    assert.equal(0, r.exit, told(r))
    same "after the restore from the remote"
    assert.equal("", inside("ls -d " .. backups .. "/.restore* " .. backups .. "/.remote* 2>/dev/null"))
    local states = {}
    for _, one in ipairs(h.requests()) do
      if one.path == "/api/v1/tenants/acme/restores" then states[#states + 1] = one.body.status .. " " .. one.body.tool end
    end
    assert.same({ "STARTED all", "COMPLETED all" }, states)
  end)

  it("puts the old data back when the tool is not healthy on the restored, and tells the Hub why", function()
    -- The tool is sick where a file of this name is, and that file is in the backup alone.
    inside [[touch "$(docker volume inspect -f '{{.Mountpoint}}' uptime-kuma-data)/sick"]]
    local made = backup "tool=uptime-kuma"
    assert.equal(0, made.exit, told(made))
    inside [[rm "$(docker volume inspect -f '{{.Mountpoint}}' uptime-kuma-data)/sick"; cd /opt/letsbe/stacks/uptime-kuma && cp -p docker-compose.yml /root/compose.yml
sed -i 's,^      test: .*,      test: ["CMD-SHELL"\, "! test -e /app/data/sick"],; s/^      interval: .*/      interval: 2s/; s/^      start_period: .*/      start_period: 5s/' docker-compose.yml
docker rm -f uptime-kuma >/dev/null; { docker compose -p uptime-kuma up -d || docker-compose -p uptime-kuma up -d; } >/dev/null 2>&1
until docker inspect -f '{{.State.Health.Status}}' uptime-kuma | grep -qx healthy; do sleep 1; done
curl -sf -X POST -d newer http://127.0.0.1:3008/]]
    local newer = inside(data)
    local r = restore(("tool=uptime-kuma tenant=acme hub_url=%s runner_token=@%s"):format(h.url, h.token_file))
    assert.is_true(r.exit == 5 or r.exit == 6, told(r))
    assert.matches("not healthy on the restored data; the old data was put back and the tool runs on it", r.last.message)
    local now = inside(data)
    assert(now == newer, provision.difference(newer, now))
    local last = h.requests()
    assert.equal("FAILED", last[#last].body.status)
    home.run("abandon " .. r.last.run .. " --reason spec")
    inside "rm -rf /opt/letsbe/backups/.restore-* /opt/letsbe/backups/tool; mv /root/compose.yml /opt/letsbe/stacks/uptime-kuma/docker-compose.yml"
    local well = restore "tool=uptime-kuma"
    assert.equal(0, well.exit, told(well))
    same "after the restore that was well"
  end)

  it("goes on after kill -9 in mid-restore, between stage and swap, with the live data as it was", function()
    local killed = home.run(args("restore", "tool=ghost --json"),
      killed_when "ls -d /var/lib/docker/volumes/ghost-content/_data.lbrun-*")
    assert.equal(9, killed.signal, killed.err)
    local r = home.json "resume --json"
    assert.equal(0, r.exit, told(r))
    same "after the restore that was killed"
  end)

  it("goes on after kill -9 in mid-backup, and refuses a second backup until then", function()
    local line = args("backup", "tenant=acme recipients=" .. identity.recipient .. " --json")
    -- The dump of ghost waits for a table that another client holds, as long as it must; lbrun
    -- is killed when it does.
    inside [[docker exec -d ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" exec mysql -u root ghost -e "lock tables parents write; select sleep(3600)"'
until docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -N -u root -e "show processlist"' | grep -q 'sleep(3600)'; do sleep 0.2; done]]
    local killed = home.run(line, killed_when(("ls %s/daily/.*/ghost.sql.gz"):format(backups)))
    assert.equal(9, killed.signal, killed.err)
    assert.equal("1\n", inside(("ls -d %s/daily/.*.partial-* | wc -l"):format(backups)))
    local second = backup "tenant=acme"
    inside [[docker exec ghost-db sh -c 'export MYSQL_PWD="$MYSQL_ROOT_PASSWORD"
mysql -N -u root -e "select id from information_schema.processlist where info = \"select sleep(3600)\"" | while read -r id; do mysql -u root -e "kill $id"; done']]
    assert.equal(8, second.exit, told(second))
    local r = home.json "resume --json"
    assert.equal(0, r.exit, told(r))
    assert.equal("0\n", inside(("ls -d %s/daily/.*.partial-* 2>/dev/null | wc -l"):format(backups)))
    assert.equal("", inside "docker ps -a --format '{{.Names}} {{.State}}' | grep -v running")
    assert.equal(0, home.run("verify-journal").exit)
  end)
end)
