-- ssh_network_spec.lua: the ssh module on bad networks, and against what is no SSH server.

local host = require "host"
local ssh = require "ssh"
local sshd = require "support.sshd"
local collect, run, code_of, connect = sshd.collect, sshd.run, sshd.code_of, sshd.connect

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

  describe("a bad network", function()
    local function via(net, more)
      local o = { port = net.port, timeout = 5 }
      for k, v in pairs(more or {}) do o[k] = v end
      return ssh.connect("127.0.0.1", server:options(o))
    end

    local networks = {}
    local function network(mode, ...)
      networks[#networks + 1] = sshd.network(mode, ...)
      return networks[#networks]
    end

    after_each(function()
      for _, net in ipairs(networks) do net.stop() end
      networks = {}
    end)

    it("that refuses says connect, a name that is none says resolve", function()
      local code, message = code_of(ssh.connect("127.0.0.1", server:options { port = 1 }))
      assert.equal("connect", code)
      assert.truthy(message:find("refused", 1, true))
      assert.equal("resolve", code_of(ssh.connect("no-such-host.invalid", server:options())))
    end)

    it("where the first address of a name refuses goes on to the next", function()
      local s = assert(ssh.connect("localhost", server:options()))
      assert.equal("127.0.0.1", s:address().peer)
      s:close()
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
end)
