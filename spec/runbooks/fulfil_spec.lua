-- fulfil_spec.lua: runbooks/fulfil.lua and `lbrun worker`, from an order to FULFILLED. Netcup,
-- the Hub, the name servers and provision.lua are stand-ins; the server is this machine, by
-- local:. Time is moved by clockat.so. A real server is fulfil_vps_spec.lua's.
local host = require "host"
local json = require "json"
local process = require "process"
local support = require "support.lbrun"
local hubs = require "support.hub"
local netcups = require "support.netcup"

local token = "fulfilment-canary-token-0815"
local address = "198.18.28.138"
-- Loopback addresses of this process alone: name servers are asked at port 53.
local own = ("127.77.%d"):format(host.pid() % 250 + 1)
local resolver, authoritative = own .. ".1:5353", own .. ".2"
local names = { "acme.example", "files.acme.example" }

local states = { "PAYMENT_CONFIRMED", "AWAITING_SERVER", "SERVER_READY", "DNS_PENDING", "DNS_READY", "PROVISIONING", "FULFILLED" }

local s, home, hub, dns, clock

local function write_names(by_resolver, by_owner)
  local function all(value)
    local t = {}
    for _, name in ipairs(names) do t[name] = value end
    t["nobody.example"] = "192.0.2.1" -- an object in any case
    return t
  end
  support.spit(home.dir .. "/names.json", json.encode { zones = json.array { "acme.example" },
    resolver = all(by_resolver), authoritative = all(by_owner) })
end

local function environment(more)
  local o = s.settings()
  local env = { LBRUN_NETCUP_ISSUER = o.issuer, LBRUN_NETCUP_API = o.api, LBRUN_CCP_API = o.ccp }
  for k, v in pairs(more or {}) do env[k] = v end
  return env
end

-- The worker, `clock` seconds from now.
local function worker(more, env)
  env = environment(env)
  local shim = "./" .. support.clockat
  env.LD_PRELOAD = env.LD_PRELOAD and env.LD_PRELOAD .. " " .. shim or shim
  env.CLOCKAT = tostring(clock)
  return home.json(("worker --once --json --allow-local-root orders=%s/orders hub_url=%s runner_token=@%s defaults=%s/defaults.json runbook=runbooks/fulfil.lua -i %s/key %s")
    :format(home.dir, hub.url, hub.token_file, home.dir, home.dir, more or ""), { env = env })
end

local function order(id, fields)
  local o = { order = id, tenant = "acme", domain = "acme.example", tier = "build", tools = json.array { "nextcloud" } }
  for k, v in pairs(fields or {}) do o[k] = v end
  support.spit(("%s/orders/%s.json"):format(home.dir, id), json.encode(o))
end

local function run_of(subject)
  for _, line in ipairs(home.json("runs --json").lines) do
    if line.type == "run" and line.subject == (subject or "acme") and not line.parent then return line end
  end
end

local function stands(id)
  return json.decode(home.run({ "show", "--json", id }).out:match "[^\n]+").steps
end

-- The state that the order is in: the first step that is not done.
local function where()
  local row = run_of()
  for _, step in ipairs(stands(row.run)) do
    if step.status ~= "done" then return step.step, row.status, step.message or "" end
  end
  return row.status
end

local function provisioned()
  return (support.sh(("[ ! -e %s/provisioned ] || cat %s/provisioned"):format(home.dir, home.dir)))
end

local function server(id) return assert(s.open():server(id or 111007)) end

local provision = [[return runbook { name = "small", summary = "stands in for provision.lua",
  params = { tenant = param.string {}, domain = param.string {}, tier = param.string {}, region = param.string {}, tools = param.list {},
    admin_ssh_public_key = param.string {}, admin_user = param.string {}, ssh_port = param.integer {}, docker_source = param.string {},
    acme = param.string {}, hub_url = param.string { optional = true }, job_id = param.string { optional = true },
    report_job = param.boolean {}, runner_token = param.secret { optional = true }, acme_directory = param.string {}, acme_email = param.string { optional = true },
    acme_ca = param.string { optional = true }, alert_url = param.string { optional = true }, config_json = param.string {},
    acme_addresses = param.list {}, models = param.list {}, recipients = param.list {} },
  steps = function(p) return { step { name = "provision", class = "compensable",
    probe = function(ctx) return ctx.target:exists("DIR/done") and done() or pending() end,
    apply = function(ctx)
      ctx.target:run "echo tried >>DIR/tries; [ ! -s DIR/failures ] || { sed -i 1d DIR/failures; echo told to fail >&2; exit 1; }"
      ctx.target:run("echo " .. quote(p.domain) .. " >>DIR/provisioned; touch DIR/done")
    end } } end }]]

