-- errors_spec.lua: GlitchTip's projects in step 9 (section 6.3), on a VPS that has Docker: what its
-- programs are told, with GlitchTip and without; what happens when no event arrives. GlitchTip
-- and Vikunja are stand-ins. That events arrive over HTTPS is in all_tools_spec.lua.
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"
local canary = require "support.canary"

describe("the errors of programs #vps #slow", function()
  local server, home
  setup(function()
    server = vps.up("errors", { docker = true, images = provision.images_of { "glitchtip", "vikunja" } })
    home = support.home()
  end)
  teardown(function()
    if server then server:down() end
    if home then home.remove() end
  end)

  local function inside(command) return (server:exec(command)) end
  local function go(tools, more)
    return home.json(provision.args(server, { more = ("--json --tags nginx,stacks tools=%s %s"):format(tools, more or "") }))
  end
  local function sql(text)
    return (server:exec("docker exec -i glitchtip-db psql -X -q -A -t -U glitchtip -d glitchtip", { stdin = text }))
  end
  local function told() return inside "docker exec vikunja env | grep SENTRY | sort" end
  local function stored(name) return inside("sed -n 's/^" .. name .. "=//p' /opt/letsbe/env/credentials.env"):gsub("\n$", "") end

  it("go nowhere, and to nobody else, where there is no GlitchTip", function()
    assert(provision.fine(go "vikunja"))
    assert.equal("", told())
    assert.equal("", stored "VIKUNJA_SENTRY_DSN")
  end)

  it("go to a project each, which took a test event; what does not arrive is a warning, and the next run's to try", function()
    -- GlitchTip comes first, whatever the order in which the tools were chosen.
    local plan = home.run("plan " .. provision.args(server, { more = "--tags nginx,stacks tools=vikunja,glitchtip" }):gsub(" %-y ", " "))
    assert.is_true(plan.exit == 0 or plan.exit == 3, plan.err)
    assert.matches("step stacks/glitchtip .*step errors .*make projects in GlitchTip for OpenClaw, Safety Wrapper, Vikunja.*step stacks/vikunja ", plan.out)
    assert(provision.fine(go("vikunja,glitchtip")))
    assert.equal("OpenClaw 1\nSafety Wrapper 1\nVikunja 1\n",
      sql "SELECT p.name || ' ' || count(*) FROM projects p JOIN events e ON e.project = p.id GROUP BY p.name ORDER BY p.name;")
    local key, address = stored "VIKUNJA_SENTRY_KEY", stored "VIKUNJA_SENTRY_DSN"
    assert.matches("^%x+$", key)
    assert.equal(32, #key)
    assert.matches("^https://" .. key .. "@errors.acme.example/%d+$", address)
    assert.equal(("VIKUNJA_SENTRY_DSN=%s\nVIKUNJA_SENTRY_ENABLED=true\n"):format(address), told())
    assert.equal(key .. "\n", sql "SELECT replace(k.public_key::text, '-', '') FROM keys k JOIN projects p ON p.id = k.project WHERE p.name = 'Vikunja';")

    local again = go "vikunja,glitchtip"
    assert(provision.fine(again))
    assert.equal(0, again.last.changed)

    sql "DELETE FROM events; CREATE RULE lost AS ON INSERT TO events DO INSTEAD NOTHING;"
    inside "rm /var/lib/docker/volumes/glitchtip-uploads/_data/.lbrun/projects"
    local since = inside "docker inspect -f '{{.State.StartedAt}}' vikunja"
    local r = go "vikunja,glitchtip"
    assert.equal(3, r.exit, r.err)
    assert.matches("GlitchTip took no test event of OpenClaw, Safety Wrapper, Vikunja; the next run tries again", table.concat(r.last.warnings, "\n"))
    assert.equal(address, stored "VIKUNJA_SENTRY_DSN")
    assert.equal(since, inside "docker inspect -f '{{.State.StartedAt}}' vikunja")
    sql "DROP RULE lost ON events;"
    assert(provision.fine(go "vikunja,glitchtip"))
    assert.equal("3\n", sql "SELECT count(*) FROM events;")
    for _, name in ipairs { "", "-wal" } do
      local file = io.open(home.dir .. "/state/lbrun/journal.db" .. name, "rb")
      assert.equal(0, file and #canary.find(file:read "a", { key = key, address = address }) or 0)
    end
  end)

  it("keep their addresses in a restore: the backup knows them, the empty GlitchTip does not", function()
    local address = stored "VIKUNJA_SENTRY_DSN"
    inside "rm /var/lib/docker/volumes/glitchtip-uploads/_data/.lbrun/projects"
    local r = go("vikunja,glitchtip", "restore=true")
    assert(provision.fine(r))
    assert.equal(0, r.last.changed)
    assert.equal(address, stored "VIKUNJA_SENTRY_DSN")
  end)

  it("are a failure that names GlitchTip when it makes no projects", function()
    inside "rm -f /var/lib/docker/volumes/glitchtip-uploads/_data/.lbrun/projects"
    sql "ALTER TABLE projects RENAME TO moved; CREATE VIEW projects AS SELECT 1 AS id;"
    local r = go "vikunja,glitchtip"
    assert.is_true(r.exit == 5 or r.exit == 6, r.err)
    assert.equal("errors", r.last.step)
    assert.matches("GlitchTip made no projects: ", r.last.message)
    sql "DROP VIEW projects; ALTER TABLE moved RENAME TO projects;"
    assert(provision.fine(home.json(("resume %s --json --no-input -i %s"):format(r.last.run, server.key))))
  end)
end)
