-- tools_spec.lua: runbooks/tools.lua on a server that runs: a tool comes, another goes and comes
-- back with its rows, then goes for good. Images are stand-ins (spec/sandbox/README.md). Steps 1
-- to 3 and 5 to 8 of provisioning are not run here.
local json = require "json"
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"

describe("adding and removing tools #vps #slow", function()
  local server, home
  local function inside(command) return (server:exec(command)) end

  setup(function()
    server = vps.up("tools", { docker = true, images = provision.images_of { "ghost", "uptime-kuma", "openclaw", "secrets-proxy" } })
    home = support.home()
    local r = home.json(provision.args(server, { more = "--json tools=ghost models=one/model,two/model --tags nginx,stacks,platform,verify" }))
    assert(provision.fine(r))
  end)
  teardown(function()
    server:down()
    home.remove()
  end)

  local function go(more)
    return home.json(("runbooks/tools.lua tenant=acme domain=acme.example acme=self-signed alert_url=https://alerts.example/hook -t %s -i %s -y --no-input --json %s"):format(
      server.url, server.key, more))
  end
  local function fine(r)
    assert(r.exit == 0 and r.last.status == "done", ("exit %d: %s\n%s"):format(r.exit, r.last and r.last.message or "", r.err))
    return r
  end
  local function visit(name)
    inside "sed -n '/BEGIN CERT/,/END CERT/p' /opt/letsbe/nginx/conf/fallback.pem >/root/ca.pem"
    return server:exec(("curl -s --max-time 20 --cacert /root/ca.pem --resolve %s:443:127.0.0.1 https://%s/"):format(name, name))
  end
  local function registry()
    local names = {}
    for i, t in ipairs(json.decode(inside "docker exec letsbe-openclaw cat /home/node/.openclaw/tool-registry.json").tools) do names[i] = t.id end
    return names
  end
  local function names() return inside "docker ps -a --format '{{.Names}}' | sort | tr '\\n' ' '" end
  local function certificate()
    return inside "openssl x509 -in /opt/letsbe/nginx/conf/fallback.pem -noout -ext subjectAltName | tail -1"
  end

  it("of another tenant's domain changes nothing", function()
    local before = inside "find /opt/letsbe -type f | xargs sha256sum"
    local r = home.json(("runbooks/tools.lua tenant=acme domain=other.example -t %s -i %s -y --no-input --json remove=ghost add=uptime-kuma"):format(
      server.url, server.key))
    assert.equal(2, r.exit, r.err)
    assert.matches("this server is that of acme.example, not of other.example", r.last.message, 1, true)
    assert.equal(before, inside "find /opt/letsbe -type f | xargs sha256sum")
  end)

  it("brings one up and takes one away: containers, sites, names of the certificate, registry; the backup came first", function()
    assert.equal("201", inside "curl -s -o /dev/null -w '%{http_code}' -H 'X-Forwarded-Proto: https' -d kept http://127.0.0.1:3029/")
    fine(go "add=uptime-kuma remove=ghost")
    assert.equal("letsbe-nginx letsbe-openclaw letsbe-secrets-proxy uptime-kuma ", names())
    assert.matches('"tool":"uptime-kuma"', (visit "status.acme.example"), 1, true)
    local text, status = visit "blog.acme.example"
    assert.equal(35, status, text)
    assert.matches("DNS:status.acme.example", certificate(), 1, true)
    assert.is_nil(certificate():find("blog", 1, true))
    assert.same({ "uptime-kuma" }, registry())
    local manifest = json.decode(inside "cat /opt/letsbe/backups/tool/ghost/*/manifest.json")
    assert.is_true(manifest.complete)
    assert.equal(2, manifest.parts.ghost.databases[1].tables[1].rows)
    assert.equal("ghost-content\nghost-db\n", inside "docker volume ls -q | grep ghost")
    assert.equal("", inside "ls /opt/letsbe/stacks | grep ghost")
    assert.matches("\nGHOST_DB_PASSWORD=", "\n" .. inside "cat /opt/letsbe/env/credentials.env")
    -- What was chosen when the server was made is not chosen anew.
    assert.matches("one/model", inside "cat /opt/letsbe/stacks/openclaw/config/openclaw.json", 1, true)
  end)

  it("changes nothing the second time", function()
    local before = inside "docker ps -aq --no-trunc | sort; find /opt/letsbe -type f | sort | xargs sha256sum"
    local r = fine(go "add=uptime-kuma remove=ghost")
    assert.equal(before, inside "docker ps -aq --no-trunc | sort; find /opt/letsbe -type f | sort | xargs sha256sum")
    assert.equal("1\n", inside "ls /opt/letsbe/backups/tool/ghost | wc -l", r.err)
  end)

  it("brings back what was removed with the rows that it had", function()
    fine(go "add=ghost")
    assert.matches('"entries":["first","kept"]', (visit "blog.acme.example"), 1, true)
    assert.same({ "ghost", "uptime-kuma" }, registry())
  end)

  it("deletes volumes and credentials only after a confirmation, and what comes then is new", function()
    local r = go "remove=ghost delete_volumes=true"
    assert.equal(7, r.exit, r.err)
    assert.matches("ghost ghost-db", names(), 1, true)
    assert.matches('"kept"', (visit "blog.acme.example"), 1, true)
    fine(home.json(("resume %s --confirm acme --json --no-input -i %s"):format(r.last.run, server.key)))
    assert.equal("letsbe-nginx letsbe-openclaw letsbe-secrets-proxy uptime-kuma ", names())
    assert.equal("", inside "docker volume ls -q | grep ghost; grep GHOST /opt/letsbe/env/credentials.env")
    fine(go "add=ghost")
    assert.matches('"entries":["first"]', (visit "blog.acme.example"), 1, true)
  end)
end)
