-- envfile.lua: files of KEY=value lines, and of JSON, on a target, read as secrets: what is in them never
-- reaches a runbook as text, and is masked from the moment it was read. It writes none.
local host = require "host"
local json = require "json"
local crypto = require "crypto"
local util = require "lb.util"

local envfile = {}

local escapes = { n = "\n", r = "\r", ["\\"] = "\\", ['"'] = '"' }

-- envfile.value(text) -> the value that the template filter `env` wrote so; nil for what it
-- would not write.
function envfile.value(text)
  local inner = text:match("^'(.*)'$")
  if inner then
    if inner:gsub("\\'", ""):find("'", 1, true) then return nil end
    return (inner:gsub("\\'", "'"))
  end
  inner = text:match('^"(.*)"$')
  if inner then
    if inner:gsub("\\.", ""):find('["\\]') then return nil end
    return (inner:gsub("\\(.)", escapes))
  end
  return text:match("^[^%s'\"]+$")
end

-- envfile.parse(text, path) -> { NAME = value }; a complaint names the line, not its text.
function envfile.parse(text, path)
  local values, n = {}, 0
  for line in (text:sub(-1) == "\n" and text or text .. "\n"):gmatch("(.-)\r?\n") do
    n = n + 1
    if not line:match("^%s*$") and not line:match("^%s*#") then
      local name, rest = line:match("^([%a_][%w_]*)=(.*)$")
      local value = name and envfile.value(rest)
      if not value then util.raise("key", ("%s:%d does not read as NAME=value"):format(path, n)) end
      if values[name] then util.raise("key", ("%s:%d: %s stands there twice"):format(path, n, name)) end
      values[name] = value
    end
  end
  return values
end

-- Read without the hook that keeps a command's output for the journal: nothing in it is
-- masked yet.
local look = [[
[ -e %s ] || [ -L %s ] || exit 44
[ -f %s ] && [ ! -L %s ] && [ "$(stat -c '%%a %%u' %s)" = "600 0" ] || exit 45
cat %s]]

-- envfile.secrets(run, path) -> { NAME = secret }, or nil when there is no such file. They
-- live as long as the run, so that they stay masked.
function envfile.secrets(run, path)
  local q = util.quote(path)
  local status, out, err = run.conn:view(true):exec(look:format(q, q, q, q, q, q), { timeout = 60 })
  if status == 44 then return nil end
  if status == 45 then util.raise("key", path .. " is not a file of root's with mode 0600") end
  if status ~= 0 then util.raise("key", ("cannot read %s: %s"):format(path, util.last_lines(err, 1))) end
  run.held = run.held or {}
  local all = {}
  for name, value in pairs(envfile.parse(out, path)) do
    if #value < 8 then
      util.raise("key", ("%s: %s is shorter than 8 characters, which cannot be masked"):format(path, name))
    end
    local known = run.held[name]
    if not known or not host.secret_eq(known, value) then
      known = host.secret(name, value)
      -- An older value of that name is a secret still.
      run.held[#run.held + 1] = known
      run.held[name] = known
    end
    if not run.book.params[name] then run.secrets[name] = known end
    all[name] = known
  end
  return all
end

-- envfile.sealed(run, path, identity) -> { NAME = secret }, { NAME = text } of an age file that
-- holds KEY=value lines; the second are those that are sealed again or public (SEALED_*).
function envfile.sealed(run, path, identity)
  local q = util.quote(path)
  local status, out, err = run.conn:view(true):exec(("[ -f %s ] || exit 44; cat %s"):format(q, q), { timeout = 60 })
  if status == 44 then util.raise("key", ("there is no sealed copy %s on the server"):format(path)) end
  if status ~= 0 then util.raise("key", ("cannot read %s: %s"):format(path, util.last_lines(err, 1))) end
  local text, why = crypto.age_decrypt(out, identity)
  if not text then util.raise("key", ("%s cannot be opened: %s"):format(path, why.message)) end
  run.held = run.held or {}
  local all, plain = {}, {}
  for name, value in pairs(envfile.parse(text, path)) do
    if name:match("^SEALED_") then
      plain[name] = value
    else
      all[name] = host.secret(name, value)
      run.held[#run.held + 1] = all[name]
    end
  end
  return all, plain
end

-- envfile.flatten(data, path) -> list of { tool, name, value } of an object of names to
-- strings, those of a tool in an object of its own; a complaint names the key, not its text.
function envfile.flatten(data, path)
  local list = {}
  local function refuse(key, why)
    util.raise("config", ("%s: %s %s"):format(path, key, why))
  end
  local function add(tool, key, value)
    local shown = tool and tool .. "." .. key or key
    if not key:match("^[%a_][%w_.-]*$") then refuse("a key", "is no name of letters, digits, '_', '-' and '.'") end
    if type(value) ~= "string" then refuse(shown, "is neither a text nor an object of texts") end
    if #value < 8 then refuse(shown, "is shorter than 8 characters, which cannot be masked") end
    if value:find("\0", 1, true) then refuse(shown, "holds a NUL byte") end
    list[#list + 1] = { tool = tool, name = key, value = value }
  end
  if type(data) ~= "table" or json.is_array(data) then refuse("the whole", "is no JSON object") end
  for _, key in ipairs(util.keys(data)) do
    if type(data[key]) == "table" and not json.is_array(data[key]) then
      for _, inner in ipairs(util.keys(data[key])) do add(key, inner, data[key][inner]) end
    else
      add(nil, key, data[key])
    end
  end
  return list
end

-- envfile.json_secrets(run, path) -> list of { tool, name, value = secret }, or nil when
-- there is no such file; raises `config` for what does not read so.
function envfile.json_secrets(run, path)
  local q = util.quote(path)
  local status, out, err = run.conn:view(true):exec(("[ -e %s ] || [ -L %s ] || exit 44; [ -f %s ] && [ ! -L %s ] || exit 45; cat %s")
    :format(q, q, q, q, q), { timeout = 60 })
  if status == 44 then return nil end
  if status == 45 then util.raise("config", path .. " is not a plain file") end
  if status ~= 0 then util.raise("config", ("cannot read %s: %s"):format(path, util.last_lines(err, 1))) end
  local data = json.decode(out)
  if data == nil then util.raise("config", path .. " does not read as JSON") end
  run.held = run.held or {}
  local list = envfile.flatten(data, path)
  for _, item in ipairs(list) do
    item.value = host.secret(item.name, item.value)
    run.held[#run.held + 1] = item.value
  end
  return list
end

return envfile
