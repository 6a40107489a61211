-- metrics.lua: what section 6.2 watches of a tenant, a row each: by whom it is told, how often
-- `watch` asks, and what is wrong with it. A judge says nothing of what is well; nil stands for
-- what nobody could tell.
local limits = { heartbeat = 15 * 60, tokens = 90, cpu = 90, disk = 90, backup = 26 * 3600, certificate = 14 }

-- "2031-02-03T04:05:06Z" -> how long ago, in seconds; nil: unreadable
local function age(ctx, text)
  local at = type(text) == "string" and calendar.epoch(text)
  return at and ctx.now() - at
end

-- c: { name, state, exit?, oom?, health?, restarts?, restarted? }
local function container(c)
  local ended = c.exit and (" with status %s"):format(c.exit) or ""
  if c.state ~= "running" then
    if c.oom then return ("%s was killed for want of memory"):format(c.name) end
    if c.state == "exited" and c.once and c.exit == 0 then return nil end
    return ("%s is %s%s"):format(c.name, tostring(c.state), ended)
  end
  if (c.restarted or 0) > 0 then
    return ("%s was started again %d times since it was last seen%s"):format(c.name, c.restarted,
      c.oom and ", killed for want of memory" or "")
  end
  if c.health == "unhealthy" then return ("%s is not healthy"):format(c.name) end
end

return {
  { name = "heartbeat", from = { "hub" }, every = 300, judge = function(ctx, hub, row)
    row.heartbeat = age(ctx, hub.heartbeat)
    if not row.heartbeat then return "no heartbeat is known" end
    if row.heartbeat > limits.heartbeat then return ("no heartbeat for %d min"):format(row.heartbeat // 60) end
  end },
  { name = "tokens", from = { "hub" }, every = 300, judge = function(_, hub, row)
    local tokens = hub.tokens or {}
    if not (tonumber(tokens.pool) and tonumber(tokens.used) and tokens.pool > 0) then return nil end
    row.tokens = tokens.used * 100 / tokens.pool
    if row.tokens > limits.tokens then return ("%.0f %% of its tokens are used"):format(row.tokens) end
  end },
  { name = "version", from = { "hub" }, every = 300, judge = function(ctx, hub, row)
    row.version = hub.openclaw
    if row.version ~= ctx.params.openclaw then
      return ("OpenClaw is %s, not %s"):format(tostring(row.version or "unknown"), ctx.params.openclaw)
    end
  end },
  { name = "backup", from = { "hub" }, every = 86400, judge = function(ctx, hub, row)
    local last = hub.backup or {}
    row.backup = last.status
    if last.status ~= "success" then return ("backup: %s"):format(tostring(last.status or "none")) end
    if (age(ctx, last.timestamp) or math.huge) > limits.backup then return "its last backup is older than 26 h" end
  end },
  { name = "certificate", from = { "hub" }, every = 86400, judge = function(_, hub, row)
    row.certificate = tonumber(hub.certificate_days)
    if row.certificate and row.certificate < limits.certificate then
      return ("a certificate ends in %d days"):format(row.certificate)
    end
  end },
  -- The server itself where lbrun can log in, else what Portainer has told the Hub.
  { name = "containers", from = { "server", "hub" }, every = 600, judge = function(_, source)
    local bad = {}
    for _, c in ipairs(type(source.containers) == "table" and source.containers or {}) do
      bad[#bad + 1] = container(c)
    end
    return #bad > 0 and table.concat(bad, "; ") or nil
  end },
  -- By df: netcup's metric of a disk counts operations, not what lies on it.
  { name = "disk", from = { "server", "hub" }, every = 900, judge = function(_, source, row)
    row.disk = tonumber(source.disk_percent)
    if row.disk and row.disk > limits.disk then
      return ("the disk is %.0f %% full%s"):format(row.disk, source.disk_at and " (" .. source.disk_at .. ")" or "")
    end
  end },
  { name = "cpu", from = { "netcup" }, every = 900, judge = function(_, netcup, row)
    row.cpu = netcup.cpu
    if row.cpu and row.cpu > limits.cpu then return ("CPU %.0f %% over 15 minutes"):format(row.cpu) end
  end },
}
