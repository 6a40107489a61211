-- commands_spec.lua: what a person meets at the command line around a run: lists, files of
-- parameters, tenants, tags, explanations, and the errors of each.
local support = require "support.lbrun"
local json = require "json"

local book = [[
return runbook { name = "two", summary = "Two steps", section = "9.9",
  params = {
    tenant = param.string { pattern = "^[a-z]+$", default = "acme", description = "the customer" },
    dir = param.string {}, list = param.list { of = param.enum { "a", "b" }, default = {} },
    token = param.secret { optional = true },
  },
  steps = function(p) return {
    step { name = "first", tags = { "one" }, resources = { file.content { path = p.dir .. "/first", content = p.tenant .. "\n" } } },
    step { name = "second", tags = { "other" }, resources = { file.content { path = p.dir .. "/second", content = table.concat(p.list, " ") .. "\n" } } },
  } end }
]]

describe("the command line #unit", function()
  local home, path
  local at_local = "-t local: --allow-local-root"
  before_each(function()
    home = support.home()
    path = home.runbook("two", book)
  end)
  after_each(function() home.remove() end)

  local function private(name, text)
    local file = home.dir .. "/" .. name
    support.sh(("umask 077; touch %s"):format(file))
    support.spit(file, text)
    return file
  end

  it("describes every runbook of the project with its steps", function()
    for file in support.sh("ls runbooks/*.lua"):gmatch "%S+" do
      local r = home.run("describe " .. file)
      assert.equal(0, r.exit, r.err)
      assert.matches("\nsteps:\n  %S+ ", r.out, file)
    end
  end)

  local function exists(name)
    local f = io.open(home.work .. "/" .. name)
    if f then f:close() end
    return f ~= nil
  end

  it("lists runbooks with their summaries and describes one, with a JSON Schema on demand", function()
    local list = home.run { "list", home.dir }
    assert.equal(0, list.exit, list.err)
    assert.matches("two.lua +Two steps  %(9.9%)", list.out)
    local text = home.run { "describe", path }
    assert.matches("dir +a string %(required%)", text.out)
    assert.matches("second +reversible", text.out)
    local schema = json.decode(home.run { "describe", path, "--json" }.out).params
    assert.equal("https://json-schema.org/draft/2020-12/schema", schema["$schema"])
    assert.equal(false, schema.additionalProperties)
    assert.same({ "dir" }, { table.unpack(schema.required) })
    assert.equal("^[a-z]+$", schema.properties.tenant.pattern)
  end)

  it("runs the steps of the tags asked for, keeps to them at resume, and knows no other tags", function()
    local r = home.run(("%s dir=%s %s --tags one"):format(path, home.work, at_local))
    assert.equal(0, r.exit, r.err)
    assert.is_true(exists "first")
    assert.is_false(exists "second")
    local typo = home.run(("%s dir=%s %s --tags othr"):format(path, home.work, at_local))
    assert.equal(2, typo.exit)
    assert.matches("did you mean 'other'%?", typo.err)
    r = home.run(("%s dir=%s %s --skip-tags one"):format(path, home.work, at_local))
    assert.equal(0, r.exit, r.err)
    assert.is_true(exists "second")
  end)

  it("takes parameters from a file, which the command line overrides, and a secret only from a private one", function()
    local file = home.dir .. "/params.json"
    support.spit(file, json.encode { dir = home.work, tenant = "filed", list = { "a", "b" } })
    local r = home.run(("%s -p %s tenant=typed %s"):format(path, file, at_local))
    assert.equal(0, r.exit, r.err)
    assert.equal("typed\n", support.slurp(home.work .. "/first"))
    assert.equal("a b\n", support.slurp(home.work .. "/second"))
    support.spit(file, json.encode { dir = home.work, token = "a secret value" })
    support.sh("chmod 644 " .. file)
    r = home.run(("%s -p %s %s"):format(path, file, at_local))
    assert.equal(12, r.exit, r.err)
    assert.is_nil(r.err:find("a secret value", 1, true))
    r = home.run(("%s -p %s %s"):format(path, private("p.json", support.slurp(file)), at_local))
    assert.equal(0, r.exit, r.err)
    support.spit(file, "{ \"dir\": ")
    r = home.run(("%s -p %s %s"):format(path, file, at_local))
    assert.equal(2, r.exit)
    assert.matches("parameter file .*line 1", r.err)
  end)

  it("knows tenants by name, with their target and parameters", function()
    support.sh(("mkdir -p %s/config/lbrun"):format(home.dir))
    local file = home.dir .. "/acme.json"
    support.spit(file, json.encode { dir = home.work })
    support.spit(home.dir .. "/config/lbrun/tenants.json", json.encode { globex = { target = "local:", params = file } })
    local r = home.run(("%s -t globex --allow-local-root"):format(path))
    assert.equal(0, r.exit, r.err)
    assert.equal("globex\n", support.slurp(home.work .. "/first"))
    assert.is_nil(r.err:find("not for this runbook", 1, true), r.err)
    -- The file is of the tenant, not of this runbook; on the command line a slip is refused.
    support.spit(file, json.encode { dir = home.work, zone = "eu", tools = json.array { "ghost" } })
    r = home.run(("%s -t globex --allow-local-root"):format(path))
    assert.equal(0, r.exit, r.err)
    assert.matches("acme%.json: not for this runbook: tools, zone\n", r.err)
    r = home.run(("%s -p %s -t local: --allow-local-root"):format(path, file))
    assert.equal(2, r.exit)
    assert.matches("unknown parameter 'tools'", r.err)
    local typo = home.run(("%s -t globx --allow-local-root"):format(path))
    assert.equal(2, typo.exit)
    assert.matches("did you mean 'globex'%?", typo.err)
  end)

  it("reads targets from a file, and refuses one that is named twice", function()
    local file = home.dir .. "/targets"
    support.spit(file, "# all of them\nlocal:\n\n")
    assert.equal(0, home.run(("%s dir=%s --targets %s --allow-local-root"):format(path, home.work, file)).exit)
    local r = home.run(("%s dir=%s --targets %s -t local: --allow-local-root"):format(path, home.work, file))
    assert.equal(2, r.exit)
    assert.matches("named twice", r.err)
  end)

  it("says what is not a target, a runbook, or a run", function()
    for _, case in ipairs {
      { ("%s dir=/tmp -t http://x"):format(path), "neither a target" },
      { ("%s dir=/tmp -t ssh://user:pass@host"):format(path), "a password has no place" },
      { "twoo.lua", "no runbook" }, { "show nothing-here", "no journal" }, { "resume nothing-here", "has no run nothing%-here" },
    } do
      local r = home.run(case[1])
      assert.equal(2, r.exit, case[1])
      assert.matches(case[2], r.err)
    end
  end)

  it("explains a failed run: done, in doubt, left, and the next command", function()
    local broken = home.runbook("broken", [[return runbook { name = "broken", summary = "x", steps = {
      step { name = "fine", apply = function(ctx) ctx.target:run "true" end },
      step { name = "bad", apply = function(ctx) ctx.target:run "echo some reason >&2; exit 3" end },
      step { name = "never", apply = function() end } } }]])
    local r = home.run(("%s %s --on-failure 'echo $LBRUN_EXIT $LBRUN_RUN >%s/told'"):format(broken, at_local, home.work))
    assert.equal(6, r.exit, r.err)
    assert.matches("ended with status 3: some reason", r.err)
    assert.equal("6 " .. r.id .. "\n", support.slurp(home.work .. "/told"))
    local e = home.run { "explain", r.id }
    assert.matches("done +fine\n", e.out)
    assert.matches("left +bad %(failed%), never\n", e.out)
    assert.matches("next: lbrun resume " .. r.id:gsub("%-", "%%-"), e.out)
    assert.matches("some reason", home.run { "show", r.id }.out)
    assert.matches("effect.end", home.run { "log", r.id }.out)
    assert.matches("broken%-%w+ +failed +6", home.run { "runs" }.out)
    -- The beginning of a name is enough when it is the only one.
    assert.equal(0, home.run { "show", r.id:sub(1, 8) }.exit)
  end)

  it("resumes without a name only when exactly one run is open", function()
    local broken = home.runbook("broken", [[return runbook { name = "broken", summary = "x", steps = {
      step { name = "bad", apply = function() fail("boom", "boom") end } } }]])
    assert.matches("no run is open", home.run("resume").out)
    home.run(broken)
    home.run(broken)
    local r = home.run "resume"
    assert.equal(2, r.exit)
    assert.matches("2 runs are open", r.err)
  end)

  it("prints a plan as JSON lines", function()
    local r = home.json(("plan %s dir=%s %s --json --detailed-exitcode"):format(path, home.work, at_local))
    assert.equal(10, r.exit, r.err)
    assert.equal("plan.effect", r.lines[1].type)
    assert.equal("pending", r.lines[1].state)
    assert.equal(2, r.last.pending)
    assert.is_false(exists "first")
  end)

  it("finds a journal that is not its own, unreadable, newer or corrupt (13), and touches none", function()
    local file = home.dir .. "/state.db"
    local function try()
      return home.run(("%s dir=%s %s --journal %s"):format(path, home.work, at_local, file))
    end
    private("state.db", ("not a database "):rep(100))
    local r = try()
    assert.equal(13, r.exit, r.err)
    assert.matches("%-%-journal", r.err)
    assert.equal(("not a database "):rep(100), support.slurp(file))
    os.remove(file)
    assert.equal(0, try().exit)
    support.sh(("sqlite3 %s 'PRAGMA user_version = 999'"):format(file))
    r = try()
    assert.equal(13, r.exit, r.err)
    assert.matches("newer", r.err)
    support.sh("chmod 644 " .. file)
    assert.equal(13, try().exit)
  end)
end)
