-- platform_spec.lua: step 10 and the verification, on a VPS that has Docker, with one tool.
-- OpenClaw, the Secrets Proxy, Uptime Kuma and the Hub are stand-ins. Steps 1 to 8 are not run here.
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"
local canary = require "support.canary"
local hubs = require "support.hub"
local json = require "json"

describe("step 10 #vps #slow", function()
  local server, home
  local password = "Kx7'q\"$Zw/+=%3m~LhY"
  local config = '{"uptime-kuma": {"admin_password": "Kx7\'q\\"$Zw/+=%3m~LhY"}, "smtp_relay": "relay-Word-4711"}'
  local env = require "lb.script".environment(require "lb.sources".collect "runbooks/provision.lua")

  setup(function()
    server = vps.up("platform", { docker = true })
    local images = provision.images_of { "uptime-kuma" }
    for _, id in ipairs { "openclaw", "secrets-proxy" } do
      images[#images + 1] = env.catalog.platform[id].image .. ":" .. env.catalog.platform[id].tag
    end
    local _, status, err = vps.call({ "images", "platform", table.unpack(images) }, { home = server.home })
    assert.equal(0, status, err)
    home = support.home()
  end)
  teardown(function()
    server:down()
    home.remove()
  end)

  local function inside(command) return (server:exec(command)) end
  local function go(tags, more)
    return home.json(provision.args(server, { more = ("--json tools=uptime-kuma --tags %s %s"):format(tags, more or "") }))
  end
  local function calls()
    local names = {}
    for name in inside("cat /var/lib/docker/volumes/openclaw-home/_data/calls.jsonl"):gmatch '"script": "([%w-]+)%.sh"' do
      names[#names + 1] = name
    end
    return names
  end
  local everything = "nginx,stacks,platform,verify"

  it("leaves a config.json that does not read as it should, readable by root alone, before any other change (5)", function()
    for _, text in ipairs { "{", "[]", '{"a": 1}', '{"a": "short"}', '{"a": {"b": {"c": "12345678"}}}' } do
      server:exec("mkdir -p /opt/letsbe; cat >/opt/letsbe/config.json; chmod 644 /opt/letsbe/config.json", { stdin = text })
      local r = go(everything)
      assert.equal(5, r.exit, r.err)
      assert.matches("config.json", r.last.message)
      assert.equal("600 0\n", inside "stat -c '%a %u' /opt/letsbe/config.json")
      assert.equal(text, inside "cat /opt/letsbe/config.json")
      assert.equal("", inside "docker ps -aq")
    end
  end)

  it("imports and wipes config.json first, also when a later step fails", function()
    server:exec("cat >/opt/letsbe/config.json", { stdin = config })
    server:exec "mkdir -p /opt/letsbe/nginx && echo in the way >/opt/letsbe/nginx/conf"
    local r = go(everything, "-vvv")
    assert.is_true(r.exit == 5 or r.exit == 6, r.err)
    assert.equal("nginx", r.last.step)
    assert.equal("", inside "ls /opt/letsbe | grep config.json")
    local stored = inside "cat /opt/letsbe/env/credentials.env"
    assert.matches("\nUPTIME_KUMA_ADMIN_PASSWORD=", stored)
    assert.matches("\nCONFIG_SMTP_RELAY=relay%-Word%-4711\n", stored)
    for name in support.sh(("ls %s/state/lbrun"):format(home.dir)):gmatch "%S+" do
      local found = name:find "%.key$" and {} or canary.find(support.slurp(home.dir .. "/state/lbrun/" .. name), { password = password })
      assert(#found == 0, name .. " holds " .. table.concat(found, ", "))
    end
    assert.equal(0, #canary.find(r.out .. r.err, { password = password }))
    server:exec "rm /opt/letsbe/nginx/conf"
    assert(provision.fine(home.json(("resume %s --json --no-input -i %s"):format(r.last.run, server.key))))
  end)

  it("calls the three scripts once each, in the runbook's order, with what they need on stdin", function()
    assert.same({ "seed-secrets", "generate-tool-registry", "setup", "setup" }, calls())
    local text = inside "cat /var/lib/docker/volumes/openclaw-home/_data/calls.jsonl"
    local sum = inside("sha256sum </opt/letsbe/env/credentials.env"):match "%x+"
    assert(text:find(sum, 1, true), "the registry was seeded with something else than the store")
    assert.is_nil(text:find('"argv": %[[^%]]'))
    assert.matches('"UPTIME_KUMA_ADMIN_PASSWORD"', inside "curl -s http://127.0.0.1:8100/registry")
    assert.matches('"url":%s*"http://127.0.0.1:3008"', inside "docker exec letsbe-openclaw cat /home/node/.openclaw/tool-registry.json")
  end)

  it("gives OpenClaw a chain of at least two models, and each agent a SOUL.md of this tenant", function()
    local model = env.json.decode(inside "docker exec letsbe-openclaw cat /etc/openclaw/openclaw.json").agents.defaults.model
    assert.equal("string", type(model.primary))
    assert.is_true(#model.fallbacks >= 1)
    for _, agent in ipairs(env.data "openclaw/agents.lua") do
      local soul = inside(("docker exec letsbe-openclaw cat /home/node/.openclaw/workspace-%s/SOUL.md"):format(agent.id))
      assert.matches("agent of acme %(acme.example%)", soul)
      assert.is_nil(soul:find("{{", 1, true))
    end
  end)

  it("changes nothing in a second run", function()
    local r = go(everything)
    assert(provision.fine(r))
    assert.equal(0, r.last.changed)
    assert.equal(4, #calls())
  end)

  it("tells Uptime Kuma what to watch, and every 300 s how full the disk is, by a token that nobody else knows", function()
    local kept = "/var/lib/docker/volumes/uptime-kuma-data/_data/monitors.json"
    local function told()
      local by_name, text = {}, inside("cat " .. kept)
      local order = env.json.decode(text)
      for _, m in ipairs(order.monitors) do by_name[m.name] = m end
      return by_name, order
    end
    local by_name, order = told()
    assert.equal("https://alerts.example/hook", order.notification)
    assert.equal(6, #order.monitors)
    assert.same({ 120, 120, 2 }, { by_name["Uptime Kuma"].interval, by_name["Uptime Kuma"].retryInterval, by_name["Uptime Kuma"].maxretries })
    assert.equal("active enabled\n", inside "echo $(systemctl is-active letsbe-push.timer) $(systemctl is-enabled letsbe-push.timer)")
    assert.matches("OnUnitActiveSec=300s", inside "cat /etc/systemd/system/letsbe-push.timer")
    assert.equal("700\n", inside "stat -c %a /opt/letsbe/monitor/push.sh")
    local _, status = server:exec "systemctl start letsbe-push.service"
    assert.equal(0, status)
    assert.equal("up", told().Disk.last[1])
    server:exec "mkdir -p /root/full && printf '#!/bin/sh\\necho Use%%; echo 86%%\\n' >/root/full/df && chmod 755 /root/full/df"
    _, status = server:exec "PATH=/root/full:$PATH /opt/letsbe/monitor/push.sh 3008 85"
    assert.equal(0, status)
    assert.same({ "down", "86%" }, told().Disk.last)
  end)

  it("is verified with 11 for a stopped or missing container, a dead site and a config.json that came back", function()
    server:exec "docker stop uptime-kuma"
    local r = go "verify"
    assert.equal(11, r.exit, r.err)
    assert.matches("container uptime%-kuma: Exited", r.last.message)
    server:exec "docker start uptime-kuma; docker stop letsbe-nginx; touch /opt/letsbe/config.json; docker rename letsbe-secrets-proxy other"
    r = go "verify"
    assert.equal(11, r.exit, r.err)
    for _, what in ipairs { "container letsbe-nginx: Exited", "https://acme.example does not answer", "config.json is still there",
        "container letsbe-secrets-proxy is missing" } do
      assert(r.last.message:find(what, 1, true), what .. "\n" .. r.last.message)
    end
    server:exec "docker start letsbe-nginx; rm /opt/letsbe/config.json; docker rename other letsbe-secrets-proxy"
  end)

  it("is verified with 11 for a container that is up and unhealthy", function()
    server:exec(("docker rename uptime-kuma other; docker run -d --name uptime-kuma --health-cmd false --health-interval 1s --health-retries 1 %s; "
      .. "for i in $(seq 60); do docker ps | grep -q '(unhealthy)' && break; sleep 1; done"):format(vps.nginx))
    local r = go "verify"
    server:exec "docker rm -f uptime-kuma; docker rename other uptime-kuma"
    assert.equal(11, r.exit, r.err)
    assert.matches("^verification failed: container uptime%-kuma: Up [^;]*%(unhealthy%)[^;]*$", r.last.message)
  end)

  it("is verified with 11 when nginx shows another certificate than the server's own", function()
    server:exec("cd /opt/letsbe/nginx/conf && cp fallback.pem /root/ && openssl req -x509 -newkey ed25519 -nodes -days 9 -subj /CN=acme.example "
      .. "-keyout /root/k.pem -out /root/c.pem 2>/dev/null && cat /root/c.pem /root/k.pem >fallback.pem")
    local r = go "verify"
    assert.equal(11, r.exit, r.err)
    assert.matches("https://acme.example does not answer %(.*curl 90%)", r.last.message)
    server:exec "cp /root/fallback.pem /opt/letsbe/nginx/conf/fallback.pem"
  end)

  it("is verified with a warning, named, when one tool's health path fails alone (3)", function()
    -- What hears on the tool's port but answers nothing; the container itself stays as it is.
    server:exec "iptables -I INPUT -i lo -p tcp --dport 3008 -j REJECT --reject-with tcp-reset"
    local r = go "verify"
    server:exec "iptables -D INPUT -i lo -p tcp --dport 3008 -j REJECT --reject-with tcp-reset"
    assert.equal(3, r.exit, r.err)
    assert.matches("Uptime Kuma does not answer as it should at http://127.0.0.1:3008/api/entry%-page", table.concat(r.last.warnings, "\n"))
  end)

  it("is looked at by fleet-status over SSH: what stopped and what was killed, how full the disk is", function()
    local hub = hubs.new(home.dir .. "/hub", "fleet-canary-token-0818").start()
    finally(function() hub.stop() end)
    support.sh(("mkdir -p %s/hub/health"):format(home.dir))
    local now = os.date("!%Y-%m-%dT%H:%M:%SZ")
    -- What the Hub has heard of containers and disk is older than what the server says itself.
    support.spit(home.dir .. "/hub/health/acme.json", json.encode { heartbeat = now, backup = { status = "success", timestamp = now },
      openclaw = "v1", disk_percent = 99, containers = json.array { { name = "old", state = "exited", exit = 3 } } })
    local function listed(url)
      support.spit(home.dir .. "/tenants.json", json.encode { acme = url and { target = url, identity = server.key } or nil })
    end
    local function bad(more)
      local r = home.json(("runbooks/fleet-status.lua tenants=acme hub_url=%s runner_token=@%s netcup=false openclaw=v1 --json --no-input %s")
        :format(hub.url, hub.token_file, more or ""), { env = { LBRUN_TENANTS = home.dir .. "/tenants.json" } })
      for _, line in ipairs(r.lines) do
        if line.type == "state" and line.key == "rows" then
          assert.equal(#line.value[1].bad == 0 and 0 or 11, r.exit, r.err)
          return table.concat(line.value[1].bad, "; "), line.value[1], r
        end
      end
      error(r.err)
    end
    listed(server.url)
    local text, row = bad()
    assert.equal("", text)
    assert.is_true(row.disk > 0 and row.disk < 99, tostring(row.disk))
    server:exec "docker stop uptime-kuma; docker kill letsbe-secrets-proxy"
    text = bad()
    server:exec "docker start uptime-kuma letsbe-secrets-proxy"
    assert.matches("letsbe%-secrets%-proxy is exited with status 137", text)
    assert.matches("uptime%-kuma is exited with status %d+", text)
    -- One that ended well and was never meant to go on is nobody's worry.
    server:exec(("docker run --name once %s true"):format(vps.nginx))
    text = bad()
    server:exec "docker rm once"
    assert.equal("", (text:gsub("[%w-]+ is not healthy", "")))
    assert.matches("^old is exited with status 3; the disk is 99 %% full$", (bad "ssh=false"))
    -- A server that is not the one that was provisioned is not listened to.
    local id = server:exec "cat /etc/machine-id"
    server:exec "cp /etc/machine-id /root/id; tr 0-9 1-90 </root/id >/etc/machine-id"
    text = bad()
    server:exec("cat >/etc/machine-id", { stdin = id })
    assert.matches("its server: .*is not the same server", text)
    listed "ssh://root@127.0.0.1:9"
    assert.matches("its server: cannot log in to ssh://root@127.0.0.1:9", (bad()))
    listed(nil)
    assert.matches("^old is exited with status 3; the disk is 99 %% full$", (bad()))
  end)
end)
