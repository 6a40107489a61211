-- backup.lua: backs up a tenant's server into a dated directory on it (section 4), each tool
-- a step of its own. A day appears whole or not at all; what an earlier run published stays
-- until the new one is whole. A whole day is copied to the remote, if there is one. It
-- restores nothing.

local weekly = backup.dir .. "/weekly"

local function work_of(ctx)
  local day = ctx.state_get("day")
  return day and ("%s/.%s.partial-%s"):format(backup.base(ctx.params), day, ctx.run), day
end

-- A script of templates/backup/ as a job: bash, since each part of a pipe is asked.
local function script(ctx, name, words, options)
  return ctx.target:job({ "bash", "-c", ctx.source("backup/" .. name), name, table.unpack(words) }, options)
end

-- How far the run has come, for the status file.
local look = [[
w=%s; cat "$w"/.parts/* 2>/dev/null | grep -c '^database'
du -sb "$w" 2>/dev/null | cut -f1; date +%%s]]

-- The day itself is published by then: what fails is its copy.
local function is_remote(ctx) return ctx.step:match("^remote/") ~= nil end

local function write_status(ctx, errors)
  if ctx.params.tool then return end
  local partial = errors and not is_remote(ctx)
  local out = ctx.target:run(look:format(quote(partial and work_of(ctx) or ctx.state_get("published") or "/nowhere"))).stdout
  local databases, bytes, now = out:match("^(%d+)\n(%d*)\n?(%d+)\n")
  -- A backup that did not come back is an error of the backups, until one does.
  local said = evidence.failures(evidence.read(ctx) or { tests = {} })
  for i, text in ipairs(errors or {}) do table.insert(said, i, text) end
  local status = backup.status {
    began = ctx.state_get("began") or math.tointeger(tonumber(now)), ended = math.tointeger(tonumber(now)),
    databases = math.tointeger(tonumber(databases)), bytes = tonumber(bytes) or 0,
    failed = partial, errors = said, remote = errors and (remote.known(ctx) and "failed" or "disabled") or ctx.state_get("remote"),
  }
  ctx.target:run(("mkdir -p -m 0700 %s && mkdir -p -m 0755 %s"):format(backup.dir, backup.status_dir))
  ctx.target:put(backup.status_path, json.encode(status) .. "\n", { mode = "0644", owner = "root", group = "root" })
  ctx.target:run(("cd %s && ln -sfn %s .status && mv -fT .status backup-status.json"):format(backup.dir, backup.status_path))
end

-- What is not an end of the run, but of a connection or of patience, is no failed backup.
local goes_on = { lost = true, detached = true, interrupted = true, job_lost = true, timeout = true, doubt = true }

local function reporting(fn)
  return function(ctx)
    local fine, err = pcall(fn, ctx)
    if fine then return end
    if type(err) == "table" and not goes_on[err.code] then
      local told, why = pcall(write_status, ctx, { ("%s: %s"):format(ctx.step, err.message) })
      if not told then ctx.warn("backup-status.json was not written: " .. tostring(why)) end
    end
    error(err, 0)
  end
end

local deployed = "[ -e %s/%s/docker-compose.yml ]"

local function begin_step(p, tools)
  return step {
    name = "begin", title = "A place for the backup", class = "compensable",
    probe = function(ctx)
      local work = work_of(ctx)
      if work and ctx.target:exists(work .. "/.parts") then return done() end
      return pending("begin a backup below " .. backup.base(p))
    end,
    apply = reporting(function(ctx)
      local t = ctx.target
      if p.tool then
        if not t:try(deployed:format(stack.dir, p.tool)).ok then
          fail("not_found", ("%s is not deployed on this server: there is no %s/%s; nothing was changed"):format(p.tool, stack.dir, p.tool))
        end
      end
      if not ctx.state_get("day") then
        -- One date for the whole run, also past midnight; local time, as the timer's.
        local now, day = t:run("date '+%s %F'").stdout:match("^(%d+) (%S+)\n$")
        ctx.state_set("began", math.tointeger(tonumber(now)))
        ctx.state_set("day", day)
      end
      script(ctx, "begin.sh", { backup.base(p), (work_of(ctx)), table.unpack(tools) }, { name = "begin", timeout = "1h" })
    end),
  }
end

-- The day before's directory, for links; without one, or without a manifest, none.
local function previous(ctx)
  local path = backup.dir .. "/latest"
  local out = ctx.target:try(("cd -P %s && [ -s manifest.json ] && pwd -P"):format(quote(path))).stdout
  return out:gsub("\n$", "")
end

local function part_step(p, name, title, exists, words)
  return step {
    name = name, title = title, class = "compensable",
    probe = function(ctx)
      local work = work_of(ctx)
      local id = name:match("[^/]+$")
      if not ctx.target:try(exists).ok then return done("it is not deployed") end
      if work and ctx.target:exists(work .. "/.parts/" .. id) then return done() end
      return pending("back up " .. id)
    end,
    apply = reporting(function(ctx)
      local list = { (work_of(ctx)), name:match("[^/]+$"), p.tool and "" or previous(ctx) }
      local what = type(words) == "function" and words(ctx) or words
      table.move(what, 1, #what, 4, list)
      script(ctx, "part.sh", list, { name = "part", timeout = "12h" })
    end),
  }
end

-- The tools' parts side by side. What does not come out well is tried again alone by the tool's
-- own step, which says why.
local function together_step(parts)
  local function missing(ctx)
    local work, lines, list = work_of(ctx), {}, {}
    for id, one in pairs(parts) do
      lines[#lines + 1] = ("if %s && [ ! -e %s ]; then echo %s; fi"):format(one.exists, quote(("%s/.parts/%s"):format(work, id)), id)
    end
    for id in ctx.target:run(table.concat(lines, "\n")).stdout:gmatch("[^\n]+") do list[#list + 1] = id end
    table.sort(list)
    return list
  end
  return step {
    name = "together", title = "Several tools at once", class = "compensable",
    probe = function(ctx)
      if ctx.state_get("together") then return done() end
      if work_of(ctx) and #missing(ctx) < 2 then return done("there is one alone") end
      return pending("back up several tools at once")
    end,
    apply = reporting(function(ctx)
      local runs, work, before = {}, work_of(ctx), previous(ctx)
      for i, id in ipairs(missing(ctx)) do
        runs[i] = { work, id, before, table.unpack(parts[id].words) }
      end
      copies.together(ctx, "backup/part.sh", runs, "20h")
      ctx.state_set("together", true)
    end),
  }
end

local days = [[
for d in %s/*/ %s/*/; do
  [ -d "$d" ] || continue
  jq -r --arg kind "$(basename "$(dirname "$d")")" --arg name "$(basename "$d")" \
    '[$kind, $name, (.sequence | tostring), (.complete == true | tostring)] | @tsv' "$d/manifest.json" 2>/dev/null
done; true]]

-- What lies there, as the rotation wants it.
local function listing(ctx, base)
  local daily, of_week = {}, {}
  local out = ctx.target:run(days:format(quote(base), quote(weekly))).stdout
  for kind, name, sequence, whole in out:gmatch("(%S+)\t(%S+)\t(%d+)\t(%a+)\n") do
    local list = kind == "weekly" and of_week or daily
    list[#list + 1] = { name = name, sequence = math.tointeger(tonumber(sequence)), complete = whole == "true" }
  end
  return daily, of_week
end

local sequences = [[
cd %s || exit 0
for m in daily/*/manifest.json weekly/*/manifest.json tool/*/*/manifest.json; do
  [ -s "$m" ] && jq -r '.sequence // 0' "$m" 2>/dev/null
done; true]]

