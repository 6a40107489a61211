-- canary_spec.lua: secrets are planted in a run against a server and looked for in every
-- byte that lbrun leaves: output, journal, spool, and all programs started on both sides.
local support = require "support.lbrun"
local vps = require "support.vps"
local canary = require "support.canary"

-- With everything in it that some encoding changes.
local secrets = {
  token = [[Kx7'q"$Zw\9 /p&R+t=vB%3m~LhY]],
  key = "-----BEGIN CANARY-----\nQm9yZWRDYW5hcnlJbkFDb2FsTWluZTEyMzQ1\nZm9yX3Ro" .. "aXNfc3BlY19vbmx5Xzk4NzY1\n-----END CANARY-----\n",
}
-- What has no entropy of its own is no secret.
local function planted()
  return { token = secrets.token, key = secrets.key:match "\n(.-)\n%-" }
end

local book = [==[
return runbook { name = "canary", summary = "handles secrets in every way", sudo = true,
  params = { token = param.secret {}, key = param.secret {}, fails = param.boolean { default = false } },
  steps = function(p)
    return {
    step { name = "stdin", resources = {},
      probe = function(ctx) return ctx.target:exists "/root/canary/seen" and done() or pending "give it" end,
      apply = function(ctx)
        ctx.target:run "mkdir -p -m 700 /root/canary"
        ctx.target:run { "sh", "-c", "cat >/root/canary/seen", stdin = ctx.secret "token" }
        ctx.target:run { "sh", "-c", "cat >/root/canary/key.seen", stdin = ctx.secret "key" }
      end },
    step { name = "file", resources = {
      file.content { path = "/root/canary/token", content = "old\n" } } },
    step { name = "put", probe = function(ctx)
        return ctx.target:read "/root/canary/token" == "old\n" and pending "put it" or done() end,
      apply = function(ctx)
        ctx.target:put("/root/canary/token", ctx.secret "token", { mode = "0600" })
        ctx.target:put("/root/canary/key", ctx.secret "key", { mode = "0600" }) end },
    step { name = "prints", rerun = true, apply = function(ctx)
        local t = ctx.target
        t:run "cat /root/canary/token; cat /root/canary/key; cat /root/canary/key >&2"
        -- Split over two reads, with a pause in which nothing else comes; every cut.
        t:run "head -c 11 /root/canary/token; sleep 0.7; tail -c +12 /root/canary/token; sleep 0.3; echo"
        t:run "for i in 1 5 9 17 25; do head -c $i /root/canary/token; sleep 0.05; tail -c +$((i + 1)) /root/canary/token; done"
        t:run "head -c 40 /root/canary/key >&2; sleep 0.4; tail -c +41 /root/canary/key >&2"
        t:run { "sh", "-c", "cat; sleep 0.2; head -c 9 /root/canary/token; sleep 0.4; tail -c +10 /root/canary/token", stdin = ctx.secret "key" }
        t:run "for n in 0 1 2; do { head -c $n /dev/zero; cat /root/canary/token; echo abc; } | base64 -w0; echo; done; base64 /root/canary/key"
        t:run "od -An -v -tx1 /root/canary/token | tr -d ' \\n'; echo; od -An -v -tx1 /root/canary/token | tr -d ' \\n' | tr a-f A-F"
        t:run "jq -Rs . /root/canary/token /root/canary/key; jq -Rrs @uri /root/canary/token; jq -Rrs @sh /root/canary/token"
        t:job("cat /root/canary/token; head -c 10 /root/canary/token; sleep 0.6; tail -c +11 /root/canary/token; cat /root/canary/key >&2")
        ctx.log("the token is " .. t:read "/root/canary/token")
        ctx.warn("the token is " .. t:read "/root/canary/token" .. ", the key " .. t:read "/root/canary/key")
        ctx.progress(1, 2, t:read "/root/canary/token")
        ctx.state_set("said", t:read "/root/canary/key")
      end },
    step { name = "shows", probe = function(ctx)
        return ctx.target:exists "/root/canary/shown" and done() or pending("now:\n" .. ctx.target:read "/root/canary/key") end,
      before = function(ctx) return { old = ctx.target:read "/root/canary/token" } end,
      apply = function(ctx) ctx.target:run "touch /root/canary/shown" end, undo = function() end },
    step { name = "fails", rerun = true, apply = function(ctx)
        if not p.fails then return end
        ctx.target:try "cat /root/canary/token >&2; exit 3"
        ctx.target:run "echo \"cannot log in with $(cat /root/canary/token)\" >&2; cat /root/canary/key >&2; exit 3"
      end },
  } end }
]==]

describe("a planted secret #vps", function()
  local server, home, path
  setup(function()
    server = vps.up "canary"
    server:exec "apt-get -q update && apt-get -y -q install jq"
  end)
  teardown(function() server:down() end)
  before_each(function()
    home = support.home()
    path = home.runbook("canary", book)
    server:exec "rm -rf /root/canary"
    for name, value in pairs(secrets) do
      support.spit(home.dir .. "/" .. name, value)
      support.sh("chmod 600 " .. home.dir .. "/" .. name)
    end
  end)
  after_each(function() home.remove() end)

  local function given()
    return ("token=@%s/token key=@%s/key"):format(home.dir, home.dir)
  end

  -- The first sshd of the server, as this machine numbers it.
  local function sshd()
    local space = server:exec("readlink /proc/1/ns/pid"):gsub("%s", "")
    local pid = support.sh(("for p in $(pgrep -x sshd); do [ \"$(readlink /proc/$p/ns/pid)\" = '%s' ] && echo $p; done | head -1")
      :format(space))
    return assert(pid:match "%d+", "no sshd in " .. space)
  end

  local function clean(what, bytes)
    local found = canary.find(bytes, planted())
    assert(#found == 0, ("%s holds %s"):format(what, table.concat(found, ", ")))
    return #bytes
  end

  -- Every program that starts on either side while lbrun runs, with its environment.
  local function traced(args)
    local far = home.dir .. "/far.trace"
    local p = io.popen(("strace -f -v -e trace=execve -s 65535 -o %s -p %s >/dev/null 2>&1 & echo $!"):format(far, sshd()))
    local tracer = p:read "l"
    p:close()
    os.execute "sleep 0.7"
    -- A leak cannot be looked for in a process that is traced.
    local r = home.run(args, { before = ("env ASAN_OPTIONS=detect_leaks=0 strace -f -v -e trace=execve -s 65535 -o %s/near.trace"):format(home.dir) })
    os.execute("sleep 0.3; kill " .. tracer)
    os.execute "sleep 0.3"
    r.near, r.far = support.slurp(home.dir .. "/near.trace"), support.slurp(far)
    assert.matches("execve%(.*lbrun", r.near)
    assert.matches("/root/canary", r.far)
    return r
  end

  local function look_everywhere(r)
    clean("stdout", r.out)
    clean("stderr", r.err)
    clean("the programs started here", r.near)
    clean("the programs started on the server", r.far)
    for name in support.sh(("ls %s/state/lbrun"):format(home.dir)):gmatch "%S+" do
      if not name:find "%.key$" then clean(name, support.slurp(home.dir .. "/state/lbrun/" .. name)) end
    end
    clean("the spool", (server:exec "cd /var/lib/lbrun && find . -type f -exec cat {} + ; ls -R"))
    clean("the server's log", (server:exec "journalctl -o cat --no-pager; cat /var/log/* 2>/dev/null"))
    for _, command in ipairs { "log --json ", "log ", "show -vvv ", "show --json ", "explain " } do
      clean("lbrun " .. command, home.run(command .. r.run).out)
    end
  end

  it("is found by its own search in each form (or this file would prove nothing)", function()
    for _, form in ipairs(canary.forms(secrets.token)) do
      assert.is_true(#canary.find("x" .. form[2] .. "y", planted()) > 0, form[1])
    end
    local wrapped = support.sh(("base64 -w 10 %s/token"):format(home.dir))
    assert.is_true(#canary.find(wrapped, planted()) > 0)
  end)

  for _, how in ipairs { "-vvv --diff", "--json" } do
    it(("shows nowhere in a run that ends well (%s)"):format(how), function()
      local r = traced(("%s %s -t %s -i %s %s"):format(path, given(), server.url, server.key, how))
      assert.equal(3, r.exit, r.err)
      r.run = r.id or r.out:match '"run":"([%w-]+)"'
      assert.matches("secret token", r.out .. r.err .. home.run("log " .. r.run).out)
      assert.equal(secrets.token, (server:exec "cat /root/canary/token"))
      -- The newline at the end of a file is not part of the secret in it.
      assert.equal((secrets.key:gsub("\n$", "")), (server:exec "cat /root/canary/key"))
      look_everywhere(r)
    end)
  end

  it("shows nowhere in a plan", function()
    local words = ("%s -t %s -i %s "):format(given(), server.url, server.key)
    assert.equal(3, home.run(path .. " " .. words).exit)
    server:exec "rm /root/canary/shown; echo other >/root/canary/key"
    for _, how in ipairs { "-vvv", "--json" } do
      local r = home.run("plan " .. path .. " " .. words .. how)
      assert.is_true(r.exit == 0 or r.exit == 3, r.err)
      clean("the plan", r.out .. r.err)
    end
  end)

  it("shows nowhere in a run whose command fails with the secret on its lips, nor in its resume", function()
    local r = traced(("%s %s fails=true -t %s -i %s -vvv"):format(path, given(), server.url, server.key))
    assert.is_true(r.exit == 5 or r.exit == 6, r.err)
    r.run = r.id
    assert.matches("cannot log in with %[secret token%]", r.err)
    look_everywhere(r)
    -- Resume asks for them again, and knows when they are others.
    local missing = home.run("resume -i " .. server.key .. " --no-input")
    assert.equal(12, missing.exit, missing.err)
    support.spit(home.dir .. "/token", secrets.token .. "!")
    local other = home.run(("resume %s -i %s --no-input"):format(given(), server.key))
    assert.equal(12, other.exit, other.err)
    support.spit(home.dir .. "/token", secrets.token)
    local again = home.run(("resume %s -i %s --no-input -vvv"):format(given(), server.key))
    assert.is_true(again.exit == 5 or again.exit == 6, again.err)
    r.out, r.err = again.out .. missing.out .. other.out, again.err .. missing.err .. other.err
    look_everywhere(r)
  end)

  it("is refused on the command line, and in a file that others can read (12 or 2)", function()
    local r = home.run(("%s token=%s key=@%s/key -t %s"):format(path, support.quote(secrets.token), home.dir, server.url))
    assert.equal(2, r.exit, r.err)
    clean("stderr", r.err)
    support.sh(("chmod 644 %s/token"):format(home.dir))
    r = home.run(("%s %s -t %s"):format(path, given(), server.url))
    assert.equal(12, r.exit, r.err)
    clean("stderr", r.err)
  end)
end)
