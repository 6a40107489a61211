-- fulfil.lua: an order becomes a running tenant (section 3.1). Each step is a state of the
-- order; a step that has to wait parks the run, and `lbrun worker` goes on when it is due, for
-- days if need be. It sells nothing: an empty pool waits and says what to order.

local retries = { "1m", "5m", "15m" }
-- What provision.lua is told as it stands in the order or in the defaults.
local shared = include "provision/params"
local every = { pool = "10m", login = "15m", netcup = "5m", server = "1m", names = "5m" }

local function names_of(p)
  local list = { p.domain }
  for _, id in ipairs(p.tools) do
    local tool = catalog.get(id)
    if tool.subdomain then list[#list + 1] = tool.subdomain .. "." .. p.domain end
  end
  return list
end

local function told(ctx, call, key, fields)
  return hub.report(ctx, { call = call, key = key, fields = fields, args = { job_id = ctx.params.job_id or ctx.params.order } })
end

-- What passes by itself at netcup, or when somebody has logged in, is waited for.
local function patient(ctx, fn)
  local fine, result, more = pcall(fn)
  if fine then return result, more end
  local err = type(result) == "table" and result or {}
  if err.login then ctx.later(every.login, err.message .. "; the order waits for: " .. err.login) end
  if err.passing then ctx.later(every.netcup, err.message) end
  error(result, 0)
end

-- Seconds since this was called first.
local function waited(ctx, what)
  local since = ctx.state_get("since " .. what)
  if not since then
    since = ctx.now()
    ctx.state_set("since " .. what, since)
  end
  return ctx.now() - since
end

-- A child run on the order's server. That it cannot be reached is not its own failure.
local function on_server(ctx, book, given, otherwise)
  local fine, result = pcall(ctx.child, { runbook = book, params = given,
    target = ctx.params.target or ("ssh://root@%s:22"):format(ctx.state_get "address") })
  if fine then return result end
  local code = type(result) == "table" and result.code
  if code == "connect" or code == "lost" then otherwise(result.message) end
  error(result, 0)
end

local function state(name, title, def, apply)
  def.name, def.title = name, title
  def.class = def.class or "compensable"
  -- Each apply finds what an earlier one did: claims by nickname, tasks by netcup's list,
  -- reports by their key, child runs by the journal.
  def.rerun = true
  def.apply = function(ctx)
    told(ctx, "job", name, { status = "RUNNING", step = name })
    apply(ctx)
  end
  return step(def)
end

local function claim(ctx)
  local p, needs = ctx.params, nil
  if p.restore then
    local lost = patient(ctx, function()
      return netcup.step_aside(ctx, { tenant = p.tenant, region = p.region, other_region = p.other_region, lost = p.lost_server })
    end)
    if lost then
      needs = netcup.facts(lost)
      ctx.log(("server %d is lost, and keeps what is on it under the nickname lost-%s"):format(lost.id, p.tenant))
    end
  end
  local server, why = patient(ctx, function()
    local found, text = netcup.claim(ctx, { tenant = p.tenant, tier = p.tier, region = p.region, server = p.server, needs = needs,
      manual = p.mode == "manual" and not p.server })
    return found, text or ("order %s waits for a person: give its server the nickname %s"):format(p.order, netcup.nickname(p.tenant))
  end)
  if not server then ctx.later(every.pool, why) end
  local address = netcup.address(server)
  if not address then fail("netcup", ("server %d has no IPv4 address"):format(server.id)) end
  ctx.state_set("server", server.id)
  ctx.state_set("address", address)
  ctx.log(("server %d, %s"):format(server.id, address))
end

local function install(ctx)
  local p, id = ctx.params, ctx.state_get "server"
  if p.install then
    patient(ctx, function()
      local key = netcup.key("lbrun-" .. p.tenant, p.admin_ssh_public_key)
      local flavour = scp.find_image(id, { name = p.image, uefi = scp.server(id).serverLiveInfo.uefi })
      netcup.once(ctx, { key = "install", server = id, kind = "ServerImageSetupTask", timeout = "1h", start = function()
        return scp.reinstall(id, { image = flavour.id, hostname = p.domain, ssh_keys = { key }, full_disk = true, ssh_passwords = false })
      end })
    end)
  end
  -- What earlier runs knew of a server at this address was another system's.
  if p.install and not ctx.state_get "forgotten" then
    local address = ctx.state_get "address"
    ctx.forget(p.target or ("ssh://root@%s:22"):format(address))
    ctx.forget(("ssh://%s@%s:%d"):format(p.admin_user, address, p.ssh_port))
    ctx.state_set("forgotten", true)
  end
  patient(ctx, function() netcup.power(ctx, { server = id, on = true }) end)
  on_server(ctx, "fulfil/ready.lua", { tenant = p.tenant }, function(message)
    if waited(ctx, "first contact") > duration(p.server_deadline) then
      fail("server", ("the server was not reached for %d hours: %s"):format(waited(ctx, "first contact") // 3600, message))
    end
    ctx.later(every.server, message)
  end)
end

local function ready(ctx)
  local p, address = ctx.params, ctx.state_get "address"
  patient(ctx, function()
    if scp.rdns(address).name ~= p.domain then scp.set_rdns(address, p.domain) end
  end)
  told(ctx, "connection", "root", { host = address, port = 22, user = "root" })
end

-- The zone at netcup that holds the domain, or nil. It is asked once: netcup counts each
-- question for a zone that is not ours as an error, and blocks who makes too many.
local function zone_of(ctx)
  local known = ctx.state_get "zone"
  if known ~= nil then return known or nil end
  local fine, zone = pcall(patient, ctx, function() return netcup.zone_of(ctx.params.domain) end)
  if fine then
    ctx.state_set("zone", zone or false)
    return zone
  end
  -- Without credentials of the DNS interface no zone is ours.
  if type(zone) == "table" and zone.code == "key" then
    ctx.warn(zone.message)
    return nil
  end
  error(zone, 0)
end

local function make_names(ctx)
  local p, address = ctx.params, ctx.state_get "address"
  local names, zone = names_of(p), zone_of(ctx)
  if zone then
    patient(ctx, function()
      local list = netcup.record_changes(zone, names, address)
      if #list > 0 then
        ctx.log(("zone %s:\n%s"):format(zone, netcup.text_of(list)))
        scp.dns_update(zone, list)
      end
    end)
  elseif not ctx.state_get "listed" then
    local lines = {}
    for i, name in ipairs(names) do lines[i] = ("%s. A %s"):format(name, address) end
    local text = "the customer's name server needs:\n" .. table.concat(lines, "\n")
    ctx.log(text)
    told(ctx, "notice", "dns", { kind = "dns", subject = "DNS records that are needed", text = text })
    ctx.state_set("listed", true)
  end
  local fine, err = pcall(on_server, ctx, "fulfil/names.lua",
    { tenant = p.tenant, domain = p.domain, address = address, names = names, resolvers = p.resolvers },
    function(message) ctx.later(every.server, message) end)
  if fine then return end
  if type(err) ~= "table" or err.code ~= "dns" then error(err, 0) end
  if waited(ctx, "names") > duration(p.dns_deadline) then
    fail("server", ("the names do not lead to the server after %d days: %s"):format(waited(ctx, "names") // 86400, err.message))
  end
  ctx.later(every.names, err.message)
end

local function provision(ctx)
  local p, given = ctx.params, {}
  for _, name in ipairs { "tenant", "domain", "tier", "region", "tools", "admin_ssh_public_key", "admin_user", "ssh_port",
    "docker_source" } do given[name] = p[name] end
  for name in pairs(shared) do given[name] = p[name] end
  -- An attempt that failed is not yet the order's failure, nor is its end the order's.
  given.report_job = false
  if p.hub_url then given.job_id = p.job_id or p.order end
  if p.restore then given.date = p.date end
  on_server(ctx, p.restore and p.restore_server or p.provision, given, function(message) fail("server", message) end)
end

local function with(params)
  for name, p in pairs(shared) do params[name] = p end
  return params
end

return runbook {
  name = "fulfil", summary = "From an order to a running tenant", section = "3.1",
  params = with {
    order = param.string { pattern = "^[%w][%w._-]*$", max = 80, description = "the order's id; it is carried out once" },
    tenant = param.string { pattern = "^[a-z][a-z0-9-]*$", max = 40, description = "the customer's short name" },
    domain = param.string { pattern = "^[a-z0-9][a-z0-9.-]*%.[a-z][a-z0-9-]+$", description = "the customer's domain" },
    tier = param.enum { "lite", "build", "scale", "enterprise", default = "lite", description = "the size that was bought" },
    region = param.enum { "eu", "na", default = "eu", description = "where the server stands" },
    tools = param.list { of = param.enum(catalog.names()), default = {}, description = "the chosen tools" },
    mode = param.enum { "auto", "manual", default = "auto", description = "manual: a person names the server" },
    server = param.integer { optional = true, description = "netcup's id of the server that is to be taken" },
    image = param.string { default = "Debian 12", description = "what the server is installed with" },
    install = param.boolean { default = true, description = "install the image; it wipes the server" },
    admin_ssh_public_key = param.ssh_public_key { description = "its private half must be at hand here" },
    admin_user = param.string { pattern = "^[a-z_][a-z0-9_-]*$", max = 32, default = "letsbe-admin", description = "the server's account" },
    ssh_port = param.integer { min = 1, max = 65535, default = 22022, description = "where sshd listens afterwards" },
    docker_source = param.enum { "docker-ce", "distro", default = "docker-ce", description = "as of provision.lua" },
    resolvers = param.list { of = param.string { pattern = "^[%d.]+:?%d*$" }, min = 2, default = { "1.1.1.1", "9.9.9.9" },
      description = "that must know the names, beside the zone's own servers" },
    dns_deadline = param.duration { default = "14d", description = "how long the names are waited for" },
    server_deadline = param.duration { default = "6h", description = "how long the first contact is waited for" },
    target = param.string { optional = true, pattern = "^%l+:", description = "how the server is reached, where not by its address" },
    provision = param.string { default = "provision.lua", description = "the runbook that sets it up" },
    restore = param.boolean { default = false, description = "the tenant has lost its server: another is claimed, and its data restored" },
    restore_server = param.string { default = "restore-server.lua", description = "the runbook that does it" },
    lost_server = param.integer { optional = true, description = "of a restore: the id of a server that is lost though not off" },
    other_region = param.boolean { default = false, description = "of a restore: not where the lost server stands" },
    date = param.string { optional = true, pattern = "^%d%d%d%d%-%d%d%-%d%d$", description = "of a restore: the backup's day" },
    remote_config = param.secret { optional = true, description = "of a restore: rclone configuration with a section [remote]" },
    recovery_key = param.secret { optional = true, description = "of a restore: the age identity of the credentials" },
  },
  steps = {
    state("PAYMENT_CONFIRMED", "A server is claimed", {}, claim),
    state("AWAITING_SERVER", "It is installed and reached", { retry = retries }, install),
    state("SERVER_READY", "It has its name", { retry = retries }, ready),
    state("DNS_PENDING", "The names lead to it", { retry = retries }, make_names),
    state("DNS_READY", "It can be provisioned", {}, function() end),
    state("PROVISIONING", "provision.lua", { retry = retries }, provision),
    step { name = "FULFILLED", title = "The customer is told", class = "compensable", rerun = true, apply = function(ctx)
      told(ctx, "connection", "hardened", { host = ctx.state_get "address", port = ctx.params.ssh_port, user = ctx.params.admin_user })
      told(ctx, "notice", "fulfilled", { kind = "fulfilled", subject = "The server is ready", text = "https://" .. ctx.params.domain })
      told(ctx, "job", "fulfilled", { status = "COMPLETED", step = "FULFILLED" })
    end },
  },
  request = function(p) return "order/" .. p.order end,
  preflight = function(ctx)
    hub.check(ctx, "order")
    for _, name in ipairs(ctx.params.restore and { "remote_config", "recovery_key" } or {}) do
      if not pcall(ctx.secret, name) then fail("key", ("a restore needs %s=@FILE"):format(name)) end
    end
  end,
  on_failure = function(ctx, why)
    told(ctx, "job", "failed " .. why.number, { status = "FAILED", step = why.step, message = why.message })
  end,
}
