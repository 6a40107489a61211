-- restore-test.lua: proves a backup by restoring it (section 9.3): one tool chosen at random, one
-- that is named, or all in turn, each into a container of its own image without a network,
-- compared with the manifest, then removed. What was not tested is unverified, never ok. It
-- touches no tool, no backup and nothing that production uses.

local kind = "test"

-- What is not an end of the run, but of a connection or of patience, is no result.
local goes_on = { lost = true, detached = true, interrupted = true, job_lost = true, timeout = true, doubt = true, later = true }

local function now(ctx) return math.tointeger(tonumber((ctx.target:run("date +%s").stdout:gsub("%s", "")))) end

local function choose_step(p)
  return step { name = "choose", title = "A backup that is whole", class = "reversible",
    probe = function(ctx)
      if ctx.state_get("tools") then return done() end
      return pending((p.date and "the backup of " .. p.date or "the newest complete backup") ..
        (p.tool and "" or p.all and ", all tools" or ", a tool by chance"))
    end,
    apply = function(ctx)
      copies.sweep(ctx)
      beside.sweep(ctx, kind)
      local from = copies.choose(ctx, p)
      local parts, tools = copies.manifest(ctx, from).parts, {}
      for _, tool in ipairs(backup.tools()) do
        local part = parts[tool]
        if part and (#part.files > 0 or #part.databases > 0) and (not p.tool or p.tool == tool) then tools[#tools + 1] = tool end
      end
      if #tools == 0 then fail("not_found", ("there is nothing of %s in %s"):format(p.tool or "any tool", from)) end
      if not p.tool and not p.all then
        tools = { (ctx.target:run { "shuf", "-n1", "-e", table.unpack(tools) }.stdout:gsub("%s", "")) }
        ctx.log("chosen by chance: " .. tools[1])
      end
      ctx.state_set("from", from)
      ctx.state_set("tools", tools)
    end,
    undo = function(ctx) ctx.target:run { "rm", "-rf", copies.fetched(ctx) } end }
end

local function test(ctx, tool)
  local from = ctx.state_get("from")
  local part = copies.manifest(ctx, from).parts[tool]
  local began = now(ctx)
  local fine, got = pcall(beside.up, ctx, tool, kind, from)
  if not fine and (type(got) ~= "table" or goes_on[got.code] or got.code ~= "command") then error(got, 0) end
  local one = evidence.counts(part)
  one.tool, one.run, one.from = tool, ctx.run, ctx.params.from
  one.backup, one.finished, one.seconds = from:match("[^/]+$"), calendar.utc(now(ctx)), math.max(0, now(ctx) - began)
  local twin = beside.twin(stack.get(tool), kind, part)
  one.image, one.program = twin.image, "unverified"
  if not fine then
    one.result, one.why = got.status == 3 and "unverified" or "failed", got.message
  elseif twin.idle then
    one.result, one.why = "unverified", "its data is as it was backed up; its program was not started: " .. twin.idle
  elseif twin.digest and got.id ~= twin.digest then
    one.result, one.program = "unverified", "healthy"
    one.why = ("it was restored into another image of the name %s than the backup was made from"):format(twin.image)
  else
    one.result, one.program = "ok", "healthy"
  end
  beside.down(ctx, tool, kind)
  evidence.add(ctx, one)
  ctx.log(("%s: %s: %d tables, %d rows, %d files%s"):format(tool, one.result, one.tables, one.rows, one.files,
    one.why and ": " .. one.why or ""))
  local results = ctx.state_get("results") or {}
  results[tool] = { result = one.result, why = one.why }
  ctx.state_set("results", results)
end

-- The one tool that a step tests: by name, or the one that was chosen.
local function test_step(p, name, title, tool)
  local function which(ctx)
    local tools = ctx.state_get("tools")
    if not tool then return tools and tools[1] end
    for _, one in ipairs(tools or {}) do
      if one == tool then return tool end
    end
  end
  return step { name = name, title = title, class = "compensable",
    probe = function(ctx)
      local one = which(ctx)
      if not one and ctx.state_get("tools") then return done("it is not in the backup") end
      if one and (ctx.state_get("results") or {})[one] then return done() end
      return pending(("restore %s beside production, compare, remove it again"):format(one or tool or "a tool"))
    end,
    apply = function(ctx) test(ctx, which(ctx)) end,
    undo = function(ctx) beside.down(ctx, which(ctx), kind) end }
end

local function told(status)
  return step { name = "hub/" .. status:lower(), title = "Report to the Hub", class = "pure",
    resources = { hub.reported { call = "restore", key = status, fields = function(ctx)
      local results, texts = ctx.state_get("results") or {}, {}
      for _, tool in ipairs(sorted_keys(results)) do texts[#texts + 1] = ("%s: %s"):format(tool, results[tool].result) end
      return { status = status, tool = table.concat(ctx.state_get("tools") or {}, ","), target = kind,
        snapshot = (ctx.state_get("from") or "latest"):match("[^/]+$"), message = table.concat(texts, ", ") }
    end } } }
end

local function verdict(ctx)
  local results, bad = ctx.state_get("results") or {}, {}
  for _, tool in ipairs(sorted_keys(results)) do
    local one = results[tool]
    if one.result == "failed" then bad[#bad + 1] = ("%s: %s"):format(tool, one.why)
    elseif one.result == "unverified" then ctx.warn(("%s is unverified: %s"):format(tool, one.why)) end
  end
  if #bad > 0 then
    fail("verify", ("the backup %s cannot be restored: %s; production is untouched, make a new backup and see why")
      :format(ctx.state_get("from"), table.concat(bad, "; ")))
  end
end

return runbook {
  name = "restore-test", summary = "Prove a backup by restoring it beside production", section = "9.3", sudo = true,
  params = copies.params {
    tool = param.enum { optional = true, description = "this tool; one chosen at random if left out", table.unpack(backup.tools()) },
    all = param.boolean { default = false, description = "every tool of the backup, one after the other" },
  },
  preflight = function(ctx)
    if ctx.params.tool and ctx.params.all then fail("usage", "give tool=NAME or all=true, not both; nothing was changed") end
    copies.check(ctx)
  end,
  steps = function(p)
    local list = {
      step { name = "programs", title = "rsync and jq", class = "reversible", resources = { apt.installed { "rsync", "jq" } } },
    }
    if p.from == "remote" then list[#list + 1] = remote.step() end
    list[#list + 1] = choose_step(p)
    if p.all then
      for _, tool in ipairs(backup.tools()) do
        list[#list + 1] = test_step(p, "test/" .. tool, (catalog.part(tool) or {}).name or tool, tool)
      end
    else
      list[#list + 1] = test_step(p, "test", p.tool and (catalog.part(p.tool) or {}).name or "The tool that was chosen", p.tool)
    end
    list[#list + 1] = copies.last_step(p, "Without what was only for this test", "results")
    if p.hub_url then list[#list + 1] = told "COMPLETED" end
    list[#list + 1] = step { name = "verdict", title = "What was proved", class = "pure", apply = verdict }
    return list
  end,
}
