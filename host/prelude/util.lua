-- util.lua: small helpers of the prelude: typed errors, quoting, durations, names.
-- It does not talk to targets, journal or terminal.
local host = require "host"
local json = require "json"

local util = {}

-- Errors that decide an exit code. `code` is stable, `message` one line, the rest free.
local exits = {
  internal = 1, usage = 2, params = 2, conflict = 2, syntax = 2, runbook = 2,
  connect = 4, hostkey = 4, identity = 4,
  approval = 7, locked = 8, doubt = 9, verify = 11, key = 12, auth_failed = 12,
  journal = 13, source = 13, steps_changed = 13,
}
util.exits = exits

local error_meta = { __name = "lbrun.error" }
function error_meta:__tostring()
  return self.message
end

function util.error(code, message, fields)
  local err = { code = code, message = message }
  for k, v in pairs(fields or {}) do err[k] = v end
  return setmetatable(err, error_meta)
end

function util.raise(code, message, fields)
  error(util.error(code, message, fields), 0)
end

-- A mistake of the runbook that called the prelude: raised with the runbook's own file
-- and line, however deep in the prelude it was noticed.
function util.misuse(message)
  local level = 2
  while true do
    local at = debug.getinfo(level, "Sl")
    if not at then error(message, 0) end
    if at.currentline > 0 and not at.short_src:match("^lb/") then
      error(("%s:%d: %s"):format(at.short_src, at.currentline, message), 0)
    end
    level = level + 1
  end
end

-- Any value that was raised, as a table with code and message. A plain string is a
-- script's own error(): its position is part of the text.
function util.as_error(value)
  if type(value) == "string" then return util.error("script", value) end
  if type(value) ~= "table" then
    return util.error("script", value == nil and "an error without a text" or tostring(value))
  end
  local code, message, exit = rawget(value, "code"), rawget(value, "message"), rawget(value, "exit")
  if type(code) == "string" and type(message) == "string" and (exit == nil or math.type(exit) == "integer") then
    return value
  end
  local fine, text = pcall(tostring, value)
  if not fine or text:match("^table: 0x") then
    text = type(message) == "string" and message or "an error that is a table without code and message"
  end
  return util.error("script", text)
end

-- util.check(value, err): raise what a native call returned as nil, err.
function util.check(value, err, ...)
  if value == nil and err ~= nil then
    if type(err) == "table" then
      local broken = err.module == "journal" and err.code ~= "conflict" and err.code ~= "locked"
      util.raise(broken and "journal" or err.code, tostring(err), { cause = err })
    end
    util.raise("internal", tostring(err))
  end
  return value, err, ...
end

function util.exit_of(err)
  return err.exit or exits[err.code] or 1
end

-- JSON of what a command or a script printed: a NUL, and a byte that is no UTF-8, become
-- U+FFFD.
local function readable(value)
  if type(value) == "string" then
    value = value:gsub("%z", "\u{FFFD}")
    local from = 1
    local parts = {}
    while true do
      local _, bad = utf8.len(value, from)
      if not bad then break end
      parts[#parts + 1] = value:sub(from, bad - 1) .. "\u{FFFD}"
      from = bad + 1
    end
    return from == 1 and value or table.concat(parts) .. value:sub(from)
  end
  if type(value) ~= "table" then return value end
  local copy = {}
  for k, v in pairs(value) do copy[readable(k)] = readable(v) end
  return getmetatable(value) ~= nil and json.array(copy) or copy
end

function util.json(data)
  local fine, text = pcall(json.encode, data)
  return fine and text or util.check(json.encode(readable(data)))
end

-- POSIX single quotes: nothing inside them is special but the quote itself.
function util.quote(text)
  text = tostring(text)
  if text:find("\0", 1, true) then util.misuse("a shell word cannot hold a NUL byte") end
  if text ~= "" and not text:find("[^%w@%%_%-+=:,./]") then return text end
  return "'" .. text:gsub("'", [['\'']]) .. "'"
end

-- The length of a list; raises where nil made a hole in it, which ipairs would take for
-- its end.
function util.length(list, what)
  local n = 0
  for k in pairs(list) do
    if math.type(k) == "integer" then n = n + 1 end
  end
  for i = 1, n do
    if list[i] == nil then util.misuse(("%s: item %d is nil"):format(what, i)) end
  end
  return n
end

function util.argv(list)
  local words = {}
  util.length(list, "the command")
  for i, word in ipairs(list) do
    if type(word) ~= "string" and type(word) ~= "number" then
      util.misuse(("argument %d of the command is a %s, not a string (a secret goes by stdin)")
        :format(i, type(word)))
    end
    words[i] = util.quote(word)
  end
  if #words == 0 then util.misuse("an empty command") end
  return table.concat(words, " ")
end

local units = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }

