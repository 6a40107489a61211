-- ask_spec.lua: what a run asks at a terminal. The sshd is a real one on loopback.
local host = require "host"
local sshd = require "support.sshd"
local support = require "support.lbrun"

describe("at a terminal #unit", function()
  it("a key's passphrase is asked for once, though several paths to the server are tried side by side", function()
    local server, home = sshd.start(), support.home()
    finally(function()
      server:stop()
      home.remove()
    end)
    local key = home.dir .. "/key"
    support.sh(("cp -p %s %s && ssh-keygen -q -p -N opensesame99 -f %s"):format(server.key, key, key))
    local finger = support.sh(("ssh-keyscan -t ed25519 -p %d 127.0.0.1 2>/dev/null | ssh-keygen -lf - | cut -d' ' -f2"):format(server.port)):match "%S+"
    local path = home.runbook("b", ([[return runbook { name = "b", summary = "x",
      access = function() return { "%s@:1", "nobody-else@:%d" } end,
      steps = { step { name = "s", apply = function(ctx) ctx.target:run "echo in >>%s/log" end } } }]]):format(host.user(), server.port, home.work))
    local typed = home.dir .. "/typed"
    -- It is typed after the other paths had their head start.
    local r = home.run(("%s -t 'ssh://%s@127.0.0.1:%d?fingerprint=%s' -i %s"):format(path, host.user(), server.port, finger, key),
      { before = ([[sh -c '{ sleep 3; echo opensesame99; sleep 3; } | script -qec "$(printf "'"%%s "'" "$@")" /dev/null >%s' sh]]):format(typed) })
    local text = support.slurp(typed)
    assert.equal(0, r.exit, text .. r.err)
    assert.equal("in\n", support.slurp(home.work .. "/log"), text)
    assert.equal(1, select(2, text:gsub("passphrase of", "")), text)
    assert.is_nil(text:find("opensesame", 1, true))
  end)
end)
