-- fleet-status.lua: all tenants at once, by the thresholds of section 6.2: what the Hub knows
-- of each (heartbeat, tokens, backup, containers, version, disk, certificate), and what netcup
-- measures of its server. It changes nothing and logs in to no server.

local limits = { heartbeat = 15 * 60, tokens = 90, cpu = 90, disk = 90, backup = 26 * 3600, certificate = 14 }

-- "2031-02-03T04:05:06Z" -> how long ago, in seconds; nil: unreadable
local function age(ctx, text)
  local at = type(text) == "string" and incident.epoch(text)
  return at and ctx.now() - at
end

local function cpu(server)
  -- A series a core, percent of one; the mean over 15 minutes and over all cores.
  local data, newest = scp.metrics(server, "cpu", { hours = 1 }), 0
  for _, sample in ipairs(data.samples) do newest = math.max(newest, sample.at) end
  local sum, count = 0, 0
  for _, sample in ipairs(data.samples) do
    if sample.at > newest - 15 * 60 then
      for _, value in pairs(sample.values) do sum, count = sum + value, count + 1 end
    end
  end
  return count > 0 and sum / count or nil
end

-- What is wrong with a tenant, by what the Hub knows of it.
local function judge(ctx, health, row, expected)
  local bad = row.bad
  local function say(text, ...) bad[#bad + 1] = text:format(...) end
  row.heartbeat = age(ctx, health.heartbeat)
  if not row.heartbeat then say "no heartbeat is known"
  elseif row.heartbeat > limits.heartbeat then say("no heartbeat for %d min", row.heartbeat // 60) end
  local tokens = health.tokens or {}
  if tonumber(tokens.pool) and tonumber(tokens.used) and tokens.pool > 0 then
    row.tokens = tokens.used * 100 / tokens.pool
    if row.tokens > limits.tokens then say("%.0f %% of its tokens are used", row.tokens) end
  end
  local last = health.backup or {}
  row.backup = last.status
  if last.status ~= "success" then say("backup: %s", tostring(last.status or "none"))
  elseif (age(ctx, last.timestamp) or math.huge) > limits.backup then say "its last backup is older than 26 h" end
  for _, c in ipairs(type(health.containers) == "table" and health.containers or {}) do
    if c.oom then say("%s was killed for want of memory", tostring(c.name))
    elseif c.state ~= "running" then
      say("%s is %s%s", tostring(c.name), tostring(c.state), c.exit and " with status " .. tostring(c.exit) or "")
    end
  end
  row.disk, row.version, row.certificate = tonumber(health.disk_percent), health.openclaw, tonumber(health.certificate_days)
  if row.disk and row.disk > limits.disk then say("the disk is %.0f %% full", row.disk) end
  if expected and row.version ~= expected then say("OpenClaw is %s, not %s", tostring(row.version or "unknown"), expected) end
  if row.certificate and row.certificate < limits.certificate then say("a certificate ends in %d days", row.certificate) end
end

local function look(ctx, tenant, servers)
  local p, row = ctx.params, { tenant = tenant, bad = {} }
  local health, why = hub.get(ctx, { call = "health", args = { tenant = tenant } })
  if type(health) == "table" then judge(ctx, health, row, p.openclaw)
  else row.bad[1] = "the Hub knows nothing: " .. tostring(why) end
  local id = servers[netcup.nickname(tenant)]
  if p.netcup and not id then row.bad[#row.bad + 1] = "no server at netcup has its nickname" end
  if id then
    local fine, value = pcall(cpu, id)
    if not fine then row.bad[#row.bad + 1] = "netcup: " .. tostring(value)
    elseif value then
      row.cpu = value
      if value > limits.cpu then row.bad[#row.bad + 1] = ("CPU %.0f %% over 15 minutes"):format(value) end
    end
  end
  return row
end

local function cell(value, form, unit)
  return value and form:format(value) .. (unit or "") or "-"
end

return runbook {
  name = "fleet-status", summary = "All tenants by the thresholds of monitoring", section = "6.2",
  params = {
    tenants = param.list { of = param.string { pattern = "^[a-z][a-z0-9-]*$" }, min = 1, description = "their short names" },
    hub_url = param.string { pattern = "^https?://", description = "the Hub" },
    runner_token = param.secret { description = "the Hub's token" },
    netcup = param.boolean { default = true, description = "ask netcup for the CPU of the servers" },
    openclaw = param.string { default = catalog.platform.openclaw.tag, description = "the version that is expected" },
    at_once = param.integer { min = 1, max = 64, default = 16, description = "how many are asked at a time" },
  },
  steps = {
    step { name = "look", title = "Tenants", class = "pure", apply = function(ctx)
      local p, servers, list = ctx.params, {}, { limit = ctx.params.at_once }
      if p.netcup then
        for _, s in ipairs(scp.servers()) do servers[s.nickname or ""] = s.id end
      end
      for i, tenant in ipairs(p.tenants) do list[i] = function() return look(ctx, tenant, servers) end end
      local rows, wrong = parallel(list), 0
      local form = "%-24s %9s %7s %8s %5s %5s %5s  %s"
      local lines = { form:format("TENANT", "HEARTBEAT", "TOKENS", "BACKUP", "CPU", "DISK", "CERT", "WHAT IS WRONG") }
      for _, row in ipairs(rows) do
        if #row.bad > 0 then wrong = wrong + 1 end
        lines[#lines + 1] = form:format(row.tenant,
          cell(row.heartbeat and row.heartbeat // 60, "%d", " min"), cell(row.tokens, "%.0f", " %"),
          cell(row.backup, "%s"), cell(row.cpu, "%.0f", " %"), cell(row.disk, "%.0f", " %"), cell(row.certificate, "%d", " d"),
          table.concat(row.bad, "; "))
      end
      ctx.log(table.concat(lines, "\n"))
      ctx.state_set("rows", rows)
      if wrong > 0 then fail("verify", ("%d of %d tenants need somebody"):format(wrong, #rows)) end
    end },
  },
}