-- "90", 90, "1m30s", "2h" -> seconds
function util.duration(value)
  if type(value) == "number" and value >= 0 then return value end
  local total, rest = 0, tostring(value)
  if rest:match("^%d+%.?%d*$") then return tonumber(rest) end
  if rest == "" then error("empty duration", 2) end
  while rest ~= "" do
    local n, unit, tail = rest:match("^(%d+%.?%d*)(m?[smhd]?)(.*)$")
    if n and not units[unit] then n, unit, tail = rest:match("^(%d+%.?%d*)([smhd])(.*)$") end
    if not n or not units[unit] then
      error(("'%s' is not a duration such as 90s, 1m30s or 2h"):format(tostring(value)), 2)
    end
    total, rest = total + tonumber(n) * units[unit], tail
  end
  return total
end

function util.show_seconds(s)
  if s < 10 then return ("%.1fs"):format(s) end
  if s < 120 then return ("%.0fs"):format(s) end
  if s < 7200 then return ("%dm%02ds"):format(s // 60, math.floor(s % 60)) end
  return ("%dh%02dm"):format(s // 3600, math.floor(s % 3600 / 60))
end

function util.keys(t)
  local list = {}
  for k in pairs(t) do list[#list + 1] = k end
  table.sort(list, function(a, b) return tostring(a) < tostring(b) end)
  return list
end

local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
      diagonal, row[j] = row[j], best
    end
  end
  return row[#b]
end

-- The nearest of `names`, as the tail of a sentence: " - did you mean 'x'?" or "".
function util.did_you_mean(word, names)
  local best, best_distance = nil, math.max(2, #word // 3) + 1
  for _, name in ipairs(names) do
    local d = distance(word, name)
    if d < best_distance then best, best_distance = name, d end
  end
  return best and (" - did you mean '%s'?"):format(best) or ""
end

-- A secret is no longer than this, in any of its forms.
local margin = 16384

-- util.window(half): keeps the first and the last `half` bytes of what is added. Nothing is
-- masked unless something is left out: then more than half of each end is kept until it was
-- masked, so that no secret is cut in two. w.keep: how much of each end that is.
function util.window(half)
  local head, tail, total = "", "", 0
  local w = { keep = half + margin }
  function w.add(text)
    total = total + #text
    if #head < w.keep then
      local take = w.keep - #head
      head, text = head .. text:sub(1, take), text:sub(take + 1)
    end
    if text == "" then return end
    tail = tail .. text
    if #tail > 2 * w.keep then tail = tail:sub(-w.keep) end
  end
  -- The next of `bytes` bytes were not even fetched.
  function w.skip(bytes)
    total, tail = total + bytes, ""
  end
  function w.text()
    local first, last
    if #head + #tail == total then
      if total <= 2 * half then return head .. tail end
      first = host.mask(head .. tail)
      if #first <= 2 * half then return first end
      first, last = first:sub(1, half), first:sub(-half)
    else
      first, last = host.mask(head), host.mask(tail)
      first = first:sub(1, math.max(0, math.min(half, #first - margin)))
      last = last:sub(math.max(margin + 1, #last - half + 1))
    end
    return ("%s\n[%d bytes left out]\n%s"):format(first, total - #first - #last, last)
  end
  return w
end

-- util.cut(text, size) -> text of at most that size. Half a secret would be known to nobody:
-- it is masked before.
function util.cut(text, size)
  if #text <= size then return text end
  return (host.mask(text):sub(1, size):gsub("[\xC2-\xF4][\x80-\xBF]*$", "")) .. " ..."
end

function util.last_lines(text, n)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  for i = math.max(1, #lines - n + 1), #lines do lines[i] = util.cut(lines[i], 1000) end
  return table.concat(lines, "\n", math.max(1, #lines - n + 1))
end

return util
