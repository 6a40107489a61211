-- deprovision_spec.lua: runbooks/deprovision.lua with netcup and the Hub as stand-ins, rclone
-- with a folder as its remote, this machine as the server (local:), and time moved by clockat.so.
local json = require "json"
local support = require "support.lbrun"
local hubs = require "support.hub"
local netcups = require "support.netcup"

local token = "canary-0816-token-of-the-hub"
local day = 86400
local ip = "198.18.28.137"
local s, home, hub, clock

local function env(more)
  local o = s.settings()
  local e = { LBRUN_NETCUP_ISSUER = o.issuer, LBRUN_NETCUP_API = o.api, LBRUN_CCP_API = o.ccp, CLOCKAT = tostring(clock),
    LD_PRELOAD = "./" .. support.clockat, PATH = home.dir .. "/bin:" .. os.getenv "PATH" }
  for k, v in pairs(more or {}) do e[k] = v end
  if more and more.LD_PRELOAD then e.LD_PRELOAD = more.LD_PRELOAD .. " ./" .. support.clockat end
  return e
end

local function begin(more)
  return home.json(("runbooks/deprovision.lua tenant=acme domain=acme.example target=local: server=111007 remote=vault: hub_url=%s runner_token=@%s --allow-local-root --json --no-input %s")
    :format(hub.url, hub.token_file, more or ""), { env = env() })
end
local function worker(more)
  return home.json(("worker --once --json --allow-local-root runner_token=@%s %s"):format(hub.token_file, more or ""), { env = env() })
end
local function confirm(id, more)
  return home.json(("resume %s --confirm acme --json --no-input --allow-local-root runner_token=@%s"):format(id, hub.token_file), { env = env(more) })
