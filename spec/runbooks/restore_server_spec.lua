-- restore_server_spec.lua: a tenant's server is restored onto another in a drill, then lost for good and
-- brought back, each time from the remote copy and the recovery key alone; rows and bytes are
-- compared. Images, the Hub and OpenClaw are stand-ins, on real MySQL (MariaDB) and PostgreSQL
-- servers; the remote is s3rver, an S3 server.
local crypto = require "crypto"
local json = require "json"
local support = require "support.lbrun"
local hubs = require "support.hub"
local vps = require "support.vps"
local provision = require "support.provision"
local s3 = require "support.s3"
local three = require "support.three_tools"

local function images()
  local env = require "lb.script".environment(require "lb.sources".collect "runbooks/provision.lua")
  local list = provision.images_of(three.ids)
  for _, id in ipairs { "openclaw", "secrets-proxy" } do
    list[#list + 1] = env.catalog.platform[id].image .. ":" .. env.catalog.platform[id].tag
  end
  return list
end

describe("a server that is lost #vps #long", function()
  local home, fresh, store, h, identity, config, keys, old, before, credentials, other, outside
  local tools = "tools=" .. table.concat(three.ids, ",")
  local function told(r) return ("exit %s: %s\n%s"):format(tostring(r.exit), r.last and r.last.message or "", r.err) end

  setup(function()
    home, fresh, keys = support.home(), support.home(), support.temp()
    identity = crypto.age_identity()
    old = vps.up("lost", { docker = true, images = images() })
    -- The sandbox's network goes with its last VPS, and the store's address with it.
    other = vps.up("found", { images = images() })
    outside = old.address:gsub("%d+$", "1")
    store = s3.new(keys .. "/s3", outside).start()
    h = hubs.new(keys .. "/hub", "canary+Token/of=drills", outside).start()
    config = keys .. "/rclone.conf"
    support.sh("install -m 600 /dev/null " .. config)
    support.spit(config, store.config)
    support.sh("install -m 600 /dev/null " .. keys .. "/recovery.key")
    support.spit(keys .. "/recovery.key", require "host".reveal(identity.identity) .. "\n")
    local made = home.json(provision.args(old, { more = ("%s --tags nginx,stacks,platform,backups recipients=%s remote_config=@%s --json"):format(
      tools, identity.recipient, config) }))
    assert(made.exit == 0 or made.exit == 3, told(made))
    local _, failed, err = old:exec(three.fill)
    assert.equal(0, failed, err)
    before, credentials = old:exec(three.data), old:exec "cat /opt/letsbe/env/credentials.env"
    -- By the server's own timer.
    _, failed = old:exec "systemctl start letsbe-backup.service"
    assert.equal(0, failed, (old:exec "journalctl -u letsbe-backup.service --no-pager | tail -40"))
  end)
  teardown(function()
    if other then other:down() end
    if old then old:down() end
    if store then store.stop() end
    if h then h.stop() end
    for _, one in pairs { home, fresh } do one.remove() end
    support.sh("rm -rf " .. keys)
  end)

  local function restore(book, key, more)
    return fresh.json(("runbooks/%s.lua tenant=acme domain=acme.example docker_source=distro "
      .. "alert_url=https://alerts.example/hook admin_ssh_public_key=%s remote_config=@%s recovery_key=@%s %s -t %s -i %s -y --no-input --json")
      :format(book, support.quote(provision.public_key(other)), config, key, more or "", other.url, other.key))
  end
  local function same_on_the_other()
    local now = other:exec(three.data)
    assert(now == before, provision.difference(before, now))
    local have = other:exec "cat /opt/letsbe/env/credentials.env"
    assert(have == credentials, "the credentials are others")
    assert.equal("", (other:exec "docker ps -a --format '{{.Names}} {{.Status}}' | grep -v '(healthy)' | grep -v '^nextcloud-cron '"))
    assert.equal("", (other:exec "ls -d /var/lib/lbrun/recovery.enc /opt/letsbe/backups/.re* 2>/dev/null"))
  end
  -- Whether containers begin connections: one on a network of its own, and OpenClaw on the host's.
  local function leaves(server)
    return (server:exec(([[for c in ghost nextcloud-db; do
timeout 5 nsenter -t "$(docker inspect -f '{{.State.Pid}}' $c)" -n bash -c 'exec 3<>/dev/tcp/%s/%s' 2>/dev/null && echo "$c leaves"; done
docker exec letsbe-openclaw curl -s -m 5 -o /dev/null http://%s:%s/ && echo "openclaw leaves"; true]]):format(outside, store.port, outside, store.port)))
  end

  it("tells of its backups inside the Safety Wrapper's container, which can neither change that nor see a backup", function()
    local path = "/opt/letsbe/backups/backup-status.json"
    local status, inside = old:exec("cat " .. path), old:exec("docker exec letsbe-openclaw cat " .. path)
    assert.equal("success", json.decode(status).status)
    assert.equal("success", json.decode(status).remote_sync)
    assert.equal(status, inside)
    assert.equal("backup-status.json\n", (old:exec "docker exec letsbe-openclaw ls -A /opt/letsbe/backups"))
    assert.matches("Read%-only file system", (old:exec "docker exec -u 0 letsbe-openclaw touch /opt/letsbe/backups/x 2>&1"))
  end)

  it("is not restored with another key, and the server stays without credentials", function()
    support.sh("install -m 600 /dev/null " .. keys .. "/other.key")
    support.spit(keys .. "/other.key", require "host".reveal(crypto.age_identity().identity) .. "\n")
    local r = restore("restore-server", keys .. "/other.key", "acme=self-signed")
    assert.equal(12, r.exit, told(r))
    assert.equal("", (other:exec "ls /opt/letsbe/env/credentials.env /opt/letsbe/stacks 2>/dev/null"))
    fresh.run("abandon " .. r.last.run .. " --reason spec")
  end)

  it("has a copy that is proved on a staging server, which has nothing of the tenant before or after", function()
    local staging = vps.up("staging", { docker = true, images = images() })
    finally(function() staging:down() end)
    local r = fresh.json(("runbooks/restore-test.lua all=true from=remote tenant=acme remote_config=@%s -t %s -i %s -y --no-input --json")
      :format(config, staging.url, staging.key))
    assert.equal(3, r.exit, told(r))
    local results = {}
    for _, one in ipairs(json.decode((staging:exec "cat /opt/letsbe/backups/restore-evidence.json")).tests) do
      results[one.tool] = ("%s %s %s"):format(one.result, one.from, one.program)
    end
    -- OpenClaw reads a folder of the server that is in no backup: provisioning writes it.
    local well = "ok remote healthy"
    assert.same({ ghost = well, nextcloud = well, ["uptime-kuma"] = well, ["secrets-proxy"] = well, openclaw = "unverified remote unverified" }, results)
    assert.equal("", (staging:exec [[docker ps -aq; docker volume ls -q; docker network ls -q --filter type=custom
find /opt/letsbe/backups/.beside /opt/letsbe/stacks -mindepth 1 2>/dev/null; ls -d /opt/letsbe/env/credentials.env /opt/letsbe/backups/.re* 2>/dev/null]]))
  end)

  it("was restored in a drill onto an empty one, which reaches nobody, while production ran; the evidence is kept", function()
    assert.equal("ghost leaves\nnextcloud-db leaves\nopenclaw leaves\n", leaves(old), "production")
    local sent = support.sh(("find %s/s3 -type f | sort"):format(keys))
    local r = restore("drill", keys .. "/recovery.key", ("hub_url=%s runner_token=@%s"):format(h.url, h.token_file))
    assert.is_true(r.exit == 0 or r.exit == 3, told(r))
    for _, text in ipairs(r.last.warnings) do assert.matches("smaller than its tier", text) end
    same_on_the_other()
    assert.equal("", leaves(other))
    -- Its timers stand, as production's do, and do nothing.
    other:exec "systemctl start letsbe-backup.service"
    assert.equal("ConditionResult=no\n", (other:exec "systemctl show -p ConditionResult letsbe-backup.service"))
    other:reboot()
    other:exec [[for i in $(seq 600); do docker exec letsbe-openclaw true && docker exec ghost true && docker exec nextcloud-db true && break; sleep 0.2; done]]
    assert.equal("", leaves(other), "after a reboot")
    -- The Hub heard of the drill, and of no other server of this tenant.
    local heard = {}
    for _, one in ipairs(h.requests()) do heard[#heard + 1] = ("%s %s %s %s"):format(one.path, one.body.status, one.body.tool, one.body.target) end
    assert.same({ "/api/v1/tenants/acme/restores COMPLETED all drill" }, heard)
    -- On the store there is what was there, and the evidence.
    local rclone = "rclone --config /opt/letsbe/env/rclone.conf "
    local name = old:exec(rclone .. "lsf remote:backups/acme/evidence"):match "^(drill%-%d+%-%d+%-%d+%-.*%.json)\n$"
    assert.is_truthy(name)
    local one = json.decode((old:exec(rclone .. "cat remote:backups/acme/evidence/" .. name)))
    assert.same({ "ok", r.last.run, "total-loss", "acme", 86400, 86400, 4 },
      { one.result, one.run, one.scenario, one.tenant, one.rto_seconds, one.rpo_seconds, one.agents })
    assert.is_true(one.seconds > 0 and one.seconds < 86400 and one.age_seconds < 86400 and one.secrets > 5)
    -- As the database itself counts them.
    local rows = old:exec [[docker exec nextcloud-db sh -c 'psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -Atc "select sum((xpath(\$\$/row/c/text()\$\$,
      query_to_xml(format(\$\$select count(*) as c from %I.%I\$\$, schemaname, tablename), false, true, \$\$\$\$)))[1]::text::bigint)
      from pg_tables where schemaname not in (\$\$pg_catalog\$\$, \$\$information_schema\$\$)"']]
    assert.is_true(one.tools.nextcloud.rows > 2000)
    assert.equal(rows, one.tools.nextcloud.rows .. "\n")
    local now = support.sh(("find %s/s3 -type f | sort"):format(keys))
    for line in provision.difference(sent, now):gmatch "[<>][^\n]*" do assert.matches("^> .*/evidence/drill%-", line) end
    -- Production's data is what it was.
    local there = old:exec(three.data)
    assert(there == before, provision.difference(before, there))
    assert.equal(0, fresh.run("verify-journal").exit)
  end)

  it("comes back on a bare one with the recovery key alone: rows, bytes, credentials, all healthy", function()
    old:down()
    old = nil
    -- Nor is anything left of the machines that ran lbrun.
    home.remove()
    fresh.remove()
    fresh = support.home()
    other:reimage()
    local r = restore("restore-server", keys .. "/recovery.key", "acme=self-signed")
    assert.is_true(r.exit == 0 or r.exit == 3, told(r))
    same_on_the_other()
    assert.equal("ghost leaves\nnextcloud-db leaves\nopenclaw leaves\n", leaves(other))
    assert.equal("enabled\n", (other:exec "systemctl is-enabled letsbe-backup.timer"))
    assert.equal(0, fresh.run("verify-journal").exit)
  end)
end)
