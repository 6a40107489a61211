-- tenant_spec.lua: a bare Debian 12 becomes a tenant with three tools, each with its database,
-- its site and its credentials, and the agents' platform; verified, and told to the Hub, which is
-- silent at first; then another bare server gets the same credentials from their sealed copy.
-- Images and the Hub are stand-ins (spec/sandbox/README.md); the compose files are production's.
local host = require "host"
local json = require "json"
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"
local canary = require "support.canary"
local hub = require "support.hub"


local tools = { "ghost", "nextcloud", "uptime-kuma" }
local sites = { ghost = "blog", nextcloud = "files", ["uptime-kuma"] = "status" }
local containers = { "ghost", "ghost-db", "letsbe-nginx", "letsbe-openclaw", "letsbe-secrets-proxy", "nextcloud", "nextcloud-cron",
  "nextcloud-db", "nextcloud-redis", "uptime-kuma" }
-- With everything in them that a shell, an .env file, YAML or Compose could take for its own.
local planted = {
  GHOST_DB_PASSWORD = [[a/b+c=$d'e"f%g#h $HOME $1 <i> & j]], GHOST_DB_ROOT_PASSWORD = [[#%"'$=+/root$$PATH]],
  NEXTCLOUD_DB_PASSWORD = [[/+=$'"%#/+=$'"%#$ghost:-x]], NEXTCLOUD_ADMIN_PASSWORD = [["quoted" 'twice' $1 %2 #3 {{ x }} & <b>]],
}

describe("a tenant with three tools #vps #slow", function()
  local server, home, run, store, args, h

  local function inside(command)
    return (server:exec(command))
  end

  local function env_line(value)
    return "'" .. value:gsub("'", "\\'") .. "'"
  end

  -- The later rules say nothing, and wait long, where the first one does not hold.
  local function must_be_up()
    assert(store, "the tenant is not up")
  end

  setup(function()
    server = vps.up("tenant", { images = provision.images_of { "ghost", "nextcloud", "uptime-kuma", "openclaw", "secrets-proxy" } })
    home = support.home()
    -- The Hub's stand-in listens where the server can reach it too, on the bridge.
    h = hub.new(home.dir .. "/hub", "canary+Token/of=the-runner", (server.address:gsub("%d+$", "1")))
    h.start()
    h.stop()
    args = provision.args(server, { more = ("--json tools=%s hub_url=%s job_id=job-7 runner_token=@%s"):format(
      table.concat(tools, ","), h.url, h.token_file) })
  end)
  teardown(function()
    h.stop()
    server:down()
    home.remove()
  end)

  -- What a container says of itself, by its own tools.
  local function states()
    local all = {}
    for name, state, health in inside [[docker ps -aq | xargs docker inspect -f \
      '{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}']]:gmatch "/(%S+) (%S+) (%S+)" do
      all[name] = { state = state, health = health }
    end
    return all
  end

  local function well(name, state)
    return state ~= nil and state.state == "running" and (state.health == "healthy" or state.health == "none" and name == "nextcloud-cron")
  end

  local function fetch(name, path)
    return inside(("curl -s --max-time 20 --cacert /root/ca.pem --resolve %s:443:127.0.0.1 -w '\\n%%{http_code}' https://%s%s"):format(
      name, name, path or "/"))
  end

  local function all_well()
    local seen = states()
    for _, name in ipairs(containers) do
      assert(well(name, seen[name]), name .. ": " .. json.encode(seen[name] or "no container"))
    end
  end
  -- Over TCP, where each database asks for its password.
  local function ask_mysql(password)
    return server:exec([[read -r MYSQL_PWD; export MYSQL_PWD
docker exec -e MYSQL_PWD ghost-db mysql -N -B -h 127.0.0.1 -u ghost -e 'SELECT 1']], { stdin = password .. "\n" })
  end
  local function ask_postgres(password)
    return server:exec([[read -r PGPASSWORD; export PGPASSWORD
docker exec -e PGPASSWORD nextcloud-db psql -X -A -t -h 127.0.0.1 -U nextcloud -d nextcloud -c 'SELECT 1']], { stdin = password .. "\n" })
  end

  it("comes up from bare while the Hub refuses each connection (3), every container of it healthy", function()
    local lines = {}
    for name, value in pairs(planted) do lines[#lines + 1] = name .. "=" .. env_line(value) end
    inside "mkdir -p -m 0755 /opt/letsbe && mkdir -m 0700 /opt/letsbe/env"
    server:exec("umask 077; cat >/opt/letsbe/env/credentials.env", { stdin = table.concat(lines, "\n") .. "\n" })
    run = home.json(args)
    assert.equal(3, run.exit, run.err)
    assert.equal("done", run.last.status)
    local of_hub = {}
    for _, text in ipairs(run.last.warnings) do
      local what = text:match "^the Hub was not told '(%a+)'" or text:match "^the Hub at %S+ did not take (%a+ %a+)"
      assert(what or text:find("smaller than its tier", 1, true), text)
      of_hub[#of_hub + 1] = what
    end
    table.sort(of_hub)
    assert.same({ "its key", "job", "registration", "the registration" }, of_hub)
    all_well()
    store = inside "cat /opt/letsbe/env/credentials.env"
    assert.equal("600 root root\n700 root root\n", inside "cd /opt/letsbe && stat -c '%a %U %G' env/credentials.env env")
    assert.equal("5 600\n", inside "cd /opt/letsbe/stacks && stat -c %a */.env | uniq -c | sed 's/^ *//'")
  end)

  it("tells the Hub later by `lbrun outbox send`, each report once", function()
    must_be_up()
    h.start()
    local send = "outbox send --json runner_token=@" .. h.token_file
    local sent = home.json(send)
    assert.equal(0, sent.exit, sent.err)
    assert.same({ 2, 0, 0 }, { sent.last.sent, sent.last.refused, sent.last.waiting })
    assert.same({ 0, 0 }, { home.json(send).exit, home.json(send).last.sent })
    assert.equal(2, #h.requests())
    assert.same({ ['{"status":"COMPLETED"}'] = 1 }, h.taken "/api/v1/jobs/job-7")
    local registered = h.taken "/api/v1/tenants/acme/registration"
    local body, count = next(registered)
    local said = json.decode(body)
    table.sort(said.tools)
    assert.same({ "acme.example", tools, 1 }, { said.domain, said.tools, count })
    assert.is_nil(next(registered, body))
    -- What waits in no outbox, the next run does: the Hub's key, and the server's own registration.
    local again = home.json(args)
    assert(provision.fine(again))
    assert.equal(2, again.last.changed, again.out)
    -- That the server registered is proven by the Hub's own answer to it, in the journal.
    local key
    for _, one in ipairs(h.requests()) do
      if one.path:find("/registration$") then key = one.key end
    end
    assert.matches('"registration".-"accepted":"' .. key .. '"', home.run("log --json " .. again.last.run).out)
  end)

  it("answers each name over HTTPS with the tool that it is, and 301 on port 80", function()
    must_be_up()
    inside "sed -n '/BEGIN CERT/,/END CERT/p' /opt/letsbe/nginx/conf/fallback.pem >/root/ca.pem"
    for _, tool in ipairs(tools) do
      local text = fetch(sites[tool] .. ".acme.example")
      assert.matches('"tool":"' .. tool .. '"', text, 1, true)
      assert.matches("\n200$", text)
    end
    assert.matches("acme.example\n+200$", fetch "acme.example")
    assert.equal("301 https://blog.acme.example/x\n",
      inside "curl -s -o /dev/null -w '%{http_code} %{redirect_url}\\n' -H 'Host: blog.acme.example' http://127.0.0.1/x")
    -- A name that is nobody's gets no page, and no certificate either.
    local _, status = server:exec "curl -sk --max-time 10 --resolve other.example:443:127.0.0.1 https://other.example/"
    assert.equal(35, status)
  end)

  it("shows other hosts 80, 443 and 22022 alone", function()
    local seen = server:scan "22,25,80,443,587,993,2368,3000-3040,3306,5432,6379,8100,18789,22022"
    assert.equal("open", seen[80])
    assert.equal("open", seen[443])
    assert.equal("open", seen[22022])
    for port, state in pairs(seen) do
      if port ~= "others" and port ~= 80 and port ~= 443 and port ~= 22022 then assert.not_equal("open", state, port) end
    end
    assert.is_nil(seen.others.open)
  end)

  it("keeps the rows that its users make, in the database that is the tool's own", function()
    must_be_up()
    for _, tool in ipairs(tools) do
      local name = sites[tool] .. ".acme.example"
      local out = inside(("curl -s --cacert /root/ca.pem --resolve %s:443:127.0.0.1 -d %s -w '%%{http_code}' https://%s/"):format(
        name, tool:gsub("%W", ""), name))
      assert.matches("201$", out)
    end
    assert.equal("first\nghost\n", inside [[docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_PASSWORD" mysql -N -B -h 127.0.0.1 -u ghost ghost -e "SELECT body FROM entries"']])
    assert.equal("first\nnextcloud\n", inside [[docker exec nextcloud-db psql -X -A -t -U nextcloud -d nextcloud -c 'SELECT body FROM entries']])
  end)

  it("hands passwords with / + = $ ' \" % # to its containers byte by byte", function()
    must_be_up()
    local where = {
      GHOST_DB_PASSWORD = { { "ghost", "database__connection__password" }, { "ghost-db", "MYSQL_PASSWORD" } },
      GHOST_DB_ROOT_PASSWORD = { { "ghost-db", "MYSQL_ROOT_PASSWORD" } },
      NEXTCLOUD_DB_PASSWORD = { { "nextcloud", "POSTGRES_PASSWORD" }, { "nextcloud-db", "POSTGRES_PASSWORD" } },
      NEXTCLOUD_ADMIN_PASSWORD = { { "nextcloud", "NEXTCLOUD_ADMIN_PASSWORD" }, { "nextcloud-cron", "NEXTCLOUD_ADMIN_PASSWORD" } },
    }
    for name, places in pairs(where) do
      for _, place in ipairs(places) do
        assert.equal(planted[name] .. "\n", inside(("docker exec %s printenv %s"):format(place[1], place[2])), name)
      end
    end
    -- They are what lets in.
    assert.equal("1\n", (ask_mysql(planted.GHOST_DB_PASSWORD)))
    assert.equal("1\n", (ask_postgres(planted.NEXTCLOUD_DB_PASSWORD)))
    assert.equal("", (ask_mysql "other"))
    assert.equal("", (ask_postgres "other"))
  end)

  it("is found as it should be by a second run: zero changes, no secret made anew", function()
    must_be_up()
    local again = home.json(args)
    assert(provision.fine(again))
    assert.equal(0, again.last.changed, again.out)
    assert.equal(store, inside "cat /opt/letsbe/env/credentials.env")
  end)

  it("shows none of its secrets in output, journal, spool, logs or a compose file", function()
    must_be_up()
    local count = 0
    local all = {}
    for name, value in store:gmatch "([%w_]+)=([^\n]*)" do
      value = planted[name] or value:match "^'(.*)'$" or value
      assert.is_true(#value >= 12, name)
      all[name], count = value, count + 1
    end
    assert.equal(9, count, store:gsub("=[^\n]*", ""))
    local function clean(what, bytes)
      local found = canary.find(bytes, all)
      assert(#found == 0, ("%s holds %s"):format(what, table.concat(found, ", ")))
    end
    clean("stdout", run.out)
    clean("stderr", run.err)
    for name in support.sh(("ls %s/state/lbrun"):format(home.dir)):gmatch "%S+" do
      if not name:find "%.key$" then clean(name, support.slurp(home.dir .. "/state/lbrun/" .. name)) end
    end
    clean("the spool", inside "cd /var/lib/lbrun && find . -type f -exec cat {} + ; ls -R")
    clean("the server's log", inside "journalctl -o cat --no-pager; cat /var/log/*.log /var/log/*/*.log 2>/dev/null")
    clean("the compose files", inside "cat /opt/letsbe/stacks/*/docker-compose.yml /opt/letsbe/nginx/*/*.conf")
    clean("what containers say", inside "for c in $(docker ps -aq); do docker logs $c 2>&1; done")
    clean("what runs", inside "ps -eo args=")
  end)

  it("heals by its restart policies alone when the process of each container is killed", function()
    must_be_up()
    local before = inside "docker ps -aq --no-trunc | sort"
    inside "for c in $(docker ps -q); do kill -9 $(docker inspect -f '{{.State.Pid}}' $c); done"
    local restarted = tonumber((inside "docker ps -aq | xargs docker inspect -f '{{.RestartCount}}' | grep -c '^[1-9]'"))
    local ill
    for _ = 1, 100 do
      os.execute "sleep 3"
      ill = nil
      local seen = states()
      for _, name in ipairs(containers) do
        if not well(name, seen[name]) then ill = name .. ": " .. json.encode(seen[name] or "no container") end
      end
      if not ill then break end
    end
    assert(not ill, tostring(ill) .. " after 5 minutes")
    restarted = math.max(restarted, tonumber((inside "docker ps -aq | xargs docker inspect -f '{{.RestartCount}}' | grep -c '^[1-9]'")))
    assert.equal(#containers, restarted)
    assert.equal(before, inside "docker ps -aq --no-trunc | sort")
    assert.matches('"entries":%["first","ghost"%]', fetch "blog.acme.example")
  end)

  it("needs no lbrun: after a reboot every site answers", function()
    must_be_up()
    server:reboot()
    local missing
    for _ = 1, 60 do
      missing = nil
      for _, tool in ipairs(tools) do
        local name = sites[tool] .. ".acme.example"
        if not fetch(name):find("\n200$") then missing = name end
      end
      if not missing then break end
      os.execute "sleep 2"
    end
    assert(not missing, tostring(missing))
    local again = home.json(args)
    assert(provision.fine(again))
    assert.equal(0, again.last.changed, again.out)
  end)

  it("comes back on another bare server from the sealed copy: nothing is minted anew, the old passwords let in", function()
    must_be_up()
    local copy, public = inside "cat /opt/letsbe/env/credentials.enc", inside "cat /opt/letsbe/env/keys/*.pub"
    server:reimage()
    server:exec("umask 077; cat >/root/copy.enc", { stdin = copy })
    local there <close> = setmetatable(support.home(), { __close = function(self) self.remove() end })
    support.sh(("install -m 600 /dev/null %s/recovery"):format(there.dir))
    support.spit(there.dir .. "/recovery", host.reveal(provision.recovery.identity) .. "\n")
    local words = ("%s restore=true sealed_copy=/root/copy.enc recovery_key=@%s/recovery"):format(args, there.dir)
    local told = #h.requests()
    local r = there.json(words)
    assert(provision.fine(r))
    -- This time the Hub was there: verified, and told so.
    local last = h.requests()[#h.requests()]
    assert.same({ "/api/v1/jobs/job-7", { status = "COMPLETED" }, true }, { last.path, last.body, last.effective })
    assert.equal(told + 2, #h.requests())
    assert.equal(store, inside "cat /opt/letsbe/env/credentials.env")
    assert.equal(public, inside "cat /opt/letsbe/env/keys/*.pub")
    all_well()
    assert.equal("1\n", (ask_mysql(planted.GHOST_DB_PASSWORD)))
    assert.equal("1\n", (ask_postgres(planted.NEXTCLOUD_DB_PASSWORD)))
    inside "sed -n '/BEGIN CERT/,/END CERT/p' /opt/letsbe/nginx/conf/fallback.pem >/root/ca.pem"
    -- The volumes wait for a backup: no tool is set up for the first time, no old row is there.
    assert.matches('"entries":%["first"%]', fetch "blog.acme.example")
    local calls = inside "cat /var/lib/docker/volumes/openclaw-home/_data/calls.jsonl"
    assert.equal(1, select(2, calls:gsub('"script": "setup', "")), calls)
    local found = canary.find(r.out .. r.err, { password = planted.NEXTCLOUD_DB_PASSWORD, identity = host.reveal(provision.recovery.identity) })
    assert.same({}, found)
    local again = there.json(words)
    assert(provision.fine(again))
    assert.equal(0, again.last.changed, again.out)
  end)
end)
