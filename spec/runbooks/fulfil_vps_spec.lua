-- fulfil_vps_spec.lua: an order to FULFILLED on a VPS, and its tenant to deletion: netcup's
-- stand-in really boots a fresh one with the order's key, and provision.lua is the real one. Netcup, the Hub, the name
-- servers and the tool's image are stand-ins.
local json = require "json"
local process = require "process"
local support = require "support.lbrun"
local background = require "support.background"
local hubs = require "support.hub"
local netcups = require "support.netcup"
local provision = require "support.provision"
local vps = require "support.vps"

local token = "fulfilment-canary-token-0816"
local tools = { "uptime-kuma" }
local names = { "acme.example", "status.acme.example" }
local pool = 111007

describe("an order on a VPS #vps #slow", function()
  local s, home, hub, dns, server, clock
  local order = "o-77"

  setup(function()
    home = support.home()
    -- On a network of its own: another spec's name server may have the same port of the other.
    server = vps.up("order", { images = provision.images_of { "openclaw", "secrets-proxy", table.unpack(tools) }, home = home.dir .. "/sandbox" })
    local gateway = server.address:gsub("%d+$", "1")
    server:exec "touch /root/of-the-tenant-before"
    local old = server:exec "cat /etc/machine-id"
    assert.not_equal("", old)

    s = netcups.start()
    s.control("tasks", { scale = 0.001 })
    support.spit(home.dir .. "/machine", ([[#!/bin/sh
# What netcup's tasks do to the VPS.
export LBRUN_SANDBOX=%s
case $1 in
install) spec/sandbox/vps reimage order && spec/sandbox/vps exec order -- sh -c 'umask 077; cat >/root/.ssh/authorized_keys' ;;
on) spec/sandbox/vps start order ;;
off) spec/sandbox/vps stop order ;;
reboot) spec/sandbox/vps reboot order ;;
esac >>%s/machine.log 2>&1
]]):format(server.home, home.dir))
    support.sh(("chmod 755 %s/machine; mkdir -p -m 700 %s/state/lbrun %s/config/lbrun %s/orders"):format(home.dir, home.dir, home.dir, home.dir))
    s.control("server", { id = pool, machine = home.dir .. "/machine",
      set = { nickname = "pool", ipv4Addresses = { { id = 1, ip = server.address, netmask = "255.255.255.0", gateway = gateway } } } })
    s.login()
    support.sh(("cp %s %s/state/lbrun/netcup.json"):format(s.store, home.dir))
    support.spit(home.dir .. "/config/lbrun/netcup-dns.json",
      json.encode { customer = "100000", api_key = "api-key-canary-123", api_password = "api-password-canary-123" })
    support.sh(("chmod 600 %s/config/lbrun/netcup-dns.json; ssh-keygen -q -t ed25519 -N '' -f %s/key"):format(home.dir, home.dir))
    hub = hubs.new(home.dir .. "/hub", token, gateway).start()
    dns = assert(process.spawn({ "python3", "-B", "spec/support/dns.py", home.dir .. "/names.json", gateway .. ":5353", gateway },
      { kill_on_close = true }))
    support.spit(home.dir .. "/names.json", json.encode { zones = json.array { "acme.example" }, resolver = {}, authoritative = {} })
    assert(dns:read(20))
    support.spit(home.dir .. "/defaults.json", json.encode { admin_ssh_public_key = support.slurp(home.dir .. "/key.pub"),
      docker_source = "distro", acme = "self-signed", recipients = json.array { provision.recipient },
      resolvers = json.array { gateway .. ":5353", gateway } })
    support.spit(("%s/orders/%s.json"):format(home.dir, order), json.encode { order = order, tenant = "acme", domain = "acme.example",
      tier = "build", tools = json.array(tools) })
    clock = 0
  end)
  teardown(function()
    if dns then dns:close() end
    if hub then hub.stop() end
    if s then s.stop() end
    if server then server:down() end
    home.remove()
  end)

  local function words()
    return ("worker --once --json orders=%s/orders hub_url=%s runner_token=@%s defaults=%s/defaults.json runbook=runbooks/fulfil.lua -i %s/key")
      :format(home.dir, hub.url, hub.token_file, home.dir, home.dir)
  end
  local function environment()
    local o = s.settings()
    return { LBRUN_NETCUP_ISSUER = o.issuer, LBRUN_NETCUP_API = o.api, LBRUN_CCP_API = o.ccp, LD_PRELOAD = "./" .. support.clockat,
      CLOCKAT = tostring(clock) }
  end
  local function worker(later)
    clock = clock + (later or 0)
    return home.json(words(), { env = environment() })
  end

  -- The state that the order is in, and why.
  local function where()
    local row
    for _, line in ipairs(home.json("runs --json").lines) do
      if line.type == "run" and line.subject == "acme" and not line.parent then row = line end
    end
    if not row then return "no run" end
    for _, step in ipairs(json.decode(home.run({ "show", "--json", row.run }).out:match "[^\n]+").steps) do
      if step.status ~= "done" then return step.step, step.message or "" end
    end
    return row.status
  end
  local function is(state, what, r)
    local step, message = where()
    assert.equal(state, step, (message or "") .. "\n" .. (r.err or ""))
    if what then assert.matches(what, message .. r.err) end
  end

  it("installs a fresh server with its key, and waits for its names", function()
    local r = worker()
    is("DNS_PENDING", nil, r)
    assert.equal("", server:exec "ls /root/of-the-tenant-before 2>/dev/null")
    assert.equal(support.slurp(home.dir .. "/key.pub"), server:exec "cat /root/.ssh/authorized_keys")
    assert.equal("", server:exec "command -v docker")
  end)

  it("is provisioned again after a failure, on its server", function()
    local all = {}
    for _, name in ipairs(names) do all[name] = server.address end
    support.spit(home.dir .. "/names.json", json.encode { zones = json.array { "acme.example" }, resolver = all, authoritative = all })
    server:exec "chmod 644 /usr/bin/apt-get"
    is("PROVISIONING", nil, worker(301))
    is("PROVISIONING", "Permission denied", worker(61))
    server:exec "chmod 755 /usr/bin/apt-get"
  end)

  it("goes on after kill -9 in mid-provisioning, and is FULFILLED with a tenant that answers", function()
    clock = clock + 301
    local set = {}
    for name, value in pairs(environment()) do set[#set + 1] = name .. "=" .. support.quote(value) end
    local bg = background.start(home, words(), table.concat(set, " "))
    for _ = 1, 3000 do
      if server:exec "command -v docker" ~= "" or not bg:alive() then break end
      background.sleep(0.1)
    end
    assert.is_true(bg:alive(), support.slurp(bg.err))
    bg:kill()
    local r = worker()
    is("done", nil, r)
    local outside = vps.call({ "scan", "order", "22,80,443,22022" }, server)
    assert.equal("22 filtered\n80 open\n443 open\n22022 open\n", (outside:gsub("closed", "filtered")))
    local page, status = vps.call({ "outside", "--", "curl", "-sk", "--resolve", "status.acme.example:443:" .. server.address,
      "-o", "/dev/null", "-w", "%{http_code}", "https://status.acme.example/" }, server)
    assert.equal("200", page, tostring(status))
    assert.equal("", (support.sh(("ssh -F /dev/null -i %s/key -p 22022 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR letsbe-admin@%s sudo -n true")
      :format(home.dir, server.address))))
  end)

  it("was claimed, installed and told once, whatever was repeated", function()
    assert.equal(1, #s.requests "^POST .*/image ")
    assert.equal(1, #s.requests "^POST .*/ssh%-keys ")
    assert.same({}, s.control("log").violations)
    local fulfilled = 0
    for body, count in pairs(hub.taken "/api/v1/tenants/acme/notices") do
      if body:find('"kind":"fulfilled"', 1, true) then fulfilled = fulfilled + count end
    end
    assert.equal(1, fulfilled)
    local again = worker(3600)
    is("done", nil, again)
    assert.equal(1, #s.requests "^POST .*/image ")
    assert.equal(0, home.run("verify-journal").exit)
    local said = support.sh(("grep -rlF -e %s -e api-key-canary-123 -e api-password-canary-123 %s/state %s/machine.log; true"):format(token, home.dir, home.dir))
    assert.equal("", said)
  end)

  -- From here on the tenant has cancelled.
  local day, run = 86400, nil
  local function ssh(key, user, command)
    return (support.sh(("ssh -F /dev/null -i %s/%s -p 22022 -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR %s@%s %s 2>&1")
      :format(home.dir, key, user, server.address, support.quote(command))))
  end
  local function later(seconds)
    clock = clock + seconds
    return home.json(("worker --once --json hub_url=%s runner_token=@%s -i %s/key"):format(hub.url, hub.token_file, home.dir), { env = environment() })
  end

  it("lets the customer in for the 30 days after the cooling-off, and out again", function()
    support.sh(("ssh-keygen -q -t ed25519 -N '' -f %s/customer"):format(home.dir))
    local r = home.json(("runbooks/deprovision.lua tenant=acme domain=acme.example target=ssh://letsbe-admin@%s:22022 server=%d hub_url=%s runner_token=@%s export_ssh_public_key=%s -i %s/key --json --no-input")
      :format(server.address, pool, hub.url, hub.token_file, support.quote((support.slurp(home.dir .. "/customer.pub"):gsub("\n", ""))), home.dir),
      { env = environment() })
    run = r.last.run
    assert.matches("cooling%-off", r.last.message or r.err)
    assert.matches("Permission denied", ssh("customer", "letsbe-export", "true"))
    local opened = later(2 * day + 60)
    assert.equal("root\n", ssh("customer", "letsbe-export", "sudo -n id -un"), opened.err)
    assert.equal("root\n", ssh("key", "letsbe-admin", "sudo -n id -un"))
    assert.matches("Permission denied", ssh("customer", "letsbe-admin", "true"))
    local closed = later(30 * day)
    assert.matches("Permission denied", ssh("customer", "letsbe-export", "true"), closed.err)
    assert.equal("letsbe-admin\n", ssh("key", "letsbe-admin", "sudo -n sshd -T | sed -n 's/^allowusers //p'; ls /home | grep -v admin; sudo -n ls /etc/sudoers.d | grep export"))
    assert.not_equal("", server:exec "docker ps -q")
  end)

  it("is wiped behind its confirmation: another machine, switched off, in the pool", function()
    local machine = server:exec "cat /etc/machine-id"
    local r = home.json(("resume %s --confirm acme --json --no-input runner_token=@%s -i %s/key"):format(run, hub.token_file, home.dir), { env = environment() })
    assert.equal(3, r.exit, r.err)
    assert.same({ "not destroyed by this run: remote backups: no remote= was named" }, r.last.warnings)
    assert.matches("order%s+off", (vps.call({ "list" }, server)))
    assert.equal("pool", assert(s.open():server(pool)).nickname)
    assert.equal(2, #s.requests "^POST .*/image ")
    assert.equal(0, select(2, vps.call({ "start", "order" }, server)))
    assert.not_equal(machine, server:exec "cat /etc/machine-id")
    assert.equal("", server:exec "ls /opt/letsbe 2>/dev/null; command -v docker; cat /root/.ssh/authorized_keys")
    assert.same({}, s.control("log").violations)
  end)

  it("is the next customer's afterwards: reached at the same address, whose old host key is forgotten", function()
    support.spit(home.dir .. "/orders/o-2.json", json.encode { order = "o-2", tenant = "beta", domain = "acme.example", tier = "build",
      tools = json.array {} })
    local r = worker()
    local row
    for _, line in ipairs(home.json("runs --json").lines) do
      if line.type == "run" and line.subject == "beta" and not line.parent then row = line end
    end
    local done = {}
    for _, step in ipairs(json.decode(home.run({ "show", "--json", row.run }).out:match "[^\n]+").steps) do
      if step.status == "done" then done[#done + 1] = step.step end
    end
    assert.matches("^PAYMENT_CONFIRMED AWAITING_SERVER SERVER_READY", table.concat(done, " "), r.err)
    assert.equal("tenant-beta", assert(s.open():server(pool)).nickname)
    assert.equal(support.slurp(home.dir .. "/key.pub"), server:exec "cat /root/.ssh/authorized_keys")
  end)
end)
