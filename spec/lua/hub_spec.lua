-- hub_spec.lua: reports to the Hub's stand-in (hub.py): each is taken once, whatever the Hub
-- answers and whenever lbrun dies; a silent Hub is a warning.
local support = require "support.lbrun"
local hubs = require "support.hub"
local script = require "lb.script"

local token = [[kX7-canary.Token_w9QzL4m/pR+t=]]

local book = [[
return runbook { name = "told", summary = "reports what it does",
  params = { hub_url = param.string { optional = true }, job_id = param.string { default = "j-1" },
    runner_token = param.secret { optional = true }, fails = param.boolean { default = false } },
  preflight = hub.check,
  steps = function(p) return {
    step { name = "begin", class = "pure", resources = { hub.reported { call = "job", fields = { status = "RUNNING" } } } },
    step { name = "work", class = "pure", apply = function(ctx)
      if p.fails then fail("work", "the work cannot be done") end end },
    step { name = "report", class = "pure", resources = { hub.reported { call = "job", fields = { status = "COMPLETED" } } } },
  } end,
  on_failure = function(ctx, why)
    hub.report(ctx, { call = "job", fields = { status = "FAILED", step = why.step, message = why.message }, key = "failed " .. why.number })
  end }
]]

local running, completed = '{"status":"RUNNING"}', '{"status":"COMPLETED"}'