describe("an order #unit", function()
  setup(function() s = netcups.start() end)
  teardown(function() s.stop() end)
  before_each(function()
    clock = 0
    s.control "reset"
    s.control("tasks", { scale = 0.001 })
    s.control("server", { id = 111007, set = { nickname = "pool", ipv4Addresses = { { id = 1, ip = address, netmask = "255.255.252.0", gateway = "198.18.28.1" } } } })
    os.remove(s.store)
    s.login()
    home = support.home()
    support.sh(("mkdir -p -m 700 %s/state/lbrun %s/config/lbrun %s/orders && cp %s %s/state/lbrun/netcup.json"):format(home.dir, home.dir, home.dir, s.store, home.dir))
    support.spit(home.dir .. "/config/lbrun/netcup-dns.json",
      json.encode { customer = "100000", api_key = "api-key-canary-123", api_password = "api-password-canary-123" })
    support.sh(("chmod 600 %s/config/lbrun/netcup-dns.json; ssh-keygen -q -t ed25519 -N '' -f %s/key"):format(home.dir, home.dir))
    hub = hubs.new(home.dir .. "/hub", token).start()
    write_names(address, address)
    dns = assert(process.spawn({ "python3", "-B", "spec/support/dns.py", home.dir .. "/names.json", resolver, authoritative }, { kill_on_close = true }))
    assert(dns:read(20))
    support.spit(home.dir .. "/small.lua", (provision:gsub("DIR", home.dir)))
    support.spit(home.dir .. "/defaults.json", json.encode { admin_ssh_public_key = support.slurp(home.dir .. "/key.pub"), target = "local:",
      provision = home.dir .. "/small.lua", resolvers = json.array { resolver, authoritative } })
    order "o-1"
  end)
  after_each(function()
    dns:close()
    hub.stop()
    assert.same({}, s.control("log").violations)
    assert.equal(0, home.run("verify-journal").exit)
    home.remove()
  end)

  -- Nothing of it was done twice.
  local function once()
    assert.equal(1, #s.requests "^POST .*/image ", "image")
    assert.equal(1, #s.requests "^POST .*/ssh%-keys ", "key")
    assert.equal("acme.example\n", provisioned())
    local told = hub.taken "/api/v1/tenants/acme/notices"
    assert.same({ ['{"kind":"fulfilled","subject":"The server is ready","text":"https://acme.example"}'] = 1 }, told)
    local zone, count = s.control("zone", { zone = "acme.example" }), {}
    for _, r in ipairs(zone.records) do count[r.hostname .. " " .. r.destination] = (count[r.hostname .. " " .. r.destination] or 0) + 1 end
    assert.same({ ["@ " .. address] = 1, ["files " .. address] = 1, ["www 198.18.28.137"] = 1 }, count)
    assert.equal("tenant-acme", server(111007).nickname)
  end

  it("becomes a tenant without anybody watching, and is carried out once", function()
    local r = worker()
    assert.equal("done", where(), r.err)
    once()
    local told = {}
    for _, q in ipairs(hub.requests()) do
      if q.path == "/api/v1/jobs/o-1" then told[#told + 1] = q.body.step .. " " .. q.body.status end
    end
    assert.same({ "PAYMENT_CONFIRMED RUNNING", "AWAITING_SERVER RUNNING", "SERVER_READY RUNNING", "DNS_PENDING RUNNING",
      "DNS_READY RUNNING", "PROVISIONING RUNNING", "FULFILLED COMPLETED" }, told)
    assert.equal("acme.example", s.control("log") and server(111007).hostname)
    worker()
    once()
    local runs = 0
    for _, line in ipairs(home.json("runs --json").lines) do
      if line.run and line.run:find("^fulfil%-%w%w%w%w%w%w$") then runs = runs + 1 end
    end
    assert.equal(1, runs)
  end)

  it("comes from the Hub's list too, and the same id from both is one order", function()
    support.spit(hub.dir .. "/orders.json", json.encode { { order = "o-1", tenant = "acme", domain = "acme.example", tier = "build", tools = json.array { "nextcloud" } } })
    worker()
    once()
    os.remove(home.dir .. "/orders/o-1.json")
    worker()
    once()
  end)

  it("waits while the pool is empty, says what to order, and goes on when it is there", function()
    s.control("server", { id = 111007, set = { nickname = "" } })
    worker()
    local state, status, message = where()
    assert.same({ "PAYMENT_CONFIRMED", "parked" }, { state, status })
    assert.matches("order a server at netcup in Nuremberg .-8 vCPU, 16 GiB of memory and 320 GB .-nickname pool", message)
    s.control("server", { id = 111007, set = { nickname = "pool" } })
    worker()
    assert.equal("PAYMENT_CONFIRMED", (where())) -- not before it is due
    clock = 601
    worker()
    assert.equal("done", where())
    once()
  end)

  it("of mode manual waits until a person has named the server", function()
    order("o-1", { mode = "manual" })
    worker()
    assert.matches("give its server the nickname tenant%-acme", select(3, where()))
    s.control("server", { id = 111007, set = { nickname = "tenant-acme" } })
    clock = 86400 * 9
    worker()
    assert.equal("done", where())
    once()
  end)

  it("waits for names that do not lead there yet, days if need be, and fails when they never do", function()
    write_names("192.0.2.7", nil)
    worker()
    local state, status, message = where()
    assert.same({ "DNS_PENDING", "parked" }, { state, status })
    assert.matches("authoritative.- says nothing", message)
    write_names("192.0.2.7", address)
    clock = 400
    worker()
    assert.matches("%.1:5353 %(resolver%) says 192.0.2.7", select(3, where()))
    clock = 86400 * 13
    worker()
    assert.equal("DNS_PENDING", (where()))
    assert.equal("", provisioned())
    write_names(address, address)
    clock = 86400 * 13 + 400
    worker()
    assert.equal("done", where())
    once()
  end)

  it("whose names never come is FAILED after their time, and says so to the Hub", function()
    write_names(nil, nil)
    worker()
    clock = 86400 * 15
    worker()
    for _, pause in ipairs { 60, 300, 900 } do
      clock = clock + pause + 5
      worker()
    end
    local state, status, message = where()
    assert.same({ "DNS_PENDING", "failed" }, { state, status })
    assert.matches("after 15 days", message)
    local failed = 0
    for body in pairs(hub.taken "/api/v1/jobs/o-1") do
      if body:find('"FAILED"', 1, true) then failed = failed + 1 end
    end
    assert.equal(1, failed)
  end)

  it("is provisioned again 60, 300 and 900 s after a failure, no sooner, and then FAILED", function()
    support.spit(home.dir .. "/failures", "x\nx\nx\nx\n")
    local function tries() return select(2, support.sh("cat " .. home.dir .. "/tries"):gsub("tried", "")) end
    worker()
    assert.equal(1, tries())
    for i, pause in ipairs { 60, 300, 900 } do
      clock = clock + pause - 10
      worker()
      assert.equal(i, tries())
      clock = clock + 20
      worker()
      assert.equal(i + 1, tries())
    end
    assert.same({ "PROVISIONING", "failed" }, { (where()), run_of().status })
    clock = clock + 10000
    worker()
    assert.equal(4, tries())
    -- A person may have it tried again.
    local r = home.run(("resume %s runner_token=@%s"):format(run_of().run, hub.token_file), { env = environment() })
    assert.equal(0, r.exit, r.err)
    once()
  end)

  it("that fails twice in provisioning and then works is FULFILLED", function()
    support.spit(home.dir .. "/failures", "x\nx\n")
    worker()
    for _, pause in ipairs { 61, 301 } do
      clock = clock + pause
      worker()
    end
    assert.equal("done", where())
    once()
  end)

  it("outlasts maintenance, an expired token, a slow task, a failed image and a login that was revoked", function()
    s.control("fault", { match = "GET .*/tasks/", status = 503, times = 2 })
    s.control("set", { access_life = 0.2 })
    s.control("tasks", { scale = 0.02, next = { "ERROR" } })
    worker()
    local state, status = where()
    assert.same({ "AWAITING_SERVER", "parked" }, { state, status })
    s.control "revoke"
    clock = 65
    worker()
    assert.matches("lbrun netcup login", select(3, where()))
    os.remove(s.store)
    s.login()
    support.sh(("cp %s %s/state/lbrun/netcup.json"):format(s.store, home.dir))
    clock = 65 + 901
    worker()
    assert.equal("done", where())
    assert.equal(2, #s.requests "^POST .*/image ") -- the one that failed, and the one that did not
    assert.equal("acme.example\n", provisioned())
  end)

  it("waits for a server that cannot be reached yet, and a clock that jumps back or forth changes no outcome", function()
    support.spit(home.dir .. "/defaults.json", json.encode { admin_ssh_public_key = support.slurp(home.dir .. "/key.pub"), target = "ssh://root@127.0.0.1:1",
      provision = home.dir .. "/small.lua", resolvers = json.array { resolver, authoritative } })
    worker()
    assert.same({ "AWAITING_SERVER", "parked" }, { (where()), run_of().status })
    clock = -86400
    worker()
    assert.same({ "AWAITING_SERVER", "parked" }, { (where()), run_of().status })
    clock = 3600
    worker()
    assert.same({ "AWAITING_SERVER", "parked" }, { (where()), run_of().status })
    clock = 86400
    worker()
    for _, pause in ipairs { 60, 300, 900 } do
      clock = clock + pause + 5
      worker()
    end
    assert.same({ "AWAITING_SERVER", "failed" }, { (where()), run_of().status })
    assert.equal(1, #s.requests "^POST .*/image ")
  end)

  it("is carried out once from the command line too, and another order never touches the server of a tenant that has one", function()
    worker()
    once()
    local words = ("tenant=acme domain=acme.example tier=build tools=nextcloud hub_url=%s runner_token=@%s -p %s/defaults.json -i %s/key --json --no-input --allow-local-root")
      :format(hub.url, hub.token_file, home.dir, home.dir)
    local r = home.json("runbooks/fulfil.lua order=o-1 " .. words, { env = environment() })
    assert.same({ 0, true }, { r.exit, r.last.existing })
    r = home.json("runbooks/fulfil.lua order=o-2 " .. words, { env = environment() })
    assert.is_true(r.exit ~= 0 and r.exit ~= 10, tostring(r.exit))
    assert.matches("tenant acme has server 111007 already %(nickname tenant%-acme%): what is on it would be wiped", r.last.message)
    once()
  end)

  it("of a domain that netcup does not hold lists the records, and goes on when the names lead there", function()
    order("o-1", { domain = "elsewhere.example" })
    names = { "elsewhere.example", "files.elsewhere.example" }
    finally(function() names = { "acme.example", "files.acme.example" } end)
    support.spit(home.dir .. "/names.json", json.encode { zones = json.array { "elsewhere.example" }, resolver = { ["nobody.example"] = "192.0.2.1" },
      authoritative = { ["nobody.example"] = "192.0.2.1" } })
    worker()
    local state, status, message = where()
    assert.same({ "DNS_PENDING", "parked" }, { state, status }, message)
    local listed = 0
    for body in pairs(hub.taken "/api/v1/tenants/acme/notices") do
      if body:find("files.elsewhere.example. A " .. address, 1, true) then listed = listed + 1 end
    end
    assert.equal(1, listed)
    local asked = #s.requests "servers/endpoint.php"
    clock = clock + 301
    worker()
    assert.equal(asked, #s.requests "servers/endpoint.php")
  end)

  it("chooses neither who is told of it nor what is run where", function()
    for i, field in ipairs { "hub_url", "target", "provision", "restore_server" } do order("bad-" .. i, { tenant = "other", [field] = "https://evil.example" }) end
    support.sh("rm " .. home.dir .. "/orders/o-1.json")
    local r = worker()
    local said = 0
    for _, line in ipairs(r.lines) do
      if line.type == "worker" and line.text:find("is no order's affair", 1, true) then said = said + 1 end
    end
    assert.equal(4, said)
    assert.is_nil(run_of "other")
  end)

  it("of a tenant that has lost its server claims another in the same region, restores onto it, and leaves the lost one alone", function()
    worker()
    assert.equal("done", where())
    support.spit(home.dir .. "/small-restore.lua", (provision:gsub("DIR", home.dir):gsub('name = "small"', 'name = "small-restore"')
      :gsub("params = {", 'params = { date = param.string { optional = true }, remote_config = param.secret {}, recovery_key = param.secret {},', 1)
      :gsub("probe = .- end,\n", 'probe = function(ctx) return ctx.target:exists("' .. home.dir .. '/restored") and done() or pending() end,\n', 1)
      :gsub("apply = .-\n    end }", ([[apply = function(ctx)
        ctx.target:put("%s/restored", ctx.params.date .. " " .. ctx.params.domain .. "\n")
        ctx.target:put("%s/key-seen", ctx.secret "recovery_key", { mode = "0600" })
      end }]]):format(home.dir, home.dir):gsub("%%", "%%%%"), 1)))
    for _, name in ipairs { "remote_config", "recovery_key" } do
      support.sh(("install -m 600 /dev/null %s/%s"):format(home.dir, name))
      support.spit(home.dir .. "/" .. name, name .. "-canary-0819\n")
    end
    local new_address = "198.18.28.140"
    s.control("server", { id = 111010, set = { nickname = "pool", site = { id = 2, city = "Manassas" },
      ipv4Addresses = { { id = 1, ip = new_address, netmask = "255.255.252.0", gateway = "198.18.28.1" } } } })
    local images = #s.requests "^POST .*/image "
    local function restore(id, more)
      return home.json(("runbooks/fulfil.lua order=%s tenant=acme domain=acme.example tier=build tools=nextcloud hub_url=%s runner_token=@%s -p %s/defaults.json "
        .. "-i %s/key --json --no-input --allow-local-root restore=true date=2031-02-03 restore_server=%s/small-restore.lua %s")
        :format(id, hub.url, hub.token_file, home.dir, home.dir, home.dir, more or ""), { env = environment() })
    end
    local secrets = ("remote_config=@%s/remote_config recovery_key=@%s/recovery_key"):format(home.dir, home.dir)
    local r = restore "r-0"
    assert.equal(12, r.exit, r.err)
    assert.matches("a restore needs remote_config=@FILE", r.last and r.last.message or r.err)
    -- One that runs is not lost.
    r = restore("r-1", secrets)
    assert.is_true(r.exit == 2 or r.exit == 5, r.exit .. r.err)
    assert.matches("server 111007 of acme is RUNNING, so it is not lost", r.last.message)
    assert.equal("tenant-acme", server(111007).nickname)
    s.control("server", { id = 111007, live = { state = "SHUTOFF" } })
    r = restore("r-2", secrets .. " region=na")
    assert.matches("server 111007, which is lost, stands in Nuremberg: region=na is another", r.last.message)
    assert.equal("tenant-acme", server(111007).nickname)
    -- The pool has one in another region alone: that is no choice of lbrun's.
    r = restore("r-3", secrets)
    assert.equal(10, r.exit, r.err)
    assert.matches("it stands in Manassas", r.last.message)
    assert.same({ "lost-acme", "pool" }, { server(111007).nickname, server(111010).nickname })
    home.run { "abandon", r.last.run, "-y" }
    r = restore("r-4", secrets .. " region=na")
    assert.matches("server 111007, which is lost, stands in Nuremberg: region=na is another", r.last.message)
    write_names(new_address, new_address)
    r = restore("r-5", secrets .. " region=na other_region=true")
    assert.equal(0, r.exit, r.err)
    assert.equal("2031-02-03 acme.example\n", support.slurp(home.dir .. "/restored"))
    assert.equal("recovery_key-canary-0819", (support.slurp(home.dir .. "/key-seen"):gsub("\n$", "")))
    assert.same({ "lost-acme", "tenant-acme", "SHUTOFF" }, { server(111007).nickname, server(111010).nickname, server(111007).serverLiveInfo.state })
    assert.equal(images + 1, #s.requests "^POST .*/image ")
    assert.equal(1, #s.requests "^POST .*/111007/image ") -- that of its order, long ago
    local zone, at = s.control("zone", { zone = "acme.example" }), {}
    for _, record in ipairs(zone.records) do at[record.hostname] = record.destination end
    assert.same({ new_address, new_address }, { at["@"], at.files })
    for _, where_to in ipairs { r.out, r.err } do assert.is_nil(where_to:find("canary-0819", 1, true)) end
  end)

  it("that two workers carry is carried out once", function()
    local streams = {}
    s.control("tasks", { scale = 0.01 })
    for i = 1, 3 do
      local words = { "unshare", "-m", "sh", "-c", ("mount --bind %s/var /var/lib/lbrun && exec \"$@\""):format(home.dir), "sh",
        "env", "-u", "SSH_AUTH_SOCK", "HOME=" .. home.dir, "XDG_STATE_HOME=" .. home.dir .. "/state", "XDG_CONFIG_HOME=" .. home.dir .. "/config" }
      for k, v in pairs(environment()) do words[#words + 1] = k .. "=" .. v end
      for _, w in ipairs { support.binary, "worker", "--once", "--json", "--allow-local-root", "orders=" .. home.dir .. "/orders", "hub_url=" .. hub.url,
        "runner_token=@" .. hub.token_file, "defaults=" .. home.dir .. "/defaults.json", "runbook=runbooks/fulfil.lua" } do words[#words + 1] = w end
      streams[i] = assert(process.spawn(words, { kill_on_close = true }))
      streams[i]:shut()
    end
    for _, stream in ipairs(streams) do
      repeat
        local kind = stream:read(60)
      until not kind or kind == "eof"
      stream:close()
    end
    for _ = 1, 5 do
      if where() == "done" then break end
      clock = clock + 61
      worker()
    end
    assert.equal("done", where())
    once()
  end)

  local function killed(first, stride)
    worker(nil, { LD_PRELOAD = "./" .. support.killat, KILLAT = "0", KILLAT_WHEN = "after", KILLAT_COUNT_FILE = home.dir .. "/commits" })
    local commits = tonumber(support.slurp(home.dir .. "/commits"):match "%d+")
    assert.is_true(commits > 60, commits)
    local keep = support.slurp(s.store)
    local reached = {}
    for n = first, commits, stride do
      -- All over again: another home's worth of state in this one.
      s.control "reset"
      s.control("tasks", { scale = 0.001 })
      s.control("server", { id = 111007, set = { nickname = "pool", ipv4Addresses = { { id = 1, ip = address, netmask = "255.255.252.0", gateway = "198.18.28.1" } } } })
      os.remove(s.store)
      s.login()
      support.sh(("cd %s && rm -rf state var done tries provisioned hub/requests.jsonl && mkdir -p -m 700 state/lbrun var && cp %s state/lbrun/netcup.json"):format(home.dir, s.store))
      hub.stop()
      hub.start()
      clock = 0
      local r = worker(nil, { LD_PRELOAD = "./" .. support.killat, KILLAT = tostring(n), KILLAT_WHEN = n % 2 == 0 and "before" or "after",
        KILLAT_COUNT_FILE = home.dir .. "/commits" })
      assert.equal(9, r.signal, ("commit %d: %s"):format(n, r.err))
      local row = run_of()
      if row then
        local done = 0
        for _, step in ipairs(stands(row.run)) do done = done + (step.status == "done" and 1 or 0) end
        reached[states[done + 1] or "all"] = true
      end
      for _ = 1, 3 do
        worker()
        if where() == "done" then break end
        clock = clock + 901
      end
      local state, _, message = where()
      assert.equal("done", state, ("commit %d: %s"):format(n, message))
      once()
    end
    assert.is_string(keep)
    return reached
  end

  it("is carried on from a kill in any state, and nothing of it is done twice #long", function()
    local reached = killed(4, 5)
    for _, state in ipairs(states) do assert.is_true(reached[state], state) end
  end)
end)
