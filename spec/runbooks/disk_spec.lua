-- disk_spec.lua: a disk that fills up in mid-run, on the server or here. The run says so,
-- loses nothing, and goes on when there is room again.
local json = require "json"
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"

describe("a full disk", function()
  local server, home
  before_each(function() home = support.home() end)
  after_each(function()
    if server then server:down() end
    server = nil
    home.remove()
  end)

  -- Leaves that many KiB free on the server.
  local function fill(free)
    server:exec(([[rm -f /filler*; a=$(df --output=avail -k / | tail -1); fallocate -l $((a - %d))K /filler
[ %d -gt 0 ] || dd if=/dev/zero of=/filler2 bs=4k 2>/dev/null]]):format(free, free))
  end

  it("of the server in mid-install is named, and resume completes what was half unpacked #vps #slow", function()
    server = vps.up("disk", { disk = "900M" })
    -- Enough for the lists and the archives, too little for what is in them.
    fill(230000)
    local r = home.run(provision.args(server, { docker = "docker-ce", more = "--tags packages" }))
    assert.equal(6, r.exit, r.err)
    assert.matches("the disk of " .. server.url .. " is full", r.err, 1, true)
    assert.matches("No space left on device", r.err)
    assert.matches("next: lbrun resume " .. r.id, r.out, 1, true)
    -- With no byte left at all, even the lock finds no room; the run stays open.
    fill(0)
    local worse = home.run "resume"
    assert.is_true(worse.exit == 5 or worse.exit == 6, worse.err)
    assert.matches("No space left on device", worse.err)
    server:exec "rm -f /filler*"
    local again = home.json "resume --json"
    assert.equal(3, again.exit, again.err)
    assert.equal("done", again.last.status)
    assert.equal("", server:exec "dpkg --audit; ls /var/lib/lbrun/jobs; apt-get -q check >/dev/null || echo broken")
    assert.equal("active\n", server:exec "systemctl is-active fail2ban")
    assert.equal(0, home.run("verify-journal").exit)
  end)

  local book = [[
return runbook { name = "files", summary = "a file, a job and a file",
  steps = function()
    return {
      step { name = "one", resources = { file.content { path = "/root/full/one", content = ("1\n"):rep(5000) } } },
      step { name = "job", probe = function(ctx) return ctx.target:exists "/root/full/two" and done() or pending "x" end,
        apply = function(ctx) ctx.target:job("head -c 300000 /dev/zero >/root/full/two.tmp && mv /root/full/two.tmp /root/full/two",
          { name = "writing" }) end },
    } end }
]]

  it("of the server fails a file and a job by name, keeps the old file, and resume goes on #vps", function()
    server = vps.up("disk", { disk = "700M" })
    local path = home.runbook("files", book)
    server:exec "mkdir /root/full; echo old >/root/full/one; mkdir -p /var/lib/lbrun; chmod 700 /var/lib/lbrun"
    fill(32)
    local args = ("%s -t %s -i %s"):format(path, server.url, server.key)
    local r = home.run(args)
    assert.is_true(r.exit == 5 or r.exit == 6, r.exit .. ": " .. r.err)
    assert.matches("the disk of " .. server.url .. " is full", r.err, 1, true)
    assert.matches("/root/full/one", r.err)
    assert.equal("old\none\n", server:exec "cat /root/full/one; ls /root/full")
    fill(100)
    r = home.run "resume"
    assert.is_true(r.exit == 5 or r.exit == 6, r.exit .. ": " .. r.err)
    assert.matches("the disk of " .. server.url .. " is full", r.err, 1, true)
    assert.matches("writing", r.err)
    assert.matches("job +failed", r.err)
    server:exec "rm -f /filler*"
    r = home.run "resume"
    assert.matches(": done, 1 changed", r.out)
    assert.equal("300000 /root/full/two\n", server:exec "wc -c /root/full/two; ls /var/lib/lbrun/jobs")
  end)

  it("under the journal ends the run with one message and 13; what was done is known, nothing is done twice #unit", function()
    if not support.root then return pending "a mount of its own needs root" end
    local path = home.runbook("twenty", ([[
return runbook { name = "twenty", summary = "writes a lot into the journal",
  steps = function()
    local list = {}
    for i = 1, 20 do
      local marker = "%s/" .. i
      list[i] = step { name = "s" .. i,
        probe = function(ctx) return ctx.target:exists(marker) and done() or pending(("what is to come "):rep(200)) end,
        apply = function(ctx) ctx.target:run("head -c 40000 /dev/urandom | base64; echo x >>%s.count; touch " .. marker) end }
    end
    return list
  end }
]]):format(home.work, home.work))
    local state = home.dir .. "/tmpfs"
    support.sh("mkdir " .. state)
    local function inside(script)
      support.spit(home.dir .. "/inside.sh", script)
      return support.sh(("unshare -m env HOME=%s XDG_STATE_HOME=%s/state sh %s/inside.sh"):format(home.dir, home.dir, home.dir))
    end
    local text = inside(([[
mkdir -p %s/lib && mount --bind %s/lib /var/lib/lbrun
mount -t tmpfs -o size=1600k tmpfs %s
lb="%s --journal %s/journal.db"
$lb %s -t local: --allow-local-root >%s/1.out 2>%s/1.err; echo "first $?"
wc -l <%s.count
$lb verify-journal >/dev/null; echo "verify $?"
$lb runs --json | head -1
mount -o remount,size=8m %s
$lb resume >%s/2.out 2>%s/2.err; echo "second $?"
$lb verify-journal >/dev/null; echo "verify $?"
sort %s.count | uniq -c
wc -l <%s.count
]]):format(home.dir, home.dir, state, support.binary, state, path, home.dir, home.dir, home.work, state, home.dir, home.dir,
      home.work, home.work))
    assert.matches("first 13\n", text)
    local err = support.slurp(home.dir .. "/1.err")
    local _, lines = err:gsub("no space left", "")
    assert.equal(1, lines, err)
    local done = tonumber(text:match "first 13\n(%d+)")
    assert.is_true(done > 4 and done < 20, text)
    assert.matches("verify 0\n", text)
    assert.matches("second 0\nverify 0\n", text .. support.slurp(home.dir .. "/2.err"))
    assert.matches("\n20\n$", text)
    local row = json.decode(text:match "\n({[^\n]*})\n")
    assert.equal("twenty", row.name)
  end)
end)
