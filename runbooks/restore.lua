-- restore.lua: puts one tool's data back, or that of all, from a backup on its server or from
-- the remote copy (section 5.1): checked, restored beside the live data, compared with the
-- manifest, swapped in by rename, and put back again unless the tool is healthy on it. Or it
-- shows them in a container beside production (5.3). It touches no other tool and no backup.

local temp = "temp"

local function of(ctx, tool, timeout)
  return { tool = tool, project = tool, dir = stack.dir .. "/" .. tool, from = ctx.state_get("from"), timeout = timeout }
end

local function act(ctx, tool, verb, timeout) copies.act(ctx, verb, of(ctx, tool, timeout)) end

local running = [[docker ps -a --filter label=com.docker.compose.project=%s --format '{{.Names}}' | while read -r n; do
docker inspect -f "$n {{.Config.Image}}" "$n"; done]]

local function warn_of_images(ctx, tool, part)
  local now = {}
  for name, image in ctx.target:run(running:format(tool)).stdout:gmatch("(%S+) (%S+)\n") do now[name] = image end
  for _, was in ipairs(part.images) do
    local image = now[was.container]
    if image and image ~= was.image then
      ctx.warn(("%s was backed up from %s and runs %s now"):format(was.container, was.image, image))
    end
  end
end

local deployed = "[ -e %s/%s/docker-compose.yml ]"

