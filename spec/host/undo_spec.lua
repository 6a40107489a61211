-- undo_spec.lua: an undo that stops half-way, that finds a command still running, or a step
-- in doubt; and the undo of a child run. On the local target.
local support = require "support.lbrun"

local local_target = "-t local: --allow-local-root"

describe("undo #unit", function()
  local home
  before_each(function() home = support.home() end)
  after_each(function() home.remove() end)

  local function log() return (support.sh(("cat %s/log 2>/dev/null; true"):format(home.work))) end
  local function path(name) return home.work .. "/" .. name end

  it("that stops half-way goes on as undo, and is no progress for resume", function()
    local steps = {}
    for i = 1, 4 do
      steps[i] = ([[step { name = "sN", apply = function(ctx) ctx.target:run("echo sN >>W/log%s") end,
        undo = function(ctx) ctx.target:run("%secho undo-sN >>W/log") end }]]):format(i == 4 and "; test -e W/ok" or "",
        i == 2 and "test -e W/ok && " or ""):gsub("N", i)
    end
    local r = home.run(("%s %s"):format(home.runbook("half", ([[return runbook { name = "half", summary = "x", steps = { %s } }]])
      :format(table.concat(steps, ", ")):gsub("W/", home.work .. "/")), local_target))
    assert.equal(6, r.exit, r.err)
    local u = home.run("undo " .. r.id .. " -y")
    assert.equal(6, u.exit, u.err)
    assert.is_truthy(u.err:find("lbrun undo " .. r.id, 1, true), u.err)
    assert.equal("s1\ns2\ns3\ns4\nundo-s4\nundo-s3\n", log())
    support.spit(path "ok", "")
    for _, verb in ipairs { "resume %s", "settle %s s3 --done --reason x" } do
      local refused = home.run(verb:format(r.id))
      assert.equal(2, refused.exit, refused.err)
      assert.matches("undo", refused.err)
    end
    assert.equal("no run is open\n", home.run("resume").out)
    assert.is_truthy(home.run("explain " .. r.id).out:find("lbrun undo " .. r.id, 1, true))
    u = home.run("undo " .. r.id .. " -y")
    assert.equal(0, u.exit, u.err)
    assert.equal("s1\ns2\ns3\ns4\nundo-s4\nundo-s3\nundo-s2\nundo-s1\n", log())
    assert.equal(2, home.run("undo " .. r.id .. " -y").exit)
  end)

  it("waits for a command of the interrupted step that still runs, so that nothing happens after it", function()
    local text = ([[return runbook { name = "job", summary = "x", steps = { step { name = "a",
      probe = function(ctx) return ctx.target:exists "W/made" and done() or pending "make it" end,
      apply = function(ctx) ctx.target:job "kill -9 $(cat W/pid); sleep 3; echo made >>W/log; touch W/made" end,
      undo = function(ctx) ctx.target:run("echo undo >>W/log; rm -f W/made") end } } }]]):gsub("W/", home.work .. "/")
    local r = home.run(("%s %s"):format(home.runbook("job", text), local_target),
      { before = ("sh -c 'echo $$ >%s/pid; exec \"$@\"' sh"):format(home.work) })
    assert.equal(9, r.signal)
    local id = r.err:match "^([%w-]+)"
    local u = home.run("undo " .. id .. " -y")
    assert.equal(0, u.exit, u.err)
    assert.equal("made\nundo\n", log())
    assert.equal("absent\n", (support.sh(("[ -e %s/made ] || echo absent"):format(home.work))))
    assert.equal("", (support.sh(("ls -d %s/var/jobs/* %s/.local/state/lbrun/jobs/* 2>/dev/null; true"):format(home.dir, home.dir))))
  end)

  it("has what was before a step that was in doubt at first, and keeps one that never began", function()
    local r = home.run(("%s %s"):format(home.runbook("doubt", ([[return runbook { name = "doubt", summary = "x", steps = { step { name = "a",
      probe = function(ctx) return ctx.target:exists "W/made" and done() or unknown "who knows" end,
      before = function(ctx) return { text = ctx.target:get "W/text" } end,
      apply = function(ctx) ctx.target:run("echo new >W/text; touch W/made") end,
      undo = function(ctx, old) ctx.target:put("W/text", old.text, { mode = "0644" }) end } } }]]):gsub("W/", home.work .. "/")),
      local_target))
    support.spit(path "text", "old\n")
    assert.equal(9, r.exit, r.err)
    assert.equal(0, home.run(("settle %s a --redo --reason x"):format(r.id)).exit)
    local again = home.run("resume " .. r.id)
    assert.equal(0, again.exit, again.err)
    assert.equal("new\n", support.slurp(path "text"))
    local u = home.run("undo " .. r.id .. " -y")
    assert.equal(0, u.exit, u.err)
    assert.equal("old\n", support.slurp(path "text"))
    local second = home.run(("%s/doubt.lua %s"):format(home.dir, local_target))
    assert.equal(0, second.exit, second.err) -- W/made is there: nothing to do
    support.sh("rm " .. path "made")
    second = home.run(("%s/doubt.lua %s"):format(home.dir, local_target))
    assert.equal(9, second.exit, second.err)
    u = home.run("undo " .. second.id .. " -y")
    assert.equal(3, u.exit, u.err)
    assert.equal("old\n", support.slurp(path "text"))
  end)

  it("of a child run is seen by its parent, which does it anew", function()
    home.runbook("child", ([[return runbook { name = "child", summary = "x", steps = { step { name = "c",
      apply = function(ctx) ctx.target:run("echo c >>W/log") end,
      undo = function(ctx) ctx.target:run("echo undo-c >>W/log") end } } }]]):gsub("W/", home.work .. "/"))
    local r = home.run(("%s %s"):format(home.runbook("parent", ([[return runbook { name = "parent", summary = "x", steps = {
      step { name = "p", apply = function(ctx) ctx.child { runbook = "child.lua" } ctx.target:run "test -e W/ok" end,
        probe = function(ctx) return ctx.target:exists "W/never" and done() or pending "p" end,
        verify = function() return true end } } }]]):gsub("W/", home.work .. "/")), local_target))
    assert.equal(5, r.exit, r.err)
    local child = home.run("runs --json").out:match '"run":"(child%-%w+)"'
    local u = home.run("undo " .. child .. " -y")
    assert.equal(0, u.exit, u.err)
    support.spit(path "ok", "")
    local again = home.run("resume " .. r.id)
    assert.equal(0, again.exit, again.err)
    assert.equal("c\nundo-c\nc\n", log())
  end)
end)
