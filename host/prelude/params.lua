-- params.lua: typed parameters of a runbook: declaration, checking, JSON Schema. Secrets
-- are read from a 0600 file or stdin here, and nowhere else become strings.
local host = require "host"
local json = require "json"
local crypto = require "crypto"
local util = require "lb.util"

local params = {}

local function is_list(value)
  if type(value) ~= "table" then return false end
  local n = 0
  for k in pairs(value) do
    if math.type(k) ~= "integer" then return false end
    n = n + 1
  end
  return n == #value
end

local kinds = {}

-- Values end up in lines of files and of commands, so one line is the rule.
kinds.string = {
  fields = { pattern = "string", min = "number", max = "number", multiline = "boolean" },
  expects = function(p)
    return "a string" .. (p.multiline and " of one line or more" or "") .. (p.pattern and " that matches " .. p.pattern or "")
  end,
  check = function(p, v)
    if type(v) ~= "string" then return nil end
    if v:find(p.multiline and "[\0-\8\11-\31\127]" or "[\0-\31\127]") then
      return nil, p.multiline and " (it holds a control character)" or " (it holds a newline or another control character)"
    end
    if p.pattern and not v:match(p.pattern) then return nil end
    if p.min and #v < p.min or p.max and #v > p.max then return nil end
    return v
  end,
  schema = function(p)
    return { type = "string", minLength = p.min, maxLength = p.max,
      pattern = p.pattern and not p.pattern:find("%%") and p.pattern or not p.multiline and "^[^\\x00-\\x1f\\x7f]*$" or nil }
  end,
}

local function number_kind(integer)
  return {
    fields = { min = "number", max = "number" },
    expects = function(p)
      return (integer and "a whole number" or "a number") ..
        (p.min and (" from %s"):format(p.min) or "") .. (p.max and (" to %s"):format(p.max) or "")
    end,
    check = function(p, v)
      if type(v) == "string" and v:match("^%-?%d+%.?%d*$") then v = tonumber(v) end
      if type(v) ~= "number" then return nil end
      if integer then v = math.tointeger(v) end
      if not v or p.min and v < p.min or p.max and v > p.max then return nil end
      return v
    end,
    schema = function(p)
      return { type = integer and "integer" or "number", minimum = p.min, maximum = p.max }
    end,
  }
end
kinds.number, kinds.integer = number_kind(false), number_kind(true)

local booleans = { ["true"] = true, yes = true, ["1"] = true, ["false"] = false, no = false, ["0"] = false }
kinds.boolean = {
  fields = {},
  expects = function() return "true or false" end,
  check = function(_, v)
    if type(v) == "boolean" then return v end
    return booleans[v]
  end,
  schema = function() return { type = "boolean" } end,
}

