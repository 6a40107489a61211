-- fleet-status.lua: all tenants at once, by the thresholds of section 6.2: what the Hub knows
-- of each, what its server says of containers and disk, and what netcup measures. It changes
-- nothing. With watch=true it goes on, each metric at its own interval, and tells what begins
-- to be wrong and what is well again, once.
local metrics = include "fleet-status/metrics"
local sources = include "fleet-status/sources"

local function due_of(ctx, checked)
  local due, now = {}, ctx.now()
  for _, metric in ipairs(metrics) do
    -- A clock that was set back asks again.
    local last = checked[metric.name] or 0
    due[metric.name] = last > now or now - last >= metric.every
  end
  return due
end

-- -> { tenant, bad = { METRIC or SOURCE = text }, known = the same names = true, values }
local function look(ctx, tenant, due, known)
  local row, asked, silent = { tenant = tenant, bad = {}, known = {} }, {}, {}
  local function ask(name)
    if asked[name] == nil then
      local fine, said, why = pcall(sources[name], ctx, tenant, known)
      if not fine then
        if type(said) == "table" and said.code == "interrupted" then error(said, 0) end
        said, why = nil, ("%s: %s"):format(name, type(said) == "table" and said.message or tostring(said))
      end
      asked[name], silent[name] = said or false, why
    end
    return asked[name]
  end
  for _, metric in ipairs(metrics) do
    for _, name in ipairs(due[metric.name] and metric.from or {}) do
      local said = ask(name)
      row.known[name] = true
      if silent[name] then
        row.bad[name] = silent[name]
        break
      elseif said then
        row.known[metric.name] = true
        local fine, text = pcall(metric.judge, ctx, said, row)
        row.bad[metric.name] = fine and text or not fine and ("what %s says of it cannot be read"):format(name) or nil
        break
      end
    end
  end
  return row
end

-- -> a row a tenant, and why netcup gives no list of servers
local function all(ctx, due, restarts)
  local p, list, known, silent = ctx.params, { limit = ctx.params.at_once }, { restarts = restarts }, nil
  if p.netcup and due.cpu then
    local fine, servers = pcall(scp.servers)
    if fine then
      known.servers = {}
      for _, s in ipairs(servers) do known.servers[s.nickname or ""] = s.id end
    else
      silent = servers
    end
  end
  for i, tenant in ipairs(p.tenants) do list[i] = function() return look(ctx, tenant, due, known) end end
  return parallel(list), silent
end

local function cell(value, form, unit)
  return value and form:format(value) .. (unit or "") or "-"
end

