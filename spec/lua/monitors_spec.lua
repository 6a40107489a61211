-- monitors_spec.lua: what Uptime Kuma is told to watch, against the specification's table.
local script = require "lb.script"
local sources = require "lb.sources"

local env = script.environment(sources.collect "runbooks/provision.lua")
local monitors, catalog = env.monitors, env.catalog

describe("the monitors #unit", function()
  local list = monitors.of { tenant = "acme", domain = "acme.example", tools = catalog.names() }
  local by_name = {}
  for _, m in ipairs(list) do by_name[m.name] = m end

  it("are one for each tool, and nginx, OpenClaw, the Secrets Proxy, the certificate and the disk", function()
    for _, id in ipairs(catalog.names()) do assert.truthy(by_name[catalog.get(id).name], id) end
    for _, name in ipairs { "nginx", "OpenClaw", "Secrets Proxy", "Certificate", "Disk" } do assert.truthy(by_name[name], name) end
    assert.equal(36, #list)
  end)

  it("have the intervals and thresholds of the specification; N failures are N-1 tries more", function()
    local function numbers(name) return { by_name[name].interval, by_name[name].retryInterval, by_name[name].maxretries + 1 } end
    assert.same({ 60, 60, 3 }, numbers "nginx")
    assert.same({ 60, 60, 2 }, numbers "OpenClaw")
    assert.same({ 60, 60, 2 }, numbers "Secrets Proxy")
    for _, id in ipairs(catalog.names()) do
      local m = by_name[catalog.get(id).name]
      if m.type == "http" then assert.same({ 120, 120, 3 }, numbers(m.name)) end
    end
    assert.same({ 86400, true, 14 }, { by_name.Certificate.interval, by_name.Certificate.expiryNotification, by_name.Certificate.expiryDays })
    assert.equal(300, by_name.Disk.interval)
  end)

  it("ask the health path that the catalog names, on the loopback; what answers nobody is pushed", function()
    assert.equal("http://127.0.0.1:18789/health", by_name.OpenClaw.url)
    assert.equal("http://127.0.0.1:8100/health", by_name["Secrets Proxy"].url)
    for _, m in ipairs(list) do
      if m.type == "http" and m.name ~= "Certificate" then assert.matches("^http://127%.0%.0%.1", m.url, m.name) end
      -- With 24 letters before it: Uptime Kuma's tokens are no longer than 32.
      if m.type == "push" then assert.matches("^%l+$", m.push); assert.is_true(#m.push <= 8) end
    end
    assert.same({ "diun" }, monitors.pushed { "ghost", "diun" })
  end)
end)
