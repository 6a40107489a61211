-- stack_schema.lua: what templates/stacks/TOOL.lua may hold, and what each part may refer
-- to. It renders nothing and knows no tool.

local stack_schema = {}

-- A kind is a function(value, where) that raises for what it does not take.
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

-- Also an empty one: a variable may have to be set to nothing.
local function string_of(value, where)
  if type(value) ~= "string" then bad(where, "expected a text, got a %s", type(value)) end
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
  local names = sorted_keys(fields)
  return function(value, where)
    if type(value) ~= "table" then bad(where, "expected a table, got a %s", type(value)) end
    for k in pairs(value) do
      if not fields[k] then bad(where, "there is no field '%s'%s", tostring(k), did_you_mean(tostring(k), names)) end
    end
    local dot = where:sub(-2) == ": " and "" or "."
    for _, k in ipairs(names) do
      local kind, optional = fields[k], false
      if type(kind) == "table" then kind, optional = kind[1], true end
      if value[k] ~= nil then
        kind(value[k], where .. dot .. k)
      elseif not optional then
        bad(where, "the field '%s' is missing", k)
      end
    end
  end
end

local word = text("^[a-z][a-z0-9-]*$", "a name of small letters, digits and '-'")
local variable = { "^[%a_][%w_]*$", "the name of a variable" }
local path = text("^/%S*$", "an absolute path")
local digest = { text("^sha256:" .. ("%x"):rep(64) .. "$", "a digest (sha256: and 64 hexadecimal digits)") }
local argument = text(nil, "a text")
local megabytes = integer(16, 65536)

-- What fills a secret: random bytes in base64 (password) or hex (token), letters and
-- digits, the hash of another secret, a certificate with its key, an SSH key; `issued` is
-- what the tool itself hands out once it runs.
local secret = record {
  name = text(table.unpack(variable)), bytes = { integer(16, 256) }, length = { integer(12, 256) }, alphabet = { text() },
  kind = choice { "password", "token", "letters", "bcrypt", "argon2id", "pkcs12", "ssh", "issued" },
  class = { choice { "db", "root", "admin", "api", "jwt", "encryption", "app", "smtp", "ssh" } },
  of = { text(table.unpack(variable)) }, subject = { text() },
}

local directives = list(text(";$", "a directive that ends in ';'"))

-- What a site's block of nginx holds, and blocks of paths of their own.
local site = {
  body = text("^%d+[kmg]?$", "a size such as 50m"), timeout = text("^%d+s$", "seconds such as 60s"),
  websocket = { flag }, server = { directives }, redirects = { map("^/%S*$", "a path", path) }, hidden = { list(path) },
  locations = { list(record {
    match = text("^[/~=^][^{};]*$", "a path, or a match that begins with ~, = or ^~"), port = { integer(1, 65535) },
    timeout = { text("^%d+s$", "seconds such as 60s") },
  }) },
}

local function with(fields, more)
  for k, v in pairs(fields) do more[k] = v end
  return more
end

local schema = record {
  id = word,
  database = { record {
    engine = choice { "postgres", "mysql", "mongo" }, image = { text() }, tag = { text() }, digest = digest, memory = megabytes,
    name = { text("^%a[%w_]*$", "the name of a database") }, initial = { text("^%a[%w_]*$", "the name of a database") },
  } },
  secrets = { list(secret) },
  files = { list(record {
    name = text("^[%w][%w._-]*$", "the name of a file"), text = text(), readable = { flag },
  }) },
  services = list(record {
    name = word, container = { word }, image = { text("^[%w./-]+$", "an image without its tag") }, tag = { text("^[%w._-]+$", "a tag") },
    digest = digest, like = { word }, init = { flag }, port = { integer(1, 65535) }, network = { choice { "host" } }, memory = megabytes,
    env = { map(variable[1], variable[2], string_of) }, sentry = { map(variable[1], variable[2], text()) },
    command = { list(argument) }, entrypoint = { list(argument) }, needs = { list(word) },
    ports = { list(record { host = integer(1, 65535), port = integer(1, 65535), public = { flag } }) },
    volumes = { list(record { name = word, mount = path }) },
    binds = { list(record {
      source = { path }, from = { text("^[%w][%w._-]*$", "a name inside the stack's folder") }, mount = path,
      read_only = { flag },
    }) },
    files = { list(record { name = text("^[%w][%w._-]*$", "the name of a file"), mount = path }) },
    health = { record {
      by = { choice { "curl", "wget", "node", "python", "bash" } }, command = { list(argument) }, path = { path },
      port = { integer(1, 65535) }, grace = { integer(0, 3600) }, refuse = { text() },
      headers = { map("^[%w-]+$", "the name of a header", text()) },
    } },
  }),
  -- Shell text after templates/setup/head.sh, by the tool's own API or command; run once.
  setup = { text() },
  nginx = { record(with(site, {})) },
  sites = { list(record(with(site, {
    name = word, subdomains = list(word), port = integer(1, 65535),
  }))) },
}

-- stack_schema.fields(s, file): raises for the first field that is not as it should be.
function stack_schema.fields(s, file)
  schema(s, file .. ": ")
end

-- Names in {{ }} that stand for a secret.
stack_schema.secret_name = "{{%s*secret%.([%a_][%w_]*)"

