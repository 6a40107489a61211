-- stack.lua: a tool's stack as data (templates/stacks/TOOL.lua), checked against a schema,
-- and what the generic templates of templates/stack/ are given of it. It touches no server.

local stack = {}

stack.dir = "/opt/letsbe/stacks"

-- What every database of an engine has in common. %s is the tool.
local engines = {
  postgres = {
    image = "postgres", tag = "16.15-alpine", port = 5432, mount = "/var/lib/postgresql/data",
    secrets = { { name = "DB_PASSWORD", kind = "password" } },
    env = { POSTGRES_USER = "{{ db.user }}", POSTGRES_DB = "{{ db.name }}", POSTGRES_PASSWORD = "{{ secret.DB_PASSWORD }}" },
    -- Over TCP: during its first start the image runs a server that listens on a socket alone.
    test = { "CMD", "pg_isready", "-q", "-h", "127.0.0.1", "-U", "%s", "-d", "%s" },
  },
  mysql = {
    image = "mysql", tag = "8.4.11", port = 3306, mount = "/var/lib/mysql",
    secrets = { { name = "DB_PASSWORD", kind = "password" }, { name = "DB_ROOT_PASSWORD", kind = "password" } },
    env = { MYSQL_DATABASE = "{{ db.name }}", MYSQL_USER = "{{ db.user }}", MYSQL_PASSWORD = "{{ secret.DB_PASSWORD }}",
      MYSQL_ROOT_PASSWORD = "{{ secret.DB_ROOT_PASSWORD }}" },
    test = { "CMD", "mysqladmin", "ping", "-s", "-h", "127.0.0.1" },
  },
}

-- The schema. A kind is a function(value, where) that raises for what it does not take.
local function bad(where, what, ...)
  fail("runbook", ("%s: %s"):format(where:gsub(": $", ""), what:format(...)))
end

local function text(pattern, what)
  return function(value, where)
    if type(value) ~= "string" then bad(where, "expected %s, got a %s", what or "a text", type(value)) end
    if value == "" or pattern and not value:match(pattern) then bad(where, "'%s' is not %s", value, what or "a text") end
  end
end

local function integer(min, max)
  return function(value, where)
    if math.type(value) ~= "integer" or value < min or value > max then
      bad(where, "expected a whole number from %d to %d", min, max)
    end
  end
end

local function flag(value, where)
  if type(value) ~= "boolean" then bad(where, "expected true or false, got a %s", type(value)) end
end

local function choice(names)
  return function(value, where)
    for _, name in ipairs(names) do
      if value == name then return end
    end
    bad(where, "expected %s%s", table.concat(names, ", "), did_you_mean(tostring(value), names))
  end
end

local function list(of)
  return function(value, where)
    if type(value) ~= "table" then bad(where, "expected a list, got a %s", type(value)) end
    local count = 0
    for _ in pairs(value) do count = count + 1 end
    if count ~= #value or count == 0 then bad(where, "expected a list with something in it") end
    for i, item in ipairs(value) do of(item, ("%s[%d]"):format(where, i)) end
  end
end

local function map(pattern, what, of)
  return function(value, where)
    if type(value) ~= "table" then bad(where, "expected a table, got a %s", type(value)) end
    for _, k in ipairs(sorted_keys(value)) do
      if type(k) ~= "string" or not k:match(pattern) then bad(where, "'%s' is not %s", tostring(k), what) end
      of(value[k], where .. "." .. k)
    end
  end
end

local function record(fields)
  return function(value, where)
    if type(value) ~= "table" then bad(where, "expected a table, got a %s", type(value)) end
    for k in pairs(value) do
      if not fields[k] then bad(where, "there is no field '%s'%s", tostring(k), did_you_mean(tostring(k), sorted_keys(fields))) end
    end
    for _, k in ipairs(sorted_keys(fields)) do
      local kind, optional = fields[k], false
      if type(kind) == "table" then kind, optional = kind[1], true end
      if value[k] ~= nil then
        kind(value[k], where .. (where:sub(-2) == ": " and "" or ".") .. k)
      elseif not optional then
        bad(where, "the field '%s' is missing", k)
      end
    end
  end
end

