-- hardening_spec.lua: what a hostile command, runbook, or moment must not break, on the
-- local target: quoting, the framed shell, jobs, rubbish answers, children, locks, --json.
local support = require "support.lbrun"

local local_target = "-t local: --allow-local-root"

local function book(steps, more)
  return ('return runbook { name = "hard", summary = "x", %s steps = %s }'):format(more or "", steps)
end

describe("the engine is hard to break #unit", function()
  local home
  before_each(function() home = support.home() end)
  after_each(function() home.remove() end)

  local function run(steps, more, options)
    return home.run(home.runbook("hard", book(steps, more)) .. " " .. local_target, options)
  end

  -- One step whose apply is `body`, with t, the target, and dir, a folder.
  local function apply(body)
    return run(("{ step { name = 'a', apply = function(ctx) local t, dir = ctx.target, %q\n%s end } }"):format(home.work, body))
  end

  it("takes any name of a path for a path", function()
    local r = apply [[
      for _, n in ipairs { "a b", "a'b", 'a"b', "a\nb", "-x", "-", "$(touch pwn)", "a\\b", "*", "\xc3\xbc" } do
        local p = dir .. "/" .. n
        t:put(p, "hi\0\255\n")
        assert(t:read(p) == "hi\0\255\n" and t:stat(p).size == 5 and t:exists(p))
        t:run { "mkdir", "--", dir .. "/d" .. n }
        assert(t:run("pwd", { cwd = dir .. "/d" .. n }).stdout == dir .. "/d" .. n .. "\n")
        assert(t:run('printf %s "$X"', { env = { X = n } }).stdout == n)
        assert(t:job({ "printf", "%s", n }, { cwd = dir }).stdout == n)
      end
      t:run { "mkdir", dir .. "/rel" }
      assert(t:run("cd " .. quote(dir .. "/rel") .. " && pwd").stdout == dir .. "/rel\n")]]
    assert.equal(0, r.exit, r.err)
  end)

  it("takes a relative path that begins with '-' for a path", function()
    local path = home.runbook("hard", book [[{ step { name = "a", apply = function(ctx)
      ctx.target:put("-y", "x")
      assert(ctx.target:read("-y") == "x" and ctx.target:stat("-y").size == 1 and ctx.target:exists("-y"))
      end } }]])
    local old = support.binary
    support.binary = ("sh -c 'b=$PWD/%s; cd %s; exec $b \"$@\"' sh"):format(old, home.work)
    local r = home.run(path .. " " .. local_target)
    support.binary = old
    assert.equal(0, r.exit, r.err)
    assert.equal("x", support.slurp(home.work .. "/-y"))
  end)

  it("does not wait for a child in the background that prints after its command has ended", function()
    local r = apply [[
      for i = 1, 9 do
        local s = t:run("(sleep 0.00" .. i .. "; echo late; echo late >&2) & echo s", { timeout = 5 })
        assert(s.stdout:find("s\n", 1, true), s.stdout)
      end
      t:run("sleep 0.1", { timeout = 5 })
      assert(t:run("sleep 9 & echo started", { timeout = 5 }).stdout == "started\n")]]
    assert.equal(0, r.exit, r.err)
  end)

  it("keeps the shell through syntax errors, exits, closed outputs and lines that look like its frame", function()
    local r = apply [[
      assert(t:try("if ((").status ~= 0 and t:try("echo 'a").status ~= 0 and t:try("exit 7").status == 7)
      t:run("exec >&- 2>&-; true")
      assert(t:run("echo; echo 0123456789abcdef 0; printf x").stdout == "\n0123456789abcdef 0\nx")
      assert(t:run("printf '\\n'").stdout == "\n" and t:run("true").stdout == "")
      assert(#t:run("head -c 3000000 /dev/urandom >&2").stderr == 3000000)
      assert(not pcall(t.run, t, "head -c 30000000 /dev/zero"))
      assert(t:run("echo ok").stdout == "ok\n")
      assert(t:run("umask").stdout == t:run("umask", { stdin = "x" }).stdout)]]
    assert.equal(0, r.exit, r.err)
  end)

  it("names file and line of a call that is wrong, before anything is run", function()
    local r = apply 't:run("touch " .. dir .. "/ran", { ok = 1 })'
    assert.equal(6, r.exit)
    assert.matches("hard.lua:2: ok is a list", r.err)
    assert.matches("hard.lua:2: the command: item 2 is nil", apply('t:run { "touch", nil, dir .. "/ran" }').err)
    assert.matches("No such file", (support.sh("ls " .. home.work .. "/ran")))
  end)

  it("fetches no more of a job's output than is kept", function()
    local started = os.time()
    local r = apply [[
      local j = t:job("head -c 60000000 /dev/zero; printf end")
      assert(#j.stdout < 140000 and j.stdout:sub(-3) == "end")
      assert(t:job("printf 'a\\000b\\377'").stdout == "a\0b\255")
      assert(t:job("sleep 9 & echo hi").stdout == "hi\n")]]
    assert.equal(0, r.exit, r.err)
    assert.is_true(os.time() - started < 20)
  end)

  it("gives a job a name that a file can have, and each step its own", function()
    local long = ("x"):rep(300)
    local r = run(("{ step { name = %q, apply = function(ctx) ctx.target:job('true') end } }"):format(long))
    assert.equal(0, r.exit, r.err)
  end)

  it("prints and journals bytes that are no text", function()
    local steps = [[{ step { name = "a", probe = function() return pending("x\255y") end, verify = function() end,
      apply = function(ctx) ctx.log("\255") ctx.warn("w\0\254") ctx.target:run("printf '\\377\\000'") end },
      step { name = "b", apply = function(ctx) ctx.target:run("printf 'b\\377' >&2; exit 3") end } }]]
    local r = home.json(home.runbook("hard", book(steps)) .. " --json " .. local_target)
    assert.equal(6, r.exit, r.err)
    assert.equal("summary", r.last.type)
    assert.equal("command", r.last.code)
    local shown = home.json("show --json " .. r.last.run)
    assert.equal(0, shown.exit, shown.err)
  end)

  for body, message in pairs {
    ["fail()"] = "hard.lua:1: fail: code", ["error({})"] = "an error that is a table", ["error()"] = "an error without a text",
    ["error(setmetatable({}, {__tostring=function() error('no') end}))"] = "an error that is a table",
    ["error({code=1,message={}})"] = "an error that is a table", ["fail('x','m',{exit='y'})"] = "the code decides",
    ["return 7"] = "answered with a number",
  } do
    it("ends a run whose probe does " .. body, function()
      local r = run(("{ step { name = 'a', probe = function() %s end, apply = function() end } }"):format(body))
      assert.is_true(r.exit == 5 or r.exit == 2, tostring(r.exit))
      assert.is_truthy(r.err:find(message, 1, true), r.err)
    end)
  end

  for steps, message in pairs {
    ["function() return 'x' end"] = "hard.lua: steps is not a list but a string",
    ["{ step { name = 'a', apply = function() end }, nil, step { name = 'b', apply = function() end } }"] =
      "hard.lua: steps: item 2 is nil",
    ["step { name = 'a', apply = function() end }"] = "steps is a list, and has no field",
    ["{ step { name = 'a', resources = { file.content { path = '/x', content = '' }, nil, file.content { path = '/y', content = '' } } } }"] =
      "hard.lua:1: step 'a': resources: item 2 is nil",
    ["{ step { name = 'a', resources = {}, verify = function() end } }"] = "nothing to verify",
    ["{ step { name = 'a', always = true, apply = function() end } }"] = "step 'a' has no field 'always'",
    ["{ step { name = 'a', ensure = function() end, apply = function() end } }"] = "step 'a' has no field 'ensure'",
    ["(function() resource('r', { id = tostring, probe = done, apply = done, settle = done }) end)()"] = "resource r has no field 'settle'",
    ["function() return { step { name = crypto.random_bytes(4), apply = function() end } } end"] =
      "hard.lua:1: crypto.random_bytes: the steps of a runbook are the same at each resume",
    ["function() crypto.token { name = 't', bytes = 16 } return {} end"] = "crypto.token: the steps of a runbook",
    ["function() crypto.password { name = 't', length = 16 } return {} end"] = "crypto.password: the steps of a runbook",
    ["function() crypto.ed25519_keypair { name = 't' } return {} end"] = "crypto.ed25519_keypair: the steps of a runbook",
  } do
    it("refuses steps = " .. steps, function()
      local r = run(steps)
      assert.equal(2, r.exit, r.err)
      assert.is_truthy(r.err:find(message, 1, true), r.err)
    end)
  end

  for _, field in ipairs { "verify = function() end", "subject = 'x'", "target = 'local:'" } do
    it("refuses a runbook's field that nothing reads: " .. field, function()
      local path = home.runbook("idle", ("return runbook { name = 'idle', summary = 'x', %s, steps = {} }"):format(field))
      local r = home.run(path .. " " .. local_target)
      assert.equal(2, r.exit, r.err)
      assert.is_truthy(r.err:find("runbook 'idle' has no field '" .. field:match "%a+", 1, true), r.err)
    end)
  end

  it("makes random values in an apply, where steps are a function too", function()
    local r = run [[function() return { step { name = "a", apply = function() assert(#crypto.random_bytes(4) > 0) end } } end]]
    assert.equal(0, r.exit, r.err)
  end)

  it("finds the child of an earlier attempt, and enters an apply again that only starts children", function()
    home.runbook("child", ([[return runbook { name = "child", summary = "x", steps = {
      step { name = "c1", apply = function(ctx) ctx.target:run("echo c1 >>%s/log") end },
      step { name = "c2", apply = function(ctx) ctx.target:run("test -e %s/ok") end },
      step { name = "c3", class = "irreversible", apply = function(ctx) ctx.target:run("echo c3 >>%s/log") end } } }]])
      :format(home.work, home.work, home.work))
    local r = run [[{ step { name = "p", retry = { "10ms" }, apply = function(ctx) ctx.child { runbook = "child.lua" } end } }]]
    assert.equal(6, r.exit, r.err)
    support.spit(home.work .. "/ok", "")
    local stopped = home.run("resume " .. r.id)
    assert.equal(7, stopped.exit, stopped.err)
    assert.is_truthy(stopped.out:find("next: lbrun resume " .. r.id .. " --confirm local:", 1, true), stopped.out)
    local done = home.run("resume " .. r.id .. " --confirm local:")
    assert.equal(0, done.exit, done.err)
    assert.equal("c1\nc3\n", support.slurp(home.work .. "/log"))
  end)

  it("uses up a decision to redo: another crash is in doubt again", function()
    local r = run(("{ step { name = 'a', apply = function(ctx) ctx.target:run('echo x >>%s/log; kill -9 $PPID; sleep 1') end } }")
      :format(home.work))
    local id = r.err:match "^([%w-]+)"
    assert.equal(9, home.run("resume " .. id).exit)
    assert.equal(0, home.run("settle " .. id .. " a --redo --reason x").exit)
    home.run("resume " .. id)
    assert.equal(9, home.run("resume " .. id).exit)
    assert.equal("x\nx\n", support.slurp(home.work .. "/log"))
  end)

  it("asks for an optional secret again when the run began with it: 12 without it", function()
    support.spit(home.work .. "/t", "sup3rs3cret")
    support.sh("chmod 600 " .. home.work .. "/t")
    local path = home.runbook("hard", book([[{ step { name = "a", apply = function() error("x") end } }]],
      "params = { tok = param.secret { optional = true } },"))
    local r = home.run(("%s tok=@%s/t %s"):format(path, home.work, local_target))
    local again = home.run("resume --no-input " .. r.id)
    assert.equal(12, again.exit, again.err)
    assert.matches("missing parameter 'tok'", again.err)
  end)

  it("exits with 3 at resume when a file has changed since", function()
    local path = home.runbook("hard", book(("{ step { name = 'a', apply = function(ctx) ctx.target:run('test -e %s/ok') end } }")
      :format(home.work)))
    local r = home.run(path .. " " .. local_target)
    support.spit(path, support.slurp(path) .. "\n-- changed\n")
    support.spit(home.work .. "/ok", "")
    local again = home.run("resume " .. r.id)
    assert.equal(3, again.exit, again.err)
    assert.matches("have changed since", again.err)
  end)

  describe("with a lock left on the target", function()
    local lock
    before_each(function()
      lock = support.root and home.dir .. "/var/lock" or home.dir .. "/.local/state/lbrun/lock"
    end)
    local function left(id, owner)
      support.sh("mkdir -p " .. lock)
      if id then support.spit(lock .. "/run", id .. "\n") end
      support.spit(lock .. "/owner", owner)
    end

    it("takes it over from a run that has ended, and from no run at all", function()
      local steps = "{ step { name = 'a', probe = function() return done() end, apply = function() end } }"
      local r = run(steps)
      left(r.id, ('{"run":"%s","host":"x"}'):format(r.id))
      assert.equal(0, run(steps).exit)
      left(nil, "rubbish")
      assert.equal(0, run(steps).exit)
    end)

    it("leaves it to any other run, whatever its clock and its owner say", function()
      local steps = "{ step { name = 'a', probe = function() return done() end, apply = function() end } }"
      left("foreign-abcdef", "rubbish")
      support.sh("touch -d 2099-01-01 " .. lock .. "/owner")
      local r = run(steps)
      assert.equal(8, r.exit)
      assert.matches("foreign%-abcdef", r.err)
      assert.equal("foreign-abcdef\n", support.slurp(lock .. "/run"))
    end)
  end)

  it("ends --json with a summary and prints nothing else to stdout", function()
    local path = home.runbook("hard", book "{ step { name = 'a', apply = function() error('x') end } }")
    local r = home.json(path .. " --json " .. local_target)
    for args, exit in pairs {
      ["--json nope.lua"] = 2, ["--json " .. path .. " a=b"] = 2, ["undo --json " .. r.last.run] = 3,
      ["settle --json " .. r.last.run .. " a --done --reason x"] = 2, ["abandon --json " .. r.last.run .. " --reason x"] = 0,
      ["resume --json nope"] = 2, ["plan --json " .. path .. " " .. local_target] = 0,
    } do
      local one = home.json(args)
      assert.equal(exit, one.exit, args .. one.err)
      assert.equal("summary", one.last.type, args)
      assert.equal(exit, one.last.exit, args)
      assert.equal(1, one.lines[1].schema, args)
    end
    assert.equal("no run is open", home.json("resume --json").last.message)
  end)
end)
