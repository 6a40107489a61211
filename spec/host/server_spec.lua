-- server_spec.lua: what a run promises on a real server: identity, access, locks, jobs
-- that outlive lbrun, reboots. Provisioning itself is in spec/runbooks.
local support = require "support.lbrun"
local vps = require "support.vps"

local book = [[
return runbook { name = "job", summary = "a long command, counted", params = { seconds = param.integer { default = 3 } },
  steps = function(p) return {
    step { name = "long",
      probe = function(ctx) return ctx.target:exists "/root/finished" and done() or pending "x" end,
      apply = function(ctx) ctx.target:job("echo begun >>/root/begun; sleep " .. p.seconds .. "; touch /root/finished") end },
    step { name = "after", probe = function(ctx) return ctx.target:exists "/root/after" and done() or pending "x" end,
      apply = function(ctx) ctx.target:run { "touch", "/root/after" } end },
  } end }
]]

local function sleep(seconds)
  os.execute("sleep " .. seconds)
end

describe("a run on a server #vps", function()
  local server, home, path
  setup(function() server = vps.up("server-spec") end)
  teardown(function() server:down() end)
  before_each(function()
    home = support.home()
    path = home.runbook("job", book)
    server:exec "rm -rf /root/begun /root/finished /root/after /var/lib/lbrun"
  end)
  after_each(function() home.remove() end)

  local function args(extra)
    return ("%s -t %s -i %s %s"):format(path, server.url, server.key, extra or "")
  end

  -- Start lbrun in the background; returns its pid.
  local function background(words)
    local p = io.popen(("env HOME=%s XDG_STATE_HOME=%s/state %s %s >%s/bg.out 2>&1 </dev/null & echo $!"):format(
      home.dir, home.dir, support.binary, words, home.dir))
    local pid = p:read "l"
    p:close()
    return pid
  end

  local function wait_for(condition, what)
    for _ = 1, 100 do
      if condition() then return end
      sleep(0.1)
    end
    error("waited 10 s in vain for " .. what)
  end

  local function on_server(command)
    return (server:exec(command))
  end

  local function begun()
    return on_server("cat /root/begun 2>/dev/null || true"):find "begun" ~= nil
  end

  it("re-attaches to the job that was running when lbrun was killed, and never starts it twice", function()
    local pid = background(args("seconds=3"))
    wait_for(begun, "the job")
    os.execute("kill -9 " .. pid)
    local r = home.run("resume -i " .. server.key)
    assert.equal(0, r.exit, r.err)
    assert.matches("found a command of an earlier attempt: running", r.err)
    assert.equal("begun\n", on_server "cat /root/begun")
    assert.equal("", on_server "ls /var/lib/lbrun/jobs")
    assert.equal("", on_server "ls -d /var/lib/lbrun/lock 2>/dev/null || true")
  end)

  it("keeps a second run out while the first one is alive and while it is dead but open (8)", function()
    local pid = background(args("seconds=4"))
    wait_for(begun, "the job")
    local alive = home.run(args())
    assert.equal(8, alive.exit, alive.err)
    assert.matches("running, process " .. pid, alive.err)
    local elsewhere = support.home()
    local other = elsewhere.run(("%s -t %s -i %s"):format(elsewhere.runbook("job", book), server.url, server.key))
    assert.equal(8, other.exit, other.err)
    os.execute("kill -9 " .. pid)
    local dead = home.run(args())
    assert.equal(8, dead.exit, dead.err)
    assert.matches("lbrun resume job%-", dead.err)
    other = elsewhere.run(("%s -t %s -i %s"):format(elsewhere.runbook("job", book), server.url, server.key))
    assert.equal(8, other.exit, other.err)
    assert.matches("lbrun resume job%-", other.err)
    elsewhere.remove()
    assert.equal(0, home.run("resume").exit)
    assert.equal(0, home.run(args()).exit)
  end)

  it("notices a reboot in mid-run and does the interrupted command again", function()
    local pid = background(args("seconds=5"))
    wait_for(begun, "the job")
    server:reboot()
    wait_for(function() return os.execute("kill -0 " .. pid .. " 2>/dev/null") == nil end, "the end of the run")
    local text = support.slurp(home.dir .. "/bg.out")
    assert.matches("rebooted", text)
    local explain = home.run "runs"
    assert.matches("done", explain.out, text)
    assert.equal("begun\nbegun\n", on_server "cat /root/begun")
  end)

  it("detaches on the second Ctrl-C; the job goes on and resume waits for it", function()
    local pid = background(args("seconds=4"))
    wait_for(begun, "the job")
    os.execute("kill -INT " .. pid)
    sleep(0.4)
    os.execute("kill -INT " .. pid)
    wait_for(function() return os.execute("kill -0 " .. pid .. " 2>/dev/null") == nil end, "the detached lbrun")
    local r = home.run "resume"
    assert.equal(0, r.exit, r.err)
    assert.equal("begun\n", on_server "cat /root/begun")
  end)

  it("refuses a server whose host keys have changed (4, hostkey) and one that was re-imaged (4, identity)", function()
    assert.equal(0, home.run(args("seconds=0")).exit)
    server:rekey()
    local r = home.json(args("seconds=0 --json"))
    assert.equal(4, r.exit, r.err)
    assert.equal("hostkey", r.last.code)
    local fresh = home.run(args(("seconds=0 -t '%s?fingerprint=%s'"):format(server.url, "SHA256:" .. ("A"):rep(43))))
    assert.not_equal(0, fresh.exit)
  end)

  it("refuses another machine that answers with the same host keys (4, identity)", function()
    assert.equal(0, home.run(args("seconds=0")).exit)
    server:exec "tr 0-9a-f 1-9a-f0 </etc/machine-id >/etc/machine-id.new && mv /etc/machine-id.new /etc/machine-id"
    local r = home.json(args("seconds=0 --json"))
    assert.equal(4, r.exit, r.err)
    assert.equal("identity", r.last.code)
  end)

  it("says 12 for an identity that the server does not know, and changes nothing", function()
    support.sh(("ssh-keygen -q -t ed25519 -N '' -f %s/other"):format(home.dir))
    local r = home.run(("%s -t %s -i %s/other"):format(path, server.url, home.dir))
    assert.equal(12, r.exit, r.err)
  end)

  it("refuses an encrypted key where nobody can be asked for its passphrase (12)", function()
    support.sh(("ssh-keygen -q -t ed25519 -N 'correct horse' -f %s/locked"):format(home.dir))
    local r = home.run(("%s -t %s -i %s/locked"):format(path, server.url, home.dir))
    assert.equal(12, r.exit, r.err)
    assert.matches("is encrypted and no passphrase was given", r.err)
  end)

  it("says 4 for a server that does not answer", function()
    local r = home.run(("%s -t ssh://root@%s:2 -i %s"):format(path, server.address, server.key))
    assert.equal(4, r.exit, r.err)
    assert.matches("cannot log in", r.err)
  end)
end)
