-- kill_spec.lua: lbrun is killed at every commit of its journal, just before and just
-- after it; resume must end in the same state, each effect done once (they are counted).
local support = require "support.lbrun"

local runbook = [[
return runbook { name = "twelve", summary = "twelve steps whose effects are counted", params = { dir = param.string {} },
  steps = function(p)
    local function counted(name)
      local marker = p.dir .. "/state/" .. name
      return step { name = name,
        probe = function(ctx) return ctx.target:exists(marker) and done() or pending("make " .. name) end,
        apply = function(ctx) ctx.target:run(("echo %s >>%s/count; echo %s >%s"):format(name, p.dir, name, marker)) end,
        undo = function(ctx) ctx.target:run { "rm", "-f", marker } end }
    end
    local function by_job(name)
      local marker = p.dir .. "/state/" .. name
      return step { name = name,
        probe = function(ctx) return ctx.target:exists(marker) and done() or pending("make " .. name) end,
        apply = function(ctx) ctx.target:job(("echo %s >>%s/count; sleep 0.05; echo %s >%s"):format(name, p.dir, name, marker)) end }
    end
    return {
      step { name = "folder", resources = { directory.present { path = p.dir .. "/state", mode = "0755" } } },
      counted "two", counted "three",
      step { name = "files", resources = {
        file.content { path = p.dir .. "/state/file-a", content = "a\n" },
        file.content { path = p.dir .. "/state/file-b", content = "b\n", mode = "0600" } } },
      by_job "five", counted "six", by_job "seven", counted "eight",
      step { name = "replace", resources = { file.content { path = p.dir .. "/state/old", content = "new\n" } } },
      counted "ten", counted "eleven", by_job "twelve",
    }
  end }
]]

local function tree(dir)
  return (support.sh(("cd %s/state && find . -type f | sort | xargs sha256sum && find . -printf '%%P %%m\\n' | sort"):format(dir)))
end

local function prepare(home)
  support.sh(("rm -rf %s && mkdir -p %s/state && chmod 700 %s/state && echo old >%s/state/old"):format(
    home.work, home.work, home.work, home.work))
end

describe("a killed run", function()
  local expected, expected_count, commits
  local home = support.home()
  local path = home.runbook("twelve", runbook)
  local args = ("%s dir=%s -t local: --allow-local-root -q"):format(path, home.work)
  teardown(function() home.remove() end)

  local function killed_at(n, when)
    prepare(home)
    support.sh(("rm -rf %s/state %s/var/lock"):format(home.dir, home.dir))
    return home.run(args, { env = { LD_PRELOAD = "./" .. support.killat, KILLAT = tostring(n), KILLAT_WHEN = when,
      KILLAT_COUNT_FILE = home.dir .. "/commits" } })
  end

  setup(function()
    local r = killed_at(0, "after")
    assert.equal(0, r.exit, r.err)
    expected, expected_count = tree(home.work), support.slurp(home.work .. "/count")
    commits = tonumber(support.slurp(home.dir .. "/commits"):match "%d+")
    assert.is_true(commits > 24, "a step has at least an intent and a result")
  end)

  local function matrix(when, first, stride)
    for n = first, commits, stride do
      local r = killed_at(n, when)
      assert.equal(9, r.signal, ("commit %d: %s"):format(n, r.err))
      local list = home.run "runs --json"
      local begun = list.out:find('"type":"run"', 1, true)
      if begun and not list.out:find('"status":"done"', 1, true) then
        local again = home.run "resume -q"
        assert.equal(0, again.exit, ("commit %d (%s): %s"):format(n, when, again.err))
      elseif not begun then
        local again = home.run(args)
        assert.equal(0, again.exit, ("commit %d (%s): %s"):format(n, when, again.err))
      end
      assert.equal(expected, tree(home.work), ("commit %d (%s)"):format(n, when))
      assert.equal(expected_count, support.slurp(home.work .. "/count"), ("commit %d (%s)"):format(n, when))
      assert.equal(0, home.run("verify-journal").exit)
    end
  end

  for _, when in ipairs { "before", "after" } do
    it(("goes on from the commit it was killed %s, and does nothing twice #unit"):format(when), function()
      matrix(when, when == "before" and 3 or 5, 7)
    end)
    it(("goes on from every single commit it was killed %s #slow"):format(when), function()
      matrix(when, 1, 1)
    end)
  end
end)