local function choose_step(p, tools)
  return step { name = "choose", title = "A backup that is whole", class = "reversible",
    probe = function(ctx)
      if ctx.state_get("tools") then return done() end
      local what = p.date and "the backup of " .. p.date or "the newest complete backup"
      return pending(what .. (p.from == "remote" and ", from the remote" or ""))
    end,
    apply = function(ctx)
      copies.sweep(ctx)
      local from, here = copies.choose(ctx, p), {}
      local parts = copies.manifest(ctx, from).parts
      for _, tool in ipairs(tools) do
        local is = p.as == temp or ctx.target:try(deployed:format(stack.dir, tool)).ok
        if is and parts[tool] then here[#here + 1] = tool
        elseif p.tool then
          fail("not_found", ("%s is not %s; nothing was changed"):format(tool, is and "in " .. from or "deployed on this server"))
        elseif is then ctx.warn(tool .. " is deployed here and not in the backup: it stays as it is")
        elseif parts[tool] then ctx.warn(tool .. " is in the backup and not deployed here: it is not restored") end
      end
      ctx.log("restores " .. from)
      ctx.state_set("from", from)
      ctx.state_set("tools", here)
    end,
    undo = function(ctx) ctx.target:run { "rm", "-rf", copies.fetched(ctx) } end }
end

-- Of all tools: what needs nothing to be stopped, side by side. What does not come out well is
-- tried again alone by the tool's own steps, which say why.
local function together_step()
  local function missing(ctx)
    local list = {}
    for _, tool in ipairs(ctx.state_get("tools") or {}) do
      if not ctx.target:exists(copies.notes(ctx, tool) .. "/staged") then list[#list + 1] = tool end
    end
    return list
  end
  return step { name = "together", title = "Several at once beside the live data", class = "compensable",
    probe = function(ctx)
      if ctx.state_get("together") then return done() end
      if ctx.state_get("tools") and #missing(ctx) < 2 then return done("there is one alone") end
      return pending("compare with the manifest's sums and restore beside the live data, several at once")
    end,
    apply = function(ctx)
      local runs, from = {}, ctx.state_get("from")
      for i, tool in ipairs(missing(ctx)) do
        warn_of_images(ctx, tool, copies.manifest(ctx, from).parts[tool])
        copies.note(ctx, of(ctx, tool), "chosen.new")
        runs[i] = copies.words(ctx, "ready", of(ctx, tool))
      end
      copies.together(ctx, "backup/restore.sh", runs, "24h")
      ctx.state_set("together", true)
    end }
end

-- The four steps of a tool; of all tools, each has the tool's name.
local function tool_steps(p, tool)
  local function name(verb) return p.tool and verb or ("%s/%s"):format(verb, tool) end
  local title = p.tool and "" or (catalog.part(tool) or {}).name .. ": "
  local function concerned(ctx)
    local list = ctx.state_get("tools")
    if not list then return true end
    for _, one in ipairs(list) do
      if one == tool then return true end
    end
    return false
  end
  local function marked(mark, what)
    return function(ctx)
      if not concerned(ctx) then return done("it is not restored") end
      local state = copies.notes(ctx, tool)
      -- What is cleaned up was proved.
      return (ctx.target:exists(state .. "/" .. mark) or ctx.target:exists(state .. "/cleaned")) and done() or pending(what)
    end
  end
  return {
    step { name = name "check", title = title .. "As it was backed up", class = "reversible",
      probe = marked("chosen", "compare with the manifest's sums"),
      apply = function(ctx)
        act(ctx, tool, "check", "12h")
        warn_of_images(ctx, tool, copies.manifest(ctx, ctx.state_get("from")).parts[tool])
        copies.note(ctx, of(ctx, tool))
      end,
      undo = function(ctx) ctx.target:run { "rm", "-rf", copies.notes(ctx, tool) } end },
    step { name = name "stage", title = title .. "Beside the live data", class = "compensable",
      probe = marked("staged", "restore beside the live data and compare with the manifest"),
      apply = function(ctx) act(ctx, tool, "stage", "24h") end },
    step { name = name "swap", title = title .. "In its place, and healthy", class = "compensable",
      probe = marked("proved", "stop the tool, swap by rename, start it, see that it is healthy"),
      apply = function(ctx) act(ctx, tool, "swap", "1h") end },
    step { name = name "clean", title = title .. "Without the old data", class = "compensable",
      probe = marked("cleaned", "remove the old data"),
      apply = function(ctx)
        act(ctx, tool, "clean", "1h")
        ctx.target:run(("touch %s/cleaned"):format(quote(copies.notes(ctx, tool))))
      end },
  }
end

-- Beside production, for somebody who looks for something in it.
local how = [[
%s of %s is beside production as the container %s. It has no network, and its own data alone.
%s  remove it: lbrun runbooks/restore.lua -t TARGET tool=%s as=temp remove=true]]

local function tell(ctx, tool, twin)
  local lines, db = {}, backup.database(stack.get(tool))
  if db and db.engine == "postgres" then
    lines[#lines + 1] = ("  rows: docker exec -it %s psql -U %s %s"):format(twin.container, db.user, db.name)
    lines[#lines + 1] = ("  a table: docker exec %s pg_dump -U %s -t TABLE %s"):format(twin.container, db.user, db.name)
  elseif db and db.engine == "mysql" then
    local as_root = [[  %s: docker exec -i %s sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" %s -u root %s']]
    lines[#lines + 1] = as_root:format("rows", twin.container, "mysql", db.name)
    lines[#lines + 1] = as_root:format("a table", twin.container, "mysqldump", db.name .. " TABLE")
  elseif db then
    -- Its password stays in the container.
    lines[#lines + 1] = ([[  documents: docker exec -it %s mongosh --shell %s --eval 'db.getSiblingDB("admin").auth(]]
      .. "process.env.MONGO_INITDB_ROOT_USERNAME, process.env.MONGO_INITDB_ROOT_PASSWORD)'"):format(twin.container, db.name)
  end
  for _, m in ipairs(twin.compose.services[1].mounts) do
    -- Of a database that is asked for rows, not its files.
    if m.type == "volume" and (not db or m.mount:sub(1, #beside.mount) == beside.mount) then
      lines[#lines + 1] = ("  files: docker cp %s:%s/PATH ."):format(twin.container, m.mount)
    end
  end
  if twin.idle then lines[#lines + 1] = "  its program is not started: " .. twin.idle end
  ctx.log(how:format(tool, ctx.state_get("from"):match("[^/]+$"), twin.container, table.concat(lines, "\n") .. "\n", tool))
end

local function temp_steps(p)
  if p.remove then
    return { step { name = "remove", title = "Without the container beside production", class = "compensable",
      probe = function(ctx)
        return beside.exists(ctx, p.tool, temp) and pending("remove " .. beside.project(p.tool, temp)) or done("there is none")
      end,
      apply = function(ctx) beside.down(ctx, p.tool, temp) end } }
  end
  return {
    step { name = "beside", title = "In a container beside production", class = "compensable",
      probe = function(ctx)
        return ctx.state_get("beside") and done() or pending(("restore %s into %s"):format(p.tool, beside.project(p.tool, temp)))
      end,
      apply = function(ctx)
        local fine, twin = pcall(beside.up, ctx, p.tool, temp, ctx.state_get("from"))
        if not fine then
          -- It goes at once, unless the run can go on with it.
          if type(twin) == "table" and twin.code == "command" then beside.down(ctx, p.tool, temp) end
          error(twin, 0)
        end
        tell(ctx, p.tool, twin)
        ctx.state_set("beside", true)
      end,
      undo = function(ctx) beside.down(ctx, p.tool, temp) end },
  }
end

local function told(p, status)
  return step { name = "hub/" .. status:lower(), title = "Report to the Hub", class = "pure",
    resources = { hub.reported { call = "restore", key = status,
      fields = function(ctx)
        return { status = status, tool = p.tool or "all", target = p.as,
          snapshot = (ctx.state_get("from") or p.date or "latest"):match("[^/]+$") }
      end } } }
end

return runbook {
  name = "restore", summary = "Put one tool's data back from a backup, or that of all", section = "5.1", sudo = true,
  params = copies.params {
    tool = param.enum { optional = true, description = "the tool", table.unpack(backup.tools()) },
    all = param.boolean { default = false, description = "every tool that is deployed and in the backup" },
    as = param.enum { "production", "temp", default = "production",
      description = "temp: a container beside the tool, which is not touched" },
    remove = param.boolean { default = false, description = "with as=temp: remove that container" },
  },
  preflight = function(ctx)
    local p = ctx.params
    if (p.tool ~= nil) == p.all then fail("usage", "give tool=NAME or all=true; nothing was changed") end
    if p.as == temp and not p.tool or p.remove and p.as ~= temp then
      fail("usage", "as=temp is of one tool (tool=NAME), and remove=true belongs to it; nothing was changed")
    end
    copies.check(ctx)
  end,
  steps = function(p)
    if p.remove then return temp_steps(p) end
    local tools = p.tool and { p.tool } or backup.tools()
    local list = {}
    if p.hub_url then list[1] = told(p, "STARTED") end
    if p.from == "remote" then list[#list + 1] = remote.step() end
    list[#list + 1] = choose_step(p, tools)
    if p.all then list[#list + 1] = together_step() end
    for _, tool in ipairs(p.as == temp and {} or tools) do
      local of_tool = tool_steps(p, tool)
      table.move(of_tool, 1, #of_tool, #list + 1, list)
    end
    if p.as == temp then list[#list + 1] = temp_steps(p)[1] end
    list[#list + 1] = copies.last_step(p, "Without what was only for this restore", "tools")
    if p.hub_url then list[#list + 1] = told(p, "COMPLETED") end
    return list
  end,
  on_failure = function(ctx, why)
    hub.report(ctx, { call = "restore", fields = { status = "FAILED", tool = ctx.params.tool or "all", message = why.message },
      key = "failed " .. why.number })
  end,
}
