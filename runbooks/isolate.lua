-- isolate.lua: an incident (sections 8.2 and 10.4): cuts a server off but for SSH, takes the
-- evidence, stops the AI runtime, keeps the checklist and the post-mortem. release=true puts
-- the rules back; item=NAME enters what a person did. It repairs nothing.

local dir = incident.dir
local script = dir .. "/isolate.sh"
local unit = "/etc/systemd/system/lbrun-isolate.service"
local runtime = { "letsbe-openclaw", "letsbe-secrets-proxy" }

local function call(ctx, words, options)
  return ctx.root:run({ "sh", script, table.unpack(words) }, options)
end

-- Ports of sshd, and the one that this connection came by.
local function ssh_ports(ctx)
  local list, seen = {}, {}
  local text = ctx.root:try("sshd -T 2>/dev/null").stdout
  local function add(port)
    if port and not seen[port] then list[#list + 1] = port end
    if port then seen[port] = true end
  end
  for port in text:gmatch("port (%d+)\n") do add(port) end
  add(ctx.target.url:match(":(%d+)$"))
  table.sort(list)
  return list
end

local function conf(ctx)
  return ("web=%s\nports=%s\n"):format(ctx.params.web, table.concat(ssh_ports(ctx), ","))
end

local function installed(ctx)
  local t = ctx.root
  if not t:exists(script) then return false end
  return t:get(script) == ctx.source("isolate/isolate.sh") and t:exists(dir .. "/conf") and t:get(dir .. "/conf") == conf(ctx)
end

local function status(ctx)
  if not ctx.root:exists(script) then return "open\n" end
  return call(ctx, { "status" }).stdout
end

local isolate_step = step {
  name = "isolate", title = "Nothing leaves the server but answers to SSH", class = "reversible",
  probe = function(ctx)
    local now = status(ctx)
    local state = guard.state(ctx, "isolate")
    if now == "at-boot\nisolated\n" and state ~= "armed" and state ~= "fired" and installed(ctx) then return done() end
    return pending(("cut off the host and its containers, keep SSH (80 and 443: %s), again at each boot"):format(ctx.params.web))
  end,
  apply = function(ctx)
    incident.put_aside(ctx)
    ctx.root:run(("umask 077; mkdir -p %s/evidence && chmod 700 /var/lib/lbrun %s"):format(dir, dir))
    if not incident.read(ctx) then
      incident.write(ctx, { incident = ctx.run, aware = ctx.params.aware and calendar.epoch(ctx.params.aware) or ctx.now() })
    end
    local files = {
      { script, ctx.source("isolate/isolate.sh"), "0700" }, { dir .. "/conf", conf(ctx), "0600" },
      { unit, ctx.source("systemd/lbrun-isolate.service"), "0644" },
    }
    for _, f in ipairs(files) do ctx.root:put(f[1], f[2], { mode = f[3], owner = "root", group = "root" }) end
    guard.protect(ctx, {
      name = "isolate", restore = ("sh %s open-ssh\n"):format(script),
      change = function()
        -- Enabled first: a server that is switched off in between comes back isolated.
        ctx.root:run(("rm -f %s/inbound-open; sync; systemctl daemon-reload && systemctl enable --quiet lbrun-isolate.service "
          .. "&& systemctl restart lbrun-isolate.service"):format(dir), { timeout = 90 })
      end,
    })
    incident.enter(ctx, "contain", "run " .. ctx.run)
  end,
  undo = function(ctx)
    call(ctx, { "release" })
    ctx.root:run("systemctl disable --quiet lbrun-isolate.service; rm -f " .. unit .. "; systemctl daemon-reload")
  end,
}

local prove_step = step {
  name = "prove", title = "Host and containers try to leave", class = "pure",
  apply = function(ctx)
    local out = call(ctx, { "leave", table.unpack(ctx.params.outside) }, { timeout = 120 }).stdout
    local tries, free = 0, {}
    for line in out:gmatch("[^\n]+") do
      tries = tries + 1
      if line:find(" reached$") then free[#free + 1] = line end
    end
    if #free > 0 then fail("verify", "the server is not cut off: " .. table.concat(free, "; ")) end
    if tries == 0 then fail("verify", "nobody on the server tried to leave it: bash or the outside addresses are missing") end
    ctx.log(("%d tries to leave, none got out:\n%s"):format(tries, out))
  end,
}

local evidence_step = step {
  name = "evidence", title = "Evidence, hashed", class = "compensable",
  probe = function(ctx)
    return ctx.root:exists(dir .. "/evidence.tar.gz.sha256") and ctx.state_get("evidence") and done() or pending "take it"
  end,
  apply = function(ctx)
    ctx.root:job({ "sh", "-c", ctx.source "isolate/evidence.sh", "evidence.sh", ctx.head() or "none" },
      { name = "evidence", timeout = "30m" })
    local sum = ctx.root:get(dir .. "/evidence.tar.gz.sha256"):match("^%x+")
    local record = incident.read(ctx)
    record.evidence = ("%s/evidence.tar.gz, SHA-256 %s, journal head %s"):format(dir, sum, ctx.head() or "none")
    incident.write(ctx, record)
    ctx.log("evidence: " .. record.evidence)
    ctx.state_set("evidence", sum)
  end,
}

local function has(list, name)
  for _, one in ipairs(list) do
    if one == name then return true end
  end
  return false
end

local function running(ctx)
  local list = {}
  if not ctx.root:try("command -v docker").ok then return list end
  for name in ctx.root:run("docker ps --format '{{.Names}}'").stdout:gmatch("[^\n]+") do
    if has(runtime, name) then list[#list + 1] = name end
  end
  return list
end

local stop_step = step {
  name = "ai", title = "The AI runtime stands still", class = "reversible",
  probe = function(ctx)
    local list = running(ctx)
    return #list == 0 and done() or pending("stop " .. table.concat(list, ", "))
  end,
  apply = function(ctx)
    local list = running(ctx)
    -- One that died in the middle has stopped some already.
    local before = ctx.root:exists(dir .. "/stopped") and ctx.root:get(dir .. "/stopped") or ""
    for name in before:gmatch("[^\n]+") do
      if not has(list, name) then list[#list + 1] = name end
    end
    ctx.root:put(dir .. "/stopped", table.concat(list, "\n") .. "\n", { mode = "0600" })
    ctx.root:run({ "docker", "stop", table.unpack(list) }, { timeout = 120 })
  end,
  undo = function(ctx) ctx.root:try(("xargs -r docker start <%s/stopped"):format(dir), { timeout = 120 }) end,
}

local function snapshot_step(p)
  return step {
    name = "snapshot", title = "Forensic snapshot", class = "compensable",
    probe = function(ctx)
      if p.snapshot == "none" then return done() end
      if not p.netcup_server then return pending "say that none can be taken" end
      return netcup.has_snapshot(p.netcup_server, "incident-" .. ctx.run) and done() or pending "take one at netcup"
    end,
    verify = function() return true end,
    apply = function(ctx)
      if not p.netcup_server then
        ctx.warn("no forensic snapshot: the tenant has no netcup_server; take one in netcup's control panel before anything is repaired")
        return
      end
      local taken, why = netcup.snapshot(ctx, { server = p.netcup_server, name = "incident-" .. ctx.run,
        description = "lbrun: incident at " .. p.tenant, off = p.snapshot == "switch-off" })
      if not taken then
        ctx.warn(("no forensic snapshot of server %d: %s; the evidence is taken, so: lbrun isolate.lua ... snapshot=switch-off")
          :format(p.netcup_server, why))
        return
      end
      incident.enter(ctx, "preserve", "run " .. ctx.run, "snapshot incident-" .. ctx.run)
    end,
  }
end

local notice_step = step {
  name = "notice", title = "The Hub is told", class = "compensable", rerun = true,
  apply = function(ctx)
    if not ctx.params.hub_url then return end
    local row = hub.report(ctx, { call = "notice",
      fields = { kind = "incident", subject = "The server was isolated", text = ctx.params.reason } })
    if row.status == "sent" then incident.enter(ctx, "notify-hub", "run " .. ctx.run)
    else ctx.warn("the Hub has not taken the notice yet (lbrun outbox); notify-hub stays open in the checklist") end
  end,
}

-- What is open, and the document; always the last step.
local checklist_step = step {
  name = "checklist", title = "Checklist and post-mortem", class = "compensable", rerun = true,
  apply = function(ctx)
    local record = incident.read(ctx) or fail("incident", "no incident is open on this server")
    local due, left = incident.deadline(record, ctx.now())
    ctx.root:put(dir .. "/post-mortem.md", incident.document(ctx, record), { mode = "0600", owner = "root", group = "root" })
    local missing = incident.missing(record)
    local open = false
    for _, name in ipairs(missing) do open = open or name == "notify-customer" end
    ctx.log(("aware since %s; Art. 33 GDPR: 72 hours, until %s, %s%s"):format(calendar.utc(record.aware), calendar.utc(due), left,
      open and "" or " (the notice is made)"))
    ctx.log(#missing == 0 and "the checklist is done" or "still open: " .. table.concat(missing, ", "))
    if open and ctx.now() > due then ctx.warn("the 72 hours of Art. 33 GDPR are over and notify-customer is not entered") end
  end,
}

local function release_steps()
  return {
    step { name = "release", title = "The rules as they were", class = "reversible",
      probe = function(ctx)
        local state = guard.state(ctx, "isolate")
        if status(ctx) == "open\n" and not ctx.root:exists(unit) and state == "none" then return done() end
        return pending "take the chains of the isolation away, also for the next boot"
      end,
      apply = function(ctx)
        if guard.state(ctx, "isolate") == "armed" then guard.fire(ctx, "isolate") end
        guard.clear(ctx, "isolate")
        ctx.root:run(("systemctl disable --quiet lbrun-isolate.service 2>/dev/null; rm -f %s; systemctl daemon-reload; "
          .. "systemctl reset-failed lbrun-isolate.service 2>/dev/null; [ ! -e %s ] || sh %s release"):format(unit, script, script))
        incident.released(ctx)
      end },
    step { name = "ai", title = "The AI runtime as it was", class = "compensable",
      probe = function(ctx)
        return ctx.root:exists(dir .. "/stopped") and pending "start what the isolation had stopped" or done()
      end,
      apply = function(ctx)
        ctx.root:run(("xargs -r docker start <%s/stopped >/dev/null && rm -f %s/stopped"):format(dir, dir), { timeout = 300 })
      end },
  }
end

local function preflight(ctx)
  local p = ctx.params
  if p.release and p.item then fail("params", "give release or item, not both") end
  if p.item and not p.by then fail("params", "by is needed: who did it") end
  if p.aware and not calendar.epoch(p.aware) then fail("params", "aware is a time such as 2031-02-03T04:05:00Z") end
  if p.hub_url then
    hub.check(ctx, "tenant")
  end
  if p.item or p.release then return end
  local lacks = ctx.root:try("for c in iptables iptables-restore bash systemctl ss; do command -v $c >/dev/null || echo $c; done").stdout
  if lacks ~= "" then
    fail("unsupported", ("the server lacks %s; nothing was changed"):format(lacks:gsub("\n$", ""):gsub("\n", ", ")))
  end
end

return runbook {
  name = "isolate", summary = "Cut a server off in an incident, keep the evidence, release it", section = "8.2", sudo = true,
  params = {
    tenant = param.string { pattern = "^[a-z][a-z0-9-]*$", max = 40, description = "the customer's short name" },
    reason = param.string { default = "security incident", description = "why; the Hub is told" },
    web = param.enum { "open", "closed", default = "closed", description = "whether 80 and 443 are still reached" },
    aware = param.string { optional = true, description = "when the incident became known (UTC, ...Z); now if left out" },
    outside = param.list { of = param.string { pattern = "^%d+%.%d+%.%d+%.%d+:%d+$" }, min = 1, default = { "1.1.1.1:443", "9.9.9.9:53" },
      description = "addresses that host and containers try to reach" },
    netcup_server = param.integer { optional = true, description = "the server's id at netcup, for the snapshot" },
    snapshot = param.enum { "running", "switch-off", "none", default = "running",
      description = "servers with UEFI must be switched off for it" },
    release = param.boolean { default = false, description = "end the isolation" },
    item = param.enum { optional = true, description = "enter an item of the checklist", table.unpack(incident.names()) },
    by = param.string { optional = true, description = "who did it" },
    note = param.string { optional = true, multiline = true, description = "what was done" },
    hub_url = param.string { optional = true, pattern = "^https?://", description = "the Hub" },
    runner_token = param.secret { optional = true, description = "the Hub's token" },
  },
  preflight = preflight,
  steps = function(p)
    local list
    if p.item then
      list = { step { name = "enter", title = "Entry in the checklist", class = "compensable", rerun = true,
        apply = function(ctx) incident.enter(ctx, p.item, p.by or "?", p.note) end } }
    elseif p.release then
      list = release_steps()
    else
      list = { isolate_step, prove_step, evidence_step, stop_step, snapshot_step(p), notice_step }
      if p.hub_url then
        table.insert(list, 1, step { name = "key", title = "The Hub's key is revoked", class = "compensable",
          resources = { hub.reported { call = "revocation", fields = { reason = p.reason } } } })
      end
    end
    list[#list + 1] = checklist_step
    return list
  end,
}
