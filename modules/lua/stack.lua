-- stack.lua: a tool's stack as data (templates/stacks/TOOL.lua), and what the generic
-- templates of templates/stack/ are given of it. It touches no server. Its schema is in
-- stack_schema.lua.

local stack = {}

stack.dir = "/opt/letsbe/stacks"

local password = { name = "DB_PASSWORD", kind = "password", class = "db" }

-- What every database of an engine has in common. %s is the database that it makes first.
local engines = {
  postgres = {
    image = "postgres", tag = "16.15-alpine", port = 5432, mount = "/var/lib/postgresql/data", secrets = { password },
    env = { POSTGRES_USER = "{{ db.user }}", POSTGRES_DB = "{{ db.initial }}", POSTGRES_PASSWORD = "{{ secret.DB_PASSWORD }}" },
    -- Over TCP: during its first start the image runs a server that listens on a socket alone.
    test = { "CMD", "pg_isready", "-q", "-h", "127.0.0.1", "-U", "%u", "-d", "%s" },
  },
  mysql = {
    image = "mysql", tag = "8.4.11", port = 3306, mount = "/var/lib/mysql",
    secrets = { password, { name = "DB_ROOT_PASSWORD", kind = "password", class = "root" } },
    env = { MYSQL_DATABASE = "{{ db.initial }}", MYSQL_USER = "{{ db.user }}", MYSQL_PASSWORD = "{{ secret.DB_PASSWORD }}",
      MYSQL_ROOT_PASSWORD = "{{ secret.DB_ROOT_PASSWORD }}" },
    test = { "CMD", "mysqladmin", "ping", "-s", "-h", "127.0.0.1" },
  },
  mongo = {
    image = "mongo", tag = "8.0.29-noble", port = 27017, mount = "/data/db",
    secrets = { { name = "DB_PASSWORD", kind = "token", class = "db" } },
    env = { MONGO_INITDB_ROOT_USERNAME = "{{ db.user }}", MONGO_INITDB_ROOT_PASSWORD = "{{ secret.DB_PASSWORD }}" },
    test = { "CMD", "mongosh", "--quiet", "--eval", "db.runCommand('ping').ok" },
  },
}

-- What belongs to the server and to no tool: key pairs, see sealed.lua.
stack.server_secrets = {
  { name = "ADMIN_SSH_KEY", kind = "ssh", class = "ssh" },
  { name = "HUB_SSH_KEY", kind = "ssh", class = "ssh" },
}

local kinds = {
  password = { encoding = "base64", bytes = 32 }, token = { encoding = "hex", bytes = 32 },
  letters = { encoding = "alnum", length = 32 },
}

-- A PKCS#12 file with a certificate of its own, in base64: a line of an .env file.
local function pkcs12(spec, name, key)
  local made = crypto.self_signed { names = { spec.subject or spec.name:lower() }, days = 3650, name = name .. ".key" }
  return crypto.base64(crypto.pkcs12 { cert = made.cert, key = made.key, password = key, name = name })
end

-- stack.mint(spec, name, other) -> a new secret of that kind; other(NAME) gives those that
-- it is made of. A tool's own prefix is the caller's.
function stack.mint(spec, name, other)
  if spec.kind == "bcrypt" then return crypto.bcrypt(other(spec.of), 10) end
  if spec.kind == "argon2id" then return crypto.argon2id(other(spec.of), { memory = 65540, time = 3, lanes = 4 }) end
  if spec.kind == "pkcs12" then return pkcs12(spec, name, other(spec.of)) end
  if spec.kind == "ssh" then return crypto.ed25519_keypair({ name = name, comment = name:lower() }).private end
  local options = { name = name }
  if spec.alphabet then
    options.alphabet, options.length = spec.alphabet, spec.length or 32
  else
    for k, v in pairs(kinds[spec.kind]) do options[k] = spec[k] or v end
  end
  return crypto.password(options)
end

local secret_name = stack_schema.secret_name
local whole = "^{{%s*secret%.([%a_][%w_]*)%s*}}$"

-- stack.check(s, file, id) -> s, or a typed error that names file and field.
function stack.check(s, file, id)
  local function bad(what, ...) fail("runbook", file .. ": " .. what:format(...)) end
  if type(s) ~= "table" then bad("it returns a %s, not a table", type(s)) end
  stack_schema.fields(s, file)
  if s.id ~= id then bad("id: '%s' in the file of '%s'", s.id, id) end
  stack_schema.references(s, file)
  return s
