-- target.lua: one interface over ssh:// and local: targets. A connection has two views,
-- the login user's and root's (by sudo -n), that offer run, try, job, put, get, read,
-- stat, sudo, forward. It keeps no journal and takes no lock.
local host = require "host"
local process = require "process"
local ssh = require "ssh"
local crypto = require "crypto"
local util = require "lb.util"
local shell = require "lb.shell"
local ssh_config = require "lb.ssh_config"

local target = {}

-- target.parse(url) -> { kind, user, host, port, fingerprint, url }; raises usage.
function target.parse(url)
  if url == "local:" or url == "local" then return { kind = "local", url = "local:" } end
  local rest = url:match("^ssh://(.+)$")
  if not rest then
    util.raise("usage", ("'%s' is not a target: ssh://user@host:port, local:, or a tenant of tenants.json")
      :format(url))
  end
  local spec = { kind = "ssh" }
  local base, query = rest:match("^([^?]*)%??(.*)$")
  spec.fingerprint = query:match("fingerprint=(SHA256:[%w+/=]+)")
  if query ~= "" and not spec.fingerprint then
    util.raise("usage", ("target '%s': after '?' only fingerprint=SHA256:... is known"):format(url))
  end
  base = base:gsub("/+$", "")
  local user, where = base:match("^([^@]+)@(.+)$")
  spec.user = user
  where = where or base
  local name, port = where:match("^%[([^%]]+)%]:?(%d*)$")
  if not name then name, port = where:match("^([^:]+):?(%d*)$") end
  if not name or (user and user:find("[:%s]")) or name:find("%s") then
    util.raise("usage", ("target '%s' does not read as ssh://user@host:port (a password has no place in it)")
      :format(url))
  end
  spec.host, spec.port = name, tonumber(port)
  if spec.port and (spec.port < 1 or spec.port > 65535) then
    util.raise("usage", ("target '%s': port %s is out of range"):format(url, port))
  end
  spec.url = target.show(spec)
  return spec
end

function target.show(spec)
  if spec.kind == "local" then return "local:" end
  local name = spec.host:find(":", 1, true) and "[" .. spec.host .. "]" or spec.host
  return "ssh://" .. (spec.user and spec.user .. "@" or "") .. name ..
    (spec.port and ":" .. spec.port or "")
end

-- A declared path "user@:port" on the host of `spec`.
function target.sibling(spec, path)
  if path:match("^ssh://") then return target.parse(path) end
  local user, port = path:match("^([^@%s:]+)@:(%d+)$")
  if not user then
    util.raise("runbook", ("access path '%s' is not of the form user@:port"):format(path))
  end
  local other = { kind = "ssh", user = user, host = spec.host, port = tonumber(port) }
  other.url = target.show(other)
  return other
end

-- Connections ------------------------------------------------------------------------

local connection = {}
connection.__index = connection

-- Passphrases of key files, asked for once and one at a time: a run connects more than once,
-- and by several paths side by side.
local passphrases, asking = {}, false
local function passphrase(path)
  while asking do
    if not host.sleep(0.05) then return nil end
  end
  if not passphrases[path] then
    asking = true
    local _ <close> = setmetatable({}, { __close = function() asking = false end })
    passphrases[path] = host.ask(("passphrase of %s (not shown): "):format(path), { secret = true })
  end
  return passphrases[path]
end

-- What ssh.connect is asked for: the target's own words, then ~/.ssh/config, then the
-- user's usual keys.
local function resolve(spec, options)
  local name, all, notes = ssh_config.resolve(spec.host, {
    port = spec.port, user = spec.user, timeout = options.timeout, host_keys = options.host_keys,
    fingerprint = options.fingerprint, accept_new = options.accept_new,
    passphrase = not options.no_input and passphrase or nil,
    identities = options.identities and #options.identities > 0 and options.identities or nil,
  })
  if not name then return nil, all end
  if not all.identities then
    all.identities = {}
    for _, key in ipairs { "id_ed25519", "id_ecdsa", "id_rsa" } do
      local path = (host.home() or "") .. "/.ssh/" .. key
      if host.stat(path) then table.insert(all.identities, path) end
    end
  end
  all.timeout, all.keepalive = all.timeout or 15, all.keepalive or 15
  return name, all, notes
