-- ssh_login_spec.lua: whom the ssh module trusts and how it logs in, against private
-- OpenSSH servers on loopback.

local host = require "host"
local ssh = require "ssh"
local sshd = require "support.sshd"
local slurp, spit, run, code_of = sshd.slurp, sshd.spit, sshd.run, sshd.code_of
local connect, with_agent = sshd.connect, sshd.with_agent

describe("ssh #ssh", function()
  local server, session

  setup(function()
    server = sshd.start { "MaxSessions 10" }
    session = connect(server)
  end)

  teardown(function()
    session:close()
    server:stop()
  end)

  describe("the host key", function()
    local function try(more)
      local o = server:options { accept_new = false }
      for k, v in pairs(more) do o[k] = v end
      local s, err = ssh.connect("127.0.0.1", o)
      if not s then return nil, err end
      local key = s:hostkey()
      s:close()
      return key
    end

    local function known_hosts(...)
      local path = server.dir .. "/known_hosts"
      spit(path, table.concat({ ... }, "\n") .. "\n")
      return path
    end

    local function name() return ("[127.0.0.1]:%d "):format(server.port) end

    it("is Ed25519 where nothing is known", function()
      local key = assert(try { accept_new = true })
      assert.equal("ssh-ed25519", key.type)
      assert.equal(server:host_key(), key.key)
      assert.equal(server:fingerprint(), key.fingerprint)
      assert.equal("new", key.trusted)
    end)

    it("that nobody knows is refused, with its fingerprint", function()
      local code, message = code_of(try {})
      assert.equal("hostkey", code)
      assert.truthy(message:find(server:fingerprint(), 1, true))
    end)

    it("that is pinned is asked for by its type", function()
      local key = assert(try { host_keys = { server:host_key("ecdsa") } })
      assert.equal("ecdsa-sha2-nistp256", key.type)
      assert.equal("pinned", key.trusted)
      key = assert(try { host_keys = { server:host_key("rsa"), server:host_key("ed25519") .. " comment" } })
      assert.equal("ssh-ed25519", key.type)
    end)

    it("other than the pinned one is fatal and both are named", function()
      local other = sshd.folder()
      sshd.sh("ssh-keygen -q -t ed25519 -N '' -f " .. other .. "/k")
      local line = slurp(other .. "/k.pub")
      local p = io.popen("ssh-keygen -lf " .. other .. "/k.pub")
      local print = p:read("l"):match("SHA256:%S+")
      p:close()
      local code, message = code_of(try { host_keys = { line }, accept_new = true })
      assert.equal("hostkey", code)
      assert.truthy(message:find(print, 1, true))
      assert.truthy(message:find(server:fingerprint(), 1, true))
      -- also when it is pinned by known_hosts, hashed or not
      for _, hash in ipairs { "", "ssh-keygen -q -H -f " .. server.dir .. "/known_hosts >/dev/null 2>&1" } do
        local path = known_hosts(name() .. line:match("^%S+ %S+"))
        os.execute(hash == "" and "true" or hash)
        code, message = code_of(try { known_hosts = path, accept_new = true })
        assert.equal("hostkey", code)
        assert.truthy(message:find(print, 1, true), message)
        assert.truthy(message:find(server:fingerprint(), 1, true))
      end
      sshd.sh("rm -rf " .. other)
    end)

    it("is found in known_hosts, plain, hashed, among lines that libssh2 does not read", function()
      local path = known_hosts("# comment", "", "@cert-authority *.example.org " .. server:host_key(),
        "garbage", "other.example.org sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t",
        "host.example.org,[127.0.0.1]:" .. server.port .. " " .. server:host_key())
      assert.equal("known_hosts", assert(try { known_hosts = path }).trusted)
      path = known_hosts(name() .. server:host_key("ecdsa"))
      sshd.sh("ssh-keygen -q -H -f " .. path .. " >/dev/null 2>&1")
      assert.truthy(slurp(path):find("|1|", 1, true))
      local key = assert(try { known_hosts = path })
      assert.equal("ecdsa-sha2-nistp256", key.type)
      assert.equal("known_hosts", key.trusted)
    end)

    it("under the plain name counts for another port when it is the same, else it says nothing", function()
      assert.equal("known_hosts", assert(try { known_hosts = known_hosts("127.0.0.1 " .. server:host_key()) }).trusted)
      local path = known_hosts("127.0.0.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKLVQMGsHWrL3d5H1kqKfT0WUBHXGkTgyFV6QH9vW9Kv")
      assert.equal("new", assert(try { known_hosts = path, accept_new = true }).trusted)
    end)

    it("known by an alias is looked up by it", function()
      local path = known_hosts(("[web.example.org]:%d "):format(server.port) .. server:host_key())
      assert.equal("hostkey", code_of(try { known_hosts = path }))
      assert.equal("known_hosts", assert(try { known_hosts = path, host_key_alias = "Web.Example.org" }).trusted)
    end)

    it("known by a type that cannot be used is not accepted as new", function()
      local path = known_hosts(name() .. server:host_key("rsa"))
      assert.equal("hostkey", code_of(try { known_hosts = path, accept_new = true }))
    end)

    it("that is revoked is refused, pinned or not", function()
      local path = known_hosts("@revoked * " .. server:host_key(), "@revoked " .. name() .. server:host_key())
      local code, message = code_of(try { known_hosts = path, host_keys = { server:host_key() } })
      assert.equal("hostkey", code)
      assert.truthy(message:find("revoked", 1, true))
    end)

    it("is trusted by its fingerprint, whatever its type", function()
      local key = assert(try { fingerprint = server:fingerprint() })
      assert.equal("fingerprint", key.trusted)
      key = assert(try { fingerprint = server:fingerprint("ecdsa") .. "=" })
      assert.equal("ecdsa-sha2-nistp256", key.type)
      assert.equal("fingerprint", key.trusted)
    end)

    it("of another fingerprint is fatal", function()
      local wrong = "SHA256:" .. ("A"):rep(43)
      local code, message = code_of(try { fingerprint = wrong, accept_new = true })
      assert.equal("hostkey", code)
      assert.truthy(message:find(wrong, 1, true))
      assert.truthy(message:find(server:fingerprint(), 1, true))
    end)
  end)

  describe("logging in", function()
    local dir

    local function keygen(name, args)
      sshd.sh(("ssh-keygen -q %s -C %s -f %s/%s"):format(args, name, dir, name))
      return dir .. "/" .. name
    end

    local function authorize(...)
      local lines = {}
      for _, path in ipairs { ... } do lines[#lines + 1] = slurp(path .. ".pub") end
      spit(server.dir .. "/authorized_keys", table.concat(lines))
    end

    setup(function()
      dir = sshd.folder()
    end)

    teardown(function()
      sshd.sh("rm -rf " .. dir)
    end)

    after_each(function()
      authorize(server.key)
    end)

    it("says how", function()
      assert.same({ method = "publickey", identity = server.key }, session:auth())
      local a = session:address()
      assert.equal("127.0.0.1", a.own)
      assert.equal("127.0.0.1", a.peer)
      assert.equal(server.port, a.peer_port)
      assert.is_true(a.own_port > 0)
      assert.is_true(session:alive())
    end)

    it("works with keys of every kind that OpenSSH makes and takes", function()
      local kinds = { "-t ed25519 -N ''", "-t ecdsa -m PEM -N ''", "-t ecdsa -m PKCS8 -N ''" }
      -- libssh2 1.10 loses the secret number of an ECDSA key in OpenSSH's format, which the
      -- leak checker would count as ours
      if not slurp("/proc/self/maps"):find("libasan", 1, true) then
        for _, bits in ipairs { 256, 384, 521 } do kinds[#kinds + 1] = ("-t ecdsa -b %d -N ''"):format(bits) end
      end
      for i, args in ipairs(kinds) do
        local key = keygen("kind" .. i, args)
        authorize(key)
        local s, err = ssh.connect("127.0.0.1", server:options { identities = { key } })
        assert(s, args .. ": " .. tostring(err))
        assert.equal(0, (run(s, "true")))
        s:close()
      end
    end)

    it("takes a passphrase as secret, string or function", function()
      local key = keygen("locked", "-t ed25519 -N 'opensesame99' -a 4")
      authorize(key)
      local function auth(passphrase)
        local s, err = ssh.connect("127.0.0.1", server:options { identities = { key }, passphrase = passphrase })
        if not s then return nil, err end
        local a = s:auth()
        s:close()
        return a
      end
      assert.equal(key, assert(auth(host.secret("passphrase", "opensesame99"))).identity)
      assert.equal(key, assert(auth("opensesame99")).identity)
      local asked
      assert.equal(key, assert(auth(function(path)
        asked = path
        host.sleep(0.01)
        return host.secret("passphrase", "opensesame99")
      end)).identity)
      assert.equal(key, asked)
      local code, message = code_of(auth("wrong"))
      assert.equal("identity", code)
      assert.truthy(message:find("passphrase is wrong", 1, true))
      assert.falsy(message:find("opensesame99", 1, true))
      code, message = code_of(auth(nil))
      assert.equal("identity", code)
      assert.truthy(message:find("encrypted", 1, true))
      assert.equal("identity", code_of(auth(function() return nil end)))
      assert.has_error(function() auth(function() return 5 end) end)
      assert.has_error(function() auth(function() error("no", 0) end) end, "no")
    end)

    it("refuses an RSA key before it connects, and says what to use", function()
      if ssh.library_version() >= "1.11" then return end
      local key = keygen("rsa", "-t rsa -b 2048 -N ''")
      local pem = keygen("rsapem", "-t rsa -b 2048 -m PEM -N ''")
      for _, path in ipairs { key, pem } do
        local code, message = code_of(ssh.connect("127.0.0.1", server:options { port = 1, identities = { path } }))
        assert.equal("identity", code)
        assert.truthy(message:find(path, 1, true))
        assert.truthy(message:find("ssh-keygen -t ed25519", 1, true))
      end
      -- beside one that works it does no harm
      local s = assert(ssh.connect("127.0.0.1", server:options { identities = { key, server.key } }))
      assert.equal(server.key, s:auth().identity)
      s:close()
    end)

    it("refuses a key file that others can read", function()
      local key = keygen("open", "-t ed25519 -N ''")
      sshd.sh("chmod 644 " .. key)
      local code, message = code_of(ssh.connect("127.0.0.1", server:options { identities = { key } }))
      assert.equal("identity", code)
      assert.truthy(message:find("chmod 600", 1, true))
    end)

    it("says of each file what is wrong with it", function()
      local function why(path)
        local code, message = code_of(ssh.connect("127.0.0.1", server:options { identities = { path } }))
        assert.equal("identity", code)
        assert.truthy(message:find(path, 1, true), message)
        return message
      end
      assert.truthy(why(dir .. "/none"):find("No such file", 1, true))
      assert.truthy(why(dir):find("irectory", 1, true))
      spit(dir .. "/junk", "junk\n", "600")
      assert.truthy(why(dir .. "/junk"):find("not a private key", 1, true))
      spit(dir .. "/ppk", "PuTTY-User-Key-File-3: ssh-ed25519\n", "600")
      assert.truthy(why(dir .. "/ppk"):find("puttygen", 1, true))
      local text = slurp(server.key)
      for _, cut in ipairs { 40, 60, 100, 150, 200, 300 } do
        spit(dir .. "/cut", text:sub(1, cut), "600")
        local ok = ssh.connect("127.0.0.1", server:options { identities = { dir .. "/cut" } })
        assert.is_nil(ok)
      end
      assert.truthy(why(server.key .. ".pub"):find("no agent", 1, true))
      local code, message = code_of(ssh.connect("127.0.0.1", server:options { identities = {} , agent = false }))
      assert.truthy(code == "identity" or code == "auth_failed", message)
    end)

    it("with a wrong key lists what was offered", function()
      local key = keygen("stranger", "-t ed25519 -N ''")
      local code, message = code_of(ssh.connect("127.0.0.1", server:options { identities = { key } }))
      assert.equal("auth_failed", code)
      assert.truthy(message:find(key, 1, true))
      assert.truthy(message:find("SHA256:", 1, true))
    end)

    it("offers at most two keys, so that MaxAuthTries 3 and fail2ban are never reached", function()
      local one = sshd.start { "MaxAuthTries 3" }
      local keys = {}
      for i = 1, 5 do keys[i] = keygen("many" .. i, "-t ed25519 -N ''") end
      keys[6] = one.key
      local code, message = code_of(ssh.connect("127.0.0.1", one:options { identities = keys }))
      assert.equal("auth_failed", code)
      assert.truthy(message:find("4 more not offered", 1, true), message)
      local s = assert(ssh.connect("127.0.0.1", one:options { identities = { keys[1], one.key } }))
      s:close()
      local log = one:log()
      local _, failed = log:gsub("Failed publickey", "")
      assert.is_true(failed <= 3, log)
      assert.falsy(log:find("maximum authentication attempts", 1, true))
      one:stop()
    end)

    it("uses the agent, and only for what it holds", function()
      local key = keygen("inagent", "-t ed25519 -N ''")
      local ecdsa = keygen("ecagent", "-t ecdsa -N ''")
      authorize(key, ecdsa)
      with_agent(dir, { key }, function(sock)
        local s = assert(ssh.connect("127.0.0.1", server:options { identities = {}, agent = sock }))
        assert.same({ method = "agent", identity = "inagent" }, s:auth())
        assert.equal(0, (run(s, "true")))
        s:close()
        -- the private file is not needed, and an encrypted one not opened
        s = assert(ssh.connect("127.0.0.1", server:options { identities = { key .. ".pub" }, agent = sock }))
        assert.same({ method = "agent", identity = key .. ".pub" }, s:auth())
        s:close()
      end)
      with_agent(dir, { ecdsa }, function(sock)
        local s = assert(ssh.connect("127.0.0.1", server:options { identities = {}, agent = sock }))
        assert.equal("agent", s:auth().method)
        s:close()
        authorize(server.key)
        assert.equal("auth_failed", code_of(ssh.connect("127.0.0.1", server:options { identities = {}, agent = sock })))
        -- a given file comes before the agent's keys
        s = assert(ssh.connect("127.0.0.1", server:options { agent = sock }))
        assert.equal("publickey", s:auth().method)
        s:close()
      end)
    end)

    it("names the agent's key that cannot work", function()
      if ssh.library_version() >= "1.11" then return end
      local rsa = keygen("rsaagent", "-t rsa -b 2048 -N ''")
      with_agent(dir, { rsa }, function(sock)
        local code, message = code_of(ssh.connect("127.0.0.1",
          server:options { identities = { rsa }, agent = sock, identities_only = true }))
        assert.equal("identity", code)
        assert.truthy(message:find("rsaagent", 1, true))
      end)
    end)

    it("goes on without an agent that does not answer", function()
      local s = assert(ssh.connect("127.0.0.1", server:options { agent = dir .. "/nobody" }))
      s:close()
    end)

    it("as a user that is not there fails as with a wrong key", function()
      assert.equal("auth_failed", code_of(ssh.connect("127.0.0.1", server:options { user = "nobody-here" })))
    end)
  end)

  describe("public_key", function()
    it("reads private keys, locked ones and public ones alike", function()
      local dir = sshd.folder()
      for i, args in ipairs { "-t ed25519 -N ''", "-t ed25519 -N 'opensesame99' -a 4", "-t ecdsa -N ''",
        "-t rsa -b 2048 -N ''", "-t ecdsa -m PEM -N ''" } do
        local key = dir .. "/k" .. i
        sshd.sh(("ssh-keygen -q %s -C 'a comment' -f %s"):format(args, key))
        local line = slurp(key .. ".pub"):gsub("%s+$", "")
        assert.equal(line, ssh.public_key(key))
        assert.equal(line, ssh.public_key(key .. ".pub"))
        if not args:find("PEM") then
          os.remove(key .. ".pub")
          local bare = assert(ssh.public_key(key))
          assert.equal(line:match("^%S+ %S+"), bare:match("^%S+ %S+"))
          if not args:find("opensesame") then assert.equal(line, bare) end
        end
      end
      os.remove(dir .. "/k5.pub")
      assert.equal("identity", code_of(ssh.public_key(dir .. "/k5")))
      assert.equal("identity", code_of(ssh.public_key(dir .. "/none")))
      sshd.sh("rm -rf " .. dir)
    end)
  end)

  describe("agent_keys", function()
    it("lists what an agent has, which may be nothing", function()
      with_agent(server.dir, { server.key }, function(sock)
        assert.same({ (slurp(server.key .. ".pub"):gsub("%s+$", "")) }, ssh.agent_keys(sock))
      end)
      with_agent(server.dir, {}, function(sock) assert.same({}, ssh.agent_keys(sock)) end)
    end)

    it("says that there is none", function()
      assert.equal("no_agent", code_of(ssh.agent_keys(server.dir .. "/nobody")))
    end)
  end)
end)
