-- ssh_spec.lua: commands of the ssh module against private OpenSSH servers on loopback.
-- Trust and login, files and forwarding, and bad networks have specs of their own.

local host = require "host"
local ssh = require "ssh"
local sshd = require "support.sshd"
local slurp, collect, run, code_of = sshd.slurp, sshd.collect, sshd.run, sshd.code_of
local connect, eventually = sshd.connect, sshd.eventually

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

    it("may be long, but not longer than a packet", function()
      local status, out = run(session, "echo " .. ("x"):rep(31000))
      assert.equal(0, status)
      assert.equal(31001, #out)
      assert.equal("too_large", code_of(session:exec(("x"):rep(40000))))
      assert.equal(0, (run(session, "true")))
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
