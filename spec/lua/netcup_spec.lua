-- netcup_spec.lua: modules/lua/netcup.lua in runbooks, against the stand-in of netcup.py:
-- servers are claimed once, tasks begun once, however often lbrun was killed.
local json = require "json"
local process = require "process"
local support = require "support.lbrun"
local netcups = require "support.netcup"

local s, home

local function env()
  local o = s.settings()
  return { LBRUN_NETCUP_ISSUER = o.issuer, LBRUN_NETCUP_API = o.api, LBRUN_CCP_API = o.ccp }
end

local function run(book, args, options)
  options = options or {}
  options.env = env()
  local path = home.runbook("book", ("return runbook { name = 'book', summary = 'x', params = { tenant = param.string { default = 'acme' } }, steps = function(p) return { %s } end }"):format(book))
  return home.json(path .. " --json --no-input " .. (args or ""), options), path
end

local function server(id) return assert(s.open():server(id)) end
local function change(data)
  local id = data.id
  data.id = nil
  s.control("server", { id = id, set = data })
end

local claim = [[step { name = "claim", class = "compensable", rerun = true, apply = function(ctx)
  local server, why = netcup.claim(ctx, { tenant = p.tenant, tier = "build", region = "eu" })
  ctx.log(server and "claimed " .. server.id or "none: " .. why) end }]]

