-- util.lua: small helpers of the prelude: typed errors, quoting, durations, names.
-- It does not talk to targets, journal or terminal.
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

-- Any value that was raised, as a table with code and message. A plain string is a
-- script's own error(): its position is part of the text.
function util.as_error(value)
  if type(value) == "table" and rawget(value, "code") and rawget(value, "message") then
    return value
  end
  return util.error("script", tostring(value))
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

-- POSIX single quotes: nothing inside them is special but the quote itself.
function util.quote(text)
  text = tostring(text)
  if text:find("\0", 1, true) then error("a shell word cannot hold a NUL byte", 2) end
  if text ~= "" and not text:find("[^%w@%%_%-+=:,./]") then return text end
  return "'" .. text:gsub("'", [['\'']]) .. "'"
end

function util.argv(list)
  local words = {}
  for i, word in ipairs(list) do
    if type(word) ~= "string" and type(word) ~= "number" then
      error(("argument %d of the command is a %s, not a string (a secret goes by stdin)")
        :format(i, type(word)), 2)
    end
    words[i] = util.quote(word)
  end
  if #words == 0 then error("an empty command", 2) end
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

-- Keep the first and the last `half` bytes of what is added.
function util.window(half)
  local head, tail, dropped = "", "", 0
  local w = {}
  function w.add(text)
    if #head < half then
      local take = half - #head
      head, text = head .. text:sub(1, take), text:sub(take + 1)
    end
    if text == "" then return end
    tail = tail .. text
    if #tail > 2 * half then
      dropped = dropped + #tail - half
      tail = tail:sub(-half)
    end
  end
  function w.text()
    local cut = dropped
    local rest = tail
    if #rest > half then
      cut, rest = cut + #rest - half, rest:sub(-half)
    end
    if cut == 0 then return head .. rest end
    return ("%s\n[%d bytes left out]\n%s"):format(head, cut, rest)
  end
  return w
end

function util.last_lines(text, n)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  return table.concat(lines, "\n", math.max(1, #lines - n + 1))
end

return util
