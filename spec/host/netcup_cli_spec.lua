-- netcup_cli_spec.lua: `lbrun netcup` from the command line, against the stand-in of
-- netcup.py: tables, JSON, exit codes, and that no token shows anywhere.
local canary = require "support.canary"
local host = require "host"
local json = require "json"
local support = require "support.lbrun"
local netcup = require "support.netcup"

local s, home

local function env(more)
  local o = s.settings(more)
  return { LBRUN_NETCUP_ISSUER = o.issuer, LBRUN_NETCUP_API = o.api, LBRUN_CCP_API = o.ccp, LBRUN_CA_FILE = o.ca_file }
end

local function run(args, options)
  options = options or {}
  options.env = options.env or env()
  return home.run("netcup " .. args, options)
end

local function lines(args)
  local r = run(args .. " --json")
  local list = {}
  for line in r.out:gmatch "[^\n]+" do list[#list + 1] = assert(json.decode(line)) end
  assert.equal("summary", list[#list].type, r.err)
  assert.equal(r.exit, list[#list].exit)
  assert.equal(1, list[1].schema)
  return list, r
end

local function login()
  s.control("set", { approve = "approved", interval = 0.05 })
  local r = run "login"
  assert.equal(0, r.exit, r.err)
  return r
end

local function store()
  return home.dir .. "/state/lbrun/netcup.json"
end

local function credentials(mode)
  support.sh(("mkdir -p %s/config/lbrun"):format(home.dir))
  local path = home.dir .. "/config/lbrun/netcup-dns.json"
  support.spit(path, json.encode { customer = "100000", api_key = "api-key-canary-123", api_password = "api-password-canary-123" })
  support.sh(("chmod %s %s"):format(mode or "600", path))
  return path
end

describe("lbrun netcup #unit", function()
  setup(function() s = netcup.start { tls = true } end)
  teardown(function() s.stop() end)
  before_each(function()
    s.control "reset"
    home = support.home()
  end)
  after_each(function()
    home.remove()
    assert.same({}, s.control("log").violations)
  end)

  it("logs in by a browser, says who is logged in, and logs out", function()
    local r = login()
    assert.matches("/realms/scp/device%?user_code=ABCD%-EFGH", r.err)
    assert.matches("logged in as 100000", r.out)
    assert.equal("0600", host.stat(store()).mode)
    assert.equal("0700", host.stat(home.dir .. "/state/lbrun").mode)
    r = run "whoami"
    assert.matches("customer%s+100000\n", r.out)
    assert.matches("user id%s+555001\n", r.out)
    r = run "logout"
    assert.equal(0, r.exit)
    assert.matches("%-%-revoke", r.out)
    assert.is_nil(host.stat(store()))
    login()
    r = run "logout --revoke"
    assert.equal(0, r.exit, r.err)
    assert.equal(0, #s.control("log").refresh)
  end)

  it("ends with 12 without a login, with a refused, an expired and a revoked one", function()
    local r = run "servers"
    assert.equal(12, r.exit)
    assert.equal("lbrun: netcup: servers: not logged in to netcup: lbrun netcup login\n", r.err)
    for _, how in ipairs { "denied", "expired" } do
      s.control("set", { approve = how, interval = 0.05 })
      assert.equal(12, run "login".exit)
    end
    login()
    s.control "revoke"
    r = run "servers"
    assert.equal(12, r.exit)
    assert.matches("lbrun netcup login", r.err)
    assert.equal(12, lines("servers")[1].exit)
  end)

  it("ends a login with 130 when it is interrupted, and keeps nothing of it", function()
    local r = run("login", { before = "timeout --preserve-status -s INT 2" })
    assert.equal(130, r.exit, r.err)
    assert.is_nil(host.stat(store()))
  end)

  it("ends with 4 when netcup cannot be reached, or is not who it says", function()
    local r = run("login", { env = { LBRUN_NETCUP_ISSUER = "https://localhost:9/realms/scp" } })
    assert.equal(4, r.exit)
    assert.matches("localhost port 9", r.err)
    assert.equal(4, run("login", { env = env { tls = true } }).exit)
    s.control("set", { approve = "approved", interval = 0.05 })
    r = run("login", { env = env { tls = true, ca_file = s.dir .. "/ca.pem" } })
    assert.equal(0, r.exit, r.err)
  end)

  it("ends with 2 for a wrong setting, command, operand or option, and says what was meant", function()
    local r = run("servers", { env = { LBRUN_NETCUP_API = "netcup" } })
    assert.equal(2, r.exit)
    assert.matches("LBRUN_NETCUP_API", r.err)
    r = run "servrs"
    assert.equal(2, r.exit)
    assert.matches("did you mean 'servers'%?", r.err)
    for _, args in ipairs { "", "server", "servers 1", "login --hours 2", "servers --revoke", "login --no-input",
      "tasks -t local:" } do
      assert.equal(2, run(args).exit, args)
    end
    login()
    assert.equal(2, run "server 99".exit)
    r = run "server wrk-2"
    assert.equal(2, r.exit)
    assert.matches("did you mean 'wrk%-02'%?", r.err)
  end)

  it("shows examples first in its help", function()
    local r = home.run "netcup --help"
    assert.equal(0, r.exit)
    assert.matches("^Examples:\n  lbrun netcup login", r.out)
  end)

  it("lists servers, in short, with their state, and as JSON", function()
    login()
    local r = run "servers"
    assert.equal(0, r.exit, r.err)
    assert.matches("^ID%s+NAME%s+NICKNAME%s+HOSTNAME%s+PRODUCT\n", r.out)
    assert.matches("\n111007%s+v0000000000000000007%s+wrk%-02%s+v0000000000000000007.supersrv.de%s+RS 2000 G12 Pro\n", r.out)
    assert.matches("\n111010%s+v0000000000000000010%s+%-%s", r.out)
    r = run "servers -v"
    assert.matches("\n111007%s+wrk%-02%s+RUNNING%s+198.18.28.137%s+Nuremberg%s+RS 2000", r.out)
    local list = lines "servers"
    assert.equal(4, #list)
    assert.equal("server", list[2].type)
    assert.equal(111007, list[2].server.id)
    assert.equal(3, list[4].count)
    s.control("server", { id = 111007, set = { nickname = "evil\27[2J" } })
    assert.is_nil(run "servers".out:find("\27", 1, true))
  end)

  it("shows a server by its id, name, nickname or host name", function()
    login()
    for _, word in ipairs { "111007", "wrk-02", "v0000000000000000007", "v0000000000000000007.supersrv.de" } do
      local r = run("server " .. word)
      assert.equal(0, r.exit, r.err)
      assert.matches("\nstate%s+RUNNING\n", r.out)
      assert.matches("\nfirmware%s+UEFI\n", r.out)
      assert.matches("\ndisks%s+vda 1024 GiB\n", r.out)
    end
    local list = lines "server wrk-02"
    assert.equal("RUNNING", list[1].server.serverLiveInfo.state)
    assert.is_true(json.is_array(list[1].server.ipv4Addresses))
    list = lines "server 111010"
    assert.is_true(json.is_array(list[1].server.ipv4Addresses))
  end)

  it("lists snapshots, tasks and metrics", function()
    login()
    assert.matches("has no snapshots", run "snapshots 111003".out)
    assert.matches("there are no tasks", run "tasks".out)
    local c = s.open { store = store() }
    assert(c:wait(assert(c:snapshot_create(111003, { name = "live", online = true })), { interval = 0.02 }))
    assert.matches("\nlive%s+%d+%-.-Z%s+RUNNING%s+yes%s+no%s+%-\n", run "snapshots old-bios".out)
    assert.matches("ServerSnapshotCreateTask%s+FINISHED%s+100 %%", run "tasks".out)
    assert.matches("there are no tasks", run "tasks wrk-02".out)
    assert.equal("live", lines("snapshots 111003")[1].snapshot.name)
    assert.equal("FINISHED", lines("tasks old-bios")[1].task.state)
    local r = run "metrics wrk-02 --hours 2"
    assert.matches("\ncpu%s+CPU1%s+145.00%s+145.00%s+145.00%s+percent\n", r.out)
    assert.matches("\nnetwork%s+02:00:00:97:47:9f IN%s+599.33%s+599.33%s+599.33%s+bytes/s\n", r.out)
    assert.equal(120, lines("metrics wrk-02 --hours 2")[1].metric.samples)
  end)

  it("shows a DNS zone, with credentials from a private file alone", function()
    local r = run "dns acme.example"
    assert.equal(12, r.exit)
    assert.matches("netcup%-dns.json", r.err)
    credentials "644"
    r = run "dns acme.example"
    assert.equal(12, r.exit)
    assert.matches("chmod 600", r.err)
    credentials()
    r = run "dns acme.example"
    assert.equal(0, r.exit, r.err)
    assert.matches("^zone acme.example, TTL 86400 s, 1 records\n", r.out)
    assert.matches("\n1001%s+www%s+A%s+%-%s+198.18.28.137%s+live\n", r.out)
    assert.matches("the zone has no records", run "dns empty.example".out)
    assert.equal("A", lines("dns acme.example")[1].record.type)
    assert.equal(0, #s.control("log").sessions)
    assert.equal(2, run "dns acme".exit)
    assert.equal(2, run "dns other.example".exit)
  end)

  it("waits out a short maintenance, and says so when it is a long one", function()
    login()
    s.control("fault", { match = "GET /scp-core/api/v1/servers", status = 503, times = 1 })
    assert.equal(0, run "servers".exit)
    s.control("fault", { match = "GET /scp-core/api/v1/servers", status = 503, times = 2, headers = { "Retry-After: 600" } })
    local r = run "servers"
    assert.equal(5, r.exit)
    assert.matches("maintenance", r.err)
  end)

  it("prints no token, device code or password, nor passes one to a program", function()
    credentials()
    s.control("set", { approve = { "pending", "approved" }, interval = 0.05, rotate = true, access_life = 1 })
    local trace = home.dir .. "/trace"
    local seen, printed = {}, {}
    for i, args in ipairs { "login", "login --json", "servers -vvv", "tasks --json -vvv", "dns acme.example --json",
      "logout --revoke --json" } do
      local r = run(args, { before = ("env ASAN_OPTIONS=detect_leaks=0 strace -f -v -e trace=execve -s 65535 -o %s.%d"):format(trace, i) })
      printed[#printed + 1] = r.out .. r.err .. support.slurp(trace .. "." .. i)
      if i == 5 then seen = s.control "log" end
    end
    printed = table.concat(printed, "\n")
    assert.is_true(#seen.refresh >= 2 and #seen.access >= 2)
    local secrets = { api_key = "api-key-canary-123", api_password = "api-password-canary-123" }
    for i, token in ipairs(seen.refresh) do secrets["refresh " .. i] = token end
    for i, token in ipairs(seen.access) do secrets["access " .. i] = token end
    for i, r in ipairs(seen.requests) do
      local code = r.body:match "device_code=([^&]+)"
      if code then secrets["device " .. i] = code end
    end
    assert.same({}, canary.find(printed, secrets))
    assert.is_true(#printed > 2000)
  end)

  it("killed at any instant of a refresh it leaves a store that is whole, the old or the new one", function()
    login()
    s.control("set", { rotate = true })
    local before = support.slurp(store())
    local old = assert(json.decode(before)).access_token
    local olds, news = 0, 0
    -- strace counts each system call of its own.
    for _, call in ipairs { "openat", "/^unlink", "write", "fsync", "/^rename" } do
      for n = 1, 9 do
        support.spit(store(), before)
        s.control "expire"
        local r = run("servers", { before = ("env ASAN_OPTIONS=detect_leaks=0 strace -f -o %s/trace -P %s -P %s.new -P %s/state/lbrun "
          .. "-e 'inject=%s:signal=KILL:when=%d'"):format(home.dir, store(), store(), home.dir, call, n) })
        local text = support.slurp(store())
        local data = assert(json.decode(text), text)
        assert.equal(#old, #data.access_token)
        assert.equal("0600", host.stat(store()).mode)
        local leftover = host.stat(store() .. ".new")
        if leftover then assert.equal("0600", leftover.mode) end
        if r.exit == 0 then break end
        assert.equal(9, r.signal, r.err)
        if data.access_token == old then olds = olds + 1 else news = news + 1 end
      end
    end
    assert.is_true(olds >= 6 and news >= 1, ("%d old, %d new"):format(olds, news))
    assert.equal(0, run "servers".exit)
    assert.is_nil(host.stat(store() .. ".new"))
  end)
end)
