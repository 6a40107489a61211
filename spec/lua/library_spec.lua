-- library_spec.lua: what the Lua library decides without asking a server: packages of a
-- release, algorithms, tiers and ports, marked blocks. Servers are in the other specs here.
local script = require "lb.script"
local support = require "support.lbrun"

local function environment()
  local closure = { main = "runbooks/x.lua", paths = {} }
  function closure.read(_, name)
    return support.slurp((name:gsub("^lua/", "modules/lua/")))
  end
  function closure.chunkname(_, name) return "@" .. name end
  return script.environment(closure)
end

describe("the Lua library", function()
  local env = environment()
  local debian12 = { os_id = "debian", os_version = "12", pretty = "Debian 12" }
  local debian13 = { os_id = "debian", os_version = "13", pretty = "Debian 13" }

  it("leaves out or replaces what a release no longer has, and says so", function()
    local names, notes = env.apt.resolve({ "curl", "software-properties-common", "dnsutils" }, debian12)
    assert.are.same({ "curl", "software-properties-common", "dnsutils" }, names)
    assert.are.same({}, notes)
    names, notes = env.apt.resolve({ "curl", "software-properties-common", "dnsutils", "bind9-dnsutils" }, debian13)
    assert.are.same({ "curl", "bind9-dnsutils" }, names)
    assert.are.equal(2, #notes)
    assert.is_truthy(notes[1]:find("software-properties-common: left out on Debian 13", 1, true))
  end)

  it("knows the Docker packages of each supported release, and of no other", function()
    for _, os in ipairs { { "debian", "12" }, { "debian", "13" }, { "ubuntu", "22.04" }, { "ubuntu", "24.04" } } do
      assert.is_true(#env.docker.packages "distro" { os_id = os[1], os_version = os[2], pretty = "" } >= 3)
    end
    assert.has_error(function() env.docker.packages "distro" { os_id = "fedora", os_version = "40", pretty = "Fedora" } end)
    assert.are.same({ "docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin" },
      env.docker.packages "docker-ce" (debian12))
    assert.has_error(function() env.docker.resources { source = "snap" } end)
  end)

  local server = {
    kex = { "diffie-hellman-group1-sha1", "diffie-hellman-group14-sha256", "curve25519-sha256", "diffie-hellman-group16-sha512" },
    ciphers = { "3des-cbc", "aes128-ctr", "aes256-ctr", "aes256-gcm@openssh.com" },
    macs = { "hmac-sha1", "hmac-sha2-256", "hmac-sha2-256-etm@openssh.com" },
    hostkeys = { "ssh-rsa", "ssh-ed25519", "rsa-sha2-512" },
  }
  local function controller(changes)
    local c = { kex = { "curve25519-sha256" }, ciphers = { "aes256-ctr" }, macs = { "hmac-sha2-256" }, hostkeys = { "ssh-ed25519" } }
    for k, v in pairs(changes or {}) do c[k] = v end
    return c
  end

  it("puts sshd's strongest algorithms first and keeps what the controller speaks", function()
    local names = env.sshd.algorithms(server, controller())
    assert.are.equal("curve25519-sha256,diffie-hellman-group16-sha512", names.kex)
    assert.are.equal("aes256-gcm@openssh.com,aes256-ctr,aes128-ctr", names.ciphers)
    assert.are.equal("hmac-sha2-256-etm@openssh.com,hmac-sha2-256", names.macs)
    assert.are.equal("ssh-ed25519,rsa-sha2-512", names.hostkeys)
  end)

  it("adds a safe algorithm for a controller that speaks none of the strongest", function()
    local names = env.sshd.algorithms(server, controller { kex = { "diffie-hellman-group14-sha256" } })
    assert.are.equal("curve25519-sha256,diffie-hellman-group16-sha512,diffie-hellman-group14-sha256", names.kex)
  end)

  it("refuses to harden where only weak algorithms would be left in common", function()
    for kind, weak in pairs { kex = "diffie-hellman-group1-sha1", ciphers = "3des-cbc", macs = "hmac-sha1", hostkeys = "ssh-rsa" } do
      local fine, err = pcall(env.sshd.algorithms, server, controller { [kind] = { weak } })
      assert.is_false(fine)
      assert.are.equal("algorithms", err.code)
    end
  end)

  it("has 31 tools with ports and names of their own", function()
    local ports, subdomains = {}, {}
    assert.are.equal(31, #env.catalog.names())
    for _, id in ipairs(env.catalog.names()) do
      local t = env.catalog.get(id)
      if t.port then
        assert.is_nil(ports[t.port])
        ports[t.port] = id
      end
      if t.subdomain then
        assert.is_nil(subdomains[t.subdomain])
        subdomains[t.subdomain] = id
      end
    end
    for port, id in pairs { [3023] = "nextcloud", [3025] = "odoo", [3026] = "chatwoot", [3029] = "ghost",
      [3031] = "stalwart", [3008] = "uptime-kuma" } do
      assert.are.equal(id, ports[port])
    end
    assert.is_nil(env.catalog.get "nonsense")
  end)

  it("opens mail ports with the mail server alone", function()
    assert.are.same({}, env.catalog.public_ports { "nextcloud", "odoo" })
    assert.are.same({ "25/tcp", "587/tcp", "993/tcp" }, env.catalog.public_ports { "nextcloud", "stalwart" })
  end)

  it("finds a server smaller than its tier, with five percent to spare", function()
    local gib = 1 << 30
    local facts = { cpus = 4, memory = 7.65 * gib, disk = 153 * 10 ^ 9 }
    assert.are.same({}, env.catalog.shortfalls("lite", facts))
    facts = { cpus = 3, memory = 7.5 * gib, disk = 151 * 10 ^ 9 }
    assert.are.equal(3, #env.catalog.shortfalls("lite", facts))
    assert.are.equal(3, #env.catalog.shortfalls("enterprise", { cpus = 12, memory = 32 * gib, disk = 640 * 10 ^ 9 }))
  end)

  it("places, replaces and removes a block that others' lines surround", function()
    local text = env.file.with_block("a\nb\n", "x", "one\ntwo")
    assert.are.equal("a\nb\n# BEGIN lbrun x\none\ntwo\n# END lbrun x\n", text)
    assert.are.equal(text, env.file.with_block(text, "x", "one\ntwo"))
    assert.are.equal("a\nb\n", env.file.with_block(text, "x", nil))
    assert.are.equal("# BEGIN lbrun y\nz\n# END lbrun y\n", env.file.with_block("", "y", "z"))
  end)

  it("a guard is confirmed over a new connection only, and saves something", function()
    local view = { url = "ssh://a@b:1" }
    local ctx = { target = view, root = view, login = view }
    assert.has_error(function() env.guard.confirm(ctx, view, "x") end,
      nil)
    assert.has_error(function() env.guard.state_script "No Name" end)
  end)

  it("a sudoers name that sudo would skip is refused, and so is a user that is none", function()
    assert.has_error(function() env.sudoers.present { name = "a.b", content = "" } end)
    assert.has_error(function() env.sudoers.passwordless { user = "a b" } end)
  end)
end)
