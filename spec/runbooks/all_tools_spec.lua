-- all_tools_spec.lua: a bare Debian 12 becomes a tenant with all 31 tools and the platform in one
-- run, with a certificate of pebble's. All images are stand-ins (spec/sandbox/README.md), that
-- of MongoDB too: nothing here is said of the real ones. The VPS is told that it has the
-- memory of its tier, of which the stand-ins need a fraction.
local json = require "json"
local envfile = require "lb.envfile"
local support = require "support.lbrun"
local program = require "support.program"
local acme = require "support.acme"
local vps = require "support.vps"
local provision = require "support.provision"

local env = require "lb.script".environment(require "lb.sources".collect "runbooks/provision.lua")
local stack, catalog, credentials = env.stack, env.catalog, env.credentials
local p = { tenant = "acme", domain = "acme.example", tools = catalog.names() }
local platform = { "openclaw", "secrets-proxy" }

local all, containers, names = {}, { "letsbe-nginx" }, { "acme.example" }
for _, ids in ipairs { p.tools, platform } do
  for _, id in ipairs(ids) do
    local s = stack.get(id)
    all[#all + 1] = s
    for _, name in ipairs(stack.containers(s)) do containers[#containers + 1] = name end
  end
end
for _, id in ipairs(p.tools) do
  for _, name in ipairs(stack.hosts(stack.get(id), p)) do names[#names + 1] = name end
end

-- A password of the characters that a shell, an .env file, YAML, Compose, a template or a URL could
-- take for its own, each at least once; bcrypt takes no more than 72 bytes. `${` is none of them:
-- versions of Compose differ on it, and lbrun refuses it.
local awkward = { "/", "+", "=", "$", "'", '"', "%", "#", "$$", "$HOME", "$1", "%41", "{{ x }}", "{%", "&", "<b>", ";", "|", " ", ":@?" }
local function splitted(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do list[#list + 1] = line end
  return list
end
local function password()
  local parts = { table.unpack(awkward) }
  for _ = 1, 8 do parts[#parts + 1] = string.char(math.random(97, 122)) end
  for i = #parts, 2, -1 do
    local k = math.random(i)
    parts[i], parts[k] = parts[k], parts[i]
  end
  return "a" .. table.concat(parts):gsub("%${", "$-{") .. "z"
end

describe("a tenant with all tools #vps #long", function()
  local server, home, ca, run
  local seed, planted, args = tonumber(os.getenv "LBRUN_SPEC_SEED") or os.time(), {}, nil
  local function inside(command) return (server:exec(command)) end
  local function must_be_up() assert(run and run.last and run.last.status == "done", "the tenant is not up") end

  setup(function()
    local ids = table.move(platform, 1, #platform, #p.tools + 1, table.move(p.tools, 1, #p.tools, 1, {}))
    server = vps.up("all", { images = provision.images_of(ids) })
    home = support.home()
    ca = acme.dns((server.address:gsub("%d+$", "1")), home.dir)
    ca:authority()
    ca:issue()
    for _, name in ipairs(names) do ca:point(name, server.address) end
    -- The name server knows the tenant's zone alone; packages still come from where they came from.
    inside [[for h in $(apt-config dump | sed -n 's!.*Proxy "https\?://\([^:/"]*\).*!\1!p';
      sed -n 's!.*https\?://\([^/ ]*\).*!\1!p' $(find /etc/apt/sources.list /etc/apt/sources.list.d -type f) | sort -u); do
      getent ahostsv4 "$h" | awk -v h="$h" 'NR == 1 { print $1, h }'; done >>/etc/hosts]]
    server:exec(("mkdir -p -m 0755 /etc/letsbe /opt/letsbe && mkdir -m 0700 /opt/letsbe/env && cat >/etc/letsbe/ca.pem; "
      .. "echo nameserver %s >/etc/resolv.conf"):format(ca.address), { stdin = support.slurp(ca.ca) })
    inside(("sed 's/^MemTotal:.*/MemTotal: %d kB/' /proc/meminfo >/run/meminfo && mount --bind /run/meminfo /proc/meminfo")
      :format(catalog.tiers.enterprise.memory >> 10))
    math.randomseed(seed)
    io.stderr:write(("     seed %d\n"):format(seed))
    local lines = {}
    for _, s in ipairs(all) do
      for _, spec in ipairs(stack.secrets(s)) do
        if spec.kind == "password" and not spec.alphabet and not spec.length and not spec.bytes then
          local key = credentials.key(s.id, spec.name)
          planted[key] = password()
          lines[#lines + 1] = ("%s='%s'\n"):format(key, (planted[key]:gsub("'", "\\'")))
        end
      end
    end
    args = provision.args(server, { more = ("--json tier=enterprise tools=%s acme_directory=%s acme_ca=/etc/letsbe/ca.pem"):format(
      table.concat(p.tools, ","), ca.directory) }):gsub("acme=self%-signed", "acme=http-01")
    server:exec("umask 077; cat >/opt/letsbe/env/credentials.env", { stdin = table.concat(lines) })
  end)
  teardown(function()
    if ca then ca:stop() end
    if server then server:down() end
    if home then home.remove() end
  end)

  local function states()
    local seen = {}
    for name, state, code, health in inside [[docker ps -aq | xargs docker inspect -f \
      '{{.Name}} {{.State.Status}} {{.State.ExitCode}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}']]
      :gmatch "/(%S+) (%S+) (%S+) (%S+)" do
      seen[name] = { state = state, code = code, health = health }
    end
    return seen
  end
  -- What has no test of its health is well while it runs.
  local tested = {}
  for _, s in ipairs(all) do
    for _, service in ipairs(stack.compose(s, p).services) do tested[service.container] = service.health and true end
  end
  local function ill()
    local seen, list = states(), {}
    for _, name in ipairs(containers) do
      local one = seen[name] or { state = "missing" }
      if one.state ~= "running" or one.health == "unhealthy" or tested[name] and one.health ~= "healthy" then
        list[#list + 1] = ("%s: %s %s"):format(name, one.state, one.health)
      end
    end
    return #list > 0 and table.concat(list, ", ") or nil, seen
  end
  local function become_well(seconds)
    local began = os.time()
    local bad
    repeat
      bad = ill()
      if not bad then return os.time() - began end
      os.execute "sleep 2"
    until os.time() - began > seconds
    error(("after %d s: %s"):format(seconds, bad), 2)
  end

  it("comes up from bare in one run; its time and lbrun's memory are told", function()
    local peak = home.dir .. "/peak"
    local began = os.time()
    run = home.json(args, { before = ("python3 -c %s %s"):format(support.quote [[
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)]], peak) })
    assert(provision.fine(run))
    local kib = tonumber(support.slurp(peak))
    io.stderr:write(("     31 tools and the platform, %d containers: %d s, lbrun's peak %.1f MiB\n"):format(#containers, os.time() - began,
      kib / 1024))
    -- 64 MiB of it for a moment by argon2id, with the parameters that Vaultwarden wants. The
    -- sanitizers take several times as much.
    assert.is_true(kib < 128 * 1024 or program.lbrun:find("/asan/", 1, true) ~= nil, kib)
  end)

  it("has every container healthy, and nothing beside them but what has done its one thing", function()
    must_be_up()
    become_well(120)
    local _, seen = ill()
    for _, name in ipairs(containers) do seen[name] = nil end
    for name, one in pairs(seen) do assert.equal("exited 0", one.state .. " " .. one.code, name) end
  end)

  it("answers every name with its tool over HTTPS, by one certificate of pebble's", function()
    must_be_up()
    local listed = inside "openssl x509 -in /etc/letsencrypt/live/acme.example/fullchain.pem -noout -ext subjectAltName | tail -1"
    local count = 0
    for name in listed:gmatch "DNS:([^%s,]+)" do
      count = count + 1
      assert.is_true(env.certificate.covers(names, name), name)
    end
    assert.equal(#names, count)
    local function get(name)
      return support.sh(("curl -s --max-time 30 --cacert %s --resolve %s:443:%s -w '\\n%%{http_code}' https://%s/"):format(
        ca.root, name, server.address, name))
    end
    assert.matches("\n200$", get "acme.example")
    for _, id in ipairs(p.tools) do
      for _, name in ipairs(stack.hosts(stack.get(id), p)) do
        local text = get(name)
        assert.matches("\n200$", text, name .. ": " .. text)
        assert(text:find(('"tool":"%s"'):format(id), 1, true), name .. ": " .. text)
      end
    end
  end)

  it("gives a wrong name the fallback: no certificate, no page", function()
    must_be_up()
    local _, _, status = os.execute(("curl -sk -o /dev/null --max-time 20 --resolve other.example:443:%s https://other.example/"):format(
      server.address))
    assert.equal(35, status)
  end)

  -- What a process in the container is given, as the kernel has it: some programs write over
  -- that of their own.
  local function environment(container)
    local values = {}
    local text = inside(("docker exec %s cat /proc/self/environ"):format(container))
    for name, value in text:gmatch "([^=%z]+)=([^%z]*)%z?" do values[name] = value end
    return values
  end
  -- What stands in a value where its data names a secret, and how: whole, or as a part of a URL.
  local function secret_in(template, value)
    local before, name, filter, behind = template:match "^(.-){{%s*secret%.([%w_]+)%s*(.-)%s*}}(.*)$"
    local function pattern(text)
      return (text:gsub("{{.-}}", "\0"):gsub("%p", "%%%0"):gsub("%z", ".-"))
    end
    local found = value:match("^" .. pattern(before) .. "(.*)" .. pattern(behind) .. "$")
    if found and filter:match "url" then
      found = found:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
    end
    return name, found
  end

  it("reads every password back unharmed inside the containers of every tool", function()
    must_be_up()
    local store = envfile.parse(inside "cat /opt/letsbe/env/credentials.env", "credentials.env")
    for key, value in pairs(planted) do assert.equal(value, store[key], ("%s, seed %d"):format(key, seed)) end
    local compared, of_planted, tools_seen = 0, {}, {}
    local function compare(s, name, found, where)
      local key = credentials.key(s.id, name)
      assert.equal(store[key], found, ("%s: %s, seed %d"):format(where, key, seed))
      for _, spec in ipairs(s.secrets or {}) do
        if spec.name == name and (spec.kind == "bcrypt" or spec.kind == "argon2id") then
          local of = credentials.key(s.id, spec.of)
          assert.is_true(env.crypto.verify(planted[of], found), ("%s: the hash of %s, seed %d"):format(where, of, seed))
          of_planted[of] = true
        end
      end
      compared, tools_seen[s.id] = compared + 1, true
      of_planted[key] = planted[key] and true
    end
    local secret = "{{%s*secret%."
    for _, s in ipairs(all) do
      local by_container = {}
      for _, service in ipairs(s.services) do
        local like = service.like and by_container[service.like] or {}
        local given = { env = service.env or like.env, sentry = service.sentry or like.sentry, files = service.files or like.files }
        by_container[service.name] = given
        local has = service.init and {} or environment(service.container or service.name)
        for _, variables in ipairs { service.init and {} or given.env or {}, service.init and {} or given.sentry or {} } do
          for variable, template in pairs(variables) do
            if template:find(secret) then
              local where = service.name .. "." .. variable
              local name, found = secret_in(template, assert(has[variable], where .. " is not there"))
              compare(s, name, found, where)
            end
          end
        end
        for _, f in ipairs(service.init and {} or given.files or {}) do
          for _, made in ipairs(s.files) do
            if made.name == f.name and made.text:find(secret) then
              local name, found = secret_in(made.text, (inside(("docker exec %s cat %s"):format(service.name, f.mount)):gsub("\n$", "")))
              compare(s, name, found, service.name .. ":" .. f.mount)
            end
          end
        end
      end
      if s.database then
        local has = environment(s.id .. "-db")
        for _, variable in ipairs { "POSTGRES_PASSWORD", "MYSQL_PASSWORD", "MONGO_INITDB_ROOT_PASSWORD" } do
          if has[variable] then compare(s, "DB_PASSWORD", has[variable], s.id .. "-db." .. variable) end
        end
        if s.database.engine == "mysql" then compare(s, "DB_ROOT_PASSWORD", has.MYSQL_ROOT_PASSWORD, s.id .. "-db") end
      end
    end
    -- Those that keep nothing secret apart, and those whose admin is set up by hand.
    local without, by_hand = {}, {}
    for _, id in ipairs(p.tools) do
      if not tools_seen[id] then without[#without + 1] = id end
    end
    local count = 0
    for key in pairs(planted) do
      if not of_planted[key] then by_hand[#by_hand + 1] = key end
      count = count + 1
    end
    table.sort(by_hand)
    io.stderr:write(("     %d values compared; %d passwords planted, of which no container is told: %s\n"):format(compared, count,
      table.concat(by_hand, " ")))
    assert.same({ "uptime-kuma", "diun", "homepage" }, without)
    assert.is_true(compared > 100, compared)
    -- Over the tools' interfaces or by hand: the first set-up below says which.
    assert.same({ "CALCOM_ADMIN_PASSWORD", "CHATWOOT_ADMIN_PASSWORD", "GHOST_ADMIN_PASSWORD", "GITEA_ADMIN_PASSWORD",
      "GLITCHTIP_ADMIN_PASSWORD", "LIBRECHAT_ADMIN_PASSWORD", "MATTERMOST_ADMIN_PASSWORD", "METABASE_ADMIN_PASSWORD",
      "ODOO_ADMIN_PASSWORD", "PENPOT_ADMIN_PASSWORD", "STALWART_SMTP_RELAY_PASSWORD", "UMAMI_ADMIN_PASSWORD",
      "UPTIME_KUMA_ADMIN_PASSWORD", "VIKUNJA_ADMIN_PASSWORD", "WIKIJS_ADMIN_PASSWORD", "WORDPRESS_ADMIN_PASSWORD" }, by_hand)
  end)

  local function sql(text)
    return (server:exec("docker exec -i glitchtip-db psql -X -A -t -U glitchtip -d glitchtip", { stdin = text }))
  end

  it("has a project of GlitchTip for each program that reports errors, and what each reports arrives there", function()
    must_be_up()
    local programs = env.glitchtip.programs(p.tools)
    local called = {}
    for i, one in ipairs(programs) do called[i] = one.name end
    assert.same({ "OpenClaw", "Safety Wrapper", "Chatwoot", "NocoDB", "n8n", "Vikunja" }, called)
    -- lbrun's own test event is there.
    assert.equal("6\n", sql "SELECT count(DISTINCT p.name) FROM projects p JOIN events e ON e.project = p.id WHERE message = 'test event of lbrun';")
    assert.equal("6\n", sql "SELECT count(*) FROM projects;")
    local said = {
      openclaw = { "letsbe-openclaw" }, ["secrets-proxy"] = { "letsbe-secrets-proxy" }, chatwoot = { "chatwoot", "chatwoot-sidekiq" },
      nocodb = { "nocodb" }, n8n = { "n8n", "n8n-runner" }, vikunja = { "vikunja" },
    }
    -- As an SDK would, from inside the container, by what it was told and by name.
    local script = [[
import json, os, ssl, sys, urllib.parse, urllib.request, uuid
dsn = urllib.parse.urlsplit(next(v for k, v in os.environ.items() if k.endswith("SENTRY_DSN")))
url = f"{dsn.scheme}://{dsn.hostname}/api{dsn.path}/store/"
context = ssl.create_default_context(cadata=ROOT)
for key, want in ((dsn.username, 200), ("0" * 32, 403)):
    request = urllib.request.Request(url, json.dumps({"event_id": uuid.uuid4().hex, "message": "error in NAME"}).encode(),
        {"Content-Type": "application/json", "X-Sentry-Auth": "Sentry sentry_version=7, sentry_key=" + key})
    try:
        status = urllib.request.urlopen(request, timeout=20, context=context).status
    except urllib.error.HTTPError as err:
        status = err.code
    assert status == want, (url, status)
]]
    for _, one in ipairs(programs) do
      for _, container in ipairs(said[one.id]) do
        local text = script:gsub("NAME", container):gsub("ROOT", function() return ("%q"):format(support.slurp(ca.root)):gsub("\\\n", "\\n") end)
        local out, status, err = server:exec(("docker exec -i %s python3 -"):format(container), { stdin = text })
        assert.equal(0, status, container .. ": " .. out .. err)
        assert.equal(one.name .. "\n", sql(("SELECT p.name FROM projects p JOIN events e ON e.project = p.id WHERE message = 'error in %s';")
          :format(container)))
      end
    end
  end)

  it("sets up what can be set up, by the tool's own interface where it has one, and records how", function()
    must_be_up()
    local function ask(id, path, body)
      local status = server:exec(("curl -s -o /dev/null -w '%%{http_code}' -H 'Content-Type: application/json' --data-binary @- http://127.0.0.1:%d%s"):format(
        catalog.get(id).port, path), { stdin = body })
      return status
    end
    local function login(word) return json.encode { username = "admin", password = word } end
    assert.equal("200", ask("umami", "/api/auth/login", login(planted.UMAMI_ADMIN_PASSWORD)))
    assert.equal("401", ask("umami", "/api/auth/login", login "umami"))
    assert.equal("400", ask("calcom", "/api/auth/setup", "{}"))
    assert.equal("302", inside "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:3026/installation/onboarding")
    assert.equal("acme\n", inside "docker exec keycloak cat /opt/keycloak/data/realms")
    assert.equal("cron\n", inside "docker exec nextcloud-db psql -X -A -t -U nextcloud -d nextcloud -c 'SELECT mode FROM background'")
    -- What was stored is the password, to the byte.
    for id, key in pairs { calcom = "CALCOM_ADMIN_PASSWORD", chatwoot = "CHATWOOT_ADMIN_PASSWORD", umami = "UMAMI_ADMIN_PASSWORD" } do
      assert.equal(env.crypto.sha256(planted[key]) .. "\n",
        inside(("docker exec %s-db psql -X -A -t -U %s -d %s -c 'SELECT hash FROM admins'"):format(id, id, id)), id .. ", seed " .. seed)
    end
    local called = {}
    for _, line in ipairs(splitted(inside "cat /var/lib/docker/volumes/openclaw-home/_data/calls.jsonl")) do
      local call = json.decode(line)
      if call.script == "setup.sh" then called[#called + 1] = call.tool or "monitors" end
    end
    assert.same({ "stalwart", "uptime-kuma", "monitors" }, called)
    local how = {}
    for line in home.run("log --json " .. run.last.run).out:gmatch "[^\n]+" do
      local e = json.decode(line)
      local id = e.type == "state" and e.data.key:match "^setup%-(.*)"
      if id then how[id] = ("%s, %d"):format(e.data.value.by, e.data.value.status) end
    end
    assert.same({ calcom = "its own interface, 0", chatwoot = "its own interface, 0", keycloak = "its own interface, 0",
      nextcloud = "its own interface, 0", umami = "its own interface, 0", stalwart = "automation, 0", ["uptime-kuma"] = "automation, 0" }, how)
  end)

  it("tells the Safety Wrapper of what Diun notices, and lists what the tools still have to hand out", function()
    must_be_up()
    local out, status, err = server:exec "docker exec diun diun notif test"
    assert.equal(0, status, out .. err)
    local notices = inside [[docker exec letsbe-secrets-proxy python3 -c 'import sqlite3
for row in sqlite3.connect("/data/registry.db").execute("SELECT body FROM notices"): print(row[0])']]
    local notice = json.decode(notices)
    assert.equal("diun/testnotif:latest", notice.image)
    assert.same({ "0 6 * * *", "POST", "http://127.0.0.1:8100/webhooks/diun" }, (function(e)
      return { e.DIUN_WATCH_SCHEDULE, e.DIUN_NOTIF_WEBHOOK_METHOD, e.DIUN_NOTIF_WEBHOOK_ENDPOINT }
    end)(environment "diun"))
    local missing = {}
    for _, line in ipairs(run.lines) do
      if line.type == "log" then missing[#missing + 1] = line.text:match "^missing: ([%w_]+), which" end
    end
    assert.same({ "NOCODB_API_TOKEN", "GHOST_ADMIN_API_KEY", "PORTAINER_API_KEY" }, missing)
  end)

  it("heals by itself when the main process of each container is killed, within 5 minutes", function()
    must_be_up()
    local before = inside "docker ps -aq --no-trunc | sort"
    inside "for c in $(docker ps -q); do kill -9 $(docker inspect -f '{{.State.Pid}}' $c); done"
    local killed = tonumber((inside "sleep 5; docker ps -aq | xargs docker inspect -f '{{.RestartCount}}' | grep -c '^[1-9]'"))
    local took = become_well(300)
    io.stderr:write(("     healthy again after %d s\n"):format(took))
    killed = math.max(killed, tonumber((inside "docker ps -aq | xargs docker inspect -f '{{.RestartCount}}' | grep -c '^[1-9]'")))
    assert.equal(#containers, killed)
    assert.equal(before, inside "docker ps -aq --no-trunc | sort")
  end)

  -- Since when each container runs, but for those of one tool.
  local function beside(id)
    local own, list = { squatter = true }, {}
    for _, name in ipairs(stack.containers(stack.get(id))) do own[name] = true end
    for _, line in ipairs(splitted(inside "docker ps -aq | xargs docker inspect -f '{{.Name}} {{.State.Status}} {{.State.StartedAt}}' | sort")) do
      if not own[line:match "^/(%S+)"] then list[#list + 1] = line end
    end
    return table.concat(list, "\n")
  end
  local function main_of(id)
    local main = stack.main(stack.get(id))
    return main.name, main.image .. ":" .. main.tag
  end
  local faults = {
    { "whose image is missing", "[Pp]ull", function(id)
      local name, image = main_of(id)
      return ("docker tag %s kept:1; docker rm -f %s; docker rmi -f %s"):format(image, name, image),
        ("docker tag kept:1 %s; docker rmi kept:1"):format(image)
    end },
    { "whose port is taken", "port is already allocated", function(id)
      local name = main_of(id)
      return ("docker rm -f %s; docker run -d --name squatter -p 127.0.0.1:%d:80 %s"):format(name, catalog.get(id).port, vps.nginx),
        "docker rm -f squatter"
    end },
    { "that never becomes healthy", ": .*the schema cannot be migrated", function(id)
      local name, image = main_of(id)
      return ([[docker tag %s kept:1; docker rm -f %s; printf 'FROM kept:1\nENTRYPOINT []\nCMD ["sh", "-c", "%s"]\n' |
        docker build -q -t %s -]]):format(image, name, "echo the schema cannot be migrated; exec sleep 1000", image),
        ("docker rm -f %s; docker tag kept:1 %s; docker rmi kept:1"):format(name, image)
    end },
  }

  it("names a tool that fails, whichever it is, leaves the others up, and goes on from there", function()
    must_be_up()
    local chosen = {}
    for _, id in ipairs(p.tools) do
      local main = stack.main(stack.get(id))
      local usual = main.port and not main.network and not main.command and not main.entrypoint
      if usual and main.health and main.health.grace <= 90 then chosen[#chosen + 1] = id end
    end
    for _, fault in ipairs(faults) do
      local id = table.remove(chosen, math.random(#chosen))
      local what = ("%s %s, seed %d"):format(id, fault[1], seed)
      io.stderr:write("     " .. what .. "\n")
      local broken, put_back = fault[3](id)
      inside(broken)
      local others = beside(id)
      local r = home.json(args .. " --tags stacks")
      assert(r.exit == 5 or r.exit == 6, what .. "\n" .. r.err)
      assert.equal("stacks/" .. id, r.last.step, what)
      assert.matches(fault[2], r.last.message, what)
      assert(r.last.message:find(id, 1, true), what .. "\n" .. r.last.message)
      inside(put_back)
      assert.equal(others, beside(id), what)
      local again = home.json(("resume %s --json --no-input -i %s"):format(r.last.run, server.key))
      assert(provision.fine(again))
      for _, line in ipairs(again.lines) do
        if line.type == "effect.begin" then assert.equal("stacks/" .. id, line.step, what) end
      end
      assert.equal(others, beside(id), what)
      become_well(300)
    end
  end)

  it("is found as it should be by a second run", function()
    must_be_up()
    local again = home.json(args)
    assert(provision.fine(again))
    assert.equal(0, again.last.changed, json.encode(again.last))
  end)
end)
