-- restore.lua: puts one tool's data back, or that of all, from a backup on its server or from
-- the remote copy (section 5.1): checked, restored beside the live data, compared with the
-- manifest, swapped in by rename, and put back again unless the tool is healthy on it. It
-- touches no other tool and no backup.

local function state_of(ctx, tool) return ("%s/.restore-%s-%s"):format(backup.dir, tool, ctx.run) end
local function fetched(ctx) return ("%s/.remote-%s"):format(backup.dir, ctx.run) end

local find = [[
cd %s || exit 0
for m in daily/%s/manifest.json weekly/%s/manifest.json tool/%s/%s/manifest.json; do
  [ -s "$m" ] && jq -r --arg at "$(dirname "$m")" --arg tool %s \
    'select(.complete == true and .parts[$tool]) | [.began, .sequence, $at] | @tsv' "$m" 2>/dev/null
done; true]]

local find_all = [[
cd %s || exit 0
for m in daily/%s/manifest.json weekly/%s/manifest.json; do
  [ -s "$m" ] && jq -r --arg at "$(dirname "$m")" 'select(.complete == true) | [.began, .sequence, $at] | @tsv' "$m" 2>/dev/null
done; true]]

-- The newest backup that has the tool, or that of a date. What was made last has the
-- highest number among the days; a backup of the tool alone counts when it is later.
local function choose_local(ctx)
  local p = ctx.params
  local day = p.date or "[0-9]*"
  local out = ctx.target:run(p.tool and find:format(quote(backup.dir), day, day, p.tool, day, p.tool)
    or find_all:format(quote(backup.dir), day, day)).stdout
  local best, single
  for began, sequence, at in out:gmatch("(%S+)\t(%d+)\t(%S+)\n") do
    local kind, name = at:match("^(%a+)/.-([^/]+)$")
    local one = { began = began, sequence = math.tointeger(tonumber(sequence)), at = at }
    if not backup.is_day(name) then kind = nil end
    if kind == "tool" and (not single or one.sequence > single.sequence) then
      single = one
    elseif (kind == "daily" or kind == "weekly") and (not best or one.sequence > best.sequence) then
      best = one
    end
  end
  if single and (not best or single.began > best.began) then best = single end
  return best and backup.dir .. "/" .. best.at
end

local function choose_remote(ctx)
  local p = ctx.params
  local name = ctx.state_get("remote_name") or backup.newest_sent(remote.list(ctx), p.date)
  if not name then return nil end
  ctx.state_set("remote_name", name)
  local to = ("%s/%s"):format(fetched(ctx), (backup.remote_name(name)))
  ctx.target:run { "mkdir", "-p", "-m", "0700", backup.dir, fetched(ctx) }
  if not ctx.target:exists(to .. "/.fetched") then remote.act(ctx, "fetch", name, to, p.tool) end
  return to
end

local function choose(ctx)
  local p = ctx.params
  local from
  if p.from == "remote" then from = choose_remote(ctx) else from = choose_local(ctx) end
  return from or fail("not_found", ("there is no complete backup%s%s %s; nothing was changed"):format(p.tool and " of " .. p.tool or "",
    p.date and " of " .. p.date or "", p.from == "remote" and "in " .. remote.target(p) or "below " .. backup.dir))
end

