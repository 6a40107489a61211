-- sources.lua: who is asked about a tenant: the Hub, the tenant's own server, netcup. Each
-- -> what it says; nil where it has nothing to do with this tenant; nil and why it is silent.
local sources = {}

function sources.hub(ctx, tenant)
  local health, why = hub.get(ctx, { call = "health", args = { tenant = tenant } })
  if type(health) == "table" then return health end
  return nil, "the Hub knows nothing: " .. tostring(why)
end

-- known.restarts: how often each container had been started again when it was last seen.
function sources.server(ctx, tenant, known)
  if not ctx.params.ssh or not ctx.known(tenant) then return nil end
  local fine, said = pcall(ctx.visit, tenant, ctx.source "fleet/look.sh", { timeout = 60 })
  if not fine then return nil, "its server: " .. (type(said) == "table" and said.message or tostring(said)) end
  if not said.stdout:find("containers known", 1, true) then
    return nil, "its Docker does not answer: " .. (said.stderr:match "[^\n]+" or "it says nothing")
  end
  local list, before, restarts = {}, known.restarts[tenant], {}
  for name, state, exit, oom, count, policy, health in
    said.stdout:gmatch("container /?(%S+) (%S+) (%-?%d+) (%a+) (%d+) (%S*) (%S+)\n") do
    restarts[name] = tonumber(count)
    list[#list + 1] = { name = name, state = state, exit = tonumber(exit), oom = oom == "true", health = health,
      once = policy == "no" or policy == "", restarted = before and tonumber(count) - (before[name] or 0) }
  end
  known.restarts[tenant] = restarts
  local percent, at = -1, nil
  for used, place in said.stdout:gmatch("disk (%d+) (%S+)") do
    if tonumber(used) > percent then percent, at = tonumber(used), place end
  end
  return { containers = list, disk_percent = percent >= 0 and percent or nil, disk_at = at }
end

-- The mean of all cores over the newest 15 minutes of netcup's series.
function sources.netcup(_, tenant, known)
  if not known.servers then return nil end
  local server = known.servers[netcup.nickname(tenant)]
  if not server then return nil, "no server at netcup has its nickname" end
  local fine, data = pcall(scp.metrics, server, "cpu", { hours = 1 })
  if not fine then return nil, tostring(data) end
  local newest, sum, count = 0, 0, 0
  for _, sample in ipairs(data.samples) do newest = math.max(newest, sample.at) end
  for _, sample in ipairs(data.samples) do
    if sample.at > newest - 15 * 60 then
      for _, value in pairs(sample.values) do sum, count = sum + value, count + 1 end
    end
  end
  return { cpu = count > 0 and sum / count or nil }
end

return sources