local word = text("^[a-z][a-z0-9-]*$", "a name of small letters, digits and '-'")
local variable = { "^[%a_][%w_]*$", "the name of a variable" }
local path = text("^/%S*$", "an absolute path")
local argument = text(nil, "a text")
local megabytes = integer(16, 65536)

local schema = record {
  id = word,
  database = { record {
    engine = choice { "postgres", "mysql" }, image = { text() }, tag = { text() }, memory = megabytes,
  } },
  secrets = { list(record {
    name = text(table.unpack(variable)), kind = choice { "password", "token", "letters" },
    bytes = { integer(16, 256) }, length = { integer(12, 256) }, alphabet = { text() },
  }) },
  services = list(record {
    name = word, image = { text("^[%w./-]+$", "an image without its tag") }, tag = { text("^[%w._-]+$", "a tag") },
    like = { word }, port = { integer(1, 65535) }, network = { choice { "host" } }, memory = megabytes,
    env = { map(variable[1], variable[2], text()) },
    command = { list(argument) }, entrypoint = { list(argument) }, needs = { list(word) },
    volumes = { list(record { name = word, mount = path }) },
    health = { record {
      by = { choice { "curl", "wget" } }, command = { list(argument) }, path = { path }, grace = { integer(0, 3600) },
      headers = { map("^[%w-]+$", "the name of a header", text()) },
    } },
  }),
  nginx = { record {
    body = text("^%d+[kmg]?$", "a size such as 50m"), timeout = text("^%d+s$", "seconds such as 60s"),
    websocket = { flag }, server = { list(text(";$", "a directive that ends in ';'")) },
    redirects = { map("^/%S*$", "a path", path) },
  } },
}

local kinds = {
  password = { encoding = "base64", bytes = 32 }, token = { encoding = "hex", bytes = 32 },
  letters = { encoding = "alnum", length = 32 },
}

-- stack.mint(spec) -> a new secret of that kind. A tool's own prefix is the caller's.
function stack.mint(spec, name)
  local options = { name = name }
  if spec.alphabet then
    options.alphabet, options.length = spec.alphabet, spec.length or 32
  else
    for k, v in pairs(kinds[spec.kind]) do options[k] = spec[k] or v end
  end
  return crypto.password(options)
end

local secret_name = "{{%s*secret%.([%a_][%w_]*)"
local whole = "^{{%s*secret%.([%a_][%w_]*)%s*}}$"

