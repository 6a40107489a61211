-- nginx_spec.lua: a site that nginx refuses is taken back, also when lbrun died before nginx
-- was asked. A stand-in judges here instead of nginx in its container: it refuses what says
-- "bad", and remembers what it has read. The container is system_spec.lua's.
local support = require "support.lbrun"

local book = [[
nginx.dir = "DIR"
nginx.reload = function(ctx)
  return ctx.target:try("[ ! -e DIR/kill ] || { rm DIR/kill; kill -9 $PPID; sleep 5; }; ! grep -rqs bad DIR/sites && cp -r DIR/sites/. DIR/read")
end
return runbook { name = "site", summary = "x", params = { text = param.string { multiline = true } },
  steps = function(p) return { STEPS } end }]]
local one = 'step { name = "site", resources = { nginx.site { name = "a", content = p.text } } }'

describe("nginx.site #unit", function()
  local home, dir
  before_each(function()
    home = support.home()
    dir = home.work
    support.sh(("mkdir %s/sites %s/read"):format(dir, dir))
  end)
  after_each(function() home.remove() end)

  local function run(text, steps)
    local path = home.runbook("site", (book:gsub("DIR", dir):gsub("STEPS", function() return steps or one end)))
    return home.run { path, "-t", "local:", "--allow-local-root", "text=" .. text }
  end
  local function exists(name)
    return select(2, support.sh(("test -e %s/%s"):format(dir, name))) == 0
  end
  local function site() return exists "sites/a.conf" and support.slurp(dir .. "/sites/a.conf") or nil end

  -- lbrun is killed when the refused text is written, and nginx not yet asked.
  local function killed(text, steps)
    support.spit(dir .. "/kill", "")
    local r = run(text, steps)
    assert.equal(9, r.signal or r.exit - 128, r.err)
    assert.equal(text, site())
    local id = home.run { "runs" }.out:match "site%-%w+"
    return home.run { "resume", id, "--allow-local-root" }
  end

  it("that is refused leaves the old one in force", function()
    assert.equal(0, run("good").exit)
    local r = run "bad"
    assert.equal(5, r.exit, r.err)
    assert.equal("good", site())
    assert.equal(0, run("better").exit)
    assert.equal("better", support.slurp(dir .. "/read/a.conf"))
  end)

  it("that is refused by a resume leaves what stood before the run, not the refused text", function()
    assert.equal(0, run("good").exit)
    local r = killed "bad"
    assert.equal(6, r.exit, r.out .. r.err)
    assert.equal("good", site())
  end)

  it("that is refused by a resume leaves nothing where nothing stood", function()
    local r = killed "bad"
    assert.is_true(r.exit == 5 or r.exit == 6, r.out .. r.err)
    assert.is_nil(site())
  end)

  it("that is refused in a later step leaves the text of the earlier one, not that of before the run", function()
    assert.equal(0, run("good").exit)
    local r = run("bad", 'step { name = "first", resources = { nginx.site { name = "a", content = "new" } } },' .. one)
    assert.equal(5, r.exit, r.err)
    assert.equal("new", site())
  end)
end)
