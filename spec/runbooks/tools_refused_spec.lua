-- tools_refused_spec.lua: what runbooks/tools.lua refuses before it looks at a server, and the
-- steps that it makes of its parameters. What it does to a server is in tools_spec.lua.
local support = require "support.lbrun"
local script = require "lb.script"
local sources = require "lb.sources"
local params = require "lb.params"

describe("adding and removing tools #unit", function()
  local home
  setup(function() home = support.home() end)
  teardown(function() home.remove() end)

  local function refused(more)
    local r = home.json("runbooks/tools.lua tenant=acme domain=acme.example -t local: --allow-local-root -y --json --no-input " .. more)
    return r.exit, r.last.message
  end

  for _, case in ipairs {
    { "nothing", "", "add=LIST or remove=LIST is needed" },
    { "a tool that is added and removed", "add=ghost remove=odoo,ghost", "ghost stands in add and in remove" },
    { "a tool that every tenant has", "remove=glitchtip", "glitchtip is on every tenant's server" },
    { "volumes of nothing", "add=ghost delete_volumes=true", "delete_volumes goes with remove" },
    { "a set and a change of it", "add=ghost tools=odoo", "give add and remove, or tools" },
  } do
    it("is refused for " .. case[1] .. ", before any change", function()
      local exit, message = refused(case[2])
      assert.equal(2, exit, message)
      assert.matches(case[3], message, 1, true)
    end)
  end

  it("is refused on a server that was never provisioned", function()
    local _, message = refused "add=ghost"
    assert.matches("provision it first", message, 1, true)
  end)

  local closure = sources.collect "runbooks/tools.lua"
  local book = script.load(closure)
  local function steps(given)
    local values = params.read(book.params, {}, given)
    local list = {}
    for i, s in ipairs(script.steps(book, values, closure)) do list[i] = s.name .. " " .. s.class end
    return list
  end

  it("backs up what goes, takes it away, then brings up the set that is left", function()
    assert.same({ "backup/nextcloud compensable", "remove/nextcloud compensable", "backup/ghost compensable", "remove/ghost compensable",
      "deploy compensable" }, steps { tenant = "acme", domain = "acme.example", remove = { "ghost", "nextcloud" }, add = { "odoo" } })
  end)

  it("deletes volumes behind the barrier alone, after the backup", function()
    assert.same({ "backup/ghost compensable", "remove/ghost irreversible", "forget/ghost compensable", "deploy compensable" },
      steps { tenant = "acme", domain = "acme.example", remove = { "ghost" }, delete_volumes = true })
  end)

  it("brings up a set by the steps of provisioning, in their order", function()
    assert.same({ "firewall reversible", "https compensable", "stacks/stalwart compensable", "platform/openclaw compensable",
      "platform/secrets-proxy compensable", "platform/seed compensable", "platform/tool-registry compensable",
      "platform/souls compensable", "platform/setup/stalwart compensable", "platform/hub-key compensable", "verify pure" },
      steps { tenant = "acme", domain = "acme.example", tools = { "stalwart" } })
  end)
end)
