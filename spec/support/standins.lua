-- standins.lua: what the stand-in images need to know of the tools, taken from the stacks'
-- own data: spec/sandbox/stand-ins/web/tools.json, and the images of a set of tools. It
-- builds none.
local standins = {}

standins.path = "spec/sandbox/stand-ins/web/tools.json"

-- JSON with sorted keys: the same data is the same text.
local function encode(value)
  if type(value) == "string" then return ("%q"):format(value):gsub("\\\n", "\\n") end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  if value.list then
    for i, item in ipairs(value.list) do parts[i] = encode(item) end
    return "[" .. table.concat(parts, ", ") .. "]"
  end
  local keys = {}
  for k in pairs(value) do keys[#keys + 1] = k end
  table.sort(keys)
  for i, k in ipairs(keys) do parts[i] = ("%q: %s"):format(k, encode(value[k])) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- Which variables carry the database, by the placeholders in their values.
local function database(s, service)
  local variables = {}
  local function is(key, name) variables[key] = variables[key] or name end
  for _, name in ipairs(sorted(service.env or {})) do
    local value = service.env[name]
    local field = value:match "^{{%s*db%.(%w+)%s*}}$"
    if field then is(field, name)
    elseif value:match "^{{%s*secret%.DB_PASSWORD%s*}}$" then is("password", name)
    elseif value:match "^{{%s*db%.host%s*}}:{{" then is("host", name)
    elseif value:match "://" and value:match "{{%s*db%.host" then is("url", name) end
  end
  if not next(variables) then return false end
  return { engine = s.database.engine, variables = variables }
end

local function entry(s, service)
  local ports, greets = {}, {}
  if service.port then ports[1] = service.port end
  for _, p in ipairs(service.ports or {}) do
    local to = p.public and greets or ports
    if p.port ~= service.port then to[#to + 1] = p.port end
  end
  return {
    tool = s.id, service = service.name, env = { list = sorted(service.env or {}) }, args = { list = service.command or {} },
    ports = { list = service.init and {} or not service.like and ports or {} }, greets = { list = greets },
    address = service.network and "127.0.0.1" or "0.0.0.0", init = service.init or false,
    health = service.health and service.health.path or "", folder = service.volumes and service.volumes[1].mount or "",
    database = database(s, service),
  }
end

-- standins.table(tools) -> the text of tools.json for these stacks
function standins.table(tools)
  local lines = {}
  for _, s in ipairs(tools) do
    local by_name = {}
    for _, given in ipairs(s.services) do
      local service = {}
      for _, k in ipairs { "image", "env", "volumes" } do service[k] = given.like and by_name[given.like][k] end
      for k, v in pairs(given) do service[k] = v end
      by_name[service.name] = service
      local script = service.entrypoint and #service.entrypoint == 1 and service.entrypoint[1]:sub(1, 1) == "/"
      if not script and not service.image:match "redis$" and not service.image:match "valkey$" then
        lines[#lines + 1] = encode(entry(s, service))
      end
    end
  end
  return "[\n" .. table.concat(lines, ",\n") .. "\n]\n"
end

-- standins.images(stack, ids) -> their images, each once
function standins.images(stack, ids)
  local list, seen = {}, {}
  for _, id in ipairs(ids) do
    for _, image in ipairs(stack.images(stack.get(id))) do
      if not seen[image] then list[#list + 1] = image end
      seen[image] = true
    end
  end
  return list
end

return standins