-- The words of restore.sh for what the manifest lists of the tool, and the rows it counted.
local function words_of(part, s)
  local checks, list, rows = {}, {}, {}
  for _, f in ipairs(part.files) do
    checks[#checks + 1] = ("file:%s:%s"):format(f.path, f.sha256)
    if f.kind == "tar" or f.kind == "snapshot" then
      list[#list + 1] = ("%s:%s:%s:%d"):format(f.kind, f.volume, f.path, f.entries)
    end
  end
  local db = backup.database(s)
  for _, was in ipairs(part.databases) do
    if not db or db.engine ~= was.engine or db.name ~= was.name then
      fail("backup", ("the backup has a %s database %s, the tool as it is now has another; nothing was changed")
        :format(was.engine, was.name))
    end
    list[#list + 1] = was.engine == "postgres" and ("postgres:%s:%s:%s:%s:%s"):format(db.container, db.name, db.user, was.owner, was.file)
      or ("%s:%s:%s:%s"):format(was.engine, db.container, db.name, was.file)
    for _, t in ipairs(was.tables) do rows[#rows + 1] = ("%s\t%d\n"):format(t.name, t.rows) end
  end
  table.move(list, 1, #list, #checks + 1, checks)
  return checks, table.concat(rows)
end

local function read_manifest(ctx, from)
  local fine, m = pcall(json.decode, ctx.target:get(from .. "/manifest.json"))
  local why = not fine and "it is no JSON" or backup.check(m, from:match("[^/]+$"))
  if why then fail("backup", ("the manifest of %s is not right: %s; nothing was changed"):format(from, why)) end
  return m
end

local function act(ctx, tool, verb, timeout)
  local from = ctx.state_get("from")
  local words = { verb, from, state_of(ctx, tool), tool, tostring(stack.grace(stack.get(tool))) }
  local list = words_of(read_manifest(ctx, from).parts[tool], stack.get(tool))
  table.move(list, 1, #list, #words + 1, words)
  ctx.target:job({ "bash", "-c", ctx.source "backup/restore.sh", "restore.sh", table.unpack(words) }, { name = verb, timeout = timeout })
end

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
      local from, here = choose(ctx), {}
      local parts = read_manifest(ctx, from).parts
      for _, tool in ipairs(tools) do
        local is = ctx.target:try(deployed:format(stack.dir, tool)).ok
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
    undo = function(ctx) ctx.target:run { "rm", "-rf", fetched(ctx) } end }
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
      local state = state_of(ctx, tool)
      -- What is cleaned up was proved.
      return (ctx.target:exists(state .. "/" .. mark) or ctx.target:exists(state .. "/cleaned")) and done() or pending(what)
    end
  end
  return {
    step { name = name "check", title = title .. "As it was backed up", class = "reversible",
      probe = marked("chosen", "compare with the manifest's sums"),
      apply = function(ctx)
        local part = read_manifest(ctx, ctx.state_get("from")).parts[tool]
        local _, rows = words_of(part, stack.get(tool))
        act(ctx, tool, "check", "12h")
        warn_of_images(ctx, tool, part)
        local state = state_of(ctx, tool)
        ctx.target:run { "mkdir", "-p", "-m", "0700", state }
        ctx.target:put(state .. "/rows", rows, { mode = "0600" })
        ctx.target:put(state .. "/chosen", ctx.state_get("from") .. "\n", { mode = "0600" })
      end,
      undo = function(ctx) ctx.target:run { "rm", "-rf", state_of(ctx, tool) } end },
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
        ctx.target:run(("touch %s/cleaned"):format(quote(state_of(ctx, tool))))
      end },
  }
end

local function told(p, status)
  return step { name = "hub/" .. status:lower(), title = "Report to the Hub", class = "pure",
    resources = { hub.reported { call = "restore", key = status,
      fields = function(ctx)
        return { status = status, tool = p.tool or "all", target = "production",
          snapshot = (ctx.state_get("from") or p.date or "latest"):match("[^/]+$") }
      end } } }
end

return runbook {
  name = "restore", summary = "Put one tool's data back from a backup, or that of all", section = "5.1", sudo = true,
  params = remote.params {
    tool = param.enum { optional = true, description = "the tool", table.unpack(backup.tools()) },
    all = param.boolean { default = false, description = "every tool that is deployed and in the backup" },
    date = param.string { optional = true, pattern = "^%d%d%d%d%-%d%d%-%d%d$", description = "the backup's day; the newest if left out" },
    from = param.enum { "server", "remote", default = "server", description = "where the backup is taken from" },
    hub_url = param.string { optional = true, pattern = "^https?://", description = "the Hub, to report to" },
    runner_token = param.secret { optional = true, description = "the Hub's token" },
  },
  preflight = function(ctx)
    local p = ctx.params
    if (p.tool ~= nil) == p.all then fail("usage", "give tool=NAME or all=true; nothing was changed") end
    if p.from == "remote" then
      if not remote.known(ctx) then
        fail("usage", "from=remote needs remote_config=@FILE: the server knows no remote; nothing was changed")
      end
      remote.check(ctx)
    end
    hub.check(ctx, "tenant")
  end,
  steps = function(p)
    local tools = p.tool and { p.tool } or backup.tools()
    local list = {}
    if p.hub_url then list[1] = told(p, "STARTED") end
    if p.from == "remote" then list[#list + 1] = remote.step() end
    list[#list + 1] = choose_step(p, tools)
    for _, tool in ipairs(tools) do
      local of_tool = tool_steps(p, tool)
      table.move(of_tool, 1, #of_tool, #list + 1, list)
    end
    list[#list + 1] = step { name = "end", title = "Without what was only for this restore", class = "compensable",
      probe = function(ctx)
        local left = ctx.target:run(("ls -d %s/.restore-*-%s %s 2>/dev/null; true"):format(backup.dir, ctx.run, fetched(ctx))).stdout
        if left == "" and ctx.state_get("tools") then return done() end
        return pending("remove its notes" .. (p.from == "remote" and " and what was fetched" or ""))
      end,
      apply = function(ctx) ctx.target:run(("rm -rf %s/.restore-*-%s %s"):format(backup.dir, ctx.run, fetched(ctx))) end }
    if p.hub_url then list[#list + 1] = told(p, "COMPLETED") end
    return list
  end,
  on_failure = function(ctx, why)
    hub.report(ctx, { call = "restore", fields = { status = "FAILED", tool = ctx.params.tool or "all", message = why.message },
      key = "failed " .. why.number })
  end,
}
