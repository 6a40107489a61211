-- all_tools_spec.lua: a bare Debian 12 becomes a tenant with all 31 tools and the platform in one
-- run, with a certificate of pebble's. All images are stand-ins (spec/sandbox/README.md), that
-- of MongoDB too: nothing here is said of the real ones. The VPS is told that it has the
-- memory of its tier, of which the stand-ins need a fraction.
local json = require "json"
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

-- With everything in it that a shell, an .env file, YAML, Compose or a URL could take for its own.
local awkward = [[/ + = $ ' " % # $HOME $1 %41 {{ x }} & <b> ; |]]

describe("a tenant with all tools #vps #long", function()
  local server, home, ca, run
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
    -- Each password that may be anything is this one with a number; bcrypt takes no more than 72 bytes.
    local lines = {}
    for _, s in ipairs(all) do
      for _, spec in ipairs(stack.secrets(s)) do
        if spec.kind == "password" and not spec.alphabet and not spec.length and not spec.bytes then
          local key = credentials.key(s.id, spec.name)
          lines[#lines + 1] = ("%s='%s'\n"):format(key, ((awkward .. #lines):gsub("'", "\\'")))
        end
      end
    end
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
    local args = provision.args(server, { more = ("--json tier=enterprise tools=%s acme_directory=%s acme_ca=/etc/letsbe/ca.pem"):format(
      table.concat(p.tools, ","), ca.directory) }):gsub("acme=self%-signed", "acme=http-01")
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

  it("is found as it should be by a second run", function()
    must_be_up()
    local again = home.json(provision.args(server, { more = ("--json tier=enterprise tools=%s acme_directory=%s acme_ca=/etc/letsbe/ca.pem")
      :format(table.concat(p.tools, ","), ca.directory) }):gsub("acme=self%-signed", "acme=http-01"), nil)
    assert(provision.fine(again))
    assert.equal(0, again.last.changed, json.encode(again.last))
  end)
end)