end

-- A part of the platform gets from the catalog what only the catalog says of it.
local function of_catalog(s, id)
  local part, main = catalog.platform[id], type(s) == "table" and type(s.services) == "table" and s.services[1]
  if not part or type(main) ~= "table" then return s end
  main.image, main.tag, main.port = part.image, part.tag, part.port
  if type(main.health) == "table" then main.health.path = part.health end
  return s
end

-- stack.get(id) -> the checked data of a tool or a part of the platform, nil where there is none.
function stack.get(id)
  local file = ("stacks/%s.lua"):format(id)
  local s = data(file)
  return s and stack.check(of_catalog(s, id), "templates/" .. file, id)
end

-- stack.all_secrets(s) -> all secrets of the tool, those of its database first.
function stack.all_secrets(s)
  local all = {}
  for _, from in ipairs { s.database and engines[s.database.engine] and engines[s.database.engine].secrets or {}, s.secrets or {} } do
    for _, spec in ipairs(from) do all[#all + 1] = spec end
  end
  return all
end

-- stack.secrets(s) -> those that are minted, stack.issued(s) -> those that the tool hands out
function stack.secrets(s)
  local all = {}
  for _, spec in ipairs(stack.all_secrets(s)) do
    if spec.kind ~= "issued" then all[#all + 1] = spec end
  end
  return all
end

function stack.issued(s)
  local all = {}
  for _, spec in ipairs(s.secrets or {}) do
    if spec.kind == "issued" then all[#all + 1] = spec end
  end
  return all
end

-- The secret that a service's `sentry` names: where GlitchTip takes its errors. GlitchTip's
-- projects hand it out, see glitchtip.lua.
stack.dsn = "SENTRY_DSN"

-- stack.reports(s) -> whether its data names a variable of Sentry
function stack.reports(s)
  for _, service in ipairs(s.services) do
    if service.sentry then return true end
  end
  return false
end

local function captured(p)
  for _, id in ipairs(p and p.tools or {}) do
    if id == "glitchtip" then return true end
  end
  return false
end

-- stack.needed(s, p) -> the secrets that its .env is made of: its own, and where its errors go
function stack.needed(s, p)
  local all = stack.secrets(s)
  if stack.reports(s) and captured(p) then all[#all + 1] = { name = stack.dsn } end
  return all
end

-- stack.main(s) -> the service that the tool's port leads to: the first that stays.
function stack.main(s)
  for _, service in ipairs(s.services) do
    if not service.init then return service end
  end
  return s.services[1]
end

-- stack.host(s, p) -> the name under which the tool is reached
function stack.host(s, p)
  return catalog.get(s.id).subdomain .. "." .. p.domain
end

-- What data may name in {{ }}.
local function known(s, p, secrets)
  local tool = catalog.part(s.id)
  local vars = { tenant = p.tenant, domain = p.domain, port = tool.port, host = tool.subdomain and stack.host(s, p), secret = secrets,
    admin_email = "admin@" .. p.domain, tools = {} }
  for _, id in ipairs(catalog.sorted(p.tools or {})) do
    local other = catalog.get(id)
    if other.subdomain then
      vars.tools[#vars.tools + 1] = { name = other.name, url = ("https://%s.%s"):format(other.subdomain, p.domain) }
    end
  end
  if s.database then
    local name = s.database.name or s.id
    vars.db = { host = s.id .. "-db", port = engines[s.database.engine].port, name = name, user = s.id,
      initial = s.database.initial or name }
  end
  return vars
end

local function fill(s, vars, where, value)
  -- Most hold none.
  if not value:find("{[{%%#]") then return value end
  return template.render(value, vars, { name = ("templates/stacks/%s.lua: %s"):format(s.id, where) })
end

local function engine_service(s)
  local engine = engines[s.database.engine]
  local test = {}
  for i, part in ipairs(engine.test) do
    test[i] = part == "%u" and s.id or part == "%s" and (s.database.initial or s.database.name or s.id) or part
  end
  return {
    name = s.id .. "-db", image = s.database.image or engine.image, tag = s.database.tag or engine.tag, digest = s.database.digest,
    memory = s.database.memory, env = engine.env, health = { test = test, grace = 60 },
    volumes = { { name = s.id .. "-db", mount = engine.mount } },
  }
end

-- What a service is told of GlitchTip is a part of its environment where there is one.
local function with_sentry(service)
  local env = {}
  for _, from in ipairs { service.env or {}, service.sentry } do
    for name, value in pairs(from) do env[name] = value end
  end
  service.env = env
end

-- Its services with the database first, `like` resolved; with p, as for this tenant.
local function services_of(s, p)
  local all, by_name = {}, {}
  if s.database then all[1] = engine_service(s) end
  for _, given in ipairs(s.services) do
    local service = {}
    for _, k in ipairs { "image", "tag", "digest", "env", "sentry", "volumes", "binds", "files" } do
      service[k] = given.like and by_name[given.like][k]
    end
    for k, v in pairs(given) do service[k] = v end
    if service.sentry and captured(p) then with_sentry(service) end
    by_name[service.name] = service
    all[#all + 1] = service
  end
  return all
end

-- Where there is a digest, it decides, and the tag says what it was.
local function whole_name(service)
  return ("%s:%s%s"):format(service.image, service.tag, service.digest and "@" .. service.digest or "")
end

-- An HTTP request in Bash alone, for images that have nothing else.
local bash_request = [[exec 3<>/dev/tcp/127.0.0.1/%d && printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n%s\r\n' >&3 ]]
  .. [[&& read -r _ status _ <&3 && [ "$status" = 200 ] ]]

local function http_test(health, port)
  local url = ("http://127.0.0.1:%d%s"):format(port, health.path)
  if health.by == "node" then
    return { "CMD", "node", "-e", ("fetch('%s').then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"):format(url) }
  end
  if health.by == "python" then
    return { "CMD", "python3", "-c", ("import urllib.request; urllib.request.urlopen('%s', timeout=8)"):format(url) }
  end
  if health.by == "bash" then
    local headers = ""
    for _, name in ipairs(sorted_keys(health.headers or {})) do headers = headers .. ("%s: %s\\r\\n"):format(name, health.headers[name]) end
    return { "CMD", "bash", "-c", (bash_request:format(port, health.path, headers):gsub(" $", "")) }
  end
  local words = { curl = { "curl", "-fsS", "-o", "/dev/null" }, wget = { "wget", "-q", "-O", "/dev/null" } }
  local option = { curl = "-H", wget = "--header" }
  local test = { "CMD" }
  for _, part in ipairs(words[health.by]) do test[#test + 1] = part end
  for _, name in ipairs(sorted_keys(health.headers or {})) do
    test[#test + 1] = option[health.by]
    test[#test + 1] = ("%s: %s"):format(name, health.headers[name])
  end
  test[#test + 1] = url
  if not health.refuse then return test end
  -- An answer that holds this text is none, whatever its status.
  local get = health.by == "curl" and "curl -fsS" or "wget -q -O -"
  return { "CMD", "sh", "-c", ("body=$(%s %s) || exit 1; case $body in *%s*) exit 1 ;; esac"):format(get, url, quote(health.refuse)) }
end

local function health_test(health, port)
  if health.test then return health.test end
  if health.by then return http_test(health, health.port or port) end
  local test = { "CMD" }
  for _, part in ipairs(health.command) do test[#test + 1] = part end
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

-- What a service waits for, each with the state that it waits for.
local function needs_of(s, service, by_name)
  local needs = {}
  if s.database and service.name ~= s.id .. "-db" and names_database(service) then
    needs[1] = { name = s.id .. "-db", condition = "service_healthy" }
  end
  for _, name in ipairs(service.needs or {}) do
    needs[#needs + 1] = { name = name, condition = by_name[name].init and "service_completed_successfully" or "service_healthy" }
  end
  return needs
end

local function ports_of(s, service, port)
  local ports = {}
  if service.network then return false end
  if port and service.name == stack.main(s).name then ports[1] = ("127.0.0.1:%d:%d"):format(port, service.port) end
  for _, p in ipairs(service.ports or {}) do ports[#ports + 1] = ("%s%d:%d"):format(p.public and "" or "127.0.0.1:", p.host, p.port) end
  return #ports > 0 and ports
end

-- A bind mount keeps the file that was there at the start: one that has changed makes
-- another container by its label. What is secret never changes the label.
local function files_label(s, vars)
  if not s.files then return false end
  local text = {}
  for i, f in ipairs(s.files) do
    text[i] = f.text:find(secret_name) and f.text or fill(s, vars, "files." .. f.name, f.text)
  end
  return crypto.sha256(table.concat(text, "\0")):sub(1, 16)
end

-- stack.compose(s, p) -> what templates/stack/compose.yml is given. No secret is in it.
function stack.compose(s, p)
  local vars = known(s, p, {})
  local out, by_name, seen = { id = s.id, services = {}, volumes = {}, bridged = false }, {}, {}
  -- What others wait for is asked more often.
  local awaited = { [s.id .. "-db"] = s.database ~= nil }
  local services = services_of(s, p)
  for _, service in ipairs(services) do
    by_name[service.name] = service
    for _, name in ipairs(service.needs or {}) do awaited[name] = true end
  end
  for i, service in ipairs(services) do
    local mounts = {}
    for _, v in ipairs(service.volumes or {}) do
      mounts[#mounts + 1] = { type = "volume", source = v.name, mount = v.mount, read_only = false }
    end
    for _, b in ipairs(service.binds or {}) do
      local read_only = b.read_only or b.from ~= nil
      mounts[#mounts + 1] = { type = "bind", source = b.source or "./" .. b.from, mount = b.mount, read_only = read_only }
    end
    for _, f in ipairs(service.files or {}) do
      mounts[#mounts + 1] = { type = "bind", source = "./" .. f.name, mount = f.mount, read_only = true }
    end
    out.bridged = out.bridged or not service.network
    out.services[i] = {
      name = service.name, container = service.container or service.name,
      image = whole_name(service), memory = ("%dm"):format(service.memory),
      restart = service.init and "no" or "unless-stopped",
      network_mode = service.network or false, ports = ports_of(s, service, vars.port), env = environment(s, vars, service),
      command = service.command or false, entrypoint = service.entrypoint or false, needs = needs_of(s, service, by_name),
      mounts = mounts, label = service.files and files_label(s, vars) or false, health = service.health and {
        test = health_test(service.health, service.port), interval = awaited[service.name] and "5s" or "30s",
        grace = ("%ds"):format(service.health.grace or 60),
      } or false,
    }
    for _, volume in ipairs(service.volumes or {}) do
      if not seen[volume.name] then out.volumes[#out.volumes + 1] = volume.name end
      seen[volume.name] = true
    end
  end
  return out
end

-- stack.env(s, p, secrets) -> what templates/stack/env is given: each secret, and each
-- value of a variable that is made of one.
function stack.env(s, p, secrets)
  local vars, all, seen = known(s, p, secrets), {}, {}
  for _, spec in ipairs(stack.needed(s, p)) do
    all[#all + 1] = { name = spec.name, value = secrets[spec.name] }
    seen[spec.name] = spec.name
  end
  for _, service in ipairs(services_of(s, p)) do
    for _, name in ipairs(sorted_keys(service.env or {})) do
      local value = service.env[name]
      if value:match(secret_name) and not value:match(whole) and seen[name] ~= value then
        if seen[name] then
          fail("runbook", ("templates/stacks/%s.lua: %s.env.%s: two values of one name"):format(s.id, service.name, name))
        end
        seen[name] = value
        all[#all + 1] = { name = name, value = fill(s, vars, ("%s.env.%s"):format(service.name, name), value) }
      end
    end
  end
  return { id = s.id, values = all }
end

-- stack.resources(s, p) -> the resources that bring a stack up: credentials, files and, last,
-- its containers.
function stack.resources(s, p)
  local dir, secrets = stack.dir .. "/" .. s.id, stack.secrets(s)
  local function private(name, template, vars, mode)
    return file.template { path = dir .. "/" .. name, template = template, vars = vars, mode = mode or "0600",
      owner = "root", group = "root" }
  end
  local list, reads = {
    directory.present { path = dir, mode = "0700", owner = "root", group = "root" },
    private("docker-compose.yml", "stack/compose.yml", stack.compose(s, p)),
    private(".env", "stack/env", function(ctx) return stack.env(s, p, credentials.of(ctx, s.id, stack.needed(s, p))) end),
  }, { ".env" }
  if #secrets > 0 then table.insert(list, 1, credentials.present { tool = s.id, secrets = secrets }) end
  for _, f in ipairs(s.files or {}) do
    list[#list + 1] = private(f.name, "stack/file", function(ctx)
      return { content = stack.file(s, p, f.name, credentials.of(ctx, s.id, secrets)) }
    end, f.readable and "0644" or "0600")
    reads[#reads + 1] = f.name
  end
  list[#list + 1] = compose.up { project = s.id, dir = dir, files = reads, wait = stack.grace(s), may_exit = stack.may_exit(s) }
  return list
end

-- stack.containers(s) -> the names of its containers, those aside that do one thing and end
function stack.containers(s)
  local names = {}
  for _, service in ipairs(services_of(s)) do
    if not service.init then names[#names + 1] = service.container or service.name end
  end
  return names
end

-- stack.file(s, p, name, secrets) -> the content of a file that lies beside the compose file
function stack.file(s, p, name, secrets)
  for _, f in ipairs(s.files or {}) do
    if f.name == name then return fill(s, known(s, p, secrets), "files." .. name, f.text) end
  end
end

-- stack.setup(s, p, secrets) -> the lines of its first set-up, nil where it has none of its own
function stack.setup(s, p, secrets)
  return s.setup and fill(s, known(s, p, secrets), "setup", s.setup)
end

-- stack.may_exit(s) -> { NAME = true } of services that do one thing and end
function stack.may_exit(s)
  local names = {}
  for _, service in ipairs(s.services) do names[service.name] = service.init end
  return names
end

local function site_of(s, n, name, hosts, port)
  local redirects, locations = {}, {}
  for _, from in ipairs(sorted_keys(n.redirects or {})) do redirects[#redirects + 1] = { from = from, to = n.redirects[from] } end
  for i, l in ipairs(n.locations or {}) do
    locations[i] = { match = l.match, port = l.port or port, timeout = l.timeout or n.timeout }
  end
  locations[#locations + 1] = { match = "/", port = port, timeout = n.timeout }
  return {
    id = s.id, name = name, host = hosts[1], hosts = hosts, body = n.body, server = n.server or {}, redirects = redirects,
    websocket = n.websocket or false,
    hidden = n.hidden or {}, locations = locations,
  }
end

-- stack.sites(s, p) -> what templates/stack/site.conf is given for each of the tool's sites,
-- its own first, beside `ipv6` and `tls`. `name` is the site's, `hosts` are the names it answers.
function stack.sites(s, p)
  local list, tool = {}, catalog.part(s.id)
  if s.nginx then list[1] = site_of(s, s.nginx, tool.subdomain, { stack.host(s, p) }, tool.port) end
  for _, n in ipairs(s.sites or {}) do
    local hosts = {}
    for i, subdomain in ipairs(n.subdomains) do hosts[i] = subdomain .. "." .. p.domain end
    list[#list + 1] = site_of(s, n, n.name, hosts, n.port)
  end
  return list
end

-- stack.hosts(s, p) -> every name under which the tool is reached
function stack.hosts(s, p)
  local names = {}
  for _, site in ipairs(stack.sites(s, p)) do
    for _, host in ipairs(site.hosts) do names[#names + 1] = host end
  end
  return names
end

-- stack.address(s) -> the URL of its health path on the server, and the check; nil where nothing
-- leads to it, or where its container asks in another way.
function stack.address(s)
  local main = stack.main(s)
  local health, part = main.health, catalog.part(s.id)
  if not health or not health.path then return nil end
  local port = part.port
  if health.port and health.port ~= main.port then
    port = main.network == "host" and health.port or nil
    for _, p in ipairs(main.ports or {}) do
      if p.port == health.port then port = p.host end
    end
  end
  return port and ("http://127.0.0.1:%d%s"):format(port, health.path), health
end

-- stack.images(s) -> the images of its containers, each once
function stack.images(s)
  local list, seen = {}, {}
  for _, service in ipairs(services_of(s)) do
    local image = whole_name(service)
    if not seen[image] then list[#list + 1] = image end
    seen[image] = true
  end
  return list
end

-- stack.grace(s) -> seconds in which all of its containers should be healthy
function stack.grace(s)
  local total = 60
  for _, service in ipairs(services_of(s)) do total = total + (service.health and service.health.grace or 0) end
  return total
end

return stack