local function begins(s, name)
  return name == s.id or name:sub(1, #s.id + 1) == s.id .. "-"
end

local function check_secrets(s, file)
  local secrets = {}
  for i, spec in ipairs(stack.all_secrets(s)) do
    local where = ("%s: secrets[%d]"):format(file, i)
    if secrets[spec.name] then bad(file, "secrets[%d]: %s stands twice", i, spec.name) end
    local derived = spec.kind == "bcrypt" or spec.kind == "argon2id" or spec.kind == "pkcs12"
    if derived ~= (spec.of ~= nil) then bad(where .. ".of", "bcrypt, argon2id and pkcs12 name the password that they are made with") end
    if spec.of and not secrets[spec.of] then bad(where .. ".of", "there is no secret '%s' before it", spec.of) end
    secrets[spec.name] = spec.kind
  end
  return secrets
end

local function check_health(service, where)
  local health = service.health
  if not health then return end
  if (health.by == nil) == (health.command == nil) then bad(where, "either by or command is needed") end
  if health.by and not (health.path and (health.port or service.port)) then bad(where, "by needs a path and a port") end
  if health.refuse and health.by ~= "curl" and health.by ~= "wget" then bad(where .. ".refuse", "curl or wget is needed") end
end

-- Only whole: a program that is told to report, but not where, would report to its makers.
local function check_sentry(service, where)
  local whole = false
  for _, name in ipairs(sorted_keys(service.sentry or {})) do
    local value = service.sentry[name]
    if (service.env or {})[name] then bad(where .. "." .. name, "it stands in env too") end
    if value:match("^{{%s*secret%." .. stack.dsn .. "%s*}}$") then
      whole = true
    elseif value:match(stack_schema.secret_name) then
      bad(where .. "." .. name, "{{ secret.%s }} is all that it may hold", stack.dsn)
    end
  end
  if service.sentry and not whole then bad(where, "no variable is {{ secret.%s }}", stack.dsn) end
end

local function check_service(s, service, where, seen)
  if seen.names[service.name] then bad(where, "the name '%s' stands twice", service.name) end
  if not begins(s, service.name) then bad(where .. ".name", "'%s' does not begin with '%s'", service.name, s.id) end
  local like = service.like and seen.names[service.like]
  if service.like and not like then bad(where .. ".like", "there is no service '%s' before it", service.like) end
  if (service.image == nil) ~= (service.tag == nil) or (service.image == nil) == (like == nil) then
    bad(where, "image and tag, or like, are needed")
  end
  if service.tag == "latest" then bad(where .. ".tag", "'latest' names no version") end
  if service.init and service.health then bad(where .. ".health", "a service that ends has none") end
  seen.names[service.name] = service
  for _, volume in ipairs(service.volumes or {}) do
    if not begins(s, volume.name) then bad(where .. ".volumes", "'%s' does not begin with '%s'", volume.name, s.id) end
    -- Two services may share a volume of their tool, at the same place.
    if seen.volumes[volume.name] and seen.volumes[volume.name] ~= volume.mount then
      bad(where .. ".volumes", "'%s' stands twice, at two places", volume.name)
    end
    seen.volumes[volume.name] = volume.mount
  end
  for _, bind in ipairs(service.binds or {}) do
    if (bind.source == nil) == (bind.from == nil) then bad(where .. ".binds", "either source or from is needed") end
  end
  for _, f in ipairs(service.files or {}) do
    if not seen.files[f.name] then bad(where .. ".files", "there is no file '%s'", f.name) end
  end
  for _, port in ipairs(service.ports or {}) do
    if seen.ports[port.host] then bad(where .. ".ports", "%d stands twice", port.host) end
    seen.ports[port.host] = true
  end
  check_health(service, where .. ".health")
  check_sentry(service, where .. ".sentry")
  for _, k in ipairs(sorted_keys(service.env or {})) do
    for name in service.env[k]:gmatch(stack_schema.secret_name) do
      local kind = seen.secrets[name]
      if not kind or kind == "issued" then bad(where .. ".env." .. k, "there is no secret '%s'", name) end
    end
  end
end

-- stack_schema.references(s, file): names and what they refer to, which the kinds of
-- single fields cannot see; and what the catalog says of the tool.
function stack_schema.references(s, file)
  local seen = { names = {}, volumes = {}, files = {}, ports = {}, secrets = check_secrets(s, file) }
  for i, f in ipairs(s.files or {}) do
    if seen.files[f.name] then bad(file, "files[%d]: %s stands twice", i, f.name) end
    seen.files[f.name] = true
    for name in f.text:gmatch(stack_schema.secret_name) do
      if not seen.secrets[name] then bad(file, "files[%d].text: there is no secret '%s'", i, name) end
    end
  end
  for name in (s.setup or ""):gmatch(stack_schema.secret_name) do
    if not seen.secrets[name] then bad(file, "setup: there is no secret '%s'", name) end
  end
  for i, service in ipairs(s.services) do check_service(s, service, ("%s: services[%d]"):format(file, i), seen) end
  for i, service in ipairs(s.services) do
    for _, need in ipairs(service.needs or {}) do
      local where = ("%s: services[%d].needs"):format(file, i)
      if not seen.names[need] or need == service.name then
        bad(where, "there is no other service '%s'", need)
      elseif not seen.names[need].health and not seen.names[need].init then
        bad(where, "'%s' has no health check to wait for", need)
      end
    end
  end
  local tool = catalog.part(s.id)
  if not tool then bad(file, "id: the catalog has no tool '%s'", s.id) end
  local main = stack.main(s)
  if (main.port == nil) == (tool.port ~= nil) then bad(file, "%s.port: the catalog says %s", main.name, tostring(tool.port)) end
  if (s.nginx == nil) == (tool.subdomain ~= nil) then bad(file, "nginx: the catalog says %s", tostring(tool.subdomain)) end
  local memory = s.database and s.database.memory or 0
  for _, service in ipairs(s.services) do memory = memory + (service.init and 0 or service.memory) end
  if memory ~= tool.memory then bad(file, "memory: %d MiB in all, the catalog says %d", memory, tool.memory) end
end

return stack_schema