-- Over all that lies there, so that it tells which was made last, whatever the clocks said.
local function next_sequence(ctx)
  local last = 0
  for n in ctx.target:run(sequences:format(quote(backup.dir))).stdout:gmatch("(%d+)\n") do
    last = math.max(last, math.tointeger(tonumber(n)))
  end
  return last + 1
end

-- Each part's list from the server, and that what it lists is there in full size.
local function collect(ctx, work, day)
  local t = ctx.target
  local parts = {}
  for name in t:run(("cd %s/.parts && ls -1"):format(quote(work))).stdout:gmatch("[^\n]+") do
    parts[name] = backup.read_part(t:get(work .. "/.parts/" .. name))
    for _, f in ipairs(parts[name].files) do
      local seen = t:stat(work .. "/" .. f.path)
      if not seen or seen.size ~= f.size then
        fail("backup", ("%s of %s is not there as it was written; nothing was published"):format(f.path, name))
      end
    end
  end
  local manifest = {
    schema = 1, complete = true, run = ctx.run, date = day, sequence = next_sequence(ctx), host = ctx.facts.hostname,
    began = calendar.utc(ctx.state_get("began")), tool = ctx.params.tool, parts = parts,
  }
  for _, part in pairs(parts) do
    for _, name in ipairs { "images", "databases", "files" } do part[name] = json.array(part[name]) end
    for _, db in ipairs(part.databases) do db.tables = json.array(db.tables) end
  end
  local why = backup.check(manifest, day)
  if why then fail("backup", "the manifest is not right: " .. why .. "; nothing was published") end
  return manifest