describe("the Hub #unit", function()
  local home, hub, path, args
  before_each(function()
    home = support.home()
    hub = hubs.new(home.dir .. "/hub", token).start()
    path = home.runbook("told", book)
    args = ("%s hub_url=%s runner_token=@%s"):format(path, hub.url, hub.token_file)
  end)
  after_each(function()
    hub.stop()
    home.remove()
  end)

  local function waiting()
    local list = {}
    for _, line in ipairs(home.json("outbox --json").lines) do
      if line.type == "report" then list[#list + 1] = line end
    end
    return list
  end

  local function given() return "runner_token=@" .. hub.token_file end

  it("is told by the one call that is fixed, letter by letter", function()
    local r = home.run(args)
    assert.equal(0, r.exit, r.err)
    local last = hub.requests()[2]
    assert.same({ "PATCH", "/api/v1/jobs/j-1", "right", true, false },
      { last.method, last.path, last.token, last.effective, last.duplicate })
    assert.same({ status = "COMPLETED" }, last.body)
    assert.matches("^%x+$", last.key)
    assert.equal("application/json", last.headers["Content-Type"])
    assert.same({ [running] = 1, [completed] = 1 }, hub.taken())
  end)

  it("is no change of the server: the second run changes nothing, and a plan asks nothing", function()
    home.run(args)
    local again = home.run(args)
    assert.matches(" 0 changed", again.out)
    local told = #hub.requests()
    local plan = home.run("plan --detailed-exitcode " .. args)
    assert.equal(0, plan.exit, plan.out)
    assert.equal(told, #hub.requests())
  end)

  it("that is not named is not asked, and needs no token", function()
    local r = home.run(path)
    assert.equal(0, r.exit, r.err)
    assert.equal(0, #hub.requests())
    assert.equal(0, #waiting())
  end)

  it("without a token or job is refused before anything is done", function()
    local r = home.run(("%s hub_url=%s"):format(path, hub.url))
    assert.equal(12, r.exit)
    assert.matches("runner_token=@FILE", r.err)
    assert.equal(2, home.run(args .. " job_id=").exit)
    r = home.run(("%s hub_url=http://hub.example %s"):format(path, given()))
    assert.equal(2, r.exit)
    assert.matches("not https", r.err)
    assert.equal(0, #hub.requests())
  end)

  it("that refuses connections is a warning (3); a later run tells it, each report once, in order", function()
    hub.stop()
    local r = home.run(args)
    assert.equal(3, r.exit, r.err)
    assert.matches("warning: the Hub was not told 'job' %(PATCH /api/v1/jobs/j%-1%).-lbrun outbox send runner_token=@FILE", r.err)
    local list = waiting()
    assert.equal(2, #list)
    assert.equal(running, list[1].body)
    assert.equal(r.id, list[1].run)
    hub.start()
    local other = home.run(("%s job_id=j-2 hub_url=%s %s"):format(path, hub.url, given()))
    assert.equal(0, other.exit, other.err)
    assert.equal(0, #waiting())
    local order = {}
    for _, q in ipairs(hub.requests()) do
      if q.path == "/api/v1/jobs/j-1" then order[#order + 1] = q.body.status end
    end
    assert.same({ "RUNNING", "COMPLETED" }, order)
    assert.equal(4, #hub.requests())
    assert.equal(0, home.run("verify-journal").exit)
    assert.matches("outbox.end", home.run("log " .. r.id).out)
  end)

  it("is told by a run without a report of its own too, but not by one with another token", function()
    hub.stop()
    home.run(args)
    hub.start()
    local plain = home.runbook("plain", [[return runbook { name = "plain", summary = "x", params = { runner_token = param.secret {} },
      steps = { step { name = "a", class = "pure", apply = function() end } } }]])
    support.sh(("install -m 600 /dev/null %s/other"):format(home.dir))
    support.spit(home.dir .. "/other", "another-token-of-some-length\n")
    assert.equal(0, home.run(("%s runner_token=@%s/other"):format(plain, home.dir)).exit)
    assert.equal(2, #waiting())
    assert.equal(0, #hub.requests())
    local r = home.run(plain .. " " .. given())
    assert.equal(0, r.exit, r.err)
    assert.matches("2 reports that waited were sent", r.err)
    assert.same({ [running] = 1, [completed] = 1 }, hub.taken())
  end)

  it("that says 401 is a warning that names the answer, and is not asked again", function()
    support.spit(hub.dir .. "/token", "quite-another-token\n")
    local r = home.run(args)
    assert.equal(3, r.exit, r.err)
    assert.matches("did not take 'job' .-answered 401: .-not sent again", r.err)
    assert.equal(0, #waiting())
    local told = #hub.requests()
    assert.equal(0, home.run("outbox send " .. given()).exit)
    assert.equal(told, #hub.requests())
    assert.is_true(#hub.requests() == 2 and hub.requests()[1].token == "wrong")
  end)

  it("that says 422 is a warning that names the answer, and is not asked again", function()
    hub.fault { kind = "status", status = 422 }
    local r = home.run(args)
    assert.equal(3, r.exit, r.err)
    assert.matches("did not take 'job' .-answered 422: .-told to fail.-not sent again", r.err)
    assert.equal(0, #waiting())
    hub.fault(nil)
    local told = #hub.requests()
    assert.equal(0, home.run("outbox send " .. given()).exit)
    assert.equal(told, #hub.requests())
    assert.same({}, hub.taken())
  end)

  -- Each fault: what it is, whether the Hub has taken the report in spite of it.
  for what, fault in pairs {
    ["answers 500"] = { kind = "status", status = 500, times = 2 },
    ["answers 429"] = { kind = "status", status = 429, times = 2 },
    ["answers with what is no HTTP"] = { kind = "garbage", times = 2 },
    ["answers with a page of somebody else"] = { kind = "html", times = 2 },
    ["breaks off in its answer"] = { kind = "cut", times = 2 },
    ["dies before its answer"] = { kind = "lost", times = 2 },
  } do
    it(("that %s has not been told, and is told again with the same key"):format(what), function()
      hub.fault(fault)
      local r = home.run(args)
      assert.equal(3, r.exit, r.err)
      assert.is_true(#waiting() > 0)
      hub.fault(nil)
      local sent = home.run("outbox send " .. given())
      assert.equal(0, sent.exit, sent.err)
      assert.equal(0, #waiting())
      assert.same({ [running] = 1, [completed] = 1 }, hub.taken())
      local keys = {}
      for _, q in ipairs(hub.requests()) do
        keys[q.body.status] = keys[q.body.status] or q.key
        assert.equal(keys[q.body.status], q.key)
      end
    end)
  end

  it("is told that a run failed, and once it is resumed that it was completed", function()
    local r = home.run(args .. " fails=true")
    assert.equal(6, r.exit, r.err)
    local last = hub.requests()[2]
    assert.same({ status = "FAILED", step = "work", message = "the work cannot be done" }, last.body)
    assert.equal(6, home.run(("resume %s %s"):format(r.id, given())).exit)
    assert.equal(3, #hub.requests())
    assert.is_true(hub.requests()[3].key ~= last.key)
    hub.stop()
    assert.equal(6, home.run(("resume %s %s"):format(r.id, given())).exit)
    assert.equal(1, #waiting())
  end)

  it("that was silent is no warning for a run that was resumed and could tell it", function()
    local later = home.runbook("later", (book:gsub('if p.fails then', 'if not ctx.target:exists("' .. home.work .. '/go") then')))
    hub.stop()
    local r = home.run(("%s hub_url=%s %s -t local: --allow-local-root"):format(later, hub.url, given()))
    assert.equal(6, r.exit, r.err)
    support.spit(home.work .. "/go", "")
    hub.start()
    local again = home.run(("resume %s %s"):format(r.id, given()))
    assert.equal(0, again.exit, again.err)
    local order = {}
    for i, q in ipairs(hub.requests()) do order[i] = q.body.status end
    assert.same({ "RUNNING", "FAILED", "COMPLETED" }, order)
  end)

  describe("is told once when lbrun is killed", function()
    local commits
    setup(function()
      local first = support.home()
      local h = hubs.new(first.dir .. "/hub", token).start()
      local r = first.run(("%s hub_url=%s runner_token=@%s"):format(first.runbook("told", book), h.url, h.token_file), {
        env = { LD_PRELOAD = "./" .. support.killat, KILLAT = "0", KILLAT_COUNT_FILE = first.dir .. "/commits" } })
      assert.equal(0, r.exit, r.err)
      commits = tonumber(support.slurp(first.dir .. "/commits"):match "%d+")
      h.stop()
      first.remove()
    end)

    local function matrix(when, how, first, stride)
      for n = first, commits, stride do
        local where = ("commit %d %s"):format(n, when)
        support.sh(("rm -rf %s/state"):format(home.dir))
        local r = home.run(("%s job_id=n-%d"):format(args, n), {
          env = { LD_PRELOAD = "./" .. support.killat, KILLAT = tostring(n), KILLAT_WHEN = when } })
        assert.equal(9, r.signal, where .. ": " .. r.err)
        if how == "outbox send" then
          assert.equal(0, home.run("outbox send " .. given()).exit, where)
          assert.equal(0, #waiting(), where)
        end
        local again, told = home.run("resume " .. given()), hub.taken("/api/v1/jobs/n-" .. n)
        -- Before the run's own row is written there is nothing to resume, and nothing to tell.
        if n > 6 or next(told) or not again.out:find("no run is open", 1, true) then
          assert.equal(0, again.exit, where .. ": " .. again.err)
          assert.same({ [running] = 1, [completed] = 1 }, told, where)
        end
        assert.equal(0, home.run("verify-journal").exit, where)
      end
    end

    for _, when in ipairs { "before", "after" } do
      it(("%s a commit, as resume goes on"):format(when), function() matrix(when, "resume", when == "before" and 5 or 6, 5) end)
      for _, how in ipairs { "resume", "outbox send" } do
        it(("%s every commit, as %s goes on #slow"):format(when, how), function() matrix(when, how, 2, 1) end)
      end
    end
  end)
end)

describe("the Hub's calls", function()
  local closure = { main = "runbooks/x.lua", paths = {} }
  function closure.read(_, name) return support.slurp((name:gsub("^lua/", "modules/lua/"))) end
  function closure.chunkname(_, name) return "@" .. name end
  local env = script.environment(closure)

  local function refused(pattern, given)
    local fine, err = pcall(env.hub.reported, given)
    assert.is_false(fine)
    assert.matches(pattern, tostring(err))
  end

  it("are checked where they are written: call, fields, and their types", function()
    refused("no call 'jop' %- did you mean 'job'", { call = "jop" })
    refused("needs the field 'status'", { call = "job", fields = {} })
    refused("no field 'stat'", { call = "job", fields = { stat = "x" } })
    refused("'progress' is a string, not a integer", { call = "job", fields = { status = "x", progress = "9" } })
    refused("'orders' is no report", { call = "orders" })
  end)

  it("are those of the README's page, a row each", function()
    local page = support.slurp "README.md":match "\n## The Hub\n(.-)\n## "
    local rows = 0
    for name, method, path in page:gmatch "\n| `(%l+)` | `(%u+) (%S+)` |" do
      rows = rows + 1
      assert.same({ method, path }, { env.hub.calls[name][1], env.hub.calls[name][2] })
      for field, kind in pairs(env.hub.calls[name][3] or {}) do
        local cell = page:match("\n| `" .. name .. "` | [^|]* |([^\n]*)")
        assert.is_truthy(cell:find(("`%s`%s"):format(field, kind:sub(-1) == "!" and "!" or ""), 1, true), name .. " " .. field)
      end
    end
    assert.equal(#env.sorted_keys(env.hub.calls), rows)
  end)
end)
