-- tools.lua: adds tools to a tenant's running server and removes tools from it. What is removed
-- is backed up first and keeps its volumes and credentials, unless delete_volumes=true. Steps
-- 9 to 11 of provisioning then run for the whole new set, as a child run of this runbook
-- with tools=SET. It changes nothing else of a server.

local sites = nginx.dir .. "/sites"

local function set_of(list)
  local set = {}
  for _, id in ipairs(list) do set[id] = true end
  return set
end

-- What stands on the server now, in the catalog's order.
local function deployed(t)
  local list = {}
  local out = t:run(("for f in %s/*/docker-compose.yml; do [ -e \"$f\" ] && basename \"$(dirname \"$f\")\"; done; true")
    :format(stack.dir)).stdout
  for id in out:gmatch("[^\n]+") do list[#list + 1] = id end
  return catalog.sorted(list)
end

local function wanted(t, p)
  local set = set_of(deployed(t))
  for _, id in ipairs(p.add) do set[id] = true end
  for _, id in ipairs(p.remove) do set[id] = nil end
  return catalog.sorted(sorted_keys(set))
end

-- The chain of models that the agents have: it was chosen when the server was made.
local function models(t)
  local path = stack.dir .. "/openclaw/config/openclaw.json"
  if not t:exists(path) then return nil end
  local model = json.decode(t:get(path)).agents.defaults.model
  return { model.primary, table.unpack(model.fallbacks) }
end

local function refuse(text, ...) fail("params", text:format(...) .. "; nothing was changed") end

local function preflight(ctx)
  local p, t = ctx.params, ctx.root
  if #p.tools > 0 and #p.add + #p.remove > 0 then refuse "give add and remove, or tools, not both" end
  if #p.tools + #p.add + #p.remove == 0 then refuse "add=LIST or remove=LIST is needed" end
  if p.delete_volumes and #p.remove == 0 then refuse "delete_volumes goes with remove" end
  local also = set_of(p.add)
  for _, id in ipairs(p.remove) do
    if also[id] then refuse("%s stands in add and in remove", id) end
    if catalog.get(id).core then refuse("%s is on every tenant's server and is not removed", id) end
  end
  local apex = sites .. "/01-apex.conf"
  if not t:exists(apex) then
    fail("not_found", "this server has no tools yet: provision it first, with runbooks/provision.lua; nothing was changed")
  end
  -- Its first server is for names that are nobody's.
  local domain
  for name in t:get(apex):gmatch("server_name%s+\"?([^;\"]+)\"?;") do domain = name ~= "_" and name or domain end
  if domain ~= p.domain then refuse("domain: this server is that of %s, not of %s", domain or "nobody", p.domain) end
  local all = #p.tools > 0 and p.tools or wanted(t, p)
  if #all == 0 then refuse "no tool would be left" end
  for _, text in ipairs(catalog.memory_warnings(all, p.tier, ctx.facts)) do
    if #p.tools > 0 then ctx.warn(text) end
  end
  hub.check(ctx)
end

local here = "[ -e %s/%s/docker-compose.yml ]"

local function backup_step(id)
  return step {
    name = "backup/" .. id, title = "Backup of " .. catalog.get(id).name, class = "compensable", tags = { "remove" },
    probe = function(ctx)
      if not ctx.target:try(here:format(stack.dir, id)).ok then return done "it is not deployed" end
      -- Made by this run: the engine finds the child that did it.
      return ctx.state_get("backup of " .. id) and done() or pending("back it up below " .. backup.base { tool = id })
    end,
    apply = function(ctx)
      ctx.child { runbook = "backup.lua", params = { tool = id } }
      ctx.state_set("backup of " .. id, true)
    end,
    verify = function() return true end,
  }
end

-- Sites first: a name that is nobody's is answered by nobody, not by an error of nginx.
local function remove_step(id, p)
  local s, list = stack.get(id), {}
  for _, site in ipairs(stack.sites(s, p)) do list[#list + 1] = nginx.site_absent { name = site.name } end
  list[#list + 1] = compose.down { project = id, dir = stack.dir .. "/" .. id }
  local ports = catalog.public_ports { id }
  if #ports > 0 then
    ports.routed = true
    list[#list + 1] = ufw.removed(ports)
  end
  if p.delete_volumes then
    list[#list + 1] = docker.volumes_absent(stack.compose(s, p).volumes)
    list[#list + 1] = credentials.absent { tool = id, secrets = stack.all_secrets(s) }
  end
  list[#list + 1] = file.absent { path = stack.dir .. "/" .. id, recursive = true }
  return step {
    name = "remove/" .. id, title = ("%s goes, its volumes %s"):format(catalog.get(id).name, p.delete_volumes and "too" or "stay"),
    class = p.delete_volumes and "irreversible" or "compensable", tags = { "remove" }, resources = list,
  }
end

-- Its first set-up went with its volumes: when it comes again, it is done again.
local function forget_step(id)
  local mark = ("f=$(docker volume inspect -f '{{.Mountpoint}}' openclaw-home 2>/dev/null)/.lbrun/setup-%s; "):format(id)
  return step {
    name = "forget/" .. id, title = ("First set-up of %s is to be done again"):format(catalog.get(id).name), class = "compensable",
    tags = { "remove" },
    probe = function(ctx)
      return ctx.target:try(mark .. "[ -e \"$f\" ]").ok and pending "remove OpenClaw's mark of it" or done()
    end,
    apply = function(ctx) ctx.target:run(mark .. "rm -f \"$f\"") end,
  }
end

local function deploy_step(p)
  local function text(ctx) return "steps 9 to 11 for " .. table.concat(wanted(ctx.target, p), ", ") end
  return step {
    name = "deploy", title = "The tools as they are to be", class = "compensable", tags = { "deploy" }, rerun = true, intent = text,
    apply = function(ctx)
      local params = { tools = wanted(ctx.target, p), models = models(ctx.target) }
      for _, name in ipairs { "tenant", "domain", "tier" } do params[name] = p[name] end
      for name in pairs(include "provision/params") do params[name] = params[name] or p[name] end
      ctx.child { runbook = "tools.lua", params = params }
    end,
  }
end

local function steps_of_set(p)
  local list, ports = {}, catalog.public_ports(p.tools)
  if #ports > 0 then
    ports.routed = true
    list[1] = step { name = "firewall", title = "Firewall", class = "reversible", resources = { ufw.allow(ports) } }
  end
  for _, file_ in ipairs { "provision/09-stacks", "provision/10-platform", "provision/11-verify" } do
    for _, one in ipairs(include(file_)(p)) do list[#list + 1] = one end
  end
  return list
end

local one = param.enum(catalog.names())
local params = {
  tenant = param.string { pattern = "^[a-z][a-z0-9-]*$", max = 40, description = "the customer's short name" },
  domain = param.string { pattern = "^[a-z0-9][a-z0-9.-]*%.[a-z][a-z0-9-]+$", description = "the customer's domain" },
  tier = param.enum { "lite", "build", "scale", "enterprise", optional = true, description = "the size that was bought" },
  add = param.list { of = one, default = {}, description = "tools that the server is to have as well" },
  remove = param.list { of = one, default = {}, description = "tools that go; each is backed up first" },
  delete_volumes = param.boolean { default = false, description = "what is removed loses its data and credentials on the server" },
  tools = param.list { of = one, default = {}, description = "instead: the whole set to bring up; what stands beside it stays" },
}
for name, p in pairs(include "provision/params") do params[name] = p end

return runbook {
  name = "tools", summary = "Add tools to a tenant's server, remove tools from it", section = "3.2", sudo = true,
  params = params, preflight = preflight,
  steps = function(p)
    if #p.tools > 0 then return steps_of_set(p) end
    local list = {}
    for _, id in ipairs(catalog.sorted(p.remove)) do
      list[#list + 1] = backup_step(id)
      list[#list + 1] = remove_step(id, p)
      if p.delete_volumes then list[#list + 1] = forget_step(id) end
    end
    list[#list + 1] = deploy_step(p)
    return list
  end,
}