kinds.enum = {
  fields = {},
  expects = function(p) return "one of " .. table.concat(p.values, ", ") end,
  check = function(p, v)
    for _, name in ipairs(p.values) do
      if name == v then return v end
    end
    return nil, type(v) == "string" and util.did_you_mean(v, p.values) or ""
  end,
  schema = function(p) return { type = "string", enum = json.array(table.move(p.values, 1, #p.values, 1, {})) } end,
}

kinds.list = {
  fields = { of = "table", min = "number", max = "number" },
  expects = function(p) return "a list, comma-separated" .. (p.of and ", each " .. params.expects(p.of) or "") end,
  check = function(p, v)
    if type(v) == "string" then
      local items = {}
      for item in v:gmatch("[^,]+") do items[#items + 1] = item:match("^%s*(.-)%s*$") end
      v = items
    end
    if not is_list(v) then return nil end
    local out, seen = {}, {}
    for i, item in ipairs(v) do
      if p.of then
        local fine, hint = params.value(p.of, item)
        if fine == nil then return nil, (" ('%s' is not)"):format((tostring(item):gsub("%c", "?"))) .. (hint or "") end
        item = fine
      elseif type(item) == "string" and item:find "%c" then
        return nil, (" ('%s' holds a control character)"):format((item:gsub("%c", "?")))
      end
      if seen[item] then return nil, (" ('%s' stands twice)"):format(tostring(item)) end
      seen[item] = true
      out[i] = item
    end
    if p.min and #out < p.min or p.max and #out > p.max then return nil end
    return json.array(out)
  end,
  schema = function(p)
    return { type = "array", uniqueItems = true, items = p.of and params.schema_of(p.of) or nil }
  end,
}

kinds.ssh_public_key = {
  fields = {},
  expects = function() return "an OpenSSH public key line (ssh-ed25519 AAAA... comment)" end,
  check = function(_, v)
    if type(v) ~= "string" then return nil end
    v = v:match("^%s*(.-)%s*$")
    local key, err = crypto.ssh_public_key(v)
    if not key then return nil, " (" .. tostring(err) .. ")" end
    return v
  end,
  schema = function() return { type = "string", description = "an OpenSSH public key" } end,
}

kinds.duration = {
  fields = {},
  expects = function() return "a duration such as 90s, 15m or 2h" end,
  check = function(_, v)
    local fine, seconds = pcall(util.duration, v)
    return fine and seconds or nil
  end,
  schema = function() return { type = { "string", "number" } } end,
}

kinds.path = {
  fields = {},
  expects = function() return "the path of a file that can be read" end,
  check = function(_, v)
    if type(v) ~= "string" or not host.stat(v) then return nil end
    return host.realpath(v)
  end,
  schema = function() return { type = "string" } end,
}

kinds.secret = {
  fields = {},
  expects = function() return "a secret: NAME=@FILE (mode 0600), NAME=- for standard input" end,
  check = function() return nil end,
  schema = function() return { type = "string", writeOnly = true } end,
}

-- The constructors: param.string { pattern = ... }, param.enum { "a", "b" }, ...
params.param = {}
local common = { default = true, optional = true, description = true, kind = true, values = true }
for kind, def in pairs(kinds) do
  params.param[kind] = function(options)
    options = options or {}
    local p = { kind = kind }
    if kind == "enum" then
      p.values = {}
      for i, v in ipairs(options) do p.values[i] = v end
      if #p.values == 0 then error("param.enum needs its values", 2) end
    end
    for k, v in pairs(options) do
      if type(k) == "string" then
        if not common[k] and not def.fields[k] then
          error(("param.%s has no option '%s'"):format(kind, k) ..
            util.did_you_mean(k, util.keys(def.fields)), 2)
        end
        p[k] = v
      end
    end
    return p
  end
end

function params.expects(p)
  return kinds[p.kind].expects(p)
end

function params.value(p, value)
  return kinds[p.kind].check(p, value)
end

function params.schema_of(p)
  local s = kinds[p.kind].schema(p)
  s.description = p.description or s.description
  s.default = p.default
  return s
end

-- The JSON Schema (draft 2020-12) of a runbook's parameters.
function params.schema(declared, title)
  local properties, required = {}, {}
  for _, name in ipairs(util.keys(declared)) do
    local p = declared[name]
    properties[name] = params.schema_of(p)
    if p.default == nil and not p.optional then required[#required + 1] = name end
  end
  return {
    ["$schema"] = "https://json-schema.org/draft/2020-12/schema", title = title, type = "object",
    properties = properties, required = json.array(required), additionalProperties = false,
  }
end

-- A value that shows the steps of a runbook nobody gave parameters to: the default, else
-- the name given or its smallest value.
function params.example(p, name)
  if p.default ~= nil or p.kind == "secret" then return p.default end
  if p.kind == "enum" then return p.values[1] end
  if p.kind == "list" then return {} end
  if p.kind == "boolean" then return false end
  -- Of the right form, and nobody's: 32 bytes of zero.
  if p.kind == "ssh_public_key" then return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" .. ("A"):rep(43) end
  if p.kind == "integer" or p.kind == "number" or p.kind == "duration" then return p.min or 1 end
  return name
end

local function secret_of(name, bytes)
  if #bytes < 8 then
    util.raise("key", ("parameter '%s': a secret of fewer than 8 characters is refused"):format(name))
  end
  return host.secret(name, bytes)
end

local function read_secret(name, value, stdin_taken)
  local bytes, err
  if value == "-" then
    if stdin_taken[1] then
      util.raise("params", ("parameter '%s': standard input was already taken by '%s'"):format(name, stdin_taken[1]))
    end
    stdin_taken[1] = name
    bytes, err = host.read_stdin { max = 1048576 }
  elseif value:sub(1, 1) == "@" then
    bytes, err = host.read_file(value:sub(2), { max = 1048576, private = true })
  else
    util.raise("params", ("parameter '%s' is a secret: give it as %s=@FILE (mode 0600) or %s=- (standard input), never on the command line")
      :format(name, name, name))
  end
  if not bytes then util.raise("key", ("parameter '%s': %s"):format(name, tostring(err))) end
  return secret_of(name, (bytes:gsub("\r?\n$", "")))
end

-- params.read(declared, given, file_values, { ask = bool }) -> values, secrets. given is
-- a list of { name, value } strings; nothing is touched before all of it is right.
function params.read(declared, given, file_values, options)
  options = options or {}
  local values, secrets, stdin_taken = {}, {}, {}
  local names = util.keys(declared)
  local function take(name, value, source)
    local p = declared[name]
    if not p then
      util.raise("params", ("unknown parameter '%s'%s%s"):format(name, source, util.did_you_mean(name, names))
        .. (#names > 0 and "; known: " .. table.concat(names, ", ") or "; this runbook takes none"))
    end
    if p.kind == "secret" then
      if type(value) ~= "string" then
        util.raise("params", ("parameter '%s'%s: expected a string"):format(name, source))
      end
      secrets[name] = source == "" and read_secret(name, value, stdin_taken) or secret_of(name, value)
      return
    end
    if value == json.null then return end
    local fine, hint = params.value(p, value)
    if fine == nil then
      util.raise("params", ("parameter '%s'%s: '%s' is not %s%s"):format(name, source,
        (type(value) == "table" and json.encode(value) or tostring(value)):gsub("%c", "?"), params.expects(p), hint or ""))
    end
    values[name] = fine
  end
  for _, name in ipairs(util.keys(file_values or {})) do
    take(name, file_values[name], " (of the parameter file)")
  end
  local seen = {}
  for _, pair in ipairs(given or {}) do
    if seen[pair[1]] then util.raise("params", ("parameter '%s' is given twice"):format(pair[1])) end
    seen[pair[1]] = true
    take(pair[1], pair[2], "")
  end
  for _, name in ipairs(names) do
    local p = declared[name]
    if p.kind == "secret" then
      if not secrets[name] and not p.optional and options.ask then
        local answer = host.ask(("%s (not shown): "):format(name), { secret = true })
        if answer then secrets[name] = answer end
      end
      if not secrets[name] and not p.optional then
        util.raise("key", ("missing parameter '%s': expected %s"):format(name, params.expects(p)))
      end
    elseif values[name] == nil then
      if p.default ~= nil then
        values[name] = p.default
      elseif not p.optional then
        util.raise("params", ("missing parameter '%s': expected %s"):format(name, params.expects(p)))
      end
    end
  end
  return values, secrets
end

-- The parameter file: a JSON object; it may hold secrets and must then be private.
function params.file(path, declared)
  local text, err = host.read_file(path, { max = 1048576 })
  if not text then util.raise("params", ("parameter file %s: %s"):format(path, tostring(err))) end
  local data, bad = json.decode(text)
  if type(data) ~= "table" then
    util.raise("params", ("parameter file %s: %s"):format(path, bad and tostring(bad) or "expected a JSON object"))
  end
  for name in pairs(data) do
    if declared[name] and declared[name].kind == "secret" then
      local private, why = host.read_file(path, { max = 1048576, private = true })
      if not private then util.raise("key", ("parameter file %s holds the secret '%s': %s"):format(path, name, tostring(why))) end
    end
  end
  return data
end

return params
