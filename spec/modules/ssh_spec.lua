-- ssh_spec.lua: the ssh module against private OpenSSH servers and bad networks, all on
-- loopback. What the target layer makes of it is specified elsewhere.

local host = require "host"
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
end)
