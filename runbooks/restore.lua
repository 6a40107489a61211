-- restore.lua: puts one tool's data back from a backup on its server (section 5.1): checked,
-- restored beside the live data, compared with the manifest, swapped in by rename, and put
-- back again unless the tool is healthy on it. It touches no other tool and no backup.

local function state_of(ctx) return ("%s/.restore-%s-%s"):format(backup.dir, ctx.params.tool, ctx.run) end

local find = [[
cd %s || exit 0
for m in daily/%s/manifest.json weekly/%s/manifest.json tool/%s/%s/manifest.json; do
  [ -s "$m" ] && jq -r --arg at "$(dirname "$m")" --arg tool %s \
    'select(.complete == true and .parts[$tool]) | [.began, .sequence, $at] | @tsv' "$m" 2>/dev/null
done; true]]

-- The newest backup that has the tool, or that of a date. What was made last has the
-- highest number among the days; a backup of the tool alone counts when it is later.
local function choose(ctx)
  local p = ctx.params
  local day = p.date or "[0-9]*"
  local out = ctx.target:run(find:format(quote(backup.dir), day, day, p.tool, day, p.tool)).stdout
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
  if not best then
    fail("not_found", ("there is no complete backup of %s%s below %s; nothing was changed"):format(p.tool,
      p.date and " of " .. p.date or "", backup.dir))
  end
  return backup.dir .. "/" .. best.at
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

local function act(ctx, verb, timeout)
  local p, from = ctx.params, ctx.state_get("from")
  local s = stack.get(p.tool)
  local words = { verb, from, state_of(ctx), p.tool, tostring(stack.grace(s)) }
  local list = ctx.state_get("words")
  table.move(list, 1, #list, #words + 1, words)
  ctx.target:job({ "bash", "-c", ctx.source "backup/restore.sh", "restore.sh", table.unpack(words) }, { name = verb, timeout = timeout })
end

local running = [[docker ps -a --filter label=com.docker.compose.project=%s --format '{{.Names}}' | while read -r n; do
docker inspect -f "$n {{.Config.Image}}" "$n"; done]]

local function warn_of_images(ctx, part)
  local now = {}
  for name, image in ctx.target:run(running:format(ctx.params.tool)).stdout:gmatch("(%S+) (%S+)\n") do now[name] = image end
  for _, was in ipairs(part.images) do
    local image = now[was.container]
    if image and image ~= was.image then
      ctx.warn(("%s was backed up from %s and runs %s now"):format(was.container, was.image, image))
    end
  end
end

local function marked(name, what)
  return function(ctx)
    return ctx.target:exists(state_of(ctx) .. "/" .. name) and done() or pending(what)
  end
end

return runbook {
  name = "restore", summary = "Put one tool's data back from a backup", section = "5.1", sudo = true,
  params = {
    tool = param.enum { description = "the tool", table.unpack(backup.tools()) },
    date = param.string { optional = true, pattern = "^%d%d%d%d%-%d%d%-%d%d$", description = "the backup's day; the newest if left out" },
  },
  steps = function(p)
    return {
      step { name = "choose", title = "A backup that is whole", class = "reversible",
        probe = marked("chosen", p.date and ("the backup of " .. p.date) or "the newest complete backup"),
        apply = function(ctx)
          local from = choose(ctx)
          local part = read_manifest(ctx, from).parts[p.tool]
          local words, rows = words_of(part, stack.get(p.tool))
          ctx.state_set("from", from)
          ctx.state_set("words", words)
          ctx.log("restores " .. from)
          act(ctx, "check", "12h")
          warn_of_images(ctx, part)
          local state = state_of(ctx)
          ctx.target:run { "mkdir", "-p", "-m", "0700", state }
          ctx.target:put(state .. "/rows", rows, { mode = "0600" })
          ctx.target:put(state .. "/chosen", from .. "\n", { mode = "0600" })
        end,
        undo = function(ctx) ctx.target:run { "rm", "-rf", state_of(ctx) } end },
      step { name = "stage", title = "Beside the live data", class = "compensable",
        probe = marked("staged", "restore beside the live data and compare with the manifest"),
        apply = function(ctx) act(ctx, "stage", "24h") end },
      step { name = "swap", title = "In its place, and healthy", class = "compensable",
        probe = marked("proved", "stop the tool, swap by rename, start it, see that it is healthy"),
        apply = function(ctx) act(ctx, "swap", "1h") end },
      step { name = "clean", title = "Without the old data", class = "compensable",
        probe = function(ctx)
          return ctx.target:exists(state_of(ctx) .. "/chosen") and pending("remove the old data") or done()
        end,
        apply = function(ctx)
          act(ctx, "clean", "1h")
          ctx.target:run { "rm", "-rf", state_of(ctx) }
        end },
    }
  end,
}
