-- ssh_config_spec.lua: what lb.ssh_config takes from an ssh configuration.

local host = require "host"
local config = require "lb.ssh_config"
local sshd = require "support.sshd"

describe("ssh_config #unit", function()
  local dir

  setup(function() dir = sshd.folder() end)
  teardown(function() sshd.sh("rm -rf " .. dir) end)

  local function write(text, name)
    sshd.spit(dir .. "/" .. (name or "config"), text)
    return dir .. "/config"
  end

  local function resolve(text, name, options)
    return config.resolve(name or "web", options, write(text))
  end

  it("leaves a name that no Host line names as it is", function()
    local address, o, notes = resolve("Host other\n  HostName 10.0.0.1\n", "web", { port = 5 })
    assert.equal("web", address)
    assert.same({ port = 5 }, o)
    assert.same({}, notes)
    assert.equal("web", (config.resolve("web", nil, dir .. "/none")))
    assert.equal("web", (config.resolve("web", nil, false)))
  end)

  it("takes host, port and user, whatever the form of the line", function()
    local address, o = resolve('# comment\nhost web\n\tHOSTNAME=10.0.0.1\n  port "2222" # why\n User = admin\n')
    assert.equal("10.0.0.1", address)
    assert.equal(2222, o.port)
    assert.equal("admin", o.user)
  end)

  it("lets options stand above the file and the first value above later ones", function()
    local _, o = resolve("Host web\nPort 2222\nHost *\nPort 3333\nUser late\n", "web", { user = "given" })
    assert.equal(2222, o.port)
    assert.equal("given", o.user)
  end)

  it("knows patterns and their negation, without regard to case", function()
    local text = "Host *.example.org !db.example.org 10.0.?.1\nPort 2222\n"
    local function port(name) return select(2, resolve(text, name)).port end
    assert.equal(2222, port("web.example.org"))
    assert.equal(2222, port("WEB.Example.org"))
    assert.equal(2222, port("10.0.5.1"))
    assert.is_nil(port("db.example.org"))
    assert.is_nil(port("10.0.55.1"))
    assert.is_nil(port("webxexample.org"))
    assert.is_nil(port("example.org"))
  end)

  it("takes the identities that are there, with their tokens", function()
    write("", "id_web_admin")
    write("", "id_2222")
    local _, o = resolve(("Host web\nHostName %%h.example.org\nUser admin\nPort 2222\nIdentityFile %s/id_%%n_%%r\n"
      .. "IdentityFile %s/id_%%p\nIdentityFile %s/none\nIdentitiesOnly yes\n"):format(dir, dir, dir))
    assert.same({ dir .. "/id_web_admin", dir .. "/id_2222" }, o.identities)
    assert.is_true(o.identities_only)
    local address = resolve("Host web\nHostName %h.example.org\n")
    assert.equal("web.example.org", address)
    _, o = resolve("Host web\nIdentityFile ~/.ssh/no-such-key-here\n")
    assert.is_nil(o.identities)
    _, o = resolve(("Host web\nIdentityFile %s/id_2222\n"):format(dir), "web", { identities = { "given" } })
    assert.same({ "given" }, o.identities)
  end)

  it("takes what concerns the host key and the agent", function()
    local _, o = resolve("Host web\nHostKeyAlias alias\nUserKnownHostsFile ~/a \"/b c\" none\nIdentityAgent none\n")
    assert.equal("alias", o.host_key_alias)
    assert.same({ host.home() .. "/a", "/b c" }, o.known_hosts)
    assert.is_false(o.agent)
    _, o = resolve("Host web\nIdentityAgent ~/sock\n")
    assert.equal(host.home() .. "/sock", o.agent)
    _, o = resolve("Host web\nIdentityAgent SSH_AUTH_SOCK\nConnectTimeout 7\nServerAliveInterval 9\n")
    assert.is_nil(o.agent)
    assert.equal(7, o.timeout)
    assert.equal(9, o.keepalive)
  end)

  it("follows Include, by name and by pattern", function()
    write("Port 2222\n", "one.conf")
    write("Host web\nUser admin\n", "two.conf")
    local _, o = resolve(("Host web\nInclude %s/*.conf\n"):format(dir))
    assert.equal(2222, o.port)
    assert.equal("admin", o.user)
    _, o = resolve(("Host other\nInclude %s/*.conf\n"):format(dir))
    assert.is_nil(o.port)
    assert.is_nil(o.user)
    assert.equal("web", (resolve("Include /no/such/file\n")))
    assert.has_error(function() resolve(("Include %s/config\n"):format(dir)) end)
  end)

  it("leaves Match blocks out, and says so", function()
    local _, o, notes = resolve("Match exec true\nPort 2222\nHost web\nUser admin\nMatch all\nPort 3333\n")
    assert.equal(3333, o.port)
    assert.equal("admin", o.user)
    assert.equal(1, #notes)
    assert.truthy(notes[1]:find("Match", 1, true))
  end)

  it("refuses hosts that are reached through another", function()
    for _, line in ipairs { "ProxyJump bastion", "ProxyCommand nc %h %p" } do
      local address, err = resolve("Host web\n" .. line .. "\n")
      assert.is_nil(address)
      assert.equal("unsupported", err.code)
      assert.truthy(err.message:find(line:match("^%S+"), 1, true))
    end
    assert.equal("web", (resolve("Host web\nProxyJump none\n")))
  end)

  it("refuses a port that is none", function()
    assert.has_error(function() resolve("Host web\nPort many\n") end)
  end)
end)