end

-- The private key files that would be offered to a target.
function target.identities(spec, explicit)
  local name, all = resolve(spec, { identities = explicit })
  return name and all.identities or explicit or {}
end

-- target.connect(spec, options) -> connection | nil, err. options: identities,
-- host_keys, fingerprint, accept_new, timeout, no_input.
function target.connect(spec, options)
  local conn = setmetatable({ spec = spec, url = spec.url, shells = {} }, connection)
  if spec.kind == "ssh" then
    local name, all = resolve(spec, options or {})
    if not name then return nil, all end
    local session, err = ssh.connect(name, all)
    if not session then return nil, err end
    conn.session = session
  end
  return conn
end

function connection:open(command)
  local stream, err
  if self.session then stream, err = self.session:exec(command, { timeout = 30 })
  else stream, err = process.spawn({ "/bin/sh", "-c", command }, { kill_on_close = true }) end
  if stream then return stream end
  if type(err) == "table" and err.code == "interrupted" then
    if host.interrupted() < 2 then return self:open(command) end
    util.raise("detached", "detached before the command was started")
  end
  util.raise("lost", ("no channel to %s: %s"):format(self.url, tostring(err)))
end

function connection:close()
  if self.closed then return end
  self.closed = true
  for _, listener in ipairs(self.listeners or {}) do listener:close() end
  for _, s in pairs(self.shells) do s:close() end
  if self.session then self.session:close() end
end

function connection:host_key()
  return self.session and self.session:hostkey()
end

-- All that is asked of a server at first: one round trip.
local facts_script = [[
u=$(id -u); echo "uid=$u"; echo "user=$(id -un)"; echo "home=$HOME"
say() { v=; [ -r "$2" ] && read -r v <"$2"; echo "$1=$v"; }
say machine_id /etc/machine-id
say boot_id /proc/sys/kernel/random/boot_id
say init /proc/1/comm
uname -nm | { read -r n m; echo "hostname=$n"; echo "machine=$m"; }
echo "cpus=$(nproc 2>/dev/null || echo 0)"
echo "arch=$(dpkg --print-architecture 2>/dev/null)"
while read -r k v x; do [ "$k" = MemTotal: ] && echo "memory_kb=$v" && break; done </proc/meminfo
df -Pk / | { read -r x; read -r x v x; echo "disk_kb=$v"; }
echo "client=${SSH_CONNECTION%% *}"
if [ "$u" = 0 ]; then echo sudo=root; elif sudo -n true 2>/dev/null; then echo sudo=yes; else echo sudo=no; fi
[ ! -r /etc/os-release ] || while IFS= read -r v || [ -n "$v" ]; do echo "os.$v"; done </etc/os-release
for f in /etc/ssh/ssh_host_*_key.pub; do [ -r "$f" ] && read -r k v x <"$f" && echo "hostkey=$k $v"; done
date +clock=%s
true]]

