-- copies.lua: finds a whole backup that lies on a server or on its remote, and what a runbook
-- that takes data out of one shares. It restores nothing.

local copies = {}

local find = [[
cd %s || exit 0
for m in daily/%s/manifest.json weekly/%s/manifest.json tool/%s/%s/manifest.json; do
  [ -s "$m" ] && jq -r --arg at "$(dirname "$m")" --arg tool %s \
    'select(.complete == true and .parts[$tool]) | [.sequence, $at] | @tsv' "$m" 2>/dev/null
done; true]]

local find_all = [[
cd %s || exit 0
for m in daily/%s/manifest.json weekly/%s/manifest.json; do
  [ -s "$m" ] && jq -r --arg at "$(dirname "$m")" 'select(.complete == true) | [.sequence, $at] | @tsv' "$m" 2>/dev/null
done; true]]

-- copies.params(more?) -> the parameters of a runbook that takes data out of a backup, and its own
function copies.params(more)
  local all = remote.params {
    date = param.string { optional = true, pattern = "^%d%d%d%d%-%d%d%-%d%d$", description = "the backup's day; the newest if left out" },
    from = param.enum { "server", "remote", default = "server", description = "where the backup is taken from" },
    hub_url = param.string { optional = true, pattern = "^https?://", description = "the Hub, to report to" },
    runner_token = param.secret { optional = true, description = "the Hub's token" },
  }
  for name, one in pairs(more or {}) do all[name] = one end
  return all
end

-- copies.check(ctx): for a preflight: what such parameters need of each other
function copies.check(ctx)
  if ctx.params.from == "remote" then
    if not remote.known(ctx) then
      fail("usage", "from=remote needs remote_config=@FILE: the server knows no remote; nothing was changed")
    end
    remote.check(ctx)
  end
  hub.check(ctx, "tenant")
end

-- copies.fetched(ctx) -> the directory of what this run fetched from the remote
function copies.fetched(ctx) return ("%s/.remote-%s"):format(backup.dir, ctx.run) end

-- copies.notes(ctx, project) -> the directory of restore.sh's marks for a project of this run
function copies.notes(ctx, project) return ("%s/.restore-%s-%s"):format(backup.dir, project, ctx.run) end

-- copies.sweep(ctx): what runs that were given up have left is gone. Theirs it is, as no
-- other run is at work on the server.
function copies.sweep(ctx)
  ctx.target:run(([[find %s -mindepth 1 -maxdepth 1 -type d \( -name '.restore-*' -o -name '.remote-*' \) ! -name %s \
    -exec rm -rf {} + 2>/dev/null; true]]):format(backup.dir, quote("*-" .. ctx.run)))
end

-- copies.last_step(p, title, known) -> the step by which a run's notes go, and what it has fetched;
-- `known` names the run's state without which there is nothing yet that could be done
function copies.last_step(p, title, known)
  local function mine(ctx) return ("%s/.restore-*-%s %s"):format(backup.dir, ctx.run, copies.fetched(ctx)) end
  return step { name = "end", title = title, class = "compensable",
    probe = function(ctx)
      local left = ctx.target:run(("ls -d %s 2>/dev/null; true"):format(mine(ctx))).stdout
      if left == "" and ctx.state_get(known) then return done() end
      return pending("remove its notes" .. (p.from == "remote" and " and what was fetched" or ""))
    end,
    apply = function(ctx) ctx.target:run("rm -rf " .. mine(ctx)) end }
end

-- The newest backup that has the tool, or that of a date. What was made last has the highest
-- number, whether it is of the tool alone or a day's.
local function choose_local(ctx, want)
  local day = want.date or "[0-9]*"
  local out = ctx.target:run(want.tool and find:format(quote(backup.dir), day, day, want.tool, day, want.tool)
    or find_all:format(quote(backup.dir), day, day)).stdout
  local best
  for sequence, at in out:gmatch("(%d+)\t(%S+)\n") do
    local one = { sequence = math.tointeger(tonumber(sequence)), at = at }
    if calendar.is_day(at:match("[^/]+$")) and (not best or one.sequence > best.sequence) then best = one end
  end
  return best and backup.dir .. "/" .. best.at
