-- 09-stacks.lua: step 9: HTTPS for the tenant's names, then each chosen tool as a step of its
-- own: credentials, files, containers, site. Without a chosen tool there is nothing to do.
local function served(p, site)
  return function(ctx)
    local vars = {}
    for k, v in pairs(site or { host = p.domain }) do vars[k] = v end
    vars.ipv6 = ctx.target:exists("/proc/net/if_inet6")
    vars.tls = certificate.serving(ctx, p.domain, vars.host)
    return vars
  end
end

local function tool_step(s, p)
  local resources = stack.resources(s, p)
  for _, site in ipairs(stack.sites(s, p)) do
    resources[#resources + 1] = nginx.site { name = site.name, template = "stack/site.conf", vars = served(p, site) }
  end
  return step {
    name = "stacks/" .. s.id, title = catalog.get(s.id).name, class = "compensable", tags = { "stacks" },
    resources = resources,
  }
end

-- What the others are told of GlitchTip it has to say first.
local function in_order(tools)
  local list = {}
  for _, id in ipairs(tools) do
    if id == "glitchtip" then table.insert(list, 1, id) else list[#list + 1] = id end
  end
  return list
end

local function projects(s, p)
  return step {
    name = "errors", title = "Projects of GlitchTip", class = "compensable", tags = { "stacks" },
    resources = { glitchtip.projects { tenant = p.tenant, host = stack.host(s, p), email = "admin@" .. p.domain,
      programs = glitchtip.programs(p.tools), restore = p.restore } },
  }
end

return function(p)
  local steps, names = {}, { p.domain }
  for _, id in ipairs(in_order(p.tools)) do
    local s = stack.get(id)
    if s then
      steps[#steps + 1] = tool_step(s, p)
      if id == "glitchtip" then steps[#steps + 1] = projects(s, p) end
      for _, host in ipairs(stack.hosts(s, p)) do names[#names + 1] = host end
    end
  end
  if #steps == 0 then return {} end
  local https = certificate.of_tenant(p, names)
  table.insert(https, 1, sealed.copy { recipients = p.recipients })
  https[#https + 1] = nginx.site { name = "01-apex", template = "stack/apex.conf", vars = served(p) }
  table.insert(steps, 1, step {
    name = "https", title = p.acme == "self-signed" and "HTTPS with a certificate of our own" or "HTTPS and its certificate",
    class = p.acme == "self-signed" and "reversible" or "compensable", tags = { "stacks" }, resources = https,
  })
  return steps
end
