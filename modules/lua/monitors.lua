-- monitors.lua: what Uptime Kuma watches on a tenant's server (section 6.1), as data. It tells
-- nobody: that is the step of provisioning.

local monitors = {}

-- Disk use above this is an alert, and a certificate that ends in fewer days.
monitors.disk, monitors.days = 85, 14
monitors.every = 300

-- N failures in a row are an alert: Uptime Kuma counts the tries after the first.
local function http(name, url, interval, failures, more)
  local m = { name = name, type = "http", url = url, interval = interval, retryInterval = interval, maxretries = failures - 1 }
  for k, v in pairs(more or {}) do m[k] = v end
  return m
end

-- monitors.pushed(ids) -> ids of the tools that answer nobody: the server itself says of them
-- whether they run
function monitors.pushed(ids)
  local list = {}
  for _, id in ipairs(catalog.sorted(ids)) do
    if not stack.address(stack.get(id)) then list[#list + 1] = id end
  end
  return list
end

-- monitors.of(p) -> list of { name, type = "http" | "push", url or push, interval, retryInterval,
-- maxretries }, in seconds. `push` is what follows the secret in the token. A `refuse` is a
-- text that no good answer holds.
function monitors.of(p)
  local openclaw, proxy = stack.get "openclaw", stack.get "secrets-proxy"
  local list = {
    http("nginx", "http://127.0.0.1/.lbrun-health", 60, 3),
    http("OpenClaw", (stack.address(openclaw)), 60, 2), http("Secrets Proxy", (stack.address(proxy)), 60, 2),
    http("Certificate", ("https://%s"):format(p.domain), 86400, 1, { expiryNotification = true, expiryDays = monitors.days }),
    { name = "Disk", type = "push", push = "disk", interval = monitors.every, retryInterval = monitors.every, maxretries = 0 },
  }
  local pushed = {}
  for _, id in ipairs(monitors.pushed(p.tools)) do pushed[id] = true end
  for _, id in ipairs(catalog.sorted(p.tools)) do
    local url, health = stack.address(stack.get(id))
    local name = catalog.get(id).name
    list[#list + 1] = pushed[id] and { name = name, type = "push", push = id, interval = monitors.every,
      retryInterval = monitors.every, maxretries = 2 } or http(name, url, 120, 3, { headers = health.headers, refuse = health.refuse })
  end
  return list
end

return monitors
