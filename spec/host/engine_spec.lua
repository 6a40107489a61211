-- engine_spec.lua: what a run promises, on the local target: effects, resume, doubt, undo,
-- plan, exits. What needs a server is in spec/runbooks.
local support = require "support.lbrun"

local local_target = "-t local: --allow-local-root"

local function lines_of(path)
  local n = 0
  local f = io.open(path)
  if not f then return 0 end
  for _ in f:lines() do n = n + 1 end
  f:close()
  return n
end

local function exists(path)
  local f = io.open(path)
  if f then f:close() end
  return f ~= nil
end

describe("the engine #unit", function()
  local home
  before_each(function() home = support.home() end)
  after_each(function() home.remove() end)

  local function one_step(fields)
    return home.runbook("one", ([[
return runbook { name = "one", summary = "one step", params = { dir = param.string {} },
  steps = function(p) return { step { name = "only", %s } } end }
]]):format(fields))
  end

  it("runs a custom runbook of ten lines, and finds nothing to do the second time", function()
    local path = home.runbook("motd", [[
return runbook {
  name = "motd", summary = "Say hello at login",
  params = { file = param.string {}, text = param.string { default = "hello" } },
  steps = function(p) return {
    step { name = "motd", resources = {
      file.content { path = p.file, content = p.text .. "\n", mode = "0640" },
    } },
  } end,
}
]])
    local file = home.work .. "/motd"
    local args = ("%s file=%s %s"):format(path, file, local_target)
    local first = home.run(args)
    assert.equal(0, first.exit, first.err)
    assert.equal("hello\n", support.slurp(file))
    assert.equal("640\n", (support.sh("stat -c %a " .. file)))
    assert.matches("1 changed, 0 unchanged", first.out)
    local second = home.run(args)
    assert.equal(0, second.exit)
    assert.matches("0 changed, 1 unchanged", second.out)
  end)

  it("shows a plan with a diff, changes nothing, and says 10 when asked for a detailed exit", function()
    local path = home.runbook("motd", [[
return runbook { name = "motd", summary = "x", params = { file = param.string {} },
  steps = function(p) return { step { name = "motd", resources = { file.content { path = p.file, content = "new\n" } } } } end }
]])
    local file = home.work .. "/motd"
    support.spit(file, "old\n")
    local r = home.run(("plan %s file=%s %s --detailed-exitcode"):format(path, file, local_target))
    assert.equal(10, r.exit, r.err)
    assert.matches("%-old", r.out)
    assert.matches("%+new", r.out)
    assert.equal("old\n", support.slurp(file))
    assert.is_false(exists(home.dir .. "/state/lbrun/journal.db"))
    assert.equal(0, home.run(("plan %s file=%s %s"):format(path, file, local_target)).exit)
  end)

  it("shows what an earlier step has to make possible as after(STEP)", function()
    local path = home.runbook("later", [[
return runbook { name = "later", summary = "x", params = { dir = param.string {} },
  steps = function(p) return {
    step { name = "tool", resources = { file.content { path = p.dir .. "/tool", content = "#!/bin/sh\necho 1\n", mode = "0755" } } },
    step { name = "use", probe = function(ctx) ctx.target:run { p.dir .. "/tool" } return done() end,
      intent = function() return "what the tool makes" end, apply = function() end },
  } end }
]])
    local r = home.run(("plan %s dir=%s %s"):format(path, home.work, local_target))
    assert.equal(0, r.exit, r.err)
    assert.matches("after%(tool%)", r.out)
    assert.matches("what the tool makes", r.out)
  end)

  it("refuses unknown, missing and bad parameters before anything is touched, with the expectation", function()
    local path = one_step [[apply = function(ctx) ctx.target:run { "touch", p.dir .. "/touched" } end]]
    local unknown = home.run(("%s dri=/tmp %s"):format(path, local_target))
    assert.equal(2, unknown.exit)
    assert.matches("unknown parameter 'dri' %- did you mean 'dir'%?", unknown.err)
    local missing = home.run(("%s %s"):format(path, local_target))
    assert.equal(2, missing.exit)
    assert.matches("missing parameter 'dir'", missing.err)
    local bad = home.runbook("bad", [[return runbook { name = "bad", summary = "x",
      params = { n = param.integer { min = 1, max = 5 }, e = param.enum { "red", "green", default = "red" } },
      steps = { step { name = "s", apply = function() end } } }]])
    local r = home.run(("%s n=9"):format(bad))
    assert.equal(2, r.exit)
    assert.matches("'9' is not a whole number from 1 to 5", r.err)
    r = home.run(("%s n=2 e=gren"):format(bad))
    assert.matches("did you mean 'green'%?", r.err)
    assert.is_false(exists(home.work .. "/touched"))
  end)

  it("names file and line of a syntax error and of an error in the runbook", function()
    local r = home.run(home.runbook("broken", "return runbook {\n  name = ,\n}\n"))
    assert.equal(2, r.exit)
    assert.matches("broken.lua:2:", r.err)
    r = home.run(home.runbook("fails", "local x = nil\nreturn x.y\n"))
    assert.equal(2, r.exit)
    assert.matches("fails.lua:2:", r.err)
  end)

  it("refuses local: as root without being told to", function()
    local path = one_step [[apply = function(ctx) ctx.target:run { "touch", p.dir .. "/touched" } end]]
    local r = home.run(("%s dir=%s -t local:"):format(path, home.work))
    assert.equal(2, r.exit)
    assert.matches("%-%-allow%-local%-root", r.err)
    assert.is_false(exists(home.work .. "/touched"))
  end)

  it("ends with 5 when a step fails and leaves nothing, and with 6 when something is left", function()
    local clean = one_step [[probe = function(ctx) return pending "x" end, apply = function(ctx) ctx.target:run "false" end]]
    local r = home.run(("%s dir=%s %s"):format(clean, home.work, local_target))
    assert.equal(5, r.exit, r.err)
    assert.matches("next: lbrun resume one%-", r.out)
    local partial = one_step [[probe = function(ctx)
        return pending(ctx.target:exists(p.dir .. "/half") and "the rest" or "all") end,
      apply = function(ctx) ctx.target:run { "touch", p.dir .. "/half" } ctx.target:run "false" end]]
    r = home.run(("%s dir=%s %s"):format(partial, home.work, local_target))
    assert.equal(6, r.exit, r.err)
  end)

  it("tries again as often as the step says, then goes on", function()
    local path = one_step [[retry = { "50ms", "50ms", "50ms" },
      probe = function(ctx) return ctx.target:exists(p.dir .. "/ok") and done() or pending "x" end,
      apply = function(ctx) ctx.target:run("echo x >>" .. p.dir .. "/tries; [ $(wc -l <" .. p.dir .. "/tries) -lt 3 ] && exit 1; touch " .. p.dir .. "/ok") end]]
    local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
    assert.equal(0, r.exit, r.err)
    assert.equal(3, lines_of(home.work .. "/tries"))
  end)

  it("fails when an applied effect is still pending for its probe (11)", function()
    local path = one_step [[probe = function() return pending "never" end, apply = function() end]]
    local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
    assert.equal(11, r.exit, r.err)
    assert.matches("still finds a change pending", r.err)
  end)

  it("stops in doubt with 9 when a probe cannot tell, and goes on as a person settles it", function()
    local path = one_step [[probe = function(ctx)
        return ctx.target:exists(p.dir .. "/sure") and done() or unknown "the disk does not say" end,
      apply = function(ctx) ctx.target:run("echo applied >>" .. p.dir .. "/count; touch " .. p.dir .. "/sure") end]]
    for _, verdict in ipairs { "done", "redo", "fail" } do
      support.sh("rm -f " .. home.work .. "/*")
      local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
      assert.equal(9, r.exit, r.err)
      assert.matches("the disk does not say", r.err)
      assert.matches("next: lbrun settle " .. r.id:gsub("%-", "%%-") .. " only", r.out)
      local other = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
      assert.equal(8, other.exit, other.err)
      local s = home.run { "settle", r.id, "only", "--" .. verdict, "--reason", "looked at it" }
      assert.equal(0, s.exit, s.err)
      local again = home.run { "resume", r.id }
      if verdict == "fail" then
        assert.equal(9, again.exit, again.err)
        assert.equal(0, home.run { "abandon", r.id, "--reason", "spec" }.exit)
      else
        assert.equal(0, again.exit, again.err)
      end
      assert.equal(verdict == "redo" and 1 or 0, lines_of(home.work .. "/count"))
    end
  end)

  it("applies a step without a probe once, and is in doubt after a crash unless it may rerun", function()
    for _, rerun in ipairs { "", "rerun = true," } do
      support.sh("rm -f " .. home.work .. "/*")
      local path = one_step(rerun .. [[apply = function(ctx)
        ctx.target:run("echo x >>" .. p.dir .. "/count; [ -e " .. p.dir .. "/second ] || { touch " .. p.dir .. "/second; kill -9 $PPID; sleep 5; }") end]])
      local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
      assert.equal(9, r.signal, r.err)
      local resumed = home.run "resume"
      if rerun == "" then
        assert.equal(9, resumed.exit, resumed.err)
        assert.equal(1, lines_of(home.work .. "/count"))
        home.run { "abandon", resumed.id, "--reason", "spec" }
      else
        assert.equal(0, resumed.exit, resumed.err)
        assert.equal(2, lines_of(home.work .. "/count"))
      end
    end
  end)

  it("undoes reversible effects last first, and says what cannot be undone", function()
    local path = home.runbook("undo", [[
return runbook { name = "undo", summary = "x", params = { dir = param.string {} },
  steps = function(p) return {
    step { name = "a", resources = { file.content { path = p.dir .. "/a", content = "new\n" } } },
    step { name = "b", apply = function(ctx) ctx.target:run("echo b >>" .. p.dir .. "/order") end,
      undo = function(ctx) ctx.target:run("echo undo-b >>" .. p.dir .. "/order; cat " .. p.dir .. "/a >>" .. p.dir .. "/order") end },
    step { name = "c", class = "compensable", apply = function(ctx) ctx.target:run("echo c >>" .. p.dir .. "/order") end },
  } end }
]])
    support.spit(home.work .. "/a", "old\n")
    local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
    assert.equal(0, r.exit, r.err)
    local ask = home.run { "undo", r.id, "--no-input" }
    assert.equal(7, ask.exit)
    local u = home.run { "undo", r.id, "--yes" }
    assert.equal(3, u.exit, u.err)
    assert.matches("cannot be undone: c apply", u.out)
    assert.equal("old\n", support.slurp(home.work .. "/a"))
    assert.equal("b\nc\nundo-b\nnew\n", support.slurp(home.work .. "/order"))
  end)

  it("stands before an irreversible step until the subject's name is typed", function()
    local path = home.runbook("final", [[
return runbook { name = "final", summary = "x", params = { tenant = param.string {}, dir = param.string {} },
  steps = function(p) return {
    step { name = "ready", apply = function(ctx) ctx.target:run("echo ready >>" .. p.dir .. "/log") end },
    step { name = "wipe", class = "irreversible", apply = function(ctx) ctx.target:run("echo wiped >>" .. p.dir .. "/log") end },
  } end }
]])
    local r = home.run(("%s tenant=acme dir=%s %s --yes"):format(path, home.work, local_target))
    assert.equal(7, r.exit, r.err)
    assert.equal("ready\n", support.slurp(home.work .. "/log"))
    assert.matches("%-%-confirm acme", r.out)
    local wrong = home.run { "resume", r.id, "--confirm", "acne" }
    assert.equal(7, wrong.exit)
    local right = home.run { "resume", r.id, "--confirm", "acme" }
    assert.equal(0, right.exit, right.err)
    assert.equal("ready\nwiped\n", support.slurp(home.work .. "/log"))
  end)

  it("resumes with the code it began with, warns that the files have changed, and says 3", function()
    local text = [[return runbook { name = "pinned", summary = "x", params = { dir = param.string {} },
      steps = function(p) return { step { name = "s", probe = function(ctx) return ctx.target:exists(p.dir .. "/go") and pending "x" or unknown "not yet" end,
        verify = function() return true end,
        apply = function(ctx) ctx.target:run("echo VERSION >>" .. p.dir .. "/log") end } } end }]]
    local path = home.runbook("pinned", (text:gsub("VERSION", "first")))
    local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
    assert.equal(9, r.exit, r.err)
    home.runbook("pinned", (text:gsub("VERSION", "second")))
    support.spit(home.work .. "/go", "")
    local again = home.run { "resume", r.id }
    assert.equal(3, again.exit, again.err)
    assert.matches("changed since", again.err)
    assert.equal("first\n", support.slurp(home.work .. "/log"))
  end)

  it("refuses to resume a changed step list (13)", function()
    local path = home.runbook("impure", [[
return runbook { name = "impure", summary = "x",
  steps = function()
    local list = {}
    for name in next, { a = 1, b = 1, c = 1, d = 1, e = 1, f = 1 } do
      list[#list + 1] = step { name = name, apply = function() fail("boom", "boom") end }
    end
    return list
  end }]])
    local seen = {}
    for _ = 1, 40 do
      local r = home.run(path)
      local again = home.run { "resume", r.id }
      seen[again.exit] = true
      if seen[13] then
        assert.matches("step list", again.err)
        return
      end
      home.run { "abandon", r.id, "--reason", "spec" }
    end
    error("the list never changed in 40 tries")
  end)

  it("gives the same run for the same request id and refuses other parameters", function()
    local path = one_step [[apply = function(ctx) ctx.target:run("echo x >>" .. p.dir .. "/count") end]]
    local first = home.run(("%s dir=%s %s --request-id order-1"):format(path, home.work, local_target))
    assert.equal(0, first.exit, first.err)
    local second = home.run(("%s dir=%s %s --request-id order-1"):format(path, home.work, local_target))
    assert.equal(0, second.exit, second.err)
    assert.matches(first.id:gsub("%-", "%%-"), second.err)
    assert.equal(1, lines_of(home.work .. "/count"))
    local other = home.run(("%s dir=%s %s --request-id order-1"):format(path, home.dir, local_target))
    assert.equal(2, other.exit, other.err)
  end)

  it("runs a child under the parent's lock, journals it, and descends into it at resume", function()
    home.runbook("child", [[return runbook { name = "child", summary = "x", params = { dir = param.string {} },
      steps = function(p) return {
        step { name = "one", apply = function(ctx) ctx.target:run("echo one >>" .. p.dir .. "/log") end },
        step { name = "two", probe = function(ctx) return ctx.target:exists(p.dir .. "/go") and (ctx.target:exists(p.dir .. "/did") and done() or pending "x") or unknown "wait" end,
          apply = function(ctx) ctx.target:run("echo two >>" .. p.dir .. "/log; touch " .. p.dir .. "/did") end },
      } end }]])
    local path = home.runbook("parent", [[return runbook { name = "parent", summary = "x", params = { dir = param.string {} },
      steps = function(p) return { step { name = "call", rerun = true, apply = function(ctx) ctx.child { runbook = "child.lua", params = { dir = p.dir } } end } } end }]])
    local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
    assert.equal(9, r.exit, r.err)
    support.spit(home.work .. "/go", "")
    local again = home.run { "resume", r.id }
    assert.equal(0, again.exit, again.err)
    assert.equal("one\ntwo\n", support.slurp(home.work .. "/log"))
    assert.matches("child child%-%w+  done", home.run { "show", r.id }.out)
  end)

  it("prints JSON lines whose first has the schema and whose last is the summary", function()
    local path = one_step [[apply = function(ctx) ctx.target:run("true") end]]
    local r = home.json(("%s dir=%s %s --json"):format(path, home.work, local_target))
    assert.equal(0, r.exit, r.err)
    assert.equal(1, r.lines[1].schema)
    for i, line in ipairs(r.lines) do
      assert.equal(i, line.seq)
      assert.is_string(line.type)
      assert.is_number(line.ts)
    end
    assert.equal("summary", r.last.type)
    assert.equal(0, r.last.exit)
    assert.equal(64, #r.last.head)
  end)

  it("runs commands side by side on one target, and raises the first failure after all have ended", function()
    local path = one_step [[apply = function(ctx)
      local list = {}
      for i = 1, 6 do list[i] = function() return ctx.target:run("sleep 0.3; echo " .. i .. " >>" .. p.dir .. "/log; echo " .. i).stdout end end
      local got = parallel(list)
      for i = 1, 6 do if got[i] ~= i .. "\n" then fail("order", "result " .. i .. " is " .. got[i]) end end
      local ok, err = pcall(parallel, { function() fail("boom", "boom") end, function() sleep "0.2s" ctx.target:run("echo last >>" .. p.dir .. "/log") end })
      if ok or err.code ~= "boom" then fail("raise", "parallel did not raise") end
    end]]
    local began = os.time()
    local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
    assert.equal(0, r.exit, r.err)
    assert.equal(7, lines_of(home.work .. "/log"))
    assert.is_true(os.time() - began < 3)
  end)

  it("parks on the first Ctrl-C at the next safe place (130) and goes on from there", function()
    local path = home.runbook("slow", [[return runbook { name = "slow", summary = "x", params = { dir = param.string {} },
      steps = function(p) return {
        step { name = "a", apply = function(ctx) ctx.target:run("echo a >>" .. p.dir .. "/log; kill -INT $PPID; sleep 0.5; echo a2 >>" .. p.dir .. "/log") end },
        step { name = "b", apply = function(ctx) ctx.target:run("echo b >>" .. p.dir .. "/log") end },
      } end }]])
    local r = home.run(("%s dir=%s %s"):format(path, home.work, local_target))
    assert.equal(130, r.exit, r.err)
    assert.equal("a\na2\n", support.slurp(home.work .. "/log"))
    local again = home.run "resume"
    assert.equal(0, again.exit, again.err)
    assert.equal("a\na2\nb\n", support.slurp(home.work .. "/log"))
  end)

  it("stops an endless loop in Lua and in string.find, and the journal survives both", function()
    local loops = home.runbook("loops", [[return runbook { name = "loops", summary = "x",
      steps = { step { name = "s", rerun = true, apply = function() while true do pcall(function() while true do end end) end end } } }]])
    local r = home.run(loops, { env = { LBRUN_LUA_DEADLINE = "1" } })
    assert.not_equal(0, r.exit)
    assert.equal(0, home.run("verify-journal").exit)
    local find = home.runbook("find", [[return runbook { name = "find", summary = "x",
      steps = { step { name = "s", rerun = true, apply = function() string.find(("a"):rep(40), ("a?"):rep(40) .. ("a"):rep(40) .. "b") end } } }]])
    r = home.run(find, { env = { LBRUN_LUA_DEADLINE = "1" } })
    assert.equal(1, r.exit, r.err)
    assert.equal(0, home.run("verify-journal").exit)
  end)

  it("runs one runbook on many targets at once and gives the worst exit", function()
    local path = home.runbook("many", [[return runbook { name = "many", summary = "x", steps = { step { name = "s", apply = function(ctx) ctx.target:run "true" end } } }]])
    support.sh(("ssh-keygen -q -t ed25519 -N '' -f %s/key"):format(home.dir))
    local r = home.run(("%s -t local: -t ssh://nobody@127.0.0.1:1 --allow-local-root -i %s/key"):format(path, home.dir))
    assert.equal(4, r.exit, r.err)
    assert.matches("done", r.out)
  end)

  it("keeps a secret parameter out of every output and asks for the same one at resume", function()
    local secret = "Canary/with+odd=chars'$\"%#1"
    local file = home.dir .. "/token"
    support.sh(("umask 077; touch %s"):format(file))
    support.spit(file, secret .. "\n")
    local path = home.runbook("secret", [[return runbook { name = "secret", summary = "x",
      params = { token = param.secret {}, dir = param.string {} },
      steps = function(p) return { step { name = "s",
        probe = function(ctx) return ctx.target:exists(p.dir .. "/go") and (ctx.target:exists(p.dir .. "/got") and done() or pending "x") or unknown "wait" end,
        apply = function(ctx)
          ctx.target:run("cat >" .. p.dir .. "/got", { stdin = ctx.secret "token" })
          local shown = ctx.target:run { "cat", p.dir .. "/got" }
          ctx.log(shown.stdout)
          ctx.target:run("head -c 9 " .. p.dir .. "/got; sleep 0.2; tail -c +10 " .. p.dir .. "/got; base64 -w0 " .. p.dir .. "/got; od -An -tx1 " .. p.dir .. "/got | tr -d ' \\n'")
        end } } end }]])
    local r = home.run(("%s token=@%s dir=%s %s -vvv"):format(path, file, home.work, local_target))
    assert.equal(9, r.exit, r.err)
    support.spit(home.work .. "/go", "")
    local wrong = home.dir .. "/wrong"
    support.sh(("umask 077; touch %s"):format(wrong))
    support.spit(wrong, "another secret value")
    local refused = home.run(("resume %s token=@%s"):format(r.id, wrong))
    assert.equal(12, refused.exit, refused.err)
    local again = home.run(("resume %s token=@%s -vvv --json"):format(r.id, file))
    assert.equal(0, again.exit, again.err)
    assert.equal(secret, support.slurp(home.work .. "/got"))
    local everything = r.out .. r.err .. again.out .. again.err .. support.slurp(home.dir .. "/state/lbrun/journal.db")
      .. home.run { "log", r.id }.out .. home.run { "show", r.id, "-v" }.out
    local wal = io.open(home.dir .. "/state/lbrun/journal.db-wal", "rb")
    if wal then everything = everything .. wal:read "a" wal:close() end
    local hex = secret:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    assert.is_nil(everything:find(secret, 1, true))
    assert.is_nil(everything:find(hex, 1, true))
    local b64 = support.sh(("base64 -w0 <%s/got"):format(home.work))
    assert.is_nil(everything:find(b64:sub(2, -6), 1, true))
    assert.matches("%[secret token%]", again.out)
    local argv = home.run(("%s token=%s dir=%s"):format(path, "plain-value-x", home.work))
    assert.equal(2, argv.exit)
    assert.matches("never on the command line", argv.err)
  end)
end)
