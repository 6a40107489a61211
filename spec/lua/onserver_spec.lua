-- onserver_spec.lua: the archive of lbrun that goes to a server, and when its timers fire. What
-- it does there is in spec/runbooks/backup_spec.lua.
local support = require "support.lbrun"
local script = require "lb.script"
local sources = require "lb.sources"

local env = script.environment(sources.collect "runbooks/provision.lua")

describe("lbrun as an archive #unit", function()
  local dir
  setup(function() dir = support.temp() end)
  teardown(function() support.sh("rm -rf " .. dir) end)

  it("works where it is unpacked, is root's, and the same files make the same bytes", function()
    local r = support.sh(([[cd %s && cat >probe.lua <<'END'
return runbook { name = "probe", summary = "x", steps = { step { name = "one", class = "pure", apply = function(ctx)
  local p = ctx.package()
  ctx.target:put("%s/p.tar", p.bytes, { mode = "0600" })
  if p.sha256 ~= ctx.package().sha256 then fail("verify", "not the same") end
end } } }
END
true]]):format(dir, dir))
    assert.equal("", r)
    local home = support.home()
    local made = home.run(dir .. "/probe.lua -t local: --allow-local-root")
    home.remove()
    assert.equal(0, made.exit, made.err)
    local out, status = support.sh(("mkdir %s/to && tar -xf %s/p.tar -C %s/to && tar --numeric-owner -tvf %s/p.tar | awk '{ print $2 }' | sort -u && cd / && %s/to/bin/lbrun list")
      :format(dir, dir, dir, dir, dir))
    assert.equal(0, status, out)
    assert.equal("0/0\n", out:match "^[^\n]*\n")
    assert.is_truthy(out:find("restore-test", 1, true))
    assert.equal("", (support.sh(("diff -r templates %s/to/share/lbrun/templates && diff -r modules/lua %s/to/share/lbrun/modules/lua"):format(dir, dir))))
  end)
end)

describe("the timer of a night's backup #unit", function()
  it("fires on every local day of the clock's changes, by one time or the other", function()
    if not os.execute "command -v systemd-analyze >/dev/null" then return pending "there is no systemd-analyze" end
    for _, night in ipairs { "2026-03-29", "2026-10-25", "2026-06-01" } do
      local out = support.sh(([[for t in 02:00:00 03:00:00; do TZ=Europe/Berlin systemd-analyze calendar --base-time='%s 00:00:00' "*-*-* $t"; done]]):format(night))
      assert.is_truthy(out:find("Next elapse: %a+ " .. night:gsub("%-", "%%-") .. " 0[23]:00:00"), out)
    end
  end)
end)

describe("lbrun's libraries #unit", function()
  it("have the names that the release gives them", function()
    local function names(id, version) return table.concat(env.onserver.packages { os_id = id, os_version = version }, " ") end
    assert.matches("libssh2%-1 libcurl4 libcjson1 libssl3 ", names("debian", "12"))
    assert.matches("libssh2%-1t64 libcurl4t64 libcjson1 libssl3t64 .*libuv1t64", names("debian", "13"))
    assert.matches("libssl3t64", names("ubuntu", "24.04"))
    assert.matches("libssl3 ", names("ubuntu", "22.04"))
  end)
end)
