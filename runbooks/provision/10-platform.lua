-- 10-platform.lua: step 10: OpenClaw with the Safety Wrapper, and the Secrets Proxy. A server without
-- tools gets none: there is nothing for agents to work with.
local home = "/home/node/.openclaw"

local function agents()
  local list, all = {}, data "openclaw/agents.lua"
  for i, a in ipairs(all) do
    list[i] = { id = a.id, name = a.name, role = a.role, text = a.text, default = i == 1, last = i == #all,
      workspace = home .. "/workspace-" .. a.id }
  end
  return list
end

local function config(p)
  local fallbacks = {}
  for i = 2, #p.models do fallbacks[i - 1] = p.models[i] end
  local part = catalog.platform.openclaw
  return { port = part.port, models = p.models, fallbacks = fallbacks, agents = agents(), extension = part.extension }
end

local function deploy(id, p)
  local resources = stack.resources(stack.get(id), p)
  if id == "openclaw" then
    local dir = stack.dir .. "/openclaw/config"
    table.insert(resources, #resources, directory.present { path = dir, mode = "0755", owner = "root", group = "root" })
    -- Its token comes from the environment: nothing in the file is secret.
    table.insert(resources, #resources, file.template { path = dir .. "/openclaw.json", template = "openclaw/openclaw.json",
      vars = config(p), mode = "0644", owner = "root", group = "root" })
  end
  return step { name = "platform/" .. id, title = catalog.part(id).name, class = "compensable", tags = { "platform" },
    resources = resources }
end

return function(p)
  if #p.tools == 0 then return {} end
  return { deploy("openclaw", p), deploy("secrets-proxy", p) }
end