end

local function publish_step(p, expected)
  local base = backup.base(p)
  return step {
    name = "publish", title = "The day's backup", class = "compensable",
    probe = function(ctx)
      local _, day = work_of(ctx)
      if not day then return pending("publish it by rename") end
      local at = ("%s/%s"):format(base, day)
      local script_ = ('[ "$(jq -r .run %s/manifest.json 2>/dev/null)" = %s ]'):format(quote(at), quote(ctx.run))
      if not p.tool then script_ = script_ .. (' && [ "$(readlink %s/latest)" = daily/%s ]'):format(backup.dir, day) end
      return ctx.target:try(script_).ok and done() or pending("publish " .. at)
    end,
    apply = reporting(function(ctx)
      local work, day = work_of(ctx)
      if ctx.target:exists(work) then
        for _, one in ipairs(expected) do
          local here = ctx.target:try(one.exists).ok
          if here and not ctx.target:exists(work .. "/.parts/" .. one.name) then
            fail("backup", ("the part %s is missing; nothing was published"):format(one.name))
          end
        end
        ctx.target:put(work .. "/manifest.json", json.encode(collect(ctx, work, day)) .. "\n", { mode = "0600" })
      end
      ctx.state_set("published", base .. "/" .. day)
      script(ctx, "publish.sh", { base, day, work, p.tool and "" or backup.dir .. "/latest" }, { name = "publish", timeout = "30m" })
    end),
  }
end

local link = [[
umask 077; mkdir -p %s && cd %s || exit 1
rm -rf %s && cp -al %s %s || exit 1
rm -rf %s
[ ! -e %s ] || mv -T %s %s || exit 1
mv -T %s %s && rm -rf %s]]

