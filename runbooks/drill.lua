-- drill.lua: the quarterly drill (section 9.3): the tenant's newest remote copy is restored onto an
-- empty server, with the recovery key alone, while production runs; tools and agents are asked whether
-- they work, and the times are held against the table of 9.1. What was restored stays apart: it
-- reaches nobody, backs up nothing, and the Hub's record of the tenant stays production's. It
-- orders no server and gives none back.
local whole = include("restore-server/whole") { include("provision/server"), include("provision/params") }

local script, unit = "/var/lib/lbrun/drill.sh", "/etc/systemd/system/lbrun-drill.service"
local apart_for = "[Unit]\n# A drill's copy of the tenant backs up nothing into production's place.\nConditionPathExists=!" .. unit .. "\n"
local record = backup.dir .. "/drill.json"
local home = "/home/node/.openclaw"

-- A server that is a drill's is one by this unit: without it the timers are those of any server.
local function no_timer(name)
  local dir = ("/etc/systemd/system/%s.service.d"):format(name)
  return directory.present { path = dir, mode = "0755", owner = "root", group = "root" },
    file.content { path = dir .. "/drill.conf", content = apart_for, mode = "0644", owner = "root", group = "root" }
end

local function is_apart(ctx) return ctx.target:try { "sh", script, "status" }.stdout == "apart\n" end

-- Before anything of the tenant is there.
local function apart_step()
  local resources = { apt.installed { "iptables" },
    directory.present { path = "/var/lib/lbrun", mode = "0700", owner = "root", group = "root" } }
  for _, name in ipairs { "letsbe-backup", "letsbe-restore-test" } do
    local n = #resources
    resources[n + 1], resources[n + 2] = no_timer(name)
  end
  return step { name = "apart", title = "Apart from everybody", class = "compensable", resources = resources,
    probe = function(ctx)
      local fine = ctx.target:try("systemctl is-enabled -q lbrun-drill.service").ok and is_apart(ctx)
      return fine and done() or pending("let nothing that is restored here reach anybody, also after a reboot")
    end,
    apply = function(ctx)
      ctx.target:put(script, ctx.source "drill/apart.sh", { mode = "0700", owner = "root", group = "root" })
      ctx.target:put(unit, ctx.source "systemd/lbrun-drill.service", { mode = "0644", owner = "root", group = "root" })
      ctx.target:run("systemctl daemon-reload && systemctl enable --quiet lbrun-drill.service && systemctl restart lbrun-drill.service",
        { timeout = 90 })
    end }
end