end
local function vault() return (support.sh(("cd %s/vault && find . -type f | sort"):format(home.dir))) end
local function records()
  local list = {}
  for _, r in ipairs(s.control("zone", { zone = "acme.example" }).records) do list[#list + 1] = r.hostname .. " " .. r.type .. " " .. r.destination end
  table.sort(list)
  return list
end
local function changes()
  local list = {}
  for _, r in ipairs(s.requests()) do
    if r.method ~= "GET" and r.path:find "^/scp" then list[#list + 1] = r.method .. " " .. r.path end
  end
  return list
end

-- Everything that a tenant has, as before.
local function prepare()
  clock = 0
  s.control "reset"
  s.control("tasks", { scale = 0.001 })
  s.control("server", { id = 111007, set = { nickname = "tenant-acme" } })
  os.remove(s.store)
  local c = s.login()
  assert(c:set_rdns(ip, "acme.example"))
  assert(c:wait(assert(c:power(111003, "off")), { interval = 0.01 }))
  s.control("server", { id = 111007, live = { uefi = false } })
  for _, name in ipairs { "one", "two" } do assert(c:wait(assert(c:snapshot_create(111007, { name = name, online = true })), { interval = 0.01 })) end
  assert(c:wait(assert(c:snapshot_create(111003, { name = "other", online = true })), { interval = 0.01 }))
  s.control("server", { id = 111007, live = { uefi = true } })
  support.sh(([[cd %s && rm -rf state var vault hub/requests.jsonl && mkdir -p -m 700 state/lbrun config/lbrun config/rclone var vault/backups/acme/daily vault/backups/acme2
    echo x >vault/backups/acme/daily/x; echo y >vault/backups/acme2/y; cp %s state/lbrun/netcup.json
    printf '[vault]\ntype = alias\nremote = %s/vault\n' >config/rclone/rclone.conf]]):format(home.dir, s.store, home.dir))
  support.spit(home.dir .. "/config/lbrun/netcup-dns.json",
    json.encode { customer = "100000", api_key = "api-key-canary-123", api_password = "api-password-canary-123" })
  support.sh(("chmod 600 %s/config/lbrun/netcup-dns.json"):format(home.dir))
  hub.stop()
  hub.start()
end

-- What is gone, once, and what is not.
local function destroyed(where)
  assert.equal("./backups/acme2/y\n", vault(), where)
  assert.same({}, records(), where)
  local c = s.open()
  assert.equal("pool", assert(c:server(111007)).nickname, where)
  assert.equal("SHUTOFF", assert(c:server(111007)).serverLiveInfo.state, where)
  assert.equal(0, #assert(c:snapshots(111007)), where)
  assert.equal(1, #assert(c:snapshots(111003)), where)
  assert.equal("old-bios", assert(c:server(111003)).nickname, where)
  local images, others, deleted = 0, 0, {}
  for _, r in ipairs(changes()) do
    if r:find "/image$" then images = images + 1 end
    local name = r:match "^DELETE .*/111007/snapshots/(.*)"
    if name then deleted[name] = (deleted[name] or 0) + 1 end
    if r:find "111003" and not r:find "^PATCH" and not r:find "POST .*/snapshots" then others = others + 1 end
  end
  assert.same({ 1, 0 }, { images, others }, where)
  for name, count in pairs(deleted) do assert.is_true(count <= 2, where .. name) end
  local told = {}
  for _, q in ipairs(hub.requests()) do
    if q.effective then told[q.path] = (told[q.path] or 0) + 1 end
  end
  assert.same({ ["/api/v1/tenants/acme/notices"] = 1, ["/api/v1/tenants/acme/key/revocation"] = 1, ["/api/v1/tenants/acme/deletion"] = 1 }, told, where)
end

describe("a cancellation #unit", function()
  setup(function()
    s = netcups.start()
    home = support.home()
    hub = hubs.new(home.dir .. "/hub", token).start()
    -- The containers of this machine are none of a tenant's.
    support.sh(("mkdir %s/bin && printf '#!/bin/sh\nexit 0\n' >%s/bin/docker && chmod 755 %s/bin/docker"):format(home.dir, home.dir, home.dir))
  end)
  teardown(function()
    hub.stop()
    s.stop()
    home.remove()
  end)
  before_each(prepare)
  after_each(function() assert.same({}, s.control("log").violations) end)

  it("that is taken back in the cooling-off has changed nothing", function()
    local before, r = #changes(), begin()
    assert.equal(10, r.exit, r.err)
    assert.equal("parked", r.last.status)
    assert.matches("taken back by: lbrun abandon", r.last.message)
    clock = 2 * day - 100
    worker()
    assert.equal(0, home.run(("abandon %s --reason 'the customer stays' -y"):format(r.last.run), { env = env() }).exit)
    clock = 40 * day
    worker()
    assert.equal(before, #changes())
    assert.equal(0, #hub.requests())
    assert.matches("acme/daily/x", vault())
    assert.same({ "www A " .. ip }, records())
  end)

  it("gives 30 days of export, then waits for a typed name, and ends in a certificate", function()
    local r = begin()
    local id = r.last.run
    clock = 2 * day + 5
    worker()
    assert.equal("export", hub.requests()[1].body.kind)
    clock = 31 * day
    worker()
    assert.equal(1, #hub.requests())
    clock = 32 * day + 10
    local before = #changes()
    local w = worker(("--on-failure 'echo $LBRUN_RUN $LBRUN_EXIT >>%s/told'"):format(home.dir))
    assert.equal(7, w.exit, w.err)
    assert.equal(before, #changes())
    assert.equal(id .. " 7\n", support.slurp(home.dir .. "/told"))
    assert.equal(7, home.json(("resume %s --confirm other --json --no-input --allow-local-root runner_token=@%s"):format(id, hub.token_file), { env = env() }).exit)
    assert.equal(before, #changes())
    r = confirm(id)
    if r.exit ~= 0 then print(r.err) end
    assert.equal(0, r.exit, r.err .. tostring(r.last.message))
    destroyed "whole"
    local text
    for _, q in ipairs(hub.requests()) do text = q.body.certificate or text end
    for _, word in ipairs { "Certificate of deletion: tenant acme", "Hub key was revoked", "vault:backups/acme/ purged", "snapshots at netcup deleted",
      "DNS records and reverse DNS removed", "wiped by installing it anew", "billing records, until %d+%-12%-31 %(7 years" } do assert.matches(word, text) end
    local shown = home.run("log " .. id).out
    assert.matches("cancel it in netcup's customer control panel", shown)
    assert.equal(0, home.run("verify-journal").exit)
  end)

  it("refuses a server that is not the tenant's, by its nickname or by its address", function()
    local id = begin().last.run
    clock = 33 * day
    s.control("server", { id = 111007, set = { nickname = "tenant-other" } })
    worker()
    local before = #changes()
    local r = confirm(id)
    assert.equal(4, r.exit, r.err)
    assert.matches("'tenant%-other', not tenant%-acme", r.last.message)
    assert.equal(before, #changes())
    assert.matches("acme/daily/x", vault())
    local other = home.json(("runbooks/deprovision.lua tenant=acme domain=acme.example target=ssh://root@198.18.28.3:22 server=111007 hub_url=%s runner_token=@%s --json --no-input")
      :format(hub.url, hub.token_file), { env = env() })
    s.control("server", { id = 111007, set = { nickname = "tenant-acme" } })
    clock = 70 * day
    r = confirm(other.last.run)
    if r.exit == 10 then
      clock = 110 * day
      r = confirm(other.last.run)
    end
    assert.equal(4, r.exit, r.err)
    assert.matches("does not have the address 198.18.28.3", r.last.message)
    assert.equal(before, #changes())
  end)

  it("certifies only what it has done, and warns of what is left to a person", function()
    support.sh(("rm %s/config/lbrun/netcup-dns.json"):format(home.dir))
    local r = home.json("runbooks/deprovision.lua tenant=acme domain=acme.example target=local: server=111007 --allow-local-root --json --no-input",
      { env = env() })
    assert.equal(10, r.exit, r.err)
    local id = r.last.run
    clock = 2 * day + 5
    worker()
    clock = 33 * day
    worker()
    r = home.json(("resume %s --confirm acme --json --no-input --allow-local-root"):format(id), { env = env() })
    assert.equal(3, r.exit, r.err)
    local text = table.concat(r.last.warnings, "\n")
    for _, word in ipairs { "the Hub's key: no Hub was named", "remote backups: no remote= was named",
      "DNS records of acme.example: there are no credentials" } do assert(text:find(word, 1, true), word .. "\n" .. text) end
    local shown = home.run("log " .. id).out
    assert.matches("not destroyed by this run:", shown)
    assert.is_nil(shown:find("key was revoked", 1, true))
    assert.is_nil(shown:find("DNS records and reverse DNS removed", 1, true))
    assert.is_nil(shown:find("purged", 1, true))
    assert.matches("acme/daily/x", vault())
    assert.same({ "www A " .. ip }, records())
  end)

  it("of a domain that netcup does not hold ends all the same, and says whose records are left", function()
    local r = home.json(("runbooks/deprovision.lua tenant=acme domain=elsewhere.example target=local: server=111007 remote=vault: hub_url=%s runner_token=@%s --allow-local-root --json --no-input")
      :format(hub.url, hub.token_file), { env = env() })
    clock = 2 * day + 5
    worker()
    clock = 33 * day
    worker()
    r = confirm(r.last.run)
    assert.equal(3, r.exit, r.err .. tostring(r.last.message))
    assert.matches("DNS records of elsewhere.example: netcup holds no zone of it", table.concat(r.last.warnings, "\n"))
    assert.equal("./backups/acme2/y\n", vault())
  end)

  it("destroys nothing before its time where the clock had only jumped ahead", function()
    local id = begin().last.run
    clock = 33 * day
    worker()
    worker()
    local before = #changes()
    clock = 3 * day
    local r = confirm(id)
    assert.equal(10, r.exit, r.err)
    assert.matches("the export is open until", r.last.message)
    assert.equal(before, #changes())
    assert.matches("acme/daily/x", vault())
  end)

  it("takes no server by its name, and none whose data lie on a lost one too", function()
    local r = home.json(("runbooks/deprovision.lua tenant=acme domain=acme.example target=ssh://root@acme.example:22 server=111007 hub_url=%s runner_token=@%s --json --no-input")
      :format(hub.url, hub.token_file), { env = env() })
    assert.matches("name the server by its address", r.last and r.last.message or r.err)
    local id = begin().last.run
    clock = 2 * day + 5
    worker()
    s.control("server", { id = 111003, set = { nickname = "lost-acme" } })
    clock = 33 * day
    local w = worker()
    assert.equal(4, w.exit, w.err)
    assert.matches("server 111003 %(lost%-acme%) still holds data", home.run("show " .. id).out)
    assert.matches("acme/daily/x", vault())
  end)

  local function matrix(first, stride)
    local function ready()
      prepare()
      local id = begin().last.run
      clock = 2 * day + 5
      worker()
      clock = 33 * day
      worker()
      return id
    end
    local r = confirm(ready(), { LD_PRELOAD = "./" .. support.killat, KILLAT = "0", KILLAT_WHEN = "after", KILLAT_COUNT_FILE = home.dir .. "/commits" })
    assert.equal(0, r.exit, r.err)
    local commits = tonumber(support.slurp(home.dir .. "/commits"):match "%d+")
    assert.is_true(commits > 25, tostring(commits))
    for n = first, commits, stride do
      local id = ready()
      local where = ("commit %d of %d"):format(n, commits)
      local killed = confirm(id, { LD_PRELOAD = "./" .. support.killat, KILLAT = tostring(n), KILLAT_WHEN = n % 2 == 0 and "before" or "after",
        KILLAT_COUNT_FILE = home.dir .. "/commits" })
      assert.equal(9, killed.signal, where)
      if not home.run("show " .. id).out:find "  done, exit" then
        local again = confirm(id)
        assert.equal(0, again.exit, where .. ": " .. again.err .. tostring(again.last and again.last.message))
      end
      destroyed(where)
    end
  end

  it("that is killed at some of its commits destroys each thing once and nothing else", function() matrix(7, 17) end)
  it("that is killed at every commit destroys each thing once and nothing else #long", function() matrix(1, 1) end)
end)
