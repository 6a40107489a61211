-- deprovision.lua: a tenant that has cancelled (section 8.1): 48 hours in which `lbrun abandon`
-- takes it back, 30 days of export, then, behind a typed confirmation, everything of the
-- tenant is destroyed, item by item, each probed, and a certificate lists it. Billing records
-- stay. Netcup cancels no server: the certificate's run says what a person has to cancel.

local cooling, window = 48 * 3600, 30 * 86400

local function requested(ctx)
  local at = ctx.state_get "requested"
  if not at then
    at = ctx.now()
    ctx.state_set("requested", at)
  end
  return at
end

local function told(ctx, call, key, fields)
  return hub.report(ctx, { call = call, key = key, fields = fields })
end

-- What was destroyed, when; the certificate reads it.
local function record(ctx, name, text)
  if not ctx.state_get("did " .. name) then ctx.state_set("did " .. name, { at = ctx.now(), text = text }) end
end

-- The address in ssh://user@address:port; nil: this machine. A name could lead anywhere by now.
local function address_of(target)
  if not target:match("^ssh://") then return nil end
  local host = target:gsub("%?.*$", ""):match("^ssh://(.+)$"):gsub("^[^@]*@", "")
  host = host:match("^%[([%x:]+)%]") or host:gsub(":%d+$", "")
  if not host:match("^%d+%.%d+%.%d+%.%d+$") and not host:find(":", 1, true) then
    fail("params", ("target=%s: name the server by its address, by which it is compared with netcup's; nothing was changed"):format(target))
  end
  return host
end

-- The server at netcup, if it is this tenant's: by its nickname and by the address that we log
-- in at. nil: it was wiped and released by this run.
local function own_server(ctx)
  local p = ctx.params
  local server = scp.server(p.server)
  local want = netcup.nickname(p.tenant)
  -- Its name is the last that is taken away; by now it may be somebody else's.
  if ctx.state_get "released" or (ctx.state_get "wiped" and server.nickname ~= want) then return nil, server end
  if server.nickname ~= want then
    fail("identity", ("server %d at netcup has the nickname '%s', not %s: it is not this tenant's, nothing more is done")
      :format(p.server, server.nickname or "", want))
  end
  local host = address_of(p.target)
  local known = not host or host:match("^127%.") ~= nil
  for _, a in ipairs(server.ipv4Addresses or {}) do known = known or a.ip == host end
  for _, a in ipairs(server.ipv6Addresses or {}) do known = known or netcup.within(host, a.networkPrefix) end
  if not known then
    fail("identity", ("server %d at netcup does not have the address %s: it is not the one that would be stopped; "
      .. "nothing more is done"):format(p.server, host))
  end
  return server
end

local function irreversible(name, title, item, probe, apply)
  return step { name = name, title = title, class = "irreversible",
    probe = function(ctx)
      local left = probe(ctx)
      if left then return pending(left) end
      -- What is gone but not yet in the certificate was destroyed by an attempt that died.
      return ctx.state_get("did " .. name) and done() or pending("enter it in the certificate")
    end,
    apply = function(ctx)
      -- A clock that had jumped ahead, and was put right since, ends no time early.
      local until_ = requested(ctx) + cooling + window
      if ctx.now() < until_ then ctx.later({ at = until_ }, "the export is open until " .. calendar.utc(until_)) end
      own_server(ctx)
      if probe(ctx) then apply(ctx) end
      local text = type(item) == "function" and item(ctx) or item
      record(ctx, name, text)
    end }
end