-- What the restored agents have, asked before provisioning could mend it: each one's SOUL.md,
-- and by one call from OpenClaw through the Secrets Proxy the names in its registry.
local function functions_step()
  return step { name = "functions", title = "Agents and their secrets", class = "pure", rerun = true,
    apply = function(ctx)
      local bad, agents = {}, data "openclaw/agents.lua"
      if not is_apart(ctx) then bad[#bad + 1] = "what was restored is not apart from everybody any more" end
      for _, a in ipairs(agents) do
        local words = { "docker", "exec", "letsbe-openclaw", "grep", "-qF", a.name, ("%s/workspace-%s/SOUL.md"):format(home, a.id) }
        if not ctx.target:try(words).ok then bad[#bad + 1] = ("the agent %s has no SOUL.md of its own"):format(a.name) end
      end
      local known = {}
      local said = ctx.target:try([[docker exec letsbe-openclaw sh -c 'curl -sf --max-time 20 "$SECRETS_PROXY_URL/registry"']])
      local fine, registry = pcall(json.decode, said.stdout)
      for _, name in ipairs(fine and type(registry) == "table" and registry.names or {}) do known[name] = true end
      if not next(known) then bad[#bad + 1] = "OpenClaw gets no answer from the Secrets Proxy's registry" end
      local count, missing = 0, {}
      local held = ctx.secrets_sealed(whole.sealed_copy, ctx.secret "recovery_key")
      for _, name in ipairs(sorted_keys(held)) do
        count = count + 1
        if not known[name] then missing[#missing + 1] = name end
      end
      if next(known) and #missing > 0 then bad[#bad + 1] = "the registry lacks " .. table.concat(missing, ", ") end
      if #bad > 0 then fail("verify", "what was restored does not work as it did: " .. table.concat(bad, "; ")) end
      ctx.state_set("agents", #agents)
      ctx.state_set("secrets", count)
    end }
end

local function hours(seconds) return ("%d h %02d min"):format(seconds // 3600, seconds % 3600 // 60) end

-- What the drill showed, once: resumed, it is the same.
local function result_of(ctx, p)
  local one = ctx.state_get("result")
  if one then return one end
  local began, ended, made = ctx.state_get("began"), ctx.now(), ctx.state_get("made")
  one = evidence.times(p.scenario, made, began, ended)
  one.schema, one.run, one.tenant, one.host, one.backup, one.made = 1, ctx.run, p.tenant, ctx.facts.hostname, ctx.state_get("day"), made
  one.started, one.finished = calendar.utc(began), calendar.utc(ended)
  one.tools, one.agents, one.secrets = ctx.state_get("counts"), ctx.state_get("agents"), ctx.state_get("secrets")
  ctx.state_set("result", one)
  return one
end

-- On the server, which is given back, and beside the copies, where it stays.
local function evidence_step(p)
  return step { name = "evidence", title = "What it showed, beside the copies", class = "compensable", rerun = true,
    apply = function(ctx)
      local one = result_of(ctx, p)
      ctx.target:put(record, json.encode(one, { sort = true }) .. "\n", { mode = "0644", owner = "root", group = "root" })
      remote.act(ctx, "keep", record, ("drill-%s-%s.json"):format(one.started:sub(1, 10), ctx.run))
      ctx.log(("restored the backup of %s in %s (RTO %d h); it was %s old (RPO %d h): %s"):format(one.made, hours(one.seconds),
        one.rto_seconds // 3600, hours(one.age_seconds), one.rpo_seconds // 3600, one.result))
      for _, id in ipairs(sorted_keys(one.tools)) do
        local n = one.tools[id]
        ctx.log(("%s: %d tables, %d rows, %d files, healthy"):format(id, n.tables, n.rows, n.files))
      end
      ctx.log(("%d agents with their SOUL.md, %d secrets in the registry, asked through the Secrets Proxy"):format(one.agents, one.secrets))
      ctx.log("this server is a copy of the tenant's, with its data and secrets: look at it, then have it wiped")
    end }
end

local function told(p)
  return step { name = "hub", title = "Report to the Hub", class = "pure", resources = { hub.reported { call = "restore",
    fields = function(ctx)
      local one = result_of(ctx, p)
      return { status = one.result == "ok" and "COMPLETED" or "FAILED", tool = "all", target = "drill", snapshot = one.backup,
        seconds = one.seconds, message = one.why }
    end } } }
end

return runbook {
  name = "drill", summary = "Restore a tenant's remote copy onto an empty server, and hold the times against RTO and RPO", section = "9.3",
  sudo = true,
  params = whole.params { scenario = param.enum { default = "total-loss", description = "the row of section 9.1 that it is held against",
    table.unpack(sorted_keys(evidence.objectives)) } },
  access = function(p) return { ("%s@:%d"):format(p.admin_user, p.ssh_port) } end,
  preflight = function(ctx)
    whole.preflight(ctx)
    hub.check(ctx, "tenant")
  end,
  steps = function(p)
    -- The Hub hears of no second server of this tenant, and no certificate is ordered in its names.
    local function adapt(values) values.hub_url, values.job_id, values.acme = nil, nil, "self-signed" end
    local list = whole.steps(p, { adapt = adapt, first = apart_step(), restored = functions_step() })
    list[#list + 1] = evidence_step(p)
    if p.hub_url then list[#list + 1] = told(p) end
    list[#list + 1] = step { name = "verdict", title = "RTO and RPO", class = "pure", apply = function(ctx)
      local one = result_of(ctx, p)
      if one.why then fail("verify", ("the drill restored everything, and missed its times: %s"):format(one.why)) end
    end }
    return list
  end,
  on_failure = function(ctx, why)
    if why.step == "verdict" then return end
    hub.report(ctx, { call = "restore", fields = { status = "FAILED", tool = "all", target = "drill", message = why.message },
      key = "failed " .. why.number })
  end,
}
