-- certs.lua: the certificates of a tenant's server (section 7.3): renews those that are due, or
-- all with force=true, and shows for each name what nginx gives to a visitor. It orders none
-- for new names: provisioning does.

-- Domains with what certbot has for each.
local function lineages(ctx)
  local list = {}
  for _, domain in ipairs(certificate.lineages(ctx.target)) do
    local have = (not ctx.params.domain or ctx.params.domain == domain) and certificate.lineage(ctx.target, domain)
    if have then list[#list + 1] = { domain = domain, have = have } end
  end
  return list
end

-- Those of them that this run has to renew still.
local function to_renew(ctx, list)
  local before, failed = ctx.state_get "serials" or {}, ctx.state_get "failed" or {}
  local due = {}
  for _, item in ipairs(list) do
    local renewed = before[item.domain] and before[item.domain] ~= item.have.serial
    if not renewed and not failed[item.domain] and (ctx.params.force or certificate.due(item.have, ctx.facts.clock)) then
      due[#due + 1] = item
    end
  end
  return due
end

local function probe(ctx)
  local list, text = lineages(ctx), {}
  if #list == 0 and ctx.params.force then return pending "renew, but certbot has no certificate here" end
  for _, item in ipairs(to_renew(ctx, list)) do
    text[#text + 1] = ("renew %s, which ends in %d days"):format(item.domain, certificate.days(item.have, ctx.facts.clock))
  end
  for _, item in ipairs(list) do
    if not item.have.loaded then text[#text + 1] = "nginx has not read the certificate of " .. item.domain end
  end
  return #text == 0 and done() or pending(table.concat(text, "\n"))
end

local function apply(ctx)
  local list, clock = lineages(ctx), ctx.facts.clock
  if #list == 0 then fail("acme", "certbot has no certificate on this server: provisioning orders it, then it can be renewed") end
  local serials = ctx.state_get "serials"
  if not serials then
    serials = {}
    for _, item in ipairs(list) do serials[item.domain] = item.have.serial end
    ctx.state_set("serials", serials)
  end
  local due = {}
  for _, item in ipairs(to_renew(ctx, list)) do due[item.domain] = true end
  for _, item in ipairs(list) do
    local domain, fine, text = item.domain, true, nil
    if due[domain] then
      local words = { "renew", "--cert-name", domain, "--no-random-sleep-on-renew" }
      if ctx.params.force then words[#words + 1] = "--force-renewal" end
      fine, text = certificate.certbot(ctx, words, certificate.ca(ctx.target))
    end
    if fine then
      certificate.read_by_nginx(ctx, domain)
    else
      local why = ("the certificate of %s, which ends in %d days, was not renewed: %s"):format(domain,
        certificate.days(item.have, clock), certificate.complaint(text))
      if ctx.params.force or certificate.late(item.have, clock) then fail("acme", why) end
      local failed = ctx.state_get "failed" or {}
      failed[domain] = true
      ctx.state_set("failed", failed)
      ctx.warn(why)
    end
  end
end

-- One line a certificate; what somebody has to look at is a warning, what has ended a failure.
local function show(ctx)
  local clock, by_serial, order, ended = ctx.facts.clock, {}, {}, {}
  for _, item in ipairs(certificate.shown(ctx.target)) do
    if not item.cert then
      ctx.warn(("%s: nginx shows no certificate"):format(item.name))
    else
      local group = by_serial[item.cert.serial]
      if not group then
        group = { cert = item.cert, names = {} }
        by_serial[item.cert.serial] = group
        order[#order + 1] = group
      end
      group.names[#group.names + 1] = item.name
    end
  end
  for _, group in ipairs(order) do
    local cert, names = group.cert, table.concat(group.names, ", ")
    local days = certificate.days(cert, clock)
    ctx.log(("%s: issued by %s, %s"):format(names, cert.self_signed and "this server itself" or cert.issuer,
      days < 0 and "has ended" or ("ends in %d days"):format(days)))
    if cert.self_signed then ctx.warn(names .. ": a certificate of our own, which browsers do not trust") end
    if days < 0 then ended[#ended + 1] = names
    elseif certificate.late(cert, clock) then ctx.warn(("%s: the certificate ends in %d days"):format(names, days)) end
    for _, name in ipairs(group.names) do
      if not certificate.covers(cert.names, name) then ctx.warn(name .. ": the certificate that nginx shows is for other names") end
    end
  end
  local list = lineages(ctx)
  for _, item in ipairs(list) do
    if #order > 0 and not by_serial[item.have.serial] then
      ctx.warn(("%s: nginx shows another certificate than certbot has"):format(item.domain))
    end
  end
  local seen = certificate.renewers(ctx.target)
  if #list > 0 and seen.timer ~= "active enabled" then
    ctx.warn(("nothing renews: certbot.timer is %s; provisioning, step https, enables it"):format(seen.timer))
  end
  for _, other in ipairs(seen.others) do ctx.warn(other .. " renews too, beside certbot.timer") end
  for _, path in ipairs(seen.cron) do ctx.warn(path .. " starts certbot too, beside certbot.timer") end
  if #ended > 0 then fail("verify", "the certificate has ended of: " .. table.concat(ended, ", ")) end
end

return runbook {
  name = "certs", summary = "Show the certificates of a server, renew them", section = "7.3", sudo = true,
  params = {
    tenant = param.string { optional = true, pattern = "^[a-z][a-z0-9-]*$", max = 40, description = "the customer's short name" },
    domain = param.string { optional = true, pattern = "^[a-z0-9][a-z0-9.-]*%.[a-z][a-z0-9-]+$",
      description = "only the certificate of this domain" },
    force = param.boolean { default = false, description = "renew now, due or not" },
  },
  steps = {
    step { name = "renew", title = "Renewal", class = "compensable", tags = { "renew" }, probe = probe, apply = apply },
    step { name = "show", title = "Certificates as visitors see them", class = "pure", tags = { "show" }, apply = show },
  },
}