end

local function choose_remote(ctx, want)
  local name = ctx.state_get("remote_name") or backup.newest_sent(remote.list(ctx), want.date)
  if not name then return nil end
  ctx.state_set("remote_name", name)
  local to = ("%s/%s"):format(copies.fetched(ctx), (backup.remote_name(name)))
  ctx.target:run { "mkdir", "-p", "-m", "0700", backup.dir, copies.fetched(ctx) }
  if not ctx.target:exists(to .. "/.fetched") then remote.act(ctx, "fetch", name, to, want.tool) end
  return to
end

-- copies.choose(ctx, { tool?, date?, from }) -> its directory on the server, fetched if it must be
function copies.choose(ctx, want)
  local far = want.from == "remote"
  local from
  if far then from = choose_remote(ctx, want) else from = choose_local(ctx, want) end
  return from or fail("not_found", ("there is no complete backup%s%s %s; nothing was changed"):format(
    want.tool and " of " .. want.tool or "", want.date and " of " .. want.date or "",
    far and "in " .. remote.target(ctx.params) or "below " .. backup.dir))
end

-- copies.manifest(ctx, from) -> the checked manifest of the backup in that directory
function copies.manifest(ctx, from)
  local fine, m = pcall(json.decode, ctx.target:get(from .. "/manifest.json"))
  local why = not fine and "it is no JSON" or backup.check(m, from:match("[^/]+$"))
  if why then fail("backup", ("the manifest of %s is not right: %s; nothing was changed"):format(from, why)) end
  return m
end

-- copies.words(ctx, verb, { from, tool, project, dir }) -> restore.sh's words of a verb. The project is
-- the tool itself, or its twin in another directory.
function copies.words(ctx, verb, o)
  local s = stack.get(o.tool)
  local words = { verb, o.from, copies.notes(ctx, o.project), o.project, tostring(stack.grace(s)), o.dir }
  local list = backup.words(copies.manifest(ctx, o.from).parts[o.tool], s, o.project)
  table.move(list, 1, #list, #words + 1, words)
  return words
end

-- copies.act(ctx, verb, { from, tool, project, dir, timeout }): a verb of restore.sh as a job
function copies.act(ctx, verb, o)
  return ctx.target:job({ "bash", "-c", ctx.source "backup/restore.sh", "restore.sh", table.unpack(copies.words(ctx, verb, o)) },
    { name = verb .. "-" .. o.project, timeout = o.timeout })
end

-- copies.note(ctx, { from, tool, project }, mark?): what restore.sh compares with, and the mark, or
-- "chosen": that the backup is
function copies.note(ctx, o, mark)
  local _, rows = backup.words(copies.manifest(ctx, o.from).parts[o.tool], stack.get(o.tool), o.project)
  local notes = copies.notes(ctx, o.project)
  ctx.target:run { "mkdir", "-p", "-m", "0700", notes }
  ctx.target:put(notes .. "/rows", rows, { mode = "0600" })
  ctx.target:put(notes .. "/" .. (mark or "chosen"), o.from .. "\n", { mode = "0600" })
end

-- copies.together(ctx, source, runs, timeout): a script of templates/backup/ side by side, once for
-- each list of words, as many at once as the server bears; what fails is to be done again alone
function copies.together(ctx, source, runs, timeout)
  local words = { "bash", "-c", ctx.source "backup/together.sh", "together.sh", ctx.source(source),
    tostring(math.max(2, math.min(4, ctx.facts.cpus or 2))) }
  for _, run in ipairs(runs) do
    words[#words + 1] = tostring(#run)
    table.move(run, 1, #run, #words + 1, words)
  end
  return ctx.target:job(words, { name = "together", timeout = timeout })
end

return copies