local function wrong_of(row)
  local list = {}
  for _, name in ipairs(sorted_keys(row.bad)) do list[#list + 1] = row.bad[name] end
  return list
end

local function show(ctx)
  local wrong, rows, silent = 0, all(ctx, due_of(ctx, {}), {})
  if silent then error(silent, 0) end
  local form = "%-24s %9s %7s %8s %5s %5s %5s  %s"
  local lines = { form:format("TENANT", "HEARTBEAT", "TOKENS", "BACKUP", "CPU", "DISK", "CERT", "WHAT IS WRONG") }
  for _, row in ipairs(rows) do
    row.bad, row.known = json.array(wrong_of(row)), nil
    if #row.bad > 0 then wrong = wrong + 1 end
    lines[#lines + 1] = form:format(row.tenant,
      cell(row.heartbeat and row.heartbeat // 60, "%d", " min"), cell(row.tokens, "%.0f", " %"),
      cell(row.backup, "%s"), cell(row.cpu, "%.0f", " %"), cell(row.disk, "%.0f", " %"), cell(row.certificate, "%d", " d"),
      table.concat(row.bad, "; "))
  end
  ctx.log(table.concat(lines, "\n"))
  ctx.state_set("rows", rows)
  if wrong > 0 then fail("verify", ("%d of %d tenants need somebody"):format(wrong, #rows)) end
end

-- A notice's key is that of its change, so that a run that died in between tells it once. The
-- Hub is not told that it is silent.
local function tell(ctx, changes)
  for _, c in ipairs(changes) do
    if c.metric ~= "hub" then
      hub.report(ctx, { call = "notice", args = { tenant = c.tenant }, key = ("%s %s %d"):format(c.tenant, c.metric, c.at),
        fields = { kind = c.over and "recovery" or "alert", subject = ("%s: %s"):format(c.tenant, c.text),
          details = { metric = c.metric, since = calendar.utc(c.since) } } })
    end
  end
end

-- What is the same of many tenants, such as a Hub that is silent, is one line.
local function log(ctx, changes)
  local texts, of = {}, {}
  for _, c in ipairs(changes) do
    if not of[c.text] then texts[#texts + 1], of[c.text] = c.text, {} end
    table.insert(of[c.text], c.tenant)
  end
  for _, text in ipairs(texts) do
    local names = of[text]
    ctx.log(("%s: %s"):format(#names > 5 and ("%d tenants"):format(#names) or table.concat(names, ", "), text))
  end
end

-- One look, then the next when the next metric is due.
local function watch(ctx)
  local w = ctx.state_get "watch" or { checked = {}, bad = {}, restarts = {}, changes = {} }
  tell(ctx, w.changes)
  local due, now = due_of(ctx, w.checked), ctx.now()
  -- A run keeps all that it has seen: one a day, and what is wrong then is told anew.
  w.day = w.day or now // 86400
  if now // 86400 > w.day then
    ctx.log "the day is over: the next one's run goes on"
    return
  end
  local rows, silent = all(ctx, due, w.restarts)
  w.changes = json.array {}
  for _, row in ipairs(rows) do
    for _, name in ipairs(sorted_keys(row.known)) do
      local key, text = row.tenant .. " " .. name, row.bad[name]
      local since = w.bad[key]
      if (text ~= nil) ~= (since ~= nil) then
        table.insert(w.changes, { tenant = row.tenant, metric = name, text = text or name .. " is well again",
          over = since and true, at = now, since = since or now })
        w.bad[key] = not since and now or nil
      end
    end
  end
  for name, yes in pairs(due) do
    -- What netcup did not say is asked again at the next look.
    if yes then w.checked[name] = silent and name == "cpu" and now - 600 or now end
  end
  silent = silent and (type(silent) == "table" and silent.message or tostring(silent))
  if silent and silent ~= w.silent then ctx.log(silent) end
  w.silent = silent
  log(ctx, w.changes)
  ctx.state_set("watch", w)
  tell(ctx, w.changes)
  local following = now + 300
  for _, metric in ipairs(metrics) do following = math.min(following, (w.checked[metric.name] or now) + metric.every) end
  local count = 0
  for _ in pairs(w.bad) do count = count + 1 end
  ctx.later({ at = math.max(following, now + 1) }, ("%d tenants are watched, %d things are wrong"):format(#ctx.params.tenants, count))
end

return runbook {
  name = "fleet-status", summary = "All tenants by the thresholds of monitoring", section = "6.2",
  params = {
    tenants = param.list { of = param.string { pattern = "^[a-z][a-z0-9-]*$" }, min = 1, description = "their short names" },
    hub_url = param.string { pattern = "^https?://", description = "the Hub" },
    runner_token = param.secret { description = "the Hub's token" },
    netcup = param.boolean { default = true, description = "ask netcup for the CPU of the servers" },
    ssh = param.boolean { default = true, description = "ask the servers that tenants.json names for containers and disk" },
    openclaw = param.string { default = catalog.platform.openclaw.tag, description = "the version that is expected" },
    at_once = param.integer { min = 1, max = 64, default = 16, description = "how many are asked at a time" },
    watch = param.boolean { default = false,
      description = "go on by `lbrun worker` to the end of the day (UTC), each metric at its interval" },
  },
  preflight = function(ctx) hub.check(ctx, "hub_url") end,
  steps = {
    step { name = "look", title = "Tenants", class = "pure", apply = function(ctx)
      if ctx.params.watch then watch(ctx) else show(ctx) end
    end },
  },
}