local function snapshots_left(ctx)
  local names = {}
  for _, s in ipairs(scp.snapshots(ctx.params.server)) do names[#names + 1] = s.name end
  return names
end

-- The zone at netcup that holds the domain, or nil and why its records are not ours to remove.
local function zone_of(ctx)
  local known = ctx.state_get "zone"
  if not known then
    local fine, zone = pcall(netcup.zone_of, ctx.params.domain)
    if fine then known = zone and { name = zone } or { why = "netcup holds no zone of it" }
    elseif type(zone) == "table" and zone.code == "key" and not zone.login then
      known = { why = "there are no credentials of netcup's DNS interface" }
    else error(zone, 0) end
    if not ctx.planning then ctx.state_set("zone", known) end
  end
  return known.name, known.why
end

local function addresses(ctx)
  local list = {}
  for _, a in ipairs(scp.server(ctx.params.server).ipv4Addresses or {}) do list[#list + 1] = a.ip end
  return list
end

local function records_left(ctx)
  local zone, list = zone_of(ctx), {}
  if not zone then return list end
  for _, r in ipairs(netcup.leading_to(zone, scp.server(ctx.params.server))) do
    -- Only names of this tenant, should the zone hold others.
    local name = r.hostname == "@" and zone or r.hostname .. "." .. zone
    local domain = ctx.params.domain
    if name == domain or name:sub(-#domain - 1) == "." .. domain then list[#list + 1] = r end
  end
  return list, zone
end

local function rdns_left(ctx)
  local list = {}
  for _, ip in ipairs(addresses(ctx)) do
    if scp.rdns(ip).name then list[#list + 1] = ip end
  end
  return list
end

local function year_of(epoch)
  return tonumber(calendar.utc(epoch):sub(1, 4))
end

-- What a person has to see to; the certificate says so too, for it lists only what was done.
local function left_over(ctx)
  local p, list = ctx.params, {}
  local row = p.hub_url and ctx.state_get "revoked"
  if not p.hub_url then list[#list + 1] = "the Hub's key: no Hub was named, revoke it there"
  elseif row and row ~= "sent" then list[#list + 1] = "the Hub's key: the Hub has not taken the revocation yet (lbrun outbox)" end
  if not p.remote then list[#list + 1] = "remote backups: no remote= was named" end
  local zone, why = zone_of(ctx)
  if not zone then list[#list + 1] = ("DNS records of %s: %s, remove them where they are"):format(p.domain, why) end
  return list
end

local items = { "key", "server-content", "snapshots", "names", "server" }

local function certificate_of(ctx)
  local p = ctx.params
  local keep = ("%d-12-31"):format(year_of(ctx.now()) + p.billing_retention)
  local lines = { ("Certificate of deletion: tenant %s (%s)"):format(p.tenant, p.domain),
    ("requested %s, run %s"):format(calendar.utc(requested(ctx)), ctx.run), "destroyed:" }
  for _, name in ipairs(items) do
    local did = ctx.state_get("did " .. name)
    if did then lines[#lines + 1] = ("  %s  %s"):format(calendar.utc(did.at), did.text) end
  end
  local left = left_over(ctx)
  if #left > 0 then lines[#lines + 1] = "not destroyed by this run:" end
  for _, text in ipairs(left) do
    lines[#lines + 1] = "  " .. text
    ctx.warn("not destroyed by this run: " .. text)
  end
  lines[#lines + 1] = "kept:"
  lines[#lines + 1] = ("  billing records, until %s (%d years from the end of the year; have the term checked, "
    .. "the statute's own are 6, 8 and 10)"):format(keep, p.billing_retention)
  lines[#lines + 1] = "  lbrun's journal of this run"
  if p.customer_remote then
    lines[#lines + 1] = ("  backups on the customer's own remote %s: not ours to delete"):format(p.customer_remote)
  end
  return table.concat(lines, "\n"), keep
end

local function waiting_steps(p)
  local list = {
    step { name = "cooling-off", title = "48 hours in which it can be taken back", class = "pure", apply = function(ctx)
      local until_ = requested(ctx) + cooling
      if ctx.now() < until_ then
        ctx.later({ at = until_ }, ("the cooling-off of %s ends at %s; until then it is taken back by: "
          .. "lbrun abandon %s --reason TEXT"):format(p.tenant, calendar.utc(until_), ctx.run))
      end
    end },
    step { name = "export", title = "The customer is told", class = "compensable", rerun = true, apply = function(ctx)
      local until_ = requested(ctx) + cooling + window
      told(ctx, "notice", "export", { kind = "export", subject = "Your data can be exported",
        text = ("until %s: files by Nextcloud, CRM by Odoo, mail by IMAP, %sor a full backup"):format(calendar.utc(until_),
          p.export_ssh_public_key and "everything by SSH as letsbe-export, " or "") })
    end },
  }
  if p.full_backup then
    list[#list + 1] = step { name = "full-backup", title = "A full backup, as the customer wished", class = "compensable", rerun = true,
      apply = function(ctx) ctx.child { runbook = "backup.lua", target = p.target, params = { recipients = p.recipients } } end }
  end
  -- By SSH the customer sees everything. Run once to open and once to close.
  local function access(ctx, open)
    local given = { tenant = p.tenant, open = open, admin_user = p.admin_user, ssh_port = p.ssh_port }
    if open then given.key = p.export_ssh_public_key end
    ctx.child { runbook = "deprovision/export.lua", target = p.target, params = given }
  end
  if p.export_ssh_public_key then
    list[#list + 1] = step { name = "export-access", title = "SSH access for the customer", class = "compensable", rerun = true,
      apply = function(ctx) access(ctx, true) end }
  end
  list[#list + 1] = step { name = "export-window", title = "30 days of export", class = "pure", apply = function(ctx)
    local until_ = requested(ctx) + cooling + window
    if ctx.now() < until_ then
      local close = ("; should it be taken back, end the customer's access too: lbrun runbooks/deprovision/export.lua open=false "
        .. "tenant=%s -t %s"):format(p.tenant, p.target)
      ctx.later({ at = until_ }, ("the export of %s is open until %s%s"):format(p.tenant, calendar.utc(until_),
        p.export_ssh_public_key and close or ""))
    end
  end }
  if p.export_ssh_public_key then
    list[#list + 1] = step { name = "export-closed", title = "SSH access for the customer ends", class = "compensable", rerun = true,
      apply = function(ctx) access(ctx, false) end }
  end
  list[#list + 1] = step { name = "identity", title = "It is this tenant's server", class = "pure",
    apply = function(ctx)
      own_server(ctx)
      local lost = netcup.find("lost-" .. p.tenant)
      if lost then
        fail("identity", ("server %d (lost-%s) still holds data of this tenant: wipe it in netcup's control panel and give it the "
          .. "nickname %s, then resume; nothing was destroyed"):format(lost.id, p.tenant, netcup.free))
      end
      -- That netcup answers for the names is known before anything is destroyed.
      zone_of(ctx)
    end }
  return list
end

local function destroying_steps(p)
  -- "remote:" and "remote:BUCKET" alike; after the colon a slash would be the root.
  local base = (p.remote or ""):gsub("/+$", "")
  local backups = p.remote and ("%s%sbackups/%s/"):format(base, base:sub(-1) == ":" and "" or "/", p.tenant) or nil
  local purged = backups and ("; remote backups %s purged"):format(backups) or ""
  return {
    irreversible("key", "The Hub's key is revoked", function(ctx)
      -- The same report again: one that was entered and not sent is sent now.
      local row = told(ctx, "revocation", nil, { reason = "cancelled" })
      ctx.state_set("revoked", row and row.status or "none")
      return row and row.status == "sent" and "the Hub key was revoked" or row and "the revocation of the Hub key was sent on its way"
        or "nothing: no Hub was named"
    end, function(ctx)
      return p.hub_url and not ctx.reported "revocation" and "revoke it" or nil
    end, function(ctx) told(ctx, "revocation", nil, { reason = "cancelled" }) end),
    irreversible("server-content", "Containers and remote backups", "containers stopped" .. purged, function(ctx)
      return not ctx.state_get "stopped" and "stop the containers" .. (p.remote and ", purge the remote backups" or "") or nil
    end, function(ctx)
      ctx.child { runbook = "deprovision/stop.lua", target = p.target, params = { tenant = p.tenant, backups = backups } }
      ctx.state_set("stopped", true)
    end),
    -- Before the server: afterwards nobody can name them any more.
    irreversible("snapshots", "Snapshots at netcup", "all snapshots at netcup deleted", function(ctx)
      local names = snapshots_left(ctx)
      return #names > 0 and "delete " .. table.concat(names, ", ") or nil
    end, function(ctx)
      for _, name in ipairs(snapshots_left(ctx)) do scp.wait(scp.snapshot_delete(p.server, name), { interval = 0.5 }) end
    end),
    irreversible("names", "DNS and reverse DNS", function(ctx)
      return zone_of(ctx) and "DNS records and reverse DNS removed" or "reverse DNS removed"
    end, function(ctx)
      local records, reverse = records_left(ctx), rdns_left(ctx)
      local text = netcup.text_of(records)
      for _, ip in ipairs(reverse) do text = ("%s\n- reverse DNS of %s"):format(text, ip) end
      return text ~= "" and text or nil
    end, function(ctx)
      local records, zone = records_left(ctx)
      if #records > 0 then scp.dns_update(zone, records) end
      for _, ip in ipairs(rdns_left(ctx)) do scp.delete_rdns(ip) end
    end),
    irreversible("server", "The server is wiped and released", "the server was wiped by installing it anew, and released", function(ctx)
      if ctx.state_get "released" then return nil end
      return ("wipe server %d and give it back to the pool"):format(p.server)
    end, function(ctx)
      local server = own_server(ctx)
      if server then
        local flavour = scp.find_image(p.server, { name = p.image, uefi = server.serverLiveInfo.uefi })
        netcup.once(ctx, { key = "wipe", server = p.server, kind = "ServerImageSetupTask", timeout = "1h", start = function()
          return scp.reinstall(p.server, { image = flavour.id, hostname = "free.invalid", full_disk = true, ssh_passwords = false })
        end })
        netcup.power(ctx, { server = p.server, on = false })
        ctx.state_set("wiped", true)
        netcup.rename(p.server, netcup.free)
      end
      ctx.state_set("released", true)
      ctx.log(("server %d is free (nickname %s); to end its contract, cancel it in netcup's customer control panel")
        :format(p.server, netcup.free))
    end),
    step { name = "certificate", title = "Certificate of deletion", class = "compensable", rerun = true, apply = function(ctx)
      local text, keep = certificate_of(ctx)
      ctx.log(text)
      told(ctx, "deletion", nil, { reason = "cancelled", keep_billing_until = keep, certificate = text })
    end },
  }
end

return runbook {
  name = "deprovision", summary = "Take a tenant down after a cancellation", section = "8.1",
  params = {
    tenant = param.string { pattern = "^[a-z][a-z0-9-]*$", max = 40, description = "the customer's short name" },
    domain = param.string { pattern = "^[a-z0-9][a-z0-9.-]*%.[a-z][a-z0-9-]+$", description = "the customer's domain" },
    target = param.string { pattern = "^%l+:", description = "the server: ssh://user@address:port" },
    server = param.integer { description = "its id at netcup" },
    full_backup = param.boolean { default = false, description = "make a full backup for the customer" },
    recipients = param.list { of = param.string { pattern = "^age1[a-z0-9]+$" }, default = {}, description = "whom that is sealed to" },
    export_ssh_public_key = param.ssh_public_key { optional = true,
      description = "the customer's, who may log in as letsbe-export during the export" },
    admin_user = param.string { pattern = "^[a-z_][a-z0-9_-]*$", max = 32, default = "letsbe-admin", description = "the server's account" },
    ssh_port = param.integer { min = 1, max = 65535, default = 22022, description = "where sshd listens" },
    remote = param.string { optional = true, pattern = "^[%w_-]+:[%w._/-]*$",
      description = "rclone's remote of our backups, to purge backups/TENANT/" },
    customer_remote = param.string { optional = true, description = "the customer's own remote; it is left alone" },
    billing_retention = param.integer { min = 1, max = 30, default = 7, description = "years, from the end of this one" },
    image = param.string { default = "Debian 12", description = "what the server is wiped with" },
    hub_url = param.string { optional = true, pattern = "^https?://", description = "the Hub" },
    runner_token = param.secret { optional = true, description = "the Hub's token" },
  },
  preflight = function(ctx)
    address_of(ctx.params.target)
    hub.check(ctx, "tenant")
  end,
  steps = function(p)
    local list = waiting_steps(p)
    for _, one in ipairs(destroying_steps(p)) do list[#list + 1] = one end
    return list
  end,
}
