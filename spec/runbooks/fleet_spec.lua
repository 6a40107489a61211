-- fleet_spec.lua: runbooks/fleet-status.lua: 500 tenants in one process, and each threshold
-- of section 6.2. The Hub and netcup are stand-ins.
local host = require "host"
local json = require "json"
local support = require "support.lbrun"
local hubs = require "support.hub"
local netcups = require "support.netcup"

local token = "fleet-canary-token-0817"

describe("the fleet #unit", function()
  local home, hub, s
  setup(function()
    s = netcups.start()
    s.login()
    home = support.home()
    hub = hubs.new(home.dir .. "/hub", token).start()
    support.sh(("mkdir -p -m 700 %s/state/lbrun %s/hub/health && cp %s %s/state/lbrun/netcup.json"):format(home.dir, home.dir, s.store, home.dir))
  end)
  teardown(function()
    assert.same({}, s.control("log").violations)
    hub.stop()
    s.stop()
    home.remove()
  end)

  local function stamp(ago) return os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() - ago) end
  local function tenant(name, fields)
    local h = { heartbeat = stamp(120), tokens = { used = 10, pool = 100 }, backup = { status = "success", timestamp = stamp(3600) },
      containers = json.array { { name = "odoo", state = "running" } }, disk_percent = 40, openclaw = "v1", certificate_days = 60 }
    for k, v in pairs(fields or {}) do h[k] = v end
    support.spit(("%s/health/%s.json"):format(hub.dir, name), json.encode(h))
  end
  local function status(names, more, before)
    support.spit(home.dir .. "/p.json", json.encode { tenants = json.array(names) })
    local o = s.settings()
    local r = home.json(("runbooks/fleet-status.lua -p %s/p.json hub_url=%s runner_token=@%s openclaw=v1 --json --no-input %s"):format(home.dir, hub.url,
      hub.token_file, more or ""), { env = { LBRUN_NETCUP_ISSUER = o.issuer, LBRUN_NETCUP_API = o.api }, before = before })
    r.rows = {}
    for _, line in ipairs(r.lines) do
      if line.type == "state" and line.key == "rows" then
        for _, row in ipairs(line.value) do r.rows[row.tenant] = row end
      end
    end
    return r
  end

  it("is well: exit 0, a row each", function()
    tenant "well"
    s.control("server", { id = 111007, set = { nickname = "tenant-well" } })
    local r = status({ "well" })
    assert.equal(0, r.exit, r.err)
    assert.is_true(r.rows.well.cpu > 60 and r.rows.well.cpu < 90, tostring(r.rows.well.cpu))
    local samples = {}
    for i = 0, 30 do samples[os.date("!%Y-%m-%dT%H:%M:00Z", os.time() - 60 * i)] = { CPU0 = i < 15 and 9.5e8 or 1e7, CPU1 = 9.1e8 } end
    s.control("fault", { match = "GET .*/metrics/cpu", status = 200, body = samples })
    r = status({ "well" })
    assert.equal(11, r.exit, r.err)
    assert.same({ "CPU 93 % over 15 minutes" }, r.rows.well.bad)
    r = status { "other" }
    assert.matches("no server at netcup has its nickname", table.concat(r.rows.other.bad, "; "))
    r = status({ "well" }, "netcup=false")
    assert.equal(0, r.exit, r.err)
    assert.equal(0, #r.rows.well.bad)
    assert.equal(10, r.rows.well.tokens)
  end)

  it("tells each threshold that is passed, a crash from a kill for want of memory, and exits 11", function()
    local function bad(fields)
      tenant("one", fields)
      local r = status({ "one" }, "netcup=false")
      local text = table.concat(r.rows.one.bad, "; ")
      assert.equal(text == "" and 0 or 11, r.exit, r.err)
      return text
    end
    assert.equal("", bad { heartbeat = stamp(14 * 60) })
    assert.equal("no heartbeat for 16 min", bad { heartbeat = stamp(16 * 60 + 5) })
    assert.equal("", bad { tokens = { used = 90, pool = 100 } })
    assert.equal("91 % of its tokens are used", bad { tokens = { used = 91, pool = 100 } })
    assert.equal("backup: failed", bad { backup = { status = "failed", timestamp = stamp(60) } })
    assert.equal("its last backup is older than 26 h", bad { backup = { status = "success", timestamp = stamp(27 * 3600) } })
    assert.equal("odoo is exited with status 1", bad { containers = json.array { { name = "odoo", state = "exited", exit = 1 } } })
    assert.equal("odoo was killed for want of memory", bad { containers = json.array { { name = "odoo", state = "exited", exit = 137, oom = true } } })
    assert.equal("", bad { disk_percent = 90 })
    assert.equal("the disk is 91 % full", bad { disk_percent = 91 })
    assert.equal("OpenClaw is v0, not v1", bad { openclaw = "v0" })
    assert.equal("a certificate ends in 13 days", bad { certificate_days = 13 })
    local r = status({ "unheard" }, "netcup=false")
    assert.matches("the Hub knows nothing: the Hub answered 404", r.rows.unheard.bad[1])
  end)

  it("of 500 tenants is one process, some seconds and some memory", function()
    local names = {}
    for i = 1, 500 do
      names[i] = ("t%03d"):format(i)
      tenant(names[i], i % 100 == 0 and { disk_percent = 95 } or nil)
    end
    local began = host.monotonic()
    local measure = [[python3 -c 'import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("KiB", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)']]
    local r = status(names, "netcup=false", measure)
    local took = host.monotonic() - began
    assert.equal(11, r.exit, r.err)
    assert.matches("5 of 500 tenants need somebody", r.last.message)
    local count = 0
    for _ in pairs(r.rows) do count = count + 1 end
    assert.equal(500, count)
    local kib = tonumber(r.err:match "KiB (%d+)")
    print(("500 tenants: %.1f s, %.0f MiB"):format(took, kib / 1024))
    -- A third of a MiB a tenant would be too much.
    assert.is_true(kib < 160 * 1024, kib)
  end)
end)
