-- 09-stacks.lua: step 9: HTTPS for the tenant's names, then each chosen tool as a step of its
-- own: credentials, files, containers, site. Without a chosen tool there is nothing to do.
local function served(p)
  return function(s)
    return function(ctx)
      local vars = s and stack.site(s, p) or { host = p.domain }
      vars.ipv6 = ctx.target:exists("/proc/net/if_inet6")
      vars.tls = certificate.serving(ctx, p.domain, vars.host)
      return vars
    end
  end
end

local function tool_step(s, p)
  local dir = stack.dir .. "/" .. s.id
  local secrets = stack.secrets(s)
  local resources = {
    credentials.present { tool = s.id, secrets = secrets },
    directory.present { path = dir, mode = "0700", owner = "root", group = "root" },
    file.template {
      path = dir .. "/docker-compose.yml", template = "stack/compose.yml", vars = stack.compose(s, p), mode = "0600",
      owner = "root", group = "root",
    },
    file.template {
      path = dir .. "/.env", template = "stack/env", mode = "0600", owner = "root", group = "root",
      vars = function(ctx) return stack.env(s, p, credentials.of(ctx, s.id, secrets)) end,
    },
    compose.up { project = s.id, dir = dir, files = { ".env" }, wait = stack.grace(s) },
  }
  if s.nginx then
    resources[#resources + 1] = nginx.site { name = catalog.get(s.id).subdomain, template = "stack/site.conf", vars = served(p)(s) }
  end
  return step {
    name = "stacks/" .. s.id, title = catalog.get(s.id).name, class = "compensable", tags = { "stacks" },
    resources = resources,
  }
end

return function(p)
  local steps, names = {}, { p.domain }
  for _, id in ipairs(p.tools) do
    local s = stack.get(id)
    if s then
      steps[#steps + 1] = tool_step(s, p)
      if s.nginx then names[#names + 1] = stack.host(s, p) end
    end
  end
  if #steps == 0 then return {} end
  table.insert(steps, 1, step {
    name = "https", title = "HTTPS with a certificate of our own", class = "reversible", tags = { "stacks" },
    resources = {
      certificate.self_signed { names = names },
      nginx.site { name = "01-apex", template = "stack/apex.conf", vars = served(p)() },
    },
  })
  return steps
end
