-- ssh_spec.lua: the ssh module against private OpenSSH servers and bad networks, all on
-- loopback. What the target layer makes of it is specified elsewhere.

local host = require "host"
local process = require "process"
local ssh = require "ssh"
local sshd = require "support.sshd"

local function slurp(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read("a")
  f:close()
  return text
end

local function spit(path, text, mode)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  if mode then sshd.sh(("chmod %s %s"):format(mode, path)) end
end

-- Reads a stream to its end.
local function collect(stream, timeout)
  local out, err = {}, {}
  while true do
    local kind, data = stream:read(timeout or 20)
    if kind == "out" then out[#out + 1] = data
    elseif kind == "err" then err[#err + 1] = data
    elseif kind == "eof" then return table.concat(out), table.concat(err)
    else return nil, data end
  end
end

local function run(session, command, input)
  local stream = assert(session:exec(command))
  if input then assert(stream:write(input)) end
  assert(stream:shut())
  local out, err = collect(stream)
  assert(out, tostring(err))
  local ended = assert(stream:wait(10))
  stream:close()
  return ended.status or ended.signal, out, err
end

local function code_of(ok, err, ...)
  assert.is_nil(ok)
  assert.is_table(err)
  assert.equal("ssh", err.module)
  return err.code, err.message, ...
end

local function connect(server, more)
  return assert(ssh.connect("127.0.0.1", server:options(more)))
end

local function eventually(seconds, f)
  local til = host.monotonic() + seconds
  while not f() do
    if host.monotonic() > til then return false end
    host.sleep(0.02)
  end
  return true
end

-- Runs f with an agent of its own that holds the keys.
local function with_agent(dir, keys, f)
  local sock = dir .. "/agent"
  os.remove(sock)
  local agent = assert(process.spawn { "ssh-agent", "-D", "-a", sock })
  eventually(5, function() return host.stat(sock) end)
  for _, key in ipairs(keys) do
    sshd.sh(("SSH_AUTH_SOCK=%s ssh-add -q %s 2>/dev/null"):format(sock, key))
  end
  local ok, err = pcall(f, sock)
  agent:kill("TERM")
  agent:wait(5)
  agent:close()
  if not ok then error(err, 0) end
end

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

  describe("a command", function()
    it("gives output, errors and status apart", function()
      local status, out, err = run(session, "echo out; echo err >&2; exit 7")
      assert.equal(7, status)
      assert.equal("out\n", out)
      assert.equal("err\n", err)
    end)

    it("reads what is written and sees the end of it", function()
      local status, out = run(session, "cat", "a\0b\n")
      assert.equal(0, status)
      assert.equal("a\0b\n", out)
    end)

    it("takes a secret as input", function()
      local secret = host.secret("spec", "correct horse battery")
      local _, out = run(session, "wc -c", secret)
      assert.equal("21\n", out)
    end)

    it("that is killed by a signal says which", function()
      assert.equal("KILL", (run(session, "kill -KILL $$")))
      assert.equal("TERM", (run(session, "kill -TERM $$")))
    end)

    it("gives its status while its output is held open by another", function()
      local stream = assert(session:exec("sleep 30 & exit 3"))
      assert.equal(3, assert(stream:wait(5)).status)
      stream:close()
    end)

    it("has an exit status of any 8 bits", function()
      for _, n in ipairs { 0, 1, 127, 128, 255 } do
        assert.equal(n, (run(session, "exit " .. n)))
      end
    end)

    it("says eof again and again", function()
      local stream = assert(session:exec("true"))
      assert.equal("eof", (stream:read()))
      assert.equal("eof", (stream:read()))
      assert.equal(0, stream:wait().status)
      assert.equal(0, stream:wait().status)
    end)

    it("with no output in time is a timeout, and goes on", function()
      local stream = assert(session:exec("sleep 0.3; echo late"))
      assert.equal("timeout", code_of(stream:read(0.05)))
      assert.equal("timeout", code_of(stream:read(0)))
      assert.equal("timeout", code_of(stream:wait(0.05)))
      assert.equal("late\n", (collect(stream)))
    end)

    it("that reads nothing stops the writer at its deadline, and for good", function()
      local stream = assert(session:exec("sleep 30"))
      assert.equal("timeout", code_of(stream:write(("x"):rep(8 << 20), 0.3)))
      assert.equal("closed", code_of(stream:write("more", 1)))
      stream:close()
      assert.equal(0, (run(session, "true")))
    end)

    it("that ends early ends the writer", function()
      local stream = assert(session:exec("head -c 5"))
      assert.equal("closed", code_of(stream:write(("x"):rep(16 << 20), 10)))
      assert.equal("xxxxx", (collect(stream)))
      assert.equal(0, stream:wait().status)
    end)

    it("that nobody reads is held back, and goes on when it is read", function()
      local stream = assert(session:exec("head -c 20000000 /dev/zero; echo done >&2"))
      host.sleep(0.3)
      assert.equal("timeout", code_of(stream:wait(0.2)))
      assert.equal(0, (run(session, "true")))
      local out, err = collect(stream)
      assert.equal(20000000, #out)
      assert.equal("done\n", err)
    end)

    it("of which only the errors are read gives all of both", function()
      local stream = assert(session:exec(
        "i=0; while [ $i -lt 2000 ]; do echo $i; echo $i >&2; i=$((i+1)); done"))
      local out, err = collect(stream)
      assert.equal(out, err)
      assert.equal("1999\n", out:sub(-5))
    end)

    it("whose stream is closed lets others go on", function()
      local stream = assert(session:exec("sleep 5"))
      stream:close()
      stream:close()
      assert.has_error(function() stream:read() end, "the stream is closed")
      assert.equal(0, (run(session, "true")))
    end)

    it("is closed at the end of its block", function()
      local kept
      do
        local stream <close> = assert(session:exec("cat"))
        kept = stream
      end
      assert.has_error(function() kept:write("x") end, "the stream is closed")
    end)

    it("whose stream is collected is closed in the background", function()
      for _ = 1, 12 do assert(session:exec("cat")) ; collectgarbage() ; collectgarbage() end
      assert.equal(0, (run(session, "true")))
    end)

    it("can be run two hundred times in a row", function()
      for i = 1, 200 do
        local status, out = run(session, "echo " .. i)
        assert.equal(0, status)
        assert.equal(i .. "\n", out)
      end
    end)

    it("ends a waiting reader when another task closes the stream", function()
      local stream = assert(session:exec("sleep 10"))
      local task = host.task(function() return stream:read(10) end)
      host.sleep(0.05)
      stream:close()
      local ok, kind, err = task:join(5)
      assert.is_true(ok)
      assert.is_nil(kind)
      assert.equal("closed", err.code)
    end)

    it("has one reader at a time", function()
      local stream = assert(session:exec("sleep 10"))
      local task = host.task(function() return stream:read(10) end)
      host.sleep(0.05)
      assert.has_error(function() stream:read(1) end)
      task:cancel()
      local _, _, err = task:join(5)
      assert.equal("interrupted", err.code)
      stream:close()
    end)

    it("cancelled while it starts leaves the session usable", function()
      for i = 1, 20 do
        local task = host.task(function() return session:exec("sleep 0.01") end)
        for _ = 1, i % 4 do host.sleep(0) end
        task:cancel()
        task:join(5)
      end
      collectgarbage()
      assert.equal(0, (run(session, "true")))
    end)

    it("raises where it cannot wait, and the session stays usable", function()
      assert.has_error(function()
        table.sort({ 1, 2, 3 }, function() session:exec("true") end)
      end)
      collectgarbage()
      assert.equal(0, (run(session, "true")))
    end)
  end)

  describe("channels", function()
    it("are four at most: one more waits until one is closed", function()
      local held = {}
      for i = 1, 4 do held[i] = assert(session:exec("cat")) end
      assert.equal("timeout", code_of(session:exec("true", { timeout = 0.2 })))
      local task = host.task(function() return session:exec("echo fifth", { timeout = 5 }) end)
      host.sleep(0.1)
      held[2]:shut()
      assert.equal("eof", (held[2]:read()))
      local ok, stream = task:join(5)
      assert.is_true(ok)
      assert.equal("fifth\n", (collect(assert(stream))))
      stream:close()
      for i = 1, 4 do held[i]:close() end
    end)

    it("carry ten megabytes each way at once, four of them, unharmed", function()
      local path = server.dir .. "/random"
      sshd.sh("head -c 10485760 /dev/urandom > " .. path)
      local data = slurp(path)
      local tasks = {}
      for i = 1, 4 do
        tasks[i] = host.task(function()
          local stream = assert(session:exec("cat"))
          local writer = host.task(function()
            assert(stream:write(data, 60))
            assert(stream:shut())
          end)
          local out = assert(collect(stream, 60))
          assert(writer:join(60))
          return out == data
        end)
      end
      for i = 1, 4 do
        local ok, same = tasks[i]:join(120)
        assert.is_true(ok, tostring(same))
        assert.is_true(same)
      end
    end)
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

  describe("algorithms", function()
    it("that are weak are not offered", function()
      local all = ssh.algorithms()
      for _, kind in ipairs { "kex", "ciphers", "macs", "hostkeys" } do
        assert.is_true(#all[kind] > 0, kind)
        for _, name in ipairs(all[kind]) do
          assert.falsy(name:find("sha1", 1, true) or name:find("cbc", 1, true) or name:find("md5", 1, true)
            or name:find("arcfour", 1, true) or name:find("3des", 1, true) or name:find("dss", 1, true)
            or name == "ssh-rsa" or name:find("ext-info", 1, true) or name:find("strict", 1, true), name)
        end
      end
      assert.equal("ssh-ed25519", all.hostkeys[1])
      assert.truthy(ssh.library_version():match("^%d+%.%d+"))
    end)

    it("agreed on are those of the lists", function()
      local agreed, all = session:methods(), ssh.algorithms()
      local function has(list, name)
        for _, v in ipairs(list) do if v == name then return true end end
        return false
      end
      assert.is_true(has(all.kex, agreed.kex))
      assert.is_true(has(all.ciphers, agreed.cipher))
      assert.is_true(has(all.macs, agreed.mac))
      assert.is_true(has(all.hostkeys, agreed.hostkey))
    end)

    it("each work when the server offers only them", function()
      local all = ssh.algorithms()
      local function only(line)
        local one = sshd.start { line }
        local s = connect(one)
        assert.equal(0, (run(s, "true")))
        s:close()
        one:stop()
      end
      for _, name in ipairs(all.kex) do only("KexAlgorithms " .. name) end
      for _, name in ipairs(all.ciphers) do only("Ciphers " .. name) end
      for _, name in ipairs(all.macs) do only("MACs " .. name) end
    end)

    it("that are not shared are an error in words", function()
      local one = sshd.start { "Ciphers aes128-cbc" }
      local code, message = code_of(ssh.connect("127.0.0.1", one:options()))
      assert.equal("connect", code)
      assert.truthy(message:find("no common algorithms", 1, true), message)
      one:stop()
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
      for i, args in ipairs { "-t ed25519 -N ''", "-t ecdsa -b 256 -N ''", "-t ecdsa -b 384 -N ''",
        "-t ecdsa -b 521 -N ''", "-t ecdsa -m PEM -N ''", "-t ecdsa -m PKCS8 -N ''" } do
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

  describe("sftp", function()
    local function path(name) return server.dir .. "/" .. name end

    it("writes and reads in pieces", function()
      local data = slurp("/proc/self/exe"):sub(1, 3000000)
      local f = assert(session:sftp_open(path("big"), "w", 416))
      for i = 1, #data, 700000 do assert.is_true(f:write(data:sub(i, i + 699999))) end
      assert.is_true(f:close())
      assert.is_true(f:close())
      assert.is_true(slurp(path("big")) == data)
      local stat = assert(session:sftp_stat(path("big")))
      assert.equal("file", stat.type)
      assert.equal("0640", stat.mode)
      assert.equal(#data, stat.size)
      assert.is_true(math.abs(stat.mtime - os.time()) < 100)
      local parts = {}
      f = assert(session:sftp_open(path("big"), "r"))
      while true do
        local part, err = f:read(100000)
        assert.is_nil(err)
        if not part then break end
        parts[#parts + 1] = part
      end
      assert.is_true(table.concat(parts) == data)
      f:close()
    end)

    it("takes a secret and makes what must not exist yet", function()
      local f = assert(session:sftp_open(path("secret"), "x"))
      assert(f:write(host.secret("spec", "s3cret-content")))
      f:close()
      assert.equal("s3cret-content", slurp(path("secret")))
      assert.equal("0600", session:sftp_stat(path("secret")).mode)
      assert.is_nil((session:sftp_open(path("secret"), "x")))
    end)

    it("makes folders, renames, removes, and says what it finds", function()
      assert.is_true(session:sftp_mkdir(path("dir"), 448))
      assert.equal("directory", session:sftp_stat(path("dir")).type)
      local f = assert(session:sftp_open(path("dir/a"), "w"))
      f:close()
      assert.is_true(session:sftp_rename(path("dir/a"), path("dir/b")))
      sshd.sh(("ln -s b %s"):format(path("dir/link")))
      assert.equal("link", session:sftp_stat(path("dir/link")).type)
      assert.is_true(session:sftp_unlink(path("dir/b")))
      assert.equal("not_found", code_of(session:sftp_unlink(path("dir/b"))))
      assert.equal("not_found", code_of(session:sftp_stat(path("nowhere"))))
      assert.equal("not_found", code_of(session:sftp_open(path("nowhere"), "r")))
      assert.equal("not_found", code_of(session:sftp_mkdir(path("no/where"))))
      assert.equal("not_found", code_of(session:sftp_rename(path("nowhere"), path("else"))))
      assert.equal("failed", code_of(session:sftp_mkdir(path("dir"))))
    end)

    it("goes on beside commands and from many tasks", function()
      local tasks = {}
      for i = 1, 8 do
        tasks[i] = host.task(function()
          local f = assert(session:sftp_open(path("task" .. i), "w"))
          assert(f:write(("%d\n"):format(i):rep(50000)))
          assert(f:close())
          return run(session, "wc -l < " .. path("task" .. i))
        end)
      end
      for i = 1, 8 do
        local ok, status, out = tasks[i]:join(30)
        assert.is_true(ok, tostring(status))
        assert.equal("50000", out:match("%d+"))
      end
    end)

    it("gives its channel up when commands need it, and comes back", function()
      assert(session:sftp_stat(path("id")))
      local held = {}
      for i = 1, 4 do held[i] = assert(session:exec("cat", { timeout = 5 })) end
      assert.equal("timeout", code_of(session:exec("true", { timeout = 0.1 })))
      for i = 1, 4 do held[i]:close() end
      assert(session:sftp_stat(path("id")))
    end)

    it("closes a file that nobody holds", function()
      for i = 1, 30 do assert(session:sftp_open(path("id"), "r")) end
      collectgarbage()
      do
        local f <close> = assert(session:sftp_open(path("id"), "r"))
        assert.equal(5, #f:read(5))
      end
      assert(session:sftp_stat(path("id")))
      collectgarbage()
    end)

    it("of a server without it is refused, and commands go on", function()
      local one = sshd.start { "Subsystem sftp /bin/false" }
      local s = connect(one)
      assert.is_nil((s:sftp_stat("/")))
      assert.equal(0, (run(s, "true")))
      s:close()
      one:stop()
    end)

    it("cancelled in the middle leaves the session usable", function()
      local f = assert(session:sftp_open(path("cut"), "w"))
      local task = host.task(function() return f:write(("x"):rep(20000000)) end)
      host.sleep(0.01)
      task:cancel()
      local _, ok, err = task:join(10)
      if not ok then
        assert.equal("interrupted", err.code)
        assert.equal("closed", code_of(f:write("more")))
      end
      f:close()
      assert.equal(0, (run(session, "true")))
    end)
  end)

  describe("forward_unix", function()
    local dir, echo, child

    -- A TCP service that sends back what it gets.
    local function service()
      local port = sshd.port()
      local own = assert(process.spawn { "python3", "-c", [[
import socketserver, sys
class H(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            d = self.request.recv(65536)
            if not d: break
            self.request.sendall(d)
class S(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
S(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
]], tostring(port) })
      sshd.await(port)
      return port, own
    end

    -- Sends `count` bytes through the socket and compares what comes back.
    local function through(path, count)
      local client = assert(process.spawn { "python3", "-c", [[
import socket, sys, os, threading
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect(sys.argv[1])
data = os.urandom(int(sys.argv[2]))
def send():
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
got = b""
while True:
    d = s.recv(65536)
    if not d: break
    got += d
sys.exit(0 if got == data else 1)
]], path, tostring(count) })
      while client:read(40) ~= "eof" do end
      local ended = client:wait(40)
      client:close()
      return ended.status
    end

    setup(function()
      dir = sshd.folder()
      echo, child = service()
    end)

    teardown(function()
      child:kill("KILL")
      child:wait(5)
      child:close()
      sshd.sh("rm -rf " .. dir)
    end)

    it("leads to a service of the server, for its owner alone", function()
      local listener = assert(session:forward_unix(dir .. "/s", "127.0.0.1", echo))
      assert.equal("0600", host.stat(dir .. "/s").mode)
      assert.equal(0, through(dir .. "/s", 5))
      assert.equal(0, through(dir .. "/s", 0))
      assert.equal(0, through(dir .. "/s", 5000000))
      listener:close()
      listener:close()
      assert.is_nil(host.stat(dir .. "/s"))
    end)

    it("carries many connections at once", function()
      local listener <close> = assert(session:forward_unix(dir .. "/s", "127.0.0.1", echo))
      local tasks = {}
      for i = 1, 12 do tasks[i] = host.task(through, dir .. "/s", 300000) end
      for i = 1, 12 do
        local ok, status = tasks[i]:join(60)
        assert.is_true(ok, tostring(status))
        assert.equal(0, status)
      end
      assert.equal(0, (run(session, "true")))
    end)

    it("to where nothing listens closes the connection", function()
      local listener <close> = assert(session:forward_unix(dir .. "/s", "127.0.0.1", 1))
      assert.equal(1, through(dir .. "/s", 5))
      assert.equal(0, (run(session, "true")))
    end)

    it("says why there can be no socket", function()
      assert.equal("not_found", code_of(session:forward_unix(dir .. "/no/s", "127.0.0.1", echo)))
      local listener <close> = assert(session:forward_unix(dir .. "/s", "127.0.0.1", echo))
      assert.equal("exists", code_of(session:forward_unix(dir .. "/s", "127.0.0.1", echo)))
      assert.has_error(function() session:forward_unix(("x"):rep(200), "127.0.0.1", echo) end)
    end)

    it("ends with its session, and removes its socket when collected", function()
      local s = connect(server)
      assert(s:forward_unix(dir .. "/s", "127.0.0.1", echo))
      s:close()
      assert.is_nil(host.stat(dir .. "/s"))
      s = connect(server)
      assert(s:forward_unix(dir .. "/s", "127.0.0.1", echo))
      s = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.is_nil(host.stat(dir .. "/s"))
    end)
  end)

  describe("a bad network", function()
    local function via(net, more)
      local o = { port = net.port, timeout = 5 }
      for k, v in pairs(more or {}) do o[k] = v end
      return ssh.connect("127.0.0.1", server:options(o))
    end

    local function network(mode, ...)
      local net = sshd.network(mode, ...)
      finally(function() net:stop() end)
      return net
    end

    it("that refuses says connect, a name that is none says resolve", function()
      local code, message = code_of(ssh.connect("127.0.0.1", server:options { port = 1 }))
      assert.equal("connect", code)
      assert.truthy(message:find("refused", 1, true))
      assert.equal("resolve", code_of(ssh.connect("no-such-host.invalid", server:options())))
    end)

    it("that accepts and never speaks is a timeout at the deadline", function()
      local net = network("silent")
      local began = host.monotonic()
      assert.equal("timeout", code_of(via(net, { timeout = 0.5 })))
      assert.is_true(host.monotonic() - began < 2)
    end)

    it("that closes at once says connect", function()
      local code, message = code_of(via(network("close")))
      assert.equal("connect", code)
      assert.truthy(message:find("closed the connection", 1, true))
    end)

    it("where something else answers says that it does not speak SSH", function()
      for _, mode in ipairs { "garbage", "endless" } do
        local code, message = code_of(via(network(mode)))
        assert.equal("connect", code)
        assert.truthy(message:find("does not speak SSH", 1, true), message)
      end
    end)

    it("with nonsense after the banner says connect", function()
      assert.equal("connect", code_of(via(network("banner"))))
    end)

    it("interrupted while it connects ends as interrupted", function()
      local net = network("silent")
      local task = host.task(function() return via(net) end)
      host.sleep(0.1)
      task:cancel()
      local ok, none, err = task:join(5)
      assert.is_true(ok)
      assert.is_nil(none)
      assert.equal("interrupted", err.code)
    end)

    it("that stops in the middle of the login is a timeout", function()
      local net = network("proxy", server.port, 60, 0)
      local task = host.task(function() return via(net, { timeout = 1 }) end)
      host.sleep(0.45)
      net:signal("USR1")
      local _, none, err = task:join(5)
      assert.is_nil(none)
      assert.equal("timeout", err.code)
    end)

    it("that is slow carries commands, much data and four channels", function()
      local net = network("proxy", server.port, 40, 400000)
      local s = assert(via(net, { timeout = 20 }))
      local tasks = {}
      for i = 1, 4 do
        tasks[i] = host.task(function()
          local data = ("%d."):format(i):rep(60000)
          local status, out = run(s, "cat", data)
          return status == 0 and out == data
        end)
      end
      for i = 1, 4 do
        local ok, same = tasks[i]:join(60)
        assert.is_true(ok, tostring(same))
        assert.is_true(same)
      end
      s:close()
    end)

    it("that goes quiet is noticed by the heartbeat", function()
      local net = network("proxy", server.port, 0, 0)
      local s = assert(via(net, { keepalive = 0.2 }))
      local stream = assert(s:exec("cat"))
      host.sleep(1)
      assert.is_true(s:alive())
      net:signal("USR1")
      local code, message = code_of(stream:read(10))
      assert.equal("closed", code)
      assert.truthy(message:find("no answer", 1, true), message)
      assert.is_false(s:alive())
      assert.equal("closed", code_of(s:exec("true")))
      assert.equal("closed", code_of(stream:wait()))
      assert.equal("closed", code_of(stream:write("x")))
      assert.equal("closed", code_of(stream:shut()))
      assert.equal("closed", code_of(s:sftp_stat("/")))
      assert.equal("closed", code_of(s:address()))
      assert.equal("closed", code_of(s:methods()))
      assert.equal("ssh-ed25519", s:hostkey().type)
      stream:close()
      s:close()
    end)

    it("that is quiet because nobody reads is not taken for dead", function()
      local net = network("proxy", server.port, 0, 0)
      local s = assert(via(net, { keepalive = 0.1 }))
      local stream = assert(s:exec("head -c 5000000 /dev/zero"))
      host.sleep(1.2)
      assert.is_true(s:alive())
      assert.equal(5000000, #collect(stream))
      s:close()
    end)

    it("that resets ends every wait", function()
      local net = network("proxy", server.port, 0, 0)
      local s = assert(via(net))
      local tasks = {}
      local stream = assert(s:exec("cat"))
      tasks[1] = host.task(function() return stream:read(20) end)
      tasks[2] = host.task(function() return stream:wait(20) end)
      tasks[3] = host.task(function() return stream:write(("x"):rep(1 << 26), 20) end)
      tasks[4] = host.task(function() return run(s, "sleep 20") end)
      host.sleep(0.1)
      net:signal("USR2")
      for i = 1, 3 do
        local ok, none, err = tasks[i]:join(10)
        assert.is_true(ok)
        if not (i == 1 and none == "out") then
          assert.is_nil(none)
          assert.equal("closed", err.code)
        end
      end
      assert.is_false((tasks[4]:join(10)))
      assert.is_false(s:alive())
    end)
  end)

  describe("a server", function()
    it("that is killed in the middle of a command ends it as closed, not with a status", function()
      local one = sshd.start()
      local s = connect(one)
      local stream = assert(s:exec("echo begun; sleep 30"))
      assert.equal("out", (stream:read()))
      one:kill_sessions()
      assert.equal("closed", code_of(stream:read()))
      assert.equal("closed", code_of(stream:wait()))
      assert.is_false(s:alive())
      s:close()
      one:stop()
    end)

    it("that allows one session at a time gets one at a time", function()
      local one = sshd.start { "MaxSessions 1" }
      local s = connect(one)
      local tasks = {}
      for i = 1, 6 do tasks[i] = host.task(run, s, "sleep 0.05; echo " .. i) end
      for i = 1, 6 do
        local ok, status, out = tasks[i]:join(20)
        assert.is_true(ok, tostring(status))
        assert.equal(0, status)
        assert.equal(i .. "\n", out)
      end
      local held = assert(s:exec("cat"))
      local code, message = code_of(s:exec("true", { timeout = 0.4 }))
      assert.equal("timeout", code)
      assert.truthy(message:find("MaxSessions", 1, true), message)
      held:close()
      assert.equal(0, (run(s, "true")))
      assert.truthy(s:sftp_stat("/"))
      assert.equal(0, (run(s, "true")))
      s:close()
      one:stop()
    end)

    it("that allows none refuses", function()
      local one = sshd.start { "MaxSessions 0" }
      local s = connect(one)
      assert.equal("refused", code_of(s:exec("true")))
      assert.equal("refused", code_of(s:sftp_stat("/")))
      s:close()
      one:stop()
    end)

    it("that wants new keys all the time gets them", function()
      local one = sshd.start { "RekeyLimit 256K" }
      local s = connect(one)
      local data = slurp("/proc/self/exe"):sub(1, 3000000)
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = host.task(function()
          local stream = assert(s:exec("cat"))
          local writer = host.task(function()
            assert(stream:write(data, 30))
            assert(stream:shut())
          end)
          local out, err = collect(stream, 30)
          assert(out, tostring(err))
          writer:join(30)
          return out == data
        end)
      end
      for i = 1, 3 do
        local ok, same = tasks[i]:join(60)
        assert.is_true(ok, tostring(same))
        assert.is_true(same)
      end
      local f = assert(s:sftp_open("/proc/self/exe", "r"))
      local total = 0
      while total < 2000000 do
        local part = f:read()
        if not part then break end
        total = total + #part
      end
      f:close()
      assert.equal(0, (run(s, "true")))
      s:close()
      one:stop()
    end)

    it("that asks whether we are there is answered, also when nothing runs", function()
      local one = sshd.start { "ClientAliveInterval 1", "ClientAliveCountMax 2" }
      local s = connect(one, { keepalive = 0 })
      host.sleep(4.5)
      assert.equal(0, (run(s, "true")))
      s:close()
      one:stop()
    end)

    it("that goes while nothing runs is noticed", function()
      local one = sshd.start()
      local s = connect(one, { keepalive = 0 })
      assert.equal(0, (run(s, "true")))
      one:kill_sessions()
      assert.is_true(eventually(5, function() return not s:alive() end))
      one:stop()
    end)

    it("uses no time of ours while nothing happens", function()
      local stream = assert(session:exec("sleep 20"))
      local function ticks()
        local f = io.open("/proc/self/stat")
        local u, k = f:read("a"):match("%) %S (.*)$"):match("^" .. ("%S+ "):rep(10) .. "(%d+) (%d+)")
        f:close()
        return tonumber(u) + tonumber(k)
      end
      local before = ticks()
      host.sleep(1.5)
      assert.is_true(ticks() - before < 15)
      stream:close()
    end)
  end)

  describe("the end of a session", function()
    it("by close ends what is pending, and can be repeated", function()
      local s = connect(server)
      local stream = assert(s:exec("cat"))
      local task = host.task(function() return stream:read(20) end)
      local file = assert(s:sftp_open(server.dir .. "/id", "r"))
      host.sleep(0.05)
      assert.is_true(s:close())
      assert.is_true(s:close())
      local ok, none, err = task:join(5)
      assert.is_true(ok)
      assert.is_nil(none)
      assert.equal("closed", err.code)
      assert.equal("closed", code_of(file:read()))
      assert.equal("closed", code_of(file:close()))
      assert.equal("closed", code_of(s:exec("true")))
      assert.is_false(s:alive())
      stream:close()
    end)

    it("comes with its block", function()
      local kept
      do
        local s <close> = connect(server)
        kept = s
      end
      assert.is_false(kept:alive())
    end)

    it("by collection leaves nothing open, whatever was pending", function()
      local function connections()
        local n = 0
        for line in io.lines("/proc/net/tcp") do
          if line:find((":%04X 01 "):format(server.port)) then n = n + 1 end
        end
        return n
      end
      collectgarbage()
      collectgarbage()
      assert.is_true(eventually(5, function() return connections() <= 1 end))
      do
        local s = connect(server)
        local stream = assert(s:exec("cat"))
        stream:write("x")
        s:sftp_open(server.dir .. "/id", "r")
        local task = host.task(function() return s:exec("sleep 1") end)
        host.sleep(0)
        task:cancel()
        task:join(5)
      end
      collectgarbage()
      collectgarbage()
      assert.is_true(eventually(5, function() return connections() <= 1 end))
    end)

    it("while a worker thread logs in is clean", function()
      local net = sshd.network("proxy", server.port, 30, 0)
      for i = 1, 12 do
        local task = host.task(function()
          return ssh.connect("127.0.0.1", server:options { port = net.port })
        end)
        host.sleep(i * 0.03)
        task:cancel()
        task:join(5)
        collectgarbage()
      end
      net:stop()
    end)

    it("keeps the session for the sake of its streams", function()
      local stream = assert(connect(server):exec("echo kept"))
      collectgarbage()
      collectgarbage()
      assert.equal("kept\n", (collect(stream)))
      stream:close()
    end)
  end)

  describe("misuse raises", function()
    local values = { 5, 2.5, true, {}, function() end, "text", coroutine.create(function() end) }

    local function refuses(f, ...)
      local args = table.pack(...)
      assert.has_error(function() f(table.unpack(args, 1, args.n)) end)
    end

    it("for every function of the module", function()
      for _, v in ipairs(values) do
        if type(v) ~= "string" and type(v) ~= "number" then
          refuses(ssh.connect, v)
          refuses(ssh.public_key, v)
          refuses(ssh.agent_keys, v)
        end
        if type(v) ~= "table" then refuses(ssh.connect, "h", v) end
      end
      refuses(ssh.connect)
      refuses(ssh.connect, "")
      refuses(ssh.connect, "a\0b")
      refuses(ssh.connect, ("a"):rep(300))
      refuses(ssh.public_key)
      refuses(ssh.public_key, "x", {})
    end)

    it("for every option of connect", function()
      local wrong = {
        port = { "22", 0, 65536, 2.5, true }, user = { 5, {}, true, "a\0" }, timeout = { "1", -1, {}, 0 / 0 },
        identities = { "path", 5, true, { 5 }, { {} } }, passphrase = { 5, true, {}, "a\0b" },
        agent = { 5, {} }, identities_only = { "yes", 1 }, host_keys = { "key", { "junk" }, { 5 }, 5 },
        fingerprint = { 5, "MD5:aa", ("SHA256:"):rep(20) }, known_hosts = { 5, true, { 5 } },
        host_key_alias = { 5, {} }, accept_new = { "yes", 1 }, keepalive = { "1", -1 }, unknown = { 1 },
      }
      for name, list in pairs(wrong) do
        for _, v in ipairs(list) do
          assert.has_error(function() ssh.connect("127.0.0.1", { [name] = v }) end, nil, name)
        end
      end
      refuses(ssh.connect, "127.0.0.1", { 1 })
    end)

    it("for every method of every object, with every wrong type and on every wrong object", function()
      local stream = assert(session:exec("cat"))
      local file = assert(session:sftp_open(server.dir .. "/id", "r"))
      local listener = assert(session:forward_unix(server.dir .. "/misuse", "127.0.0.1", 1))
      for _, object in ipairs { session, stream, file, listener } do
        for _, v in ipairs(values) do
          for _, name in ipairs { "exec", "hostkey", "auth", "address", "methods", "alive", "close", "read", "write",
            "shut", "wait", "sftp_open", "sftp_rename", "sftp_unlink", "sftp_mkdir", "sftp_stat", "forward_unix" } do
            local method = object[name]
            if method then
              refuses(method, v)
              refuses(method)
              for _, other in ipairs { session, stream, file, listener } do
                if other ~= object then refuses(method, other) end
              end
            end
          end
        end
      end
      for _, v in ipairs { true, {}, function() end } do
        refuses(session.exec, session, v)
        refuses(session.exec, session, "true", "text")
        refuses(session.exec, session, "true", { timeout = v })
        refuses(session.exec, session, "true", { unknown = 1 })
        refuses(stream.read, stream, v)
        refuses(stream.write, stream, v)
        refuses(stream.write, stream, "x", v)
        refuses(stream.wait, stream, v)
        refuses(session.sftp_open, session, v)
        refuses(session.sftp_open, session, "/x", v)
        refuses(session.sftp_open, session, "/x", "r", v)
        refuses(session.sftp_rename, session, "/x", v)
        refuses(session.sftp_rename, session, v, "/x")
        refuses(session.sftp_unlink, session, v)
        refuses(session.sftp_mkdir, session, v)
        refuses(session.sftp_mkdir, session, "/x", v)
        refuses(session.sftp_stat, session, v)
        refuses(file.read, file, v)
        refuses(file.write, file, v)
        refuses(session.forward_unix, session, v, "h", 1)
        refuses(session.forward_unix, session, "/x", v, 1)
        refuses(session.forward_unix, session, "/x", "h", v)
      end
      refuses(session.exec, session, "a\0b")
      refuses(session.exec, session, "true", { timeout = -1 })
      refuses(stream.read, stream, -1)
      refuses(stream.read, stream, 0 / 0)
      refuses(stream.write, stream, nil)
      refuses(session.sftp_open, session, "/x", "q")
      refuses(session.sftp_open, session, "/x", "w", 8 ^ 5)
      refuses(session.sftp_open, session, "", "r")
      refuses(session.sftp_stat, session, "a\0b")
      refuses(file.read, file, 0)
      refuses(file.read, file, 1 << 30)
      refuses(session.forward_unix, session, "/x", "h", 0)
      refuses(session.forward_unix, session, "/x", "h", 70000)
      refuses(session.forward_unix, session, "", "h", 1)
      stream:shut()
      refuses(stream.write, stream, "x")
      stream:close()
      file:close()
      listener:close()
      refuses(stream.read, stream)
      refuses(stream.write, stream, "x")
      refuses(stream.shut, stream)
      refuses(stream.wait, stream)
      refuses(file.read, file)
      refuses(file.write, file, "x")
      assert.equal(0, (run(session, "true")))
    end)
  end)
end)
