-- readme_spec.lua: what README.md shows is what happens. Its reference is kept by `make docs`.
local json = require "json"
local support = require "support.lbrun"

local readme = support.slurp "README.md"

describe("README #unit", function()
  local home
  before_each(function() home = support.home() end)
  after_each(function() home.remove() end)

  local function local_target(words)
    return words .. " -t local: --allow-local-root --no-input"
  end

  it("shows a custom runbook that works as it stands, finds nothing to do again, and is undone", function()
    local text = readme:match("## A runbook of ten lines.-```lua\n(.-)```")
    local motd = home.work .. "/motd"
    support.spit(motd, "old\n")
    local path = home.runbook("motd", (text:gsub("/etc/motd", motd)))
    local first = home.run(local_target(path .. " text=hi"))
    assert.equal(0, first.exit, first.err)
    assert.equal("hi\n", support.slurp(motd))
    assert.is_truthy(first.err:find("says: hi", 1, true))
    local second = home.run(local_target(path .. " text=hi"))
    assert.is_truthy(second.out:find(" 0 changed", 1, true), second.out)
    local run = first.out:match("^(%S+): done")
    local undone = home.run(("undo %s -y"):format(run))
    assert.is_true(undone.exit == 0 or undone.exit == 3, undone.err)
    assert.equal("old\n", support.slurp(motd))
  end)

  it("names the exit codes that the program's own help names", function()
    local help = home.run("--help").out
    for code in help:match("Exit: (.-)\nMore"):gmatch("%f[%d](%d+) %a") do
      assert.is_truthy(readme:find("| " .. code .. "[ ,]") or readme:find(", " .. code .. " |", 1, true), code)
    end
  end)

  it("names every command", function()
    local help = home.run("--help").out
    for name in help:match("Commands:\n(.-)\n\n"):gmatch("\n  ([%w-]+)") do
      if name ~= "help" and name ~= "runs" and name ~= "list" and name ~= "doctor" then
        assert.is_truthy(readme:find("lbrun " .. name, 1, true), name)
      end
    end
  end)

  it("says what the last JSON line holds", function()
    local path = home.runbook("one", [[
return runbook { name = "one", summary = "s", steps = { step { name = "a", class = "pure", apply = function() end } } }]])
    local r = home.run(local_target(path .. " --json"))
    local lines = {}
    for line in r.out:gmatch("[^\n]+") do lines[#lines + 1] = json.decode(line) end
    assert.equal(1, lines[1].schema)
    local last = lines[#lines]
    assert.equal("summary", last.type)
    for _, key in ipairs { "ts", "run", "seq", "exit", "status", "changed", "warnings", "head" } do
      assert.is_not_nil(last[key], key)
    end
  end)
end)
