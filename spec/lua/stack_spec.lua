-- stack_spec.lua: the tools' data against their schema, and what the generic templates make
-- of it. Containers are in spec/runbooks/stacks_spec.lua.
local host = require "host"
local script = require "lb.script"
local sources = require "lb.sources"
local envfile = require "lb.envfile"
local util = require "lb.util"
local support = require "support.lbrun"
local standins = require "support.standins"

local closure = sources.collect "runbooks/provision.lua"
local env = script.environment(closure)
local stack, catalog, credentials = env.stack, env.catalog, env.credentials
local p = { tenant = "acme", domain = "acme.example", tools = catalog.names() }

local tools = {}
for _, id in ipairs(catalog.names()) do
  if stack.get(id) then tools[#tools + 1] = id end
end

-- With the parts of the platform that have stacks of their own.
local stacks = table.move(tools, 1, #tools, 1, { [#tools + 1] = "openclaw", [#tools + 2] = "secrets-proxy" })

local function raised(fn, ...)
  local fine, err = pcall(fn, ...)
  assert.is_false(fine)
  return util.as_error(err)
end

local function secrets_of(s)
  local all = {}
  for _, spec in ipairs(stack.needed(s, p)) do all[spec.name] = host.secret(spec.name, "value of " .. spec.name .. " /+=$%#") end
  return all
end

local function plain(text)
  return host.is_secret(text) and host.reveal(text) or text
end

local function render(name, vars)
  return plain(env.template.render(closure:read("templates/stack/" .. name), vars, { name = name }))
end

local function sites_of(s)
  local list = stack.sites(s, p)
  for _, site in ipairs(list) do
    site.ipv6, site.tls = true, { certificate = "/etc/nginx/lbrun/fallback.pem", key = "/etc/nginx/lbrun/fallback.pem", trusted = false }
  end
  return list
end

-- What is put on a server for a tool, by file: its sites are one text.
local function rendered(id, secrets)
  local s = stack.get(id)
  local conf = {}
  for i, site in ipairs(sites_of(s)) do conf[i] = render("site.conf", site) end
  secrets = secrets or secrets_of(s)
  local files = { yml = render("compose.yml", stack.compose(s, p)), env = render("env", stack.env(s, p, secrets)),
    conf = #conf > 0 and table.concat(conf) or nil }
  files.setup = plain(stack.setup(s, p, secrets))
  for _, f in ipairs(s.files or {}) do files[f.name] = render("file", { content = stack.file(s, p, f.name, secrets) }) end
  return files
end

-- A whole small tool, with one change.
local function tool(change)
  local s = {
    id = "ghost", database = { engine = "mysql", memory = 448 },
    services = { { name = "ghost", image = "ghost", tag = "1", port = 2368, memory = 320, env = { A = "b" } } },
    nginx = { body = "50m", timeout = "60s" },
  }
  if change then change(s) end
  return s
end

describe("the data of a stack #unit", function()
  it("is taken when it is right", function()
    assert.truthy(stack.check(tool(), "ghost.lua", "ghost"))
  end)

  for _, case in ipairs {
    { "an unknown field", function(s) s.sevices = s.services end, "ghost.lua: there is no field 'sevices'.*services" },
    { "an unknown field of a service", function(s) s.services[1].prot = 1 end, "ghost.lua: services%[1%]: there is no field 'prot'.*port" },
    { "a missing field", function(s) s.services[1].memory = nil end, "ghost.lua: services%[1%]: the field 'memory' is missing" },
    { "a wrong type", function(s) s.services[1].port = "2368" end, "ghost.lua: services%[1%].port: expected a whole number" },
    { "logic", function(s) s.services[1].env.A = function() end end, "ghost.lua: services%[1%].env.A: expected a text, got a function" },
    { "no version", function(s) s.services[1].tag = "latest" end, "services%[1%].tag: 'latest' names no version" },
    { "half a digest", function(s) s.services[1].digest = "sha256:1234" end, "services%[1%].digest: 'sha256:1234' is not a digest" },
    { "an unknown engine", function(s) s.database.engine = "postgre" end, "database.engine: expected postgres, mysql, mongo.*postgres" },
    { "a secret that nobody makes", function(s) s.services[1].env.A = "{{ secret.NONE }}" end, "services%[1%].env.A: there is no secret 'NONE'" },
    { "two secrets of one name", function(s) s.secrets = { { name = "DB_PASSWORD", kind = "token" } } end, "DB_PASSWORD stands twice" },
    { "a hash of nothing", function(s) s.secrets = { { name = "H", kind = "bcrypt" } } end, "secrets%[3%].of: bcrypt, argon2id and pkcs12 name" },
    { "a hash of what comes later", function(s) s.secrets = { { name = "H", kind = "bcrypt", of = "P" } } end, "secrets%[3%].of: there is no secret 'P' before it" },
    { "a secret that the tool hands out, as a variable", function(s)
      s.secrets = { { name = "K", kind = "issued" } }
      s.services[1].env.A = "{{ secret.K }}"
    end, "services%[1%].env.A: there is no secret 'K'" },
    { "a file that is nowhere", function(s) s.services[1].files = { { name = "a.conf", mount = "/a" } } end, "services%[1%].files: there is no file 'a.conf'" },
    { "a bind of two sources", function(s) s.services[1].binds = { { source = "/a", from = "b", mount = "/c" } } end, "binds: either source or from" },
    { "a health check of what ends", function(s) s.services[1].init, s.services[1].health = true, { command = { "x" } } end, "services%[1%].health: a service that ends has none" },
    { "a volume of another tool", function(s) s.services[1].volumes = { { name = "odoo-data", mount = "/d" } } end, "'odoo%-data' does not begin with 'ghost'" },
    { "a directive without its end", function(s) s.nginx.server = { "gzip on" } end, "nginx.server%[1%]: 'gzip on' is not a directive" },
    { "a need for what is not there", function(s) s.services[1].needs = { "ghost-redis" } end, "services%[1%].needs: there is no other service" },
    { "other memory than the catalog's", function(s) s.services[1].memory = 321 end, "memory: 769 MiB in all, the catalog says 768" },
    { "a first set-up with a secret that nobody makes", function(s) s.setup = "x {{ secret.NONE | sh }}" end, "setup: there is no secret 'NONE'" },
    { "a program that would report to its makers", function(s) s.services[1].sentry = { SENTRY_ENABLED = "true" } end,
      "services%[1%].sentry: no variable is {{ secret.SENTRY_DSN }}" },
    { "a variable of Sentry that stands twice", function(s) s.services[1].sentry = { A = "{{ secret.SENTRY_DSN }}" } end,
      "services%[1%].sentry.A: it stands in env too" },
    { "another secret as a variable of Sentry", function(s) s.services[1].sentry = { B = "x{{ secret.DB_PASSWORD }}" } end,
      "services%[1%].sentry.B: {{ secret.SENTRY_DSN }} is all that it may hold" },
    { "where its errors go, without GlitchTip", function(s) s.services[1].env.A = "{{ secret.SENTRY_DSN }}" end,
      "services%[1%].env.A: there is no secret 'SENTRY_DSN'" },
    { "a check of nothing", function(s) s.services[1].health = { by = "curl" } end, "services%[1%].health: by needs a path and a port" },
  } do
    it("is refused for " .. case[1] .. ", by file and field", function()
      local err = raised(stack.check, tool(case[2]), "ghost.lua", "ghost")
      assert.equal("runbook", err.code)
      assert.matches(case[3], err.message)
    end)
  end

  it("may pin an image by its digest beside the tag", function()
    local digest = "sha256:" .. ("0f"):rep(32)
    local s = stack.check(tool(function(t) t.services[1].digest, t.database.digest = digest, digest end), "ghost.lua", "ghost")
    assert.same({ "mysql:8.4.11@" .. digest, "ghost:1@" .. digest }, stack.images(s))
    assert.matches("image: \"?ghost:1@" .. digest, render("compose.yml", stack.compose(s, p)))
  end)

  it("is refused for an unknown placeholder, by file and variable", function()
    local err = raised(stack.compose, tool(function(s) s.services[1].env.A = "{{ domian }}" end), p)
    assert.matches("stacks/ghost.lua: ghost.env.A.*domian", err.message)
  end)

  it("sees no global", function()
    local own = { read = function() return "return { os = os, print = print, string = string, require = require }" end,
      chunkname = function(_, name) return "@" .. name end, main = "runbooks/x.lua" }
    assert.is_nil(next(script.environment(own).data "x.lua"))
  end)

  -- What stands twice among the stacks, each { s, id }; the ports 80 and 443 are nginx's.
  local function shared(list)
    local seen, twice = { ["port 80"] = "nginx", ["port 443"] = "nginx", ["container letsbe-nginx"] = "nginx" }, {}
    local function own(what, id)
      if seen[what] then twice[#twice + 1] = ("%s of %s and %s"):format(what, seen[what], id) end
      seen[what] = id
    end
    for _, s in ipairs(list) do
      local c, id = stack.compose(s, p), s.id
      if catalog.part(id).port then own("port " .. catalog.part(id).port, id) end
      for _, service in ipairs(s.services) do
        for _, port in ipairs(service.ports or {}) do own("port " .. port.host, id) end
      end
      for _, site in ipairs(catalog.get(id) and stack.sites(s, p) or {}) do
        own("site " .. site.name, id)
        for _, name in ipairs(site.hosts) do own("name " .. name, id) end
      end
      for _, service in ipairs(c.services) do own("container " .. service.container, id) end
      if c.bridged then own("network " .. c.id, id) end
      for _, volume in ipairs(c.volumes) do own("volume " .. volume, id) end
      for _, spec in ipairs(stack.all_secrets(s)) do own("secret " .. credentials.key(id, spec.name), id) end
    end
    return twice
  end

  it("shares no port, container, network, volume, site, name or stored secret with another", function()
    local list = {}
    for i, id in ipairs(stacks) do list[i] = stack.get(id) end
    assert.equal(33, #list)
    assert.same({}, shared(list))
  end)

  it("would be seen to share each of them", function()
    local function twice(change)
      local ghost, other = tool(), stack.get "wordpress"
      change(other)
      return shared { ghost, other }
    end
    assert.same({}, twice(function() end))
    for what, change in pairs {
      ["port 3029"] = function(s) s.services[1].ports = { { host = 3029, port = 80 } } end,
      ["container ghost%-db"] = function(s) s.services[1].container = "ghost-db" end,
      ["volume ghost%-db"] = function(s) s.services[1].volumes = { { name = "ghost-db", mount = "/x" } } end,
      ["site blog"] = function(s) s.sites = { { name = "blog", subdomains = { "x" }, port = 1, body = "1m", timeout = "1s" } } end,
      ["name blog.acme.example"] = function(s) s.sites = { { name = "x", subdomains = { "blog" }, port = 1, body = "1m", timeout = "1s" } } end,
      ["port 443"] = function(s) s.services[1].ports = { { host = 443, port = 443 } } end,
    } do
      local list = twice(change)
      assert.equal(1, #list, what)
      assert.matches("^" .. what .. " of %S+ and wordpress$", list[1])
    end
    assert.same({ "secret GHOST_KEY of ghost and ghost" }, shared { tool(function(s)
      s.secrets = { { name = "KEY", kind = "token" }, { name = "GHOST_KEY", kind = "token" } }
    end) })
  end)
end)

describe("the rendered files of #unit", function()
  for _, id in ipairs(stacks) do
    it(id .. " are those that were looked through", function()
      for ending, text in pairs(rendered(id)) do
        local path = ("spec/lua/golden/%s.%s"):format(id, ending)
        if os.getenv "LBRUN_GOLDEN" then support.spit(path, text) end
        assert.equal(support.slurp(path), text)
      end
    end)

    it(id .. " leave no placeholder, bind to the loopback and hold secrets in .env alone", function()
      local files = rendered(id)
      for _, text in pairs(files) do assert.is_nil(text:find("[{}%%][{}%%]", 1) and text:find("{{", 1, true)) end
      for ports in files.yml:gmatch "ports: (%b[])" do
        for address in ports:gmatch '"([^"]+)"' do
          local mail = id == "stalwart" and (address == "25:25" or address == "587:587" or address == "993:993")
          assert(mail or address:match "^127%.0%.0%.1:%d+:%d+$", address)
        end
      end
      assert.is_nil(files.yml:find("value of", 1, true))
      assert.is_nil((files.conf or ""):find("value of", 1, true))
    end)
  end
end)

describe("the stand-in images #unit", function()
  it("are told of the tools what the stacks' data says", function()
    local all = {}
    for i, id in ipairs(tools) do all[i] = stack.get(id) end
    local text = standins.table(all)
    if os.getenv "LBRUN_GOLDEN" then support.spit(standins.path, text) end
    assert.equal(support.slurp(standins.path), text)
  end)

  it("have a recipe for every image", function()
    for _, image in ipairs(standins.images(stack, tools)) do
      local name = image:match "([^/:]+):[^/]+$"
      assert(io.open(("spec/sandbox/stand-ins/%s/Dockerfile"):format(name)), "no stand-in for " .. image)
    end
  end)
end)

describe("the store of credentials #unit", function()
  it("reads back every value that the filter for .env writes", function()
    for _, value in ipairs { "plain1234", "a/b+c=d==", "with $dollar", "it's one", 'quo"ted', "p%c#h ash", "a\\b$c", "new\nline",
        "q'$w\"x%#", "\\n is no line", "a\"b'c\\\\d", "tab\there", "=leading", "#leading", "é and more" } do
      local text = env.template.render("X={{ v | env }}\n", { v = value }, {})
      assert.same({ X = value }, envfile.parse(text, "x.env"), text)
    end
  end)

  it("names the line that it cannot read, and not what is in it", function()
    for _, line in ipairs { "NOVALUE", "A=two words", "A='open", "1A=x", "A=", "A=\"a\"b\"" } do
      local err = raised(envfile.parse, "# head\n" .. line .. "\n", "x.env")
      assert.equal("key", err.code)
      assert.matches("x.env:2 ", err.message)
      assert.is_nil(err.message:find(line, 1, true))
    end
    assert.matches("twice", raised(envfile.parse, "A=12345678\nA=12345678\n", "x.env").message)
  end)

  it("gives each tool names of its own", function()
    assert.equal("GHOST_DB_PASSWORD", credentials.key("ghost", "DB_PASSWORD"))
    assert.equal("UPTIME_KUMA_ADMIN_PASSWORD", credentials.key("uptime-kuma", "UPTIME_KUMA_ADMIN_PASSWORD"))
  end)

  it("mints by the kind: base64 of 32 bytes, hex, letters, an alphabet", function()
    local function mint(spec) return host.reveal(stack.mint(spec, "X")) end
    assert.matches("^[%w+/]+=$", mint { kind = "password" })
    assert.equal(44, #mint { kind = "password" })
    assert.matches("^%x+$", mint { kind = "token" })
    assert.equal(64, #mint { kind = "token" })
    assert.matches("^%w+$", mint { kind = "letters", length = 24 })
    assert.equal(24, #mint { kind = "letters", length = 24 })
    assert.matches("^[a-j]+$", mint { kind = "letters", alphabet = "abcdefghij", length = 40 })
  end)
end)

describe("the memory of the chosen tools #unit", function()
  local facts = { memory = 64 << 30 }

  it("is nobody's matter up to 75 %, warned above, refused above 90 %, by tier and by server", function()
    assert.same({}, catalog.memory_warnings({ "nextcloud", "ghost", "uptime-kuma" }, "lite", facts))
    local warned = catalog.memory_warnings({ "nextcloud", "ghost", "chatwoot", "keycloak" }, "lite", facts)
    assert.equal(1, #warned)
    assert.matches("6800 MiB.*83 %% of the memory of tier lite", warned[1])
    local err = raised(catalog.memory_warnings, { "nextcloud", "ghost", "chatwoot", "keycloak", "metabase" }, "lite", facts)
    assert.equal("memory", err.code)
    assert.matches("102 %% of the memory of tier lite.*nothing was changed", err.message)
    err = raised(catalog.memory_warnings, { "nextcloud", "ghost" }, "scale", { memory = 4 << 30 })
    assert.matches("of this server", err.message)
  end)

  it("is not counted when no tool was chosen", function()
    assert.same({}, catalog.memory_warnings({}, "lite", { memory = 1 << 30 }))
  end)
end)