local function said(r)
  local out = {}
  for _, line in ipairs(r.lines) do
    if line.type == "log" then out[#out + 1] = line.text end
  end
  return table.concat(out, "\n")
end

describe("netcup in runbooks #unit", function()
  setup(function() s = netcups.start() end)
  teardown(function() s.stop() end)
  before_each(function()
    s.control "reset"
    s.control("tasks", { scale = 0.01 })
    os.remove(s.store)
    s.login()
    home = support.home()
    support.sh(("mkdir -p -m 700 %s/state/lbrun %s/config/lbrun && cp %s %s/state/lbrun/netcup.json"):format(home.dir, home.dir, s.store, home.dir))
    support.spit(home.dir .. "/config/lbrun/netcup-dns.json",
      json.encode { customer = "100000", api_key = "api-key-canary-123", api_password = "api-password-canary-123" })
    support.sh(("chmod 600 %s/config/lbrun/netcup-dns.json"):format(home.dir))
  end)
  after_each(function()
    assert.same({}, s.control("log").violations)
    home.remove()
  end)

  it("claims a free server that is large enough, once, and none of another's", function()
    local r = run(claim)
    assert.matches("none: order a server at netcup in Nuremberg .- 8 vCPU, 16 GiB .- nickname pool", said(r))
    change { id = 111007, nickname = "pool-2" }
    change { id = 111003, nickname = "shop" }
    r = run(claim)
    assert.equal(0, r.exit, r.err)
    assert.equal("claimed 111007", said(r))
    assert.equal("tenant-acme", server(111007).nickname)
    -- Another run would install it anew.
    r = run(claim)
    assert.not_equal(0, r.exit)
    assert.matches("tenant acme has server 111007 already %(nickname tenant%-acme%): what is on it would be wiped", r.last.message)
    assert.equal("shop", server(111003).nickname)
    change { id = 111007, nickname = "pool-2" }
    r = run(claim .. ", " .. claim:gsub('name = "claim"', 'name = "again"'))
    assert.equal("claimed 111007\nclaimed 111007", said(r))
    r = run(claim, "tenant=other")
    assert.matches("^none: order", said(r))
  end)

  it("does not claim what is too small, or stands elsewhere, and says so", function()
    change { id = 111007, nickname = "pool", site = { id = 2, city = "Manassas" } }
    change { id = 111003, nickname = "pool", disabled = true }
    local r = run(claim)
    assert.matches("Manassas, not in Nuremberg", said(r))
    assert.matches("it is disabled", said(r))
  end)

  it("gives two runs that claim at the same moment two servers", function()
    change { id = 111007, nickname = "pool" }
    change { id = 111003, nickname = "pool" }
    s.control("fault", { match = "PATCH /scp%-core" })
    local _, path = run(claim, "tenant=a")
    local streams = {}
    for _, tenant in ipairs { "b", "c" } do
      local words = { "env", "-u", "SSH_AUTH_SOCK", "HOME=" .. home.dir, "XDG_STATE_HOME=" .. home.dir .. "/state" }
      for k, v in pairs(env()) do words[#words + 1] = k .. "=" .. v end
      table.move({ support.binary, path, "--json", "--no-input", "tenant=" .. tenant }, 1, 5, #words + 1, words)
      streams[tenant] = assert(process.spawn(words, { kill_on_close = true }))
    end
    local texts = {}
    for tenant, stream in pairs(streams) do
      texts[tenant] = ""
      stream:shut()
      repeat
        local kind, data = stream:read(30)
        if kind == "out" then texts[tenant] = texts[tenant] .. data end
      until not kind or kind == "eof"
      stream:close()
    end
    local names = {}
    for _, id in ipairs { 111003, 111007 } do names[#names + 1] = server(id).nickname end
    table.sort(names)
    -- a has one of the two; exactly one of b and c has the other, and the last is told what to buy.
    assert.equal("tenant-a", names[1])
    assert.matches("^tenant%-[bc]$", names[2])
    assert.matches("none: order a server", texts.b .. texts.c)
  end)

  it("begins a task once, though lbrun was killed after netcup took it", function()
    local book = [[step { name = "off", class = "compensable", probe = function(ctx)
        return scp.server(111003).hostname == "acme.example" and done() or pending "name it" end,
      apply = function(ctx)
        netcup.once(ctx, { key = "name", server = 111003, kind = "ServerHostnameTask",
          start = function() return scp.set_hostname(111003, "acme.example") end }) end }]]
    local r = run(book)
    assert.equal(0, r.exit, r.err)
    assert.equal(1, #s.requests "^PATCH ")
    -- The answer to the change is lost with the process: the second attempt finds the task.
    s.control "reset"
    os.remove(s.store)
    s.login()
    support.sh(("cp %s %s/state/lbrun/netcup.json"):format(s.store, home.dir))
    s.control("tasks", { scale = 1000 })
    local killer = [[step { name = "off", class = "compensable", probe = function() return pending() end, verify = function() return true end,
      apply = function(ctx)
        netcup.once(ctx, { key = "name", server = 111003, kind = "ServerSnapshotCreateTask", timeout = "50ms",
          start = function() local t = scp.snapshot_create(111003, { name = "x", online = true })
            if not ctx.state_get "killed" then ctx.state_set("killed", true) fail("x", "killed here") end
            return t end }) end }]]
    r = run(killer)
    assert.equal(5, r.exit, r.err)
    r = home.run("resume " .. r.lines[1].run, { env = env() })
    assert.matches("still %u+ at", r.err) -- it waits for that task, which takes its time
    assert.equal(1, #s.requests "^POST .*/snapshots ")
  end)

  it("sets what names lead to and how an address is named, only where it differs, and a plan changes nothing", function()
    local book = [[step { name = "dns", class = "compensable", resources = {
      netcup.records { zone = "acme.example", names = { "acme.example", "www.acme.example", "files.acme.example" }, address = "198.18.28.137" },
      netcup.reverse { address = "198.18.28.137", name = "acme.example" } } }]]
    local path = select(2, run(claim))
    run(book, "--check")
    assert.equal(0, #s.requests "POST .*/rdns")
    local zone = s.control("zone", { zone = "acme.example" })
    assert.equal(1, #zone.records)
    local r = run(book)
    assert.equal(0, r.exit, r.err)
    zone = s.control("zone", { zone = "acme.example" })
    local names = {}
    for _, rec in ipairs(zone.records) do names[#names + 1] = rec.hostname .. " " .. rec.destination end
    table.sort(names)
    assert.same({ "@ 198.18.28.137", "files 198.18.28.137", "www 198.18.28.137" }, names)
    assert.equal(0, run(book).last.changed)
    assert.is_string(path)
  end)

  it("without a login ends with the command that logs in", function()
    os.remove(home.dir .. "/state/lbrun/netcup.json")
    local r = run(claim)
    assert.matches("lbrun netcup login", r.last.message)
    assert.equal(12, r.exit)
  end)
end)
