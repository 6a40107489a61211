-- ssh_files_spec.lua: sftp and forwarded services of the ssh module, against private
-- OpenSSH servers on loopback.

local host = require "host"
local process = require "process"
local sshd = require "support.sshd"
local slurp, run, code_of, connect = sshd.slurp, sshd.run, sshd.code_of, sshd.connect

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
      local own = assert(process.spawn({ "python3", "-c", [[
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
]], tostring(port) }, { kill_on_close = true }))
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
      local _ <close> = assert(session:forward_unix(dir .. "/s", "127.0.0.1", echo))
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
      local _ <close> = assert(session:forward_unix(dir .. "/s", "127.0.0.1", 1))
      assert.equal(1, through(dir .. "/s", 5))
      assert.equal(0, (run(session, "true")))
    end)

    it("says why there can be no socket", function()
      assert.equal("not_found", code_of(session:forward_unix(dir .. "/no/s", "127.0.0.1", echo)))
      local _ <close> = assert(session:forward_unix(dir .. "/s", "127.0.0.1", echo))
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
end)
