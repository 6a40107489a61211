-- catalog_spec.lua: runbooks/catalog.lua shows tools, tiers and sums, as text and as JSON.
local json = require "json"
local support = require "support.lbrun"

describe("the catalog #unit", function()
  local home
  setup(function() home = support.home() end)
  teardown(function() home.remove() end)

  local function show(more)
    return home.run("runbooks/catalog.lua -t local: --allow-local-root -y " .. more)
  end

  it("sums what a chosen set takes of each tier, and warns of a number that a tier is not meant for", function()
    local r = show "tools=nextcloud,ghost,odoo,chatwoot tier=lite"
    assert.equal(3, r.exit, r.err)
    assert.matches("nextcloud%s+Nextcloud%s+files%s+3023%s+864 MiB", r.err)
    assert.matches("lite%s+4 vCPU  8 GiB   160 GB  5 to 8 tools%s+29 EUR, costs 8 to 12 EUR  6804 MiB, 83 %%: tight", r.err)
    assert.matches("4 tools, tier lite is meant for 5 to 8", r.err)
    assert.matches("lite.-: refused\n.*build.-: fits", show("tools=nextcloud,ghost,odoo,chatwoot,metabase").err)
  end)

  it("is all tools and tiers as JSON", function()
    local r = show "json=true"
    assert.equal(0, r.exit, r.err)
    local all = assert(json.decode(r.err:match "{.*}"))
    assert.equal(31, #all.tools)
    assert.same({ "lite", "build", "scale", "enterprise" }, { all.tiers[1].name, all.tiers[2].name, all.tiers[3].name, all.tiers[4].name })
    assert.same({ 35, 45 }, all.tiers[4].cost)
  end)
end)
