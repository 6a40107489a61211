-- stacks_fault_spec.lua: what goes wrong in step 9: lbrun is killed inside each effect of each
-- stack; an image is missing, a port is taken, a container never becomes healthy, the disk is
-- full. The tool is named, the others stay up, resume goes on from there.
-- Ghost, Uptime Kuma and MySQL are stand-ins. Steps 1 to 8 are not run here.
local json = require "json"
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"
local background = require "support.background"

local created = "docker events --since 0 --until $(date +%s) --filter type=container --filter event=create "
  .. "--format '{{.Actor.Attributes.name}}' | sort | uniq -c | sed 's/^ *//'"

describe("step 9 #vps #slow", function()
  local server, home, seed
  local env = require "lb.script".environment(require "lb.sources".collect "runbooks/provision.lua")

  local function image_of(id)
    local main = env.stack.main(env.stack.get(id))
    return main.image .. ":" .. main.tag
  end

  setup(function()
    seed = tonumber(os.getenv "LBRUN_SPEC_SEED") or os.time()
    math.randomseed(seed)
    server = vps.up("stacks-fault", { docker = true, disk = "3G" })
    local _, status, err = vps.call({ "images", "stacks-fault", table.unpack(provision.images_of { "ghost", "uptime-kuma" }) },
      { home = server.home })
    assert.equal(0, status, err)
    home = support.home()
  end)
  teardown(function()
    server:down()
    home.remove()
  end)

  local function inside(command) return (server:exec(command)) end
  local function words(tools)
    return provision.args(server, { more = "--json --tags nginx,stacks tools=" .. (tools or "ghost,uptime-kuma") })
  end
  -- Since when each container runs: what stayed up has the same answer later.
  local function since(name) return inside("docker inspect -f '{{.State.Status}} {{.State.StartedAt}}' " .. name) end
  local function resume(run)
    return home.json(("resume %s --json --no-input -i %s"):format(run, server.key))
  end
  local function effects(lines)
    local list = {}
    for _, line in ipairs(lines) do
      if line.type == "effect.begin" then list[#list + 1] = line.step .. "/" .. line.effect end
    end
    return list
  end
  -- The step failed, said why with these words, and its tool alone is named.
  local function failed(r, step, ...)
    assert.is_true(r.exit == 5 or r.exit == 6, r.err)
    assert.equal(step, r.last.step)
    for _, text in ipairs { ... } do assert.matches(text, r.last.message) end
    assert.equal("lbrun resume " .. r.last.run, r.last.next)
  end
  -- Resume does what failed and what comes after it, and nothing before it again.
  local function goes_on(r, step)
    local again = resume(r.last.run)
    assert(provision.fine(again))
    local first = effects(again.lines)[1]
    assert.equal(step, first and first:match "^(stacks/[%w-]+)/", json.encode(effects(again.lines)))
    assert.equal(0, home.json(words()).last.changed)
    return again
  end

  it("is refused before a change when the tools do not fit", function()
    local r = home.json(words "nextcloud,ghost,chatwoot,keycloak,odoo,glitchtip")
    assert.equal(5, r.exit, r.err)
    assert.matches("MiB .*%% of the memory of .*more than 90 %%; nothing was changed", r.last.message)
    assert.equal("", inside "ls -d /opt/letsbe /var/lib/lbrun/lock 2>/dev/null; docker ps -aq")
  end)

  it("warns before a change when the tools take more than 75 % of the memory, and goes on (3)", function()
    local tools, catalog = { "ghost", "nextcloud", "uptime-kuma" }, env.catalog
    for _, id in ipairs { "odoo", "chatwoot", "keycloak", "gitea", "vikunja", "umami" } do
      local more = table.move(tools, 1, #tools, 1, {})
      more[#more + 1] = id
      if catalog.sum(tools, "lite").verdict == "fits" and catalog.sum(more, "lite").verdict ~= "refused" then tools = more end
    end
    assert.equal("tight", catalog.sum(tools, "lite").verdict)
    inside(("sed 's/^MemTotal:.*/MemTotal: %d kB/' /proc/meminfo >/run/meminfo && mount --bind /run/meminfo /proc/meminfo"):format(
      catalog.tiers.lite.memory >> 10))
    local r = home.json(provision.args(server, { more = "--json --tags nginx tools=" .. table.concat(tools, ",") }))
    inside "umount /proc/meminfo"
    assert.equal(3, r.exit, r.err)
    assert.equal("done", r.last.status)
    assert.matches("need %d+ MiB .-, %d+ %% of the memory of tier lite\n.*%% of the memory of this server",
      table.concat(r.last.warnings, "\n"))
    local warned
    for _, line in ipairs(r.lines) do
      if line.type == "warning" and line.text:find("of the memory of tier lite", 1, true) then warned = true end
      assert(line.type ~= "effect.begin" or warned, "a change came before the warning")
    end
    assert.equal("letsbe-nginx\n", inside "docker ps --format '{{.Names}}'")
  end)

  it("goes on from a kill inside each effect of each stack; none happens twice", function()
    local killed, kills, steps = {}, 0, {}
    local bg = background.start(home, words())
    repeat
      local at = bg:wait_for(function(line)
        local name = line.type == "effect.begin" and line.step .. "/" .. line.effect
        return name and not killed[name] and line.step ~= "nginx" and name
      end)
      if at then
        killed[at], kills = true, kills + 1
        background.sleep(math.random() * (at:find "compose.up" and 5 or 0.05))
        bg:kill()
        if bg.last.type ~= "summary" then bg = background.start(home, "resume --json --no-input -i " .. server.key) end
      end
    until not at or bg.last and bg.last.type == "summary"
    local last = bg:finish()
    assert.equal("summary", last.type, support.slurp(bg.err))
    assert.equal("done", last.status, ("seed %d: %s"):format(seed, tostring(last.message)))
    for name in pairs(killed) do steps[name:match "^(.*)/[%w_]+%.[%w_]+%("] = true end
    for _, step in ipairs { "https", "stacks/ghost", "stacks/uptime-kuma" } do assert(steps[step], "no kill hit " .. step) end
    assert.is_true(kills >= 12, kills .. " kills")
    -- Counted on the server: each container was made once.
    assert.equal("1 ghost\n1 ghost-db\n1 letsbe-nginx\n1 uptime-kuma\n", inside(created), "seed " .. seed)
    local ends = {}
    for line in home.run("log --json " .. last.run).out:gmatch "[^\n]+" do
      local e = json.decode(line)
      if e.type == "effect.end" then
        local name = e.data.step .. "/" .. e.data.effect
        assert.equal("done", e.data.status, name)
        ends[name] = (ends[name] or 0) + 1
      end
    end
    for name in pairs(killed) do assert.equal(1, ends[name], name) end
    assert.equal(0, home.run("verify-journal").exit)
    local store = inside "cat /opt/letsbe/env/credentials.env"
    assert.equal(0, home.json(words()).last.changed)
    assert.equal(store, inside "cat /opt/letsbe/env/credentials.env")
  end)

  it("names the tool whose image is missing", function()
    local image, ghost = image_of "uptime-kuma", since "ghost"
    inside(("docker tag %s kept:1; docker rm -f uptime-kuma; docker rmi %s"):format(image, image))
    local r = home.json(words())
    failed(r, "stacks/uptime-kuma", "uptime%-kuma", "[Pp]ull")
    assert.equal(ghost, since "ghost")
    inside(("docker tag kept:1 %s; docker rmi kept:1"):format(image))
    goes_on(r, "stacks/uptime-kuma")
    assert.equal(ghost, since "ghost")
  end)

  it("names the tool whose port is taken", function()
    local port, kuma, database = env.catalog.get("ghost").port, since "uptime-kuma", since "ghost-db"
    inside(("docker rm -f ghost; docker run -d --name squatter -p 127.0.0.1:%d:80 %s"):format(port, vps.nginx))
    local r = home.json(words())
    failed(r, "stacks/ghost", "ghost", "port is already allocated")
    assert.equal(kuma, since "uptime-kuma")
    assert.equal(database, since "ghost-db")
    inside "docker rm -f squatter"
    goes_on(r, "stacks/ghost")
    assert.equal(kuma, since "uptime-kuma")
    assert.equal(database, since "ghost-db")
  end)

  it("names the tool that never becomes healthy, and what it said last", function()
    local image, ghost = image_of "uptime-kuma", since "ghost"
    -- An image that runs, says something, and is not well.
    inside(([[docker tag %s kept:1; docker rm -f uptime-kuma; printf 'FROM kept:1\nENTRYPOINT []\nCMD ["sh", "-c", "%s"]\n' |
      docker build -q -t %s -]]):format(image, "echo the schema cannot be migrated; exec sleep 1000", image))
    local r = home.json(words())
    failed(r, "stacks/uptime-kuma", "uptime%-kuma: ", "the schema cannot be migrated")
    assert.equal(ghost, since "ghost")
    inside(("docker rm -f uptime-kuma; docker tag kept:1 %s; docker rmi kept:1"):format(image))
    goes_on(r, "stacks/uptime-kuma")
    assert.equal(ghost, since "ghost")
  end)

  -- Leaves that many MiB free.
  local function fill(free)
    inside(("a=$(df --output=avail -k / | tail -1); fallocate -l $((a - %d * 1024))K /filler"):format(free))
  end
  local function volumes() return inside "cd /var/lib/docker/volumes && stat -c '%n %i %W' ghost-content ghost-db" end
  local function sql(text)
    return (server:exec([[docker exec -i ghost-db sh -c 'MYSQL_PWD="$MYSQL_PASSWORD" mysql -N -B -h 127.0.0.1 -u ghost ghost']],
      { stdin = text }))
  end

  it("names the tool whose first start finds the disk full, and takes nothing half made for a database", function()
    local kuma = since "uptime-kuma"
    inside "cd /opt/letsbe/stacks/ghost && docker rm -f ghost ghost-db && docker volume rm ghost-db ghost-content && rm .lbrun-up"
    fill(60)
    local r = home.json(words())
    failed(r, "stacks/ghost", "the disk of " .. server.url:gsub("%p", "%%%0") .. " is full: compose.up%(ghost%)",
      "No space left on device: %d+ of %d+ MiB are free in /var/lib/docker\n", "\nghost%-db: ", "InnoDB",
      "%(ghost%-content ghost%-db%) were removed")
    assert.equal("uptime-kuma-data\n", inside "docker volume ls -q")
    assert.equal(kuma, since "uptime-kuma")
    inside "rm /filler"
    goes_on(r, "stacks/ghost")
    assert.equal(kuma, since "uptime-kuma")
    assert.equal("first\n", sql "SELECT body FROM entries;")
  end)

  it("says so when the server went down in a tool's first start, removes nothing, and tells what a person may do", function()
    inside "cd /opt/letsbe/stacks/ghost && docker rm -f ghost ghost-db && docker volume rm ghost-db ghost-content && rm .lbrun-up"
    local bg = background.start(home, words())
    -- Held where its system tables are half made; then the power goes.
    inside "until [ -d /var/lib/docker/volumes/ghost-db/_data/mysql ]; do sleep 0.02; done; docker pause ghost-db"
    bg:kill()
    server:kill()
    server:start()
    inside "for i in $(seq 100); do docker ps >/dev/null 2>&1 && break; sleep 0.2; done"
    local kuma, had = since "uptime-kuma", volumes()
    local r = resume(bg.run)
    failed(r, "stacks/ghost", "\nghost%-db: ", "no start of it has ended well yet: its volumes may be half filled, and were left")
    assert.equal(had, volumes())
    inside(r.last.message:match "worth keeping: (cd [^\n]- docker volume rm [%w -]+)")
    goes_on(r, "stacks/ghost")
    assert.equal("first\n", sql "SELECT body FROM entries;")
    assert.equal(kuma, since "uptime-kuma")
    assert.equal("", inside "ls -A /opt/letsbe/stacks/ghost | grep first")
  end)

  it("leaves the volumes of a tool that had been up, when it finds the disk full later", function()
    local kuma, had = since "uptime-kuma", volumes()
    sql "INSERT INTO entries VALUES ('kept');"
    -- Its temporary tablespace is made anew at each start.
    inside "docker rm -f ghost ghost-db && rm /var/lib/docker/volumes/ghost-db/_data/ibtmp1"
    fill(6)
    local r = home.json(words())
    failed(r, "stacks/ghost", "is full: compose.up%(ghost%)", "\nghost%-db: ")
    assert.is_nil(r.last.message:find("removed", 1, true))
    assert.equal(had, volumes())
    inside "rm /filler"
    goes_on(r, "stacks/ghost")
    assert.equal(had, volumes())
    assert.equal("first\nkept\n", sql "SELECT body FROM entries;")
    assert.equal(kuma, since "uptime-kuma")
  end)
end)
