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
  local clock = 0 -- how far the watched fleet's time is ahead
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

  local function stamp(ago) return os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() + clock - ago) end
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

  describe("that is watched", function()
    -- A run ends with its day: so that no spec meets midnight, it begins at 6:00.
    local function morning() return 6 * 3600 - os.time() % 86400 end
    local function environment(more)
      local o = s.settings()
      local env = { LBRUN_NETCUP_ISSUER = o.issuer, LBRUN_NETCUP_API = o.api, CLOCKAT = tostring(clock), LD_PRELOAD = "./" .. support.clockat }
      for k, v in pairs(more or {}) do env[k] = k == "LD_PRELOAD" and v .. " " .. env[k] or v end
      return env
    end
    local function watch(names)
      support.sh(("rm -rf %s/state/lbrun/journal.* %s/hub/requests.jsonl; mkdir -p %s/var"):format(home.dir, home.dir, home.dir))
      support.spit(home.dir .. "/p.json", json.encode { tenants = json.array(names), watch = true })
      return home.json(("runbooks/fleet-status.lua -p %s/p.json hub_url=%s runner_token=@%s openclaw=v1 --json --no-input"):format(home.dir,
        hub.url, hub.token_file), { env = environment() })
    end
    -- lbrun worker, so many seconds later
    local function later(seconds, more, words)
      clock = clock + seconds
      return home.json(("worker --once --json hub_url=%s runner_token=@%s %s"):format(hub.url, hub.token_file, words or ""), { env = environment(more) })
    end
    -- What the Hub was told since the last call, by subject.
    local told_before = 0
    local function told()
      local list, all = {}, hub.requests()
      for i = told_before + 1, #all do
        local r = all[i]
        if r.effective and r.path:find("/notices$") then list[#list + 1] = r.body.kind .. ": " .. r.body.subject end
      end
      told_before = #all
      table.sort(list)
      return list
    end
    before_each(function()
      clock, told_before = morning(), 0
      os.remove(s.store)
      s.login()
      support.sh(("cp %s %s/state/lbrun/netcup.json"):format(s.store, home.dir))
      hub.stop()
      os.remove(hub.dir .. "/requests.jsonl")
      hub.start()
      s.control("server", { id = 111007, set = { nickname = "tenant-well" } })
    end)

    it("is told once of what begins to be wrong, and once that it is well again", function()
      tenant "well"
      local r = watch { "well" }
      assert.equal(10, r.exit, r.err)
      assert.same({}, told())
      tenant("well", { heartbeat = stamp(16 * 60) })
      later(10)
      assert.same({}, told())
      later(300)
      assert.same({ "alert: well: no heartbeat for 21 min" }, told())
      later(301)
      assert.same({}, told())
      tenant "well"
      later(301)
      assert.same({ "recovery: well: heartbeat is well again" }, told())
      assert.equal(0, home.run("verify-journal").exit)
    end)

    it("is asked for each metric at its own interval", function()
      tenant "well"
      local r = watch { "well" }
      assert.equal(10, r.exit, r.err)
      local function cpu() return #s.requests "^GET .*/metrics/cpu" end
      local function broken()
        tenant("well", { heartbeat = stamp(-200000), tokens = { used = 95, pool = 100 }, containers = json.array { { name = "odoo", state = "exited", exit = 1 } },
          disk_percent = 97, backup = { status = "failed" }, certificate_days = 3, openclaw = "v0" })
      end
      local before = cpu()
      broken()
      later(301)
      assert.same({ "alert: well: 95 % of its tokens are used", "alert: well: OpenClaw is v0, not v1" }, told())
      later(301)
      assert.same({ "alert: well: odoo is exited with status 1" }, told())
      assert.equal(before, cpu())
      later(301)
      assert.same({ "alert: well: the disk is 97 % full" }, told())
      assert.equal(before + 1, cpu())
      for _ = 1, 3 do
        later(301)
        broken()
      end
      assert.same({}, told())
    end)

    it("is watched by the worker itself, a run a day, and what is wrong is told again the next day", function()
      support.sh(("rm -rf %s/state/lbrun/journal.*"):format(home.dir))
      support.spit(home.dir .. "/fleet.json", json.encode { tenants = json.array { "well" }, openclaw = "v1", netcup = false, ssh = false })
      tenant("well", { openclaw = "v0", heartbeat = stamp(-200000) })
      local function worker()
        local r = later(301, nil, "fleet=" .. home.dir .. "/fleet.json")
        assert.equal(0, r.exit, r.err)
        return told()
      end
      assert.same({ "alert: well: OpenClaw is v0, not v1" }, worker())
      assert.same({}, worker())
      clock = clock + 86400
      tenant("well", { openclaw = "v0", heartbeat = stamp(-200000) })
      assert.same({ "alert: well: OpenClaw is v0, not v1" }, worker())
      assert.same({}, worker())
      local count = { done = 0, parked = 0 }
      for _, line in ipairs(home.json("runs --json").lines) do
        if line.type == "run" then count[line.status] = count[line.status] + 1 end
      end
      assert.same({ done = 1, parked = 1 }, count)
    end)

    it("goes on after the clock was set back by a day, and whatever a reply holds", function()
      tenant "well"
      clock = morning() + 86400
      assert.equal(10, watch({ "well" }).exit)
      for _, odd in ipairs { { tokens = { used = "x", pool = "100" } }, { tokens = 5 }, { backup = true }, { containers = json.array { 5 } }, { heartbeat = 7 } } do
        odd.openclaw = odd.openclaw or "v1"
        tenant("well", odd)
        local r = later(301)
        assert.equal(0, r.exit, r.err)
      end
      told()
      clock = morning() + 600
      tenant("well", { openclaw = "v0" })
      later(0)
      local text = table.concat(told(), "\n")
      assert.matches("alert: well: OpenClaw is v0", text)
    end)

    it("goes on while the Hub or netcup is silent, and says so once", function()
      tenant "well"
      assert.equal(10, watch({ "well" }).exit)
      hub.stop()
      s.control "revoke"
      local lines = {}
      for _ = 1, 4 do
        local r = later(301)
        for _, line in ipairs(r.lines) do
          if line.type == "log" then lines[#lines + 1] = line.text end
        end
      end
      local text = table.concat(lines, "\n")
      assert.equal(1, select(2, text:gsub("well: the Hub knows nothing", "")), text)
      assert.equal(1, select(2, text:gsub("lbrun netcup login", "")), text)
      hub.start()
      tenant("well", { heartbeat = stamp(16 * 60) })
      later(301)
      assert.same({ "alert: well: no heartbeat for 21 min" }, told())
    end)

    it("that is killed at any commit tells each change once", function()
      local function prepared()
        tenant "well"
        clock = morning()
        hub.stop()
        os.remove(hub.dir .. "/requests.jsonl")
        hub.start()
        told_before = 0
        assert.equal(10, watch({ "well" }).exit)
        tenant("well", { heartbeat = stamp(16 * 60), tokens = { used = 95, pool = 100 } })
      end
      prepared()
      local counted = { LD_PRELOAD = "./" .. support.killat, KILLAT = "0", KILLAT_WHEN = "after", KILLAT_COUNT_FILE = home.dir .. "/commits" }
      later(301, counted)
      local commits = tonumber(support.slurp(home.dir .. "/commits"):match "%d+")
      assert.is_true(commits >= 8, commits)
      for n = 1, commits do
        prepared()
        local r = later(301, { LD_PRELOAD = "./" .. support.killat, KILLAT = tostring(n), KILLAT_WHEN = n % 2 == 0 and "before" or "after",
          KILLAT_COUNT_FILE = home.dir .. "/commits" })
        assert.equal(9, r.signal, ("commit %d: %s"):format(n, r.err))
        later(0)
        later(301)
        later(301)
        assert.same({ "alert: well: 95 % of its tokens are used", "alert: well: no heartbeat for 21 min" }, (function()
          local list = {}
          for _, text in ipairs(told()) do list[#list + 1] = text:gsub("for 2%d min", "for 21 min"):gsub("for 3%d min", "for 21 min") end
          return list
        end)(), "commit " .. n)
      end
    end)
  end)
end)