-- Names and what they refer to, which the kinds of single fields cannot see.
local function check_references(s, file)
  local names, secrets, volumes = {}, {}, {}
  for i, spec in ipairs(stack.secrets(s)) do
    if secrets[spec.name] then bad(file, "secrets[%d]: %s stands twice", i, spec.name) end
    secrets[spec.name] = true
  end
  for i, service in ipairs(s.services) do
    local where = ("%s: services[%d]"):format(file, i)
    local like = service.like and names[service.like]
    if names[service.name] then bad(where, "the name '%s' stands twice", service.name) end
    if service.name:sub(1, #s.id) ~= s.id then bad(where .. ".name", "'%s' does not begin with '%s'", service.name, s.id) end
    if service.like and not like then bad(where .. ".like", "there is no service '%s' before it", service.like) end
    if (service.image == nil) ~= (service.tag == nil) or (service.image == nil) ~= (like ~= nil) then
      bad(where, "image and tag, or like, are needed")
    end
    if service.tag == "latest" then bad(where .. ".tag", "'latest' names no version") end
    names[service.name] = service
    for _, volume in ipairs(service.volumes or {}) do
      if volume.name:sub(1, #s.id) ~= s.id then bad(where .. ".volumes", "'%s' does not begin with '%s'", volume.name, s.id) end
      if volumes[volume.name] then bad(where .. ".volumes", "'%s' stands twice", volume.name) end
      volumes[volume.name] = true
    end
    local health = service.health
    if health and (health.by == nil) == (health.command == nil) then bad(where .. ".health", "either by or command is needed") end
    if health and health.by and not (health.path and service.port) then bad(where .. ".health", "by needs a path and a port") end
    for _, k in ipairs(sorted_keys(service.env or {})) do
      for name in service.env[k]:gmatch(secret_name) do
        if not secrets[name] then bad(where .. ".env." .. k, "there is no secret '%s'", name) end
      end
    end
  end
  for i, service in ipairs(s.services) do
    for _, need in ipairs(service.needs or {}) do
      if not names[need] or need == service.name then
        bad(("%s: services[%d].needs"):format(file, i), "there is no other service '%s'", need)
      elseif not names[need].health then
        bad(("%s: services[%d].needs"):format(file, i), "'%s' has no health check to wait for", need)
      end
    end
  end
  local tool = catalog.get(s.id)
  if not tool then bad(file, "id: the catalog has no tool '%s'", s.id) end
  if (s.services[1].port == nil) == (tool.port ~= nil) then
    bad(file, "services[1].port: the catalog says %s", tostring(tool.port))
  end
  if (s.nginx == nil) == (tool.subdomain ~= nil) then bad(file, "nginx: the catalog says %s", tostring(tool.subdomain)) end
  local memory = s.database and s.database.memory or 0
  for _, service in ipairs(s.services) do memory = memory + service.memory end
  if memory ~= tool.memory then bad(file, "memory: %d MiB in all, the catalog says %d", memory, tool.memory) end
end

-- stack.check(s, file, id) -> s, or a typed error that names file and field.
function stack.check(s, file, id)
  if type(s) ~= "table" then bad(file, "it returns a %s, not a table", type(s)) end
  schema(s, file .. ": ")
  if s.id ~= id then bad(file, "id: '%s' in the file of '%s'", s.id, id) end
  check_references(s, file)
  return s
end

-- stack.get(id) -> the checked data of a tool, nil where there is none.
function stack.get(id)
  local file = ("stacks/%s.lua"):format(id)
  local s = data(file)
  return s and stack.check(s, "templates/" .. file, id)
end

-- stack.secrets(s) -> all secrets of the tool, those of its database first.
function stack.secrets(s)
  local all = {}
  for _, from in ipairs { s.database and engines[s.database.engine] and engines[s.database.engine].secrets or {}, s.secrets or {} } do
    for _, spec in ipairs(from) do all[#all + 1] = spec end
  end
  return all
end

-- stack.host(s, p) -> the name under which the tool is reached
function stack.host(s, p)
  return catalog.get(s.id).subdomain .. "." .. p.domain
end

-- What data may name in {{ }}.
local function known(s, p, secrets)
  local tool = catalog.get(s.id)
  local vars = { tenant = p.tenant, domain = p.domain, port = tool.port, host = tool.subdomain and stack.host(s, p), secret = secrets }
  if s.database then
    vars.db = { host = s.id .. "-db", port = engines[s.database.engine].port, name = s.id, user = s.id }
  end
  return vars
end

local function fill(s, vars, where, value)
  return template.render(value, vars, { name = ("templates/stacks/%s.lua: %s"):format(s.id, where) })
end

local function engine_service(s)
  local engine = engines[s.database.engine]
  local test = {}
  for i, part in ipairs(engine.test) do test[i] = part == "%s" and s.id or part end
  return {
    name = s.id .. "-db", image = s.database.image or engine.image, tag = s.database.tag or engine.tag,
    memory = s.database.memory, env = engine.env, health = { test = test, grace = 60 },
    volumes = { { name = s.id .. "-db", mount = engine.mount } },
  }
end

-- Its services with the database first, `like` resolved.
local function services_of(s)
  local all, by_name = {}, {}
  if s.database then all[1] = engine_service(s) end
  for _, given in ipairs(s.services) do
    local service = {}
    for _, k in ipairs { "image", "tag", "env", "volumes" } do service[k] = given.like and by_name[given.like][k] end
    for k, v in pairs(given) do service[k] = v end
    by_name[service.name] = service
    all[#all + 1] = service
  end
  return all
end

local function health_test(health, port)
  if health.test then return health.test end
  local test = { "CMD" }
  if health.command then
    for _, part in ipairs(health.command) do test[#test + 1] = part end
    return test
  end
  local words = { curl = { "curl", "-fsS", "-o", "/dev/null" }, wget = { "wget", "-q", "-O", "/dev/null" } }
  local option = { curl = "-H", wget = "--header" }
  for _, part in ipairs(words[health.by]) do test[#test + 1] = part end
  for _, name in ipairs(sorted_keys(health.headers or {})) do
    test[#test + 1] = option[health.by]
    test[#test + 1] = ("%s: %s"):format(name, health.headers[name])
  end
  test[#test + 1] = ("http://127.0.0.1:%d%s"):format(port, health.path)
  return test
end

-- The variables of a service: a value that holds a secret stays a reference to .env.
local function environment(s, vars, service)
  local all = {}
  for _, name in ipairs(sorted_keys(service.env or {})) do
    local value = service.env[name]
    local of = value:match(whole) or value:match(secret_name) and name
    all[#all + 1] = {
      name = name, reference = of and ("${%s:?}"):format(of) or false,
      value = not of and fill(s, vars, ("%s.env.%s"):format(service.name, name), value),
    }
  end
  return all
end

local function names_database(service)
  for _, value in pairs(service.env or {}) do
    if value:find("{{%s*db%.") then return true end
  end
  return false
end

-- stack.compose(s, p) -> what templates/stack/compose.yml is given. No secret is in it.
function stack.compose(s, p)
  local vars = known(s, p, {})
  local out = { id = s.id, services = {}, volumes = {}, bridged = false }
  for i, service in ipairs(services_of(s)) do
    local needs = {}
    if i > 1 and names_database(service) then needs[1] = s.id .. "-db" end
    for _, name in ipairs(service.needs or {}) do needs[#needs + 1] = name end
    local main = service.name == s.services[1].name
    local ports
    if main and vars.port and not service.network then
      ports = { ("127.0.0.1:%d:%d"):format(vars.port, service.port) }
    end
    out.bridged = out.bridged or not service.network
    out.services[i] = {
      name = service.name, image = service.image .. ":" .. service.tag, memory = ("%dm"):format(service.memory),
      host_network = service.network == "host", ports = ports or false, env = environment(s, vars, service),
      command = service.command or false, entrypoint = service.entrypoint or false, needs = needs,
      volumes = service.volumes or {}, health = service.health and {
        test = health_test(service.health, service.port), grace = ("%ds"):format(service.health.grace or 60),
      } or false,
    }
    if not service.like then
      for _, volume in ipairs(service.volumes or {}) do out.volumes[#out.volumes + 1] = volume.name end
    end
  end
  return out
end

-- stack.env(s, p, secrets) -> what templates/stack/env is given: each secret, and each
-- value of a variable that is made of one.
function stack.env(s, p, secrets)
  local vars, all, seen = known(s, p, secrets), {}, {}
  for _, spec in ipairs(stack.secrets(s)) do
    all[#all + 1] = { name = spec.name, value = secrets[spec.name] }
    seen[spec.name] = spec.name
  end
  for _, service in ipairs(services_of(s)) do
    for _, name in ipairs(sorted_keys(service.env or {})) do
      local value = service.env[name]
      if value:match(secret_name) and not value:match(whole) and seen[name] ~= value then
        if seen[name] then bad(("templates/stacks/%s.lua: %s.env.%s"):format(s.id, service.name, name), "two values of one name") end
        seen[name] = value
        all[#all + 1] = { name = name, value = fill(s, vars, ("%s.env.%s"):format(service.name, name), value) }
      end
    end
  end
  return { id = s.id, values = all }
end

-- stack.site(s, p) -> what templates/stack/site.conf is given, beside `ipv6` and `tls`.
function stack.site(s, p)
  local tool, n = catalog.get(s.id), s.nginx
  local redirects = {}
  for _, from in ipairs(sorted_keys(n.redirects or {})) do redirects[#redirects + 1] = { from = from, to = n.redirects[from] } end
  return {
    id = s.id, host = stack.host(s, p), port = tool.port, body = n.body, timeout = n.timeout,
    websocket = n.websocket or false, server = n.server or {}, redirects = redirects,
  }
end

-- stack.grace(s) -> seconds in which all of its containers should be healthy
function stack.grace(s)
  local total = 60
  for _, service in ipairs(services_of(s)) do total = total + (service.health and service.health.grace or 0) end
  return total
end

return stack
