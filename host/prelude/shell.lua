-- shell.lua: a framed remote shell: one long-lived sh that takes one short command a
-- round trip. It carries no stdin of a command: dash reads ahead on its own.
local host = require "host"
local crypto = require "crypto"
local util = require "lb.util"

local shell = {}
shell.__index = shell

local output_limit = 16 * 1024 * 1024
shell.preamble = "LC_ALL=C; export LC_ALL; unset HISTFILE LANGUAGE; umask 022; " ..
  "PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin; export PATH; " ..
  "DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; "

local function lost(err, what)
  if type(err) == "table" and err.code == "timeout" then
    util.raise("timeout", what .. " did not end in time")
  end
  util.raise("lost", ("the connection was lost during %s: %s"):format(what, tostring(err)))
end

-- A wait that an interrupt does not end: the first Ctrl-C parks the run at the next
-- safe place, and only the second one detaches here.
function shell.patient(stream, method, ...)
  while true do
    local a, b, c = stream[method](stream, ...)
    if a ~= nil or type(b) ~= "table" or b.code ~= "interrupted" then return a, b, c end
    if host.interrupted() >= 2 then
      util.raise("detached", "detached from the running command")
    end
  end
end

-- shell.open(conn, command) -> shell. `command` starts the sh; what a login script
-- prints before the first frame is thrown away.
function shell.open(conn, command)
  local self = setmetatable({ stream = conn:open(command), pending = "" }, shell)
  local ok, err = self.stream:write(shell.preamble .. "\n")
  if not ok then lost(err, "opening a shell") end
  self:run("true", { timeout = 20 })
  return self
end

function shell:close()
  self.dead = true
  self.stream:close()
end

-- shell:run(command, { timeout= }) -> status, stdout, stderr; raises lost, timeout,
-- detached. After any of them the shell is gone.
function shell:run(command, options)
  local nonce = crypto.token(16)
  local wait = options.timeout or 60
  local stop = host.monotonic() + wait
  self.busy = true
  local what = "the command '" .. command:sub(1, 60):gsub("%s+", " ") .. "'"
  local text = ("echo %s:; echo %s: >&2; ( eval %s ) </dev/null; printf '\\n%s %%d\\n' \"$?\"; printf '\\n%s\\n' >&2\n")
    :format(nonce, nonce, util.quote(command), nonce, nonce)
  local fine, result = pcall(self.exchange, self, text, nonce, stop, what)
  self.busy = false
  if not fine then
    self:close()
    error(result, 0)
  end
  return result.status, result.out, result.err
end

function shell:exchange(text, nonce, stop, what)
  local ok, err = shell.patient(self.stream, "write", text, math.max(1, stop - host.monotonic()))
  if not ok then lost(err, what) end
  local parts = { out = {}, err = {} }
  local tails = { out = "", err = "" }
  local size = 0
  local marks = { out = "\n" .. nonce .. " (%d+)\n", err = "\n" .. nonce .. "\n" }
  local done = {}
  while not (done.out and done.err) do
    local left = stop - host.monotonic()
    if left <= 0 then lost({ code = "timeout" }, what) end
    local kind, data = shell.patient(self.stream, "read", left)
    if kind == nil then lost(data, what) end
    if kind == "eof" then lost("the remote shell ended", what) end
    size = size + #data
    if size > output_limit then
      util.raise("too_large", what .. " printed more than 16 MiB; use a job or a file")
    end
    parts[kind][#parts[kind] + 1] = data
    -- A child left in the background may print after the mark: it need not stand last.
    local tail = tails[kind] .. data
    done[kind] = done[kind] or tail:find(marks[kind]) ~= nil
    tails[kind] = tail:sub(-(#nonce + 16))
  end
  local out, errors = table.concat(parts.out), table.concat(parts.err)
  -- What a child of an earlier command printed in between stands before the first mark.
  local function cut(all, mark)
    local _, before = all:find(nonce .. ":\n", 1, true)
    local after, _, status = all:find(mark, before)
    return all:sub(before + 1, after - 1), tonumber(status)
  end
  local result = { err = cut(errors, marks.err) }
  result.out, result.status = cut(out, marks.out)
  return result
end

return shell