local function rotate_step(p)
  local base = backup.base(p)
  local function plan(ctx)
    local daily, of_week = listing(ctx, base)
    local todo = backup.rotation(daily, of_week)
    if p.tool then todo.weekly, todo.drop_weekly = {}, {} end
    return todo
  end
  return step {
    name = "rotate", title = "Seven days and four Sundays", class = "compensable",
    probe = function(ctx)
      local todo, lines = plan(ctx), {}
      for _, name in ipairs(todo.weekly) do lines[#lines + 1] = "keep for the week: " .. name end
      for _, name in ipairs(todo.drop_daily) do lines[#lines + 1] = ("remove %s/%s"):format(base, name) end
      for _, name in ipairs(todo.drop_weekly) do lines[#lines + 1] = ("remove %s/%s"):format(weekly, name) end
      return #lines == 0 and done() or pending(table.concat(lines, "\n"))
    end,
    apply = reporting(function(ctx)
      local todo = plan(ctx)
      for _, name in ipairs(todo.weekly) do
        local new, old = "." .. name .. ".new", "." .. name .. ".removed"
        ctx.target:job(link:format(weekly, weekly, new, quote(base .. "/" .. name), new, old, name, name, old, new, name, old),
          { name = "week-" .. name, timeout = "1h" })
      end
      -- Out of the listing first: a day that is half removed must not look whole.
      local function drop(dir, name)
        local old = "." .. name .. ".removed"
        ctx.target:job(("cd %s && rm -rf %s && mv -T %s %s && rm -rf %s"):format(quote(dir), old, name, old, old),
          { name = ("drop-%s-%s"):format(dir:match("[^/]+$"), name), timeout = "1h" })
      end
      for _, name in ipairs(todo.drop_daily) do drop(base, name) end
      for _, name in ipairs(todo.drop_weekly) do drop(weekly, name) end
    end),
  }
end

local function remote_steps(p)
  local function none(ctx) return not remote.known(ctx) and done("no remote is configured") end
  return remote.step(), step {
    name = "remote/send", title = "The day's copy on the remote", class = "compensable",
    probe = function(ctx)
      if none(ctx) then return none(ctx) end
      local name = ctx.state_get("remote_name")
      for _, item in ipairs(name and remote.list(ctx) or {}) do
        if item.name == name and item.complete then return done() end
      end
      return pending("send it to " .. remote.target(p))
    end,
    apply = reporting(function(ctx)
      local _, day = work_of(ctx)
      -- A name of its own: the copy of an earlier run of the day stays whole until this one is.
      if not ctx.state_get("remote_name") then ctx.state_set("remote_name", backup.next_name(remote.list(ctx), day)) end
      remote.act(ctx, "send", ctx.state_get("remote_name"), backup.base(p) .. "/" .. day)
    end),
  }, step {
    name = "remote/rotate", title = "Seven days and four Sundays there", class = "compensable",
    probe = function(ctx)
      if none(ctx) then return none(ctx) end
      local names = ctx.state_get("remote_name") and backup.remote_rotation(remote.list(ctx)) or {}
      return #names == 0 and done() or pending("remove " .. table.concat(names, ", "))
    end,
    apply = reporting(function(ctx) remote.act(ctx, "drop", table.unpack(backup.remote_rotation(remote.list(ctx)))) end),
  }
end

local function status_step()
  return step {
    name = "status", title = "backup-status.json", class = "compensable", rerun = true,
    apply = function(ctx)
      ctx.state_set("remote", ctx.state_get("remote_name") and "success" or "disabled")
      write_status(ctx)
    end,
  }
end

return runbook {
  name = "backup", summary = "Back up a tenant's server, or one of its tools", section = "4", sudo = true,
  params = remote.params {
    tool = param.enum { optional = true, description = "this tool alone, below backups/tool/", table.unpack(backup.tools()) },
    recipients = param.list { of = param.string { pattern = "^age1[a-z0-9]+$" }, default = {},
      description = "age recipients that the credentials are sealed to, from now on; those that the server knows if left out" },
  },
  preflight = function(ctx)
    local p = ctx.params
    if not p.tool then
      local list = sealed.recipients(ctx, p.recipients)
      if #list == 0 then
        fail("usage", "recipients is needed, as the server knows none: the credentials are sealed to keys that are not on it; "
          .. "nothing was changed")
      end
      crypto.age_check(list)
      remote.check(ctx)
    end
  end,
  steps = function(p)
    local ids = p.tool and { p.tool } or backup.tools()
    local list = {
      step { name = "programs", title = "rsync, age and sqlite3", class = "reversible",
        resources = { apt.installed { "rsync", "age", "jq", "sqlite3" } } },
      begin_step(p, ids),
    }
    if not p.tool then
      table.insert(list, 2, step { name = "seal", title = "The sealed copy of the credentials", class = "reversible",
        resources = { sealed.copy { recipients = p.recipients } } })
    end
    local expected, side = {}, {}
    if not p.tool then list[#list + 1] = together_step(side) end
    local function part(name, title, exists, words)
      list[#list + 1] = part_step(p, name, title, exists, words)
      expected[#expected + 1] = { name = name:match("[^/]+$"), exists = exists }
    end
    for _, id in ipairs(ids) do
      local words = backup.parts(stack.get(id))
      if #words > 0 then
        side[id] = { exists = deployed:format(stack.dir, id), words = words }
        part("tools/" .. id, (catalog.get(id) or {}).name or id, side[id].exists, words)
      end
    end
    if not p.tool then
      part("nginx", "nginx's configuration", "[ -d /opt/letsbe/nginx ]", { "folder:/opt/letsbe/nginx:nginx/nginx.tar.gz" })
      part("credentials", "Credentials, sealed", "[ -d /opt/letsbe/env ]", function(ctx)
        return { ("copy:%s:credentials.enc"):format(sealed.path), "sealed:server.enc:" .. table.concat(sealed.recipients(ctx), ",") }
      end)
    end
    list[#list + 1] = publish_step(p, expected)
    list[#list + 1] = rotate_step(p)
    if not p.tool then
      local program, send, thin = remote_steps(p)
      table.move({ program, send, thin, status_step() }, 1, 4, #list + 1, list)
    end
    return list
  end,
}