function connection:facts()
  if self.fact_table then return self.fact_table end
  local raw, keys = {}, {}
  local result = self:view(false):try(facts_script, { timeout = 30 })
  for key, value in result.stdout:gmatch("([%w_.]+)=([^\n]*)\n?") do
    if key == "hostkey" then keys[#keys + 1] = value
    elseif key:sub(1, 3) == "os." then raw[key] = value:match("^[\"']?(.-)[\"']?$")
    else raw[key] = value end
  end
  local id = (raw["os.ID"] or "unknown"):lower()
  self.fact_table = {
    uid = tonumber(raw.uid), user = raw.user, home = raw.home, hostname = raw.hostname,
    machine_id = raw.machine_id, boot_id = raw.boot_id, machine = raw.machine,
    arch = raw.arch ~= "" and raw.arch or raw.machine,
    cpus = tonumber(raw.cpus), memory = (tonumber(raw.memory_kb) or 0) * 1024,
    disk = (tonumber(raw.disk_kb) or 0) * 1024, init = raw.init,
    os_id = id, os_version = raw["os.VERSION_ID"] or "", codename = raw["os.VERSION_CODENAME"] or "",
    pretty = raw["os.PRETTY_NAME"] or id, client = raw.client ~= "" and raw.client or nil,
    sudo = raw.sudo == "root" or raw.sudo == "yes", host_keys = keys,
    clock = tonumber(raw.clock),
  }
  return self.fact_table
end

function connection:is_root()
  return self.root_login == true or (self.fact_table and self.fact_table.uid == 0)
end

-- Views ------------------------------------------------------------------------------

local view = {}
view.__index = view

function connection:view(as_root)
  local key = as_root and "root_view" or "login_view"
  if not self[key] then
    self[key] = setmetatable({ conn = self, as_root = as_root or false }, view)
  end
  return self[key]
end

function view:sudo()
  return self.conn:view(true)
end

function view:needs_sudo()
  return self.as_root and not self.conn:is_root()
end

function view:require_root()
  if self:needs_sudo() and not self.conn:facts().sudo then
    util.raise("sudo", ("%s may not use sudo without a password on %s: log in as root, or give it a sudoers entry")
      :format(self.conn:facts().user or "the login user", self.conn.url))
  end
end

function view:shell()
  local key = self:needs_sudo() and "root" or "login"
  local s = self.conn.shells[key]
  if s and not s.dead then return s end
  if key == "root" then self:require_root() end
  s = shell.open(self.conn, key == "root" and "exec sudo -n -H /bin/sh" or "exec /bin/sh")
  self.conn.shells[key] = s
  return s
end

-- A path as one word that no command takes for an option or for its standard input.
local function place(path)
  if type(path) ~= "string" or path == "" then util.misuse("a path is a text that is not empty") end
  return util.quote(path:sub(1, 1) == "-" and "./" .. path or path)
end

-- run{ "a", "b", stdin = x } and run({ "a", "b" }, { stdin = x }) are the same.
local known = {
  stdin = true, timeout = true, ok = true, discard = true, quiet = true, env = true, cwd = true,
}
local function arguments(cmd, options)
  local merged = {}
  for k, v in pairs(options or {}) do merged[k] = v end
  local text
  if type(cmd) == "table" then
    text = util.argv(cmd)
    for k, v in pairs(cmd) do
      if type(k) ~= "number" then merged[k] = v end
    end
  elseif type(cmd) == "string" then
    text = cmd
  else
    util.misuse("a command is a list of words or a shell string, not a " .. type(cmd))
  end
  for k in pairs(merged) do
    if not known[k] then
      util.misuse(("unknown option '%s' of a command"):format(tostring(k)) ..
        util.did_you_mean(tostring(k), util.keys(known)))
    end
  end
  local prefix = ""
  for _, name in ipairs(util.keys(merged.env or {})) do
    local value = merged.env[name]
    if type(value) ~= "string" or not name:match("^[%a_][%w_]*$") then
      util.misuse(("env.%s: names are words and values strings; a secret goes by stdin"):format(name))
    end
    prefix = prefix .. ("export %s=%s; "):format(name, util.quote(value))
  end
  if merged.cwd then prefix = prefix .. "cd " .. place(merged.cwd) .. " || exit 96; " end
  if merged.ok ~= nil and type(merged.ok) ~= "table" then
    util.misuse("ok is a list of exit statuses, such as { 0, 1 }")
  end
  if merged.timeout then merged.timeout = util.duration(merged.timeout) end
  return prefix .. text, merged, text
end
target.arguments = arguments

-- A command on a channel of its own: for stdin, and while the shell is busy.
function view:exec(command, options)
  -- The same shell and surroundings as the framed one, whatever the login shell is.
  command = "exec /bin/sh -c " .. util.quote(shell.preamble .. command)
  if self:needs_sudo() then
    self:require_root()
    command = command:gsub("^exec ", "exec sudo -n -H ")
  end
  local wait = options.timeout or 60
  local stop = host.monotonic() + wait
  local stream = self.conn:open(command)
  local function guard(value, err)
    if value ~= nil then return value, err end
    stream:close()
    if type(err) == "table" and err.code == "timeout" then
      util.raise("timeout", ("the command did not end within %s"):format(util.show_seconds(wait)))
    end
    util.raise("lost", "the connection was lost during a command: " .. tostring(err))
  end
  local failed_write
  if options.stdin ~= nil then
    -- A list of pieces goes one after the other: a secret cannot be put together with text.
    local ok, err
    for _, piece in ipairs(type(options.stdin) == "table" and options.stdin or { options.stdin }) do
      ok, err = shell.patient(stream, "write", piece, wait)
      if not ok then break end
    end
    -- A command may end without reading all of its input: its status decides.
    if not ok and err.code ~= "closed" then guard(nil, err) end
    failed_write = not ok
  end
  if not failed_write then stream:shut() end
  local parts, size = { out = {}, err = {} }, 0
  while true do
    local kind, data = guard(shell.patient(stream, "read", math.max(0.001, stop - host.monotonic())))
    if kind == "eof" then break end
    size = size + #data
    if size > 16 * 1024 * 1024 then
      stream:close()
      util.raise("too_large", "the command printed more than 16 MiB; use a job or a file")
    end
    local list = parts[kind]
    list[#list + 1] = data
  end
  local ended = guard(shell.patient(stream, "wait", math.max(1, stop - host.monotonic())))
  stream:close()
  if ended.signal then
    return 128, table.concat(parts.out), table.concat(parts.err) .. "killed by SIG" .. ended.signal
  end
  return ended.status, table.concat(parts.out), table.concat(parts.err)
end

-- view:try(cmd, opts) -> { status, stdout, stderr, ok }; raises only when the
-- connection is lost or the time is over.
function view:try(cmd, options)
  local command, opts, shown = arguments(cmd, options)
  local status, out, err
  local s = opts.stdin == nil and self:shell()
  if s and not s.busy then
    status, out, err = s:run(command, { timeout = opts.timeout })
  else
    status, out, err = self:exec(command, opts)
  end
  local result = { status = status, stdout = out, stderr = err, ok = false, command = shown }
  for _, fine in ipairs(opts.ok or { 0 }) do
    if status == fine then result.ok = true end
  end
  if opts.discard then result.stdout, result.stderr = "", "" end
  if self.conn.on_output and not opts.discard and not opts.quiet then self.conn.on_output(result) end
  return result
end

-- view:run(cmd, opts): as try, but raises `command` for a status not named in opts.ok.
function view:run(cmd, options)
  local result = self:try(cmd, options)
  if result.ok then return result end
  local tail = util.last_lines(result.stderr ~= "" and result.stderr or result.stdout, 5)
  util.raise("command", ("'%s' ended with status %d%s"):format(
    result.command:gsub("%s+", " "):sub(1, 120), result.status, tail ~= "" and ": " .. tail or ""),
    { status = result.status, stdout = result.stdout, stderr = result.stderr })
end

function view:read(path)
  local q = place(path)
  local result = self:try(("if [ -e %s ] || [ -L %s ]; then cat -- %s; else exit 44; fi"):format(q, q, q),
    { ok = { 0, 44 }, quiet = true })
  if result.status == 44 then return nil end
  if result.status ~= 0 then
    util.raise("command", ("cannot read %s: %s"):format(path, util.last_lines(result.stderr, 1)))
  end
  return result.stdout
end

function view:get(path, options)
  local text = self:read(path)
  if text == nil then util.raise("not_found", "there is no " .. path .. " on " .. self.conn.url) end
  if options and options.max and #text > options.max then
    util.raise("too_large", ("%s has %d bytes, more than %d"):format(path, #text, options.max))
  end
  return text
end

local kinds = {
  ["regular file"] = "file", ["regular empty file"] = "file", directory = "directory",
  ["symbolic link"] = "link", socket = "socket", fifo = "fifo",
}
function view:stat(path)
  local q = place(path)
  local result = self:try(("if [ -e %s ] || [ -L %s ]; then stat -c '%%F|%%a|%%U|%%G|%%s|%%Y' -- %s; else exit 44; fi")
    :format(q, q, q), { ok = { 0, 44 } })
  if result.status == 44 then return nil end
  local kind, mode, owner, group, size, mtime =
    result.stdout:match("^([^|]*)|(%d+)|([^|]*)|([^|]*)|(%d+)|(%d+)")
  if not kind then
    util.raise("command", ("cannot stat %s: %s"):format(path, util.last_lines(result.stderr, 1)))
  end
  return {
    type = kinds[kind] or "other", mode = ("%04d"):format(tonumber(mode)), owner = owner,
    group = group, size = tonumber(size), mtime = tonumber(mtime),
  }
end

function view:exists(path)
  return self:try("test -e " .. place(path), { ok = { 0, 1 } }).status == 0
end

-- view:put(path, bytes or secret, { mode, owner, group }): beside the file under a
-- temporary name that is 0600 from its first byte, checked by SHA-256, then renamed.
function view:put(path, content, options)
  options = options or {}
  for k in pairs(options) do
    if k ~= "mode" and k ~= "owner" and k ~= "group" then
      util.misuse(("unknown option '%s' of put"):format(tostring(k)))
    end
  end
  local mode = options.mode or "0644"
  if not mode:match("^[0-7]?[0-7][0-7][0-7]$") then util.misuse("mode is octal, such as \"0644\"") end
  local owner = options.owner
  if options.group then owner = (owner or "") .. ":" .. options.group end
  local q = util.quote
  local script = table.concat({
    "umask 077; p=" .. place(path),
    'd=${p%/*}; [ "$d" = "$p" ] && d=.; [ -n "$d" ] || d=/',
    't=$(mktemp "$d/.lbrun.XXXXXXXX") || exit 90; trap \'rm -f "$t"\' EXIT',
    'IFS= read -r sum; cat >"$t" || exit 92',
    '[ "$(sha256sum <"$t" | cut -c1-64)" = "$sum" ] || exit 91',
    owner and ('chown %s "$t" || exit 93'):format(q(owner)) or ":",
    ('chmod %s "$t" || exit 93'):format(mode),
    'sync "$t"; mv -fT "$t" "$p" || exit 94; sync "$d"; trap - EXIT',
  }, "\n")
  -- The checksum goes the way of the content: in argv, that of a weak secret gives it away.
  local result = self:try(script, { stdin = { crypto.sha256(content) .. "\n", content }, timeout = 300 })
  if result.status == 0 then return true end
  local why = ({
    [90] = "no temporary file beside it", [91] = "what arrived is not what was sent",
    [92] = "writing failed", [93] = "owner or mode refused", [94] = "renaming failed",
  })[result.status] or "status " .. result.status
  util.raise("put", ("%s on %s was not written (%s): %s"):format(path, self.conn.url, why,
    util.last_lines(result.stderr, 2)))
end

-- view:forward(host, port) -> path of a private Unix socket that leads to host:port as
-- the server sees it; closed with the connection.
function view:forward(name, port)
  local conn = self.conn
  if not conn.session then util.raise("forward", "a local target needs no forwarding") end
  local dir = (host.getenv("XDG_RUNTIME_DIR") or "/tmp") .. "/lbrun-" .. crypto.token(8)
  util.check(host.mkdir(dir, 448))
  local path = dir .. "/socket"
  local listener = util.check(conn.session:forward_unix(path, name, port))
  conn.listeners = conn.listeners or {}
  conn.listeners[#conn.listeners + 1] = { close = function()
    listener:close()
    host.remove(path)
    host.remove(dir)
  end }
  return path
end

target.view_methods = view
return target
