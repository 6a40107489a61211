-- catalog.lua: shows the catalog: tools, tiers, and what a chosen set takes of each tier's
-- memory. It asks the target nothing and changes nothing; `-t local:` will do.
local function row(t)
  return ("%-13s %-24s %-10s %-5s %5d MiB%s"):format(t.id, t.name, t.subdomain or "-", t.port or "-", t.memory, t.core and "  core" or "")
end

local function euros(low, high)
  return ("%d to %d EUR"):format(low, high)
end

local function tier_row(name, chosen)
  local tier = catalog.tiers[name]
  local range = tier.tools[2] and ("%d to %d tools"):format(tier.tools[1], tier.tools[2]) or ("%d tools and more"):format(tier.tools[1])
  local text = ("%-10s %2d vCPU %2d GiB %5.0f GB  %-17s  %3d EUR, costs %s"):format(name, tier.cpus, tier.memory >> 30,
    tier.disk / 10 ^ 9, range, tier.price, euros(table.unpack(tier.cost)))
  if not chosen then return text end
  local sum = catalog.sum(chosen, name)
  return ("%s  %d MiB, %.0f %%: %s"):format(text, sum.memory, sum.share, sum.verdict)
end

local function show(ctx)
  local chosen = #ctx.params.tools > 0 and ctx.params.tools or nil
  if ctx.params.json then
    local out = { tools = {}, tiers = {}, images = { nginx = { catalog.platform.nginx.image } } }
    for _, id in ipairs { "openclaw", "secrets-proxy", table.unpack(catalog.names()) } do
      out.images[id] = stack.images(stack.get(id))
    end
    for i, id in ipairs(catalog.names()) do out.tools[i] = catalog.get(id) end
    for i, name in ipairs(catalog.tier_names) do
      local tier = catalog.tiers[name]
      out.tiers[i] = { name = name, cpus = tier.cpus, memory = tier.memory, disk = math.tointeger(tier.disk), tools = tier.tools,
        price = tier.price, cost = tier.cost, chosen = chosen and catalog.sum(chosen, name) }
    end
    ctx.log(json.encode(out))
    return
  end
  ctx.log(("%-13s %-24s %-10s %-5s %9s"):format("tool", "name", "subdomain", "port", "memory"))
  for _, id in ipairs(chosen or catalog.names()) do ctx.log(row(catalog.get(id))) end
  ctx.log(chosen and ("%d tools, with the system's and the platform's own memory:"):format(#chosen) or "tiers:")
  for _, name in ipairs(ctx.params.tier and { ctx.params.tier } or catalog.tier_names) do ctx.log(tier_row(name, chosen)) end
  for _, name in ipairs(chosen and ctx.params.tier and { ctx.params.tier } or {}) do
    local range = catalog.tiers[name].tools
    if #chosen < range[1] or range[2] and #chosen > range[2] then
      ctx.warn(("%d tools, tier %s is meant for %d to %s"):format(#chosen, name, range[1], range[2] or "all"))
    end
  end
end

return runbook {
  name = "catalog", summary = "Show tools, tiers and memory", section = "2.2",
  params = {
    tools = param.list { of = param.enum(catalog.names()), default = {}, description = "the chosen tools (all)" },
    tier = param.enum { "lite", "build", "scale", "enterprise", optional = true, description = "the tier to look at (all)" },
    json = param.boolean { default = false, description = "the same as JSON" },
  },
  steps = {
    step { name = "catalog", title = "Catalog", class = "pure", apply = show },
  },
}
