-- sshd.lua: a private OpenSSH server on loopback for specs. Each has a folder of its own
-- with host keys, a user key and authorized_keys. It changes nothing outside of that folder.

local host = require "host"
local process = require "process"
local ssh = require "ssh"

local sshd = {}
local server = {}
server.__index = server

local here = debug.getinfo(1, "S").source:match("^@(.*)/") or "."
-- Below the ports that the kernel gives to connections: one of those cannot be bound.
local next_port = 20000 + host.pid() * 16 % 12000

local function sh(command)
  local ok, how, code = os.execute(command)
  if not ok then error(("%s: %s %d"):format(command, how, code), 2) end
end
sshd.sh = sh

function sshd.folder()
  local path = os.tmpname()
  os.remove(path)
  sh("mkdir -m 700 " .. path)
  return path
end

local function listening(port)
  local want = ("0100007F:%04X"):format(port)
  for line in io.lines("/proc/net/tcp") do
    local address, state = line:match("^%s*%d+: (%S+) %S+ (%S+)")
    if address == want and state == "0A" then return true end
  end
  return false
end
sshd.listening = listening

function sshd.port()
  repeat next_port = next_port < 32700 and next_port + 1 or 20000 until not listening(next_port)
  return next_port
end

-- Waits until something listens there; raises after ten seconds.
function sshd.await(port)
  for _ = 1, 500 do
    if listening(port) then return end
    host.sleep(0.02)
  end
  error("nothing listens on port " .. port, 2)
end

-- sshd.start { "MaxSessions 1", dir = ... } -> server: .port, .dir, .user, .key
function sshd.start(options)
  options = options or {}
  local self = setmetatable({}, server)
  self.dir = options.dir or sshd.folder()
  self.own_dir = not options.dir
  self.port = options.port or sshd.port()
  self.user = host.user()
  self.key = self.dir .. "/id"
  local argv = { "/bin/sh", here .. "/sshd.sh", self.dir, tostring(self.port) }
  for _, line in ipairs(options) do argv[#argv + 1] = line end
  self.process = assert(process.spawn(argv, { kill_on_close = true }))
  local ok = pcall(sshd.await, self.port)
  if not ok then
    local log = io.open(self.dir .. "/log")
    error("sshd did not start: " .. (log and log:read("a") or "no log"), 2)
  end
  return self
end

-- Options for ssh.connect that trust and know this server; more are merged in.
function server:options(more)
  local o = {
    port = self.port, user = self.user, identities = { self.key }, agent = false,
    known_hosts = false, accept_new = true, timeout = 20,
  }
  for k, v in pairs(more or {}) do o[k] = v end
  return o
end

-- The public host key of a type, "ssh-ed25519 AAAA..."; its fingerprint.
function server:host_key(kind)
  local f = assert(io.open(self.dir .. "/host_" .. (kind or "ed25519") .. ".pub"))
  local line = f:read("l"):match("^%S+ %S+")
  f:close()
  return line
end

function server:fingerprint(kind)
  local p = assert(io.popen("ssh-keygen -lf " .. self.dir .. "/host_" .. (kind or "ed25519") .. ".pub"))
  local print = p:read("l"):match("SHA256:%S+")
  p:close()
  return print
end

function server:log()
  local f = assert(io.open(self.dir .. "/log"))
  local text = f:read("a")
  f:close()
  return text
end

local function children(pid, list)
  local f = io.open(("/proc/%d/task/%d/children"):format(pid, pid))
  for child in (f and f:read("a") or ""):gmatch("%d+") do
    list[#list + 1] = child
    children(tonumber(child), list)
  end
  if f then f:close() end
  return list
end

-- Kills the connections that the server has, and what runs in them.
function server:kill_sessions()
  local pids = children(self.process:pid(), {})
  if #pids > 0 then os.execute("kill -KILL " .. table.concat(pids, " ") .. " 2>/dev/null") end
end

function server:stop()
  if self.process then
    self:kill_sessions()
    self.process:kill("TERM")
    self.process:wait(5)
    self.process:close()
    self.process = nil
  end
  if self.own_dir then sh("rm -rf " .. self.dir) end
end

-- A bad network (see slowproxy.py): sshd.network("proxy", port, delay_ms, bytes_per_second),
-- sshd.network "silent" -> { port, pid, signal(name), stop() }
function sshd.network(mode, ...)
  local net = { port = sshd.port() }
  local argv = { "python3", here .. "/slowproxy.py", tostring(net.port), mode }
  for _, v in ipairs { ... } do argv[#argv + 1] = tostring(v) end
  local child = assert(process.spawn(argv, { kill_on_close = true }))
  sshd.await(net.port)
  net.pid = child:pid()
  function net.signal(_, name) return child:kill(name) end
  function net.stop()
    child:kill("KILL")
    child:wait(5)
    child:close()
  end
  return net
end

-- What specs of ssh share.

function sshd.slurp(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read("a")
  f:close()
  return text
end

function sshd.spit(path, text, mode)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  if mode then sshd.sh(("chmod %s %s"):format(mode, path)) end
end

-- Reads a stream to its end -> output, errors | nil, err
function sshd.collect(stream, timeout)
  local out, err = {}, {}
  while true do
    local kind, data = stream:read(timeout or 20)
    if kind == "out" then out[#out + 1] = data
    elseif kind == "err" then err[#err + 1] = data
    elseif kind == "eof" then return table.concat(out), table.concat(err)
    else return nil, data end
  end
end

function sshd.run(session, command, input)
  local stream = assert(session:exec(command))
  if input then assert(stream:write(input)) end
  assert(stream:shut())
  local out, err = sshd.collect(stream)
  assert(out, tostring(err))
  local ended = assert(stream:wait(10))
  stream:close()
  return ended.status or ended.signal, out, err
end

-- Of a failed call: its code, its message.
function sshd.code_of(ok, err, ...)
  if ok ~= nil then error("it worked", 2) end
  if type(err) ~= "table" or err.module ~= "ssh" then error("not an error of ssh: " .. tostring(err), 2) end
  return err.code, err.message, ...
end

function sshd.connect(to, more)
  return assert(ssh.connect("127.0.0.1", to:options(more)))
end

function sshd.eventually(seconds, f)
  local til = host.monotonic() + seconds
  while not f() do
    if host.monotonic() > til then return false end
    host.sleep(0.02)
  end
  return true
end

-- Runs f with an agent of its own that holds the keys.
function sshd.with_agent(dir, keys, f)
  local sock = dir .. "/agent"
  os.remove(sock)
  local agent = assert(process.spawn({ "ssh-agent", "-D", "-a", sock }, { kill_on_close = true }))
  sshd.eventually(5, function() return host.stat(sock) end)
  for _, key in ipairs(keys) do
    sshd.sh(("SSH_AUTH_SOCK=%s ssh-add -q %s 2>/dev/null"):format(sock, key))
  end
  local ok, err = pcall(f, sock)
  agent:kill("TERM")
  agent:wait(5)
  agent:close()
  if not ok then error(err, 0) end
end

return sshd
