-- beside.lua: a tool's data out of a backup in one container beside production, of the image
-- that the backup names and without a network: for a test, or for somebody who looks for
-- something in it. It goes there by the very restore (restore.sh) that production would get.
--
-- The container is the tool's database where it has one that is dumped; else the tool itself,
-- which must open its data and be healthy. All of the tool's volumes are in it.

local beside = {}

beside.dir = backup.dir .. "/.beside"
-- Where a container has those volumes that are not its own.
beside.mount = "/restored"

-- beside.project(tool, kind) -> "ghost-temp", the twin's name and that of its compose project
function beside.project(tool, kind) return tool .. "-" .. kind end

-- The tool with the one service that its data is shown in.
local function only(s, service)
  local one = {}
  for k, v in pairs(s) do one[k] = v end
  one.services = service and { service } or {}
  if not service then one.secrets, one.files = nil, nil end
  if service then one.database = nil end
  return one
end

-- beside.twin(s, kind, part) -> { project, dir, compose, stack, volumes, memory, image, needs,
-- idle? }: what the tool's twin is. idle says why its own program is not started.
function beside.twin(s, kind, part)
  local project = beside.project(s.id, kind)
  local with_db = s.database ~= nil
  local service = not with_db and stack.main(s) or nil
  local name = with_db and s.id .. "-db" or service.name
  local data, found = stack.compose(s, { tenant = "restored", domain = "restored.invalid", tools = {} }), nil
  for _, one in ipairs(data.services) do
    if one.name == name then found = one end
  end
  local twin = { project = project, dir = beside.dir .. "/" .. project, stack = only(s, service), volumes = {}, needs = {},
    memory = tonumber((found.memory:gsub("m$", ""))), image = found.image }
  for _, was in ipairs(part.images) do
    if was.container == found.container then twin.image, twin.digest = was.image, was.digest end
  end
  local mounts, seen = {}, {}
  for _, m in ipairs(found.mounts) do
    if m.type == "volume" then
      mounts[#mounts + 1] = { type = "volume", source = project .. "-" .. m.source, mount = m.mount, read_only = false }
      seen[m.source] = true
    elseif m.source:sub(1, 1) == "." then
      local own = m.source:sub(3)
      local rendered = false
      for _, f in ipairs(s.files or {}) do rendered = rendered or f.name == own end
      if not rendered then
        m.source = ("%s/%s/%s"):format(stack.dir, s.id, own)
        twin.needs[#twin.needs + 1] = m.source
      end
      mounts[#mounts + 1] = m
    end
    -- Another folder or socket of the server is none of a twin's.
  end
  for _, f in ipairs(part.files) do
    if f.volume and not seen[f.volume] then
      mounts[#mounts + 1] = { type = "volume", source = project .. "-" .. f.volume, mount = beside.mount .. "/" .. f.volume,
        read_only = false }
      seen[f.volume] = true
    end
  end
  local volumes = {}
  for _, m in ipairs(mounts) do
    if m.type == "volume" then volumes[#volumes + 1] = m.source end
  end
  if service and service.needs then
    twin.idle = "it does not run without " .. table.concat(service.needs, ", ")
  end
  found.name = with_db and project .. "-db" or project
  found.container, found.image, found.mounts, found.needs, found.ports, found.label = found.name, twin.image, mounts, {}, false, false
  found.network_mode, found.restart = "none", "no"
  if twin.idle then
    found.entrypoint, found.command, found.health = { "sleep" }, { "infinity" }, false
  elseif found.health then
    found.health.interval = "3s"
  end
  twin.compose = { id = project, services = { found }, volumes = volumes, bridged = false }
  twin.container = found.name
  return twin
end

local function script(ctx, words, options)
  return ctx.target:job({ "bash", "-c", ctx.source "backup/beside.sh", "beside.sh", table.unpack(words) }, options)
end

local function down(ctx, tool, kind, name)
  local project = beside.project(tool, kind)
  script(ctx, { "down", project, beside.dir .. "/" .. project }, { name = name .. "-" .. project, timeout = "30m" })
end

-- beside.down(ctx, tool, kind): the twin is gone, with its volumes; once in an apply or undo
function beside.down(ctx, tool, kind) down(ctx, tool, kind, "down") end

-- beside.sweep(ctx, kind): every twin of that kind is gone that another run has left
function beside.sweep(ctx, kind)
  script(ctx, { "sweep", kind, beside.dir }, { name = "sweep", timeout = "30m" })
end

-- beside.exists(ctx, tool, kind): its compose file is there
function beside.exists(ctx, tool, kind)
  return ctx.target:exists(("%s/%s/docker-compose.yml"):format(beside.dir, beside.project(tool, kind)))
end

-- Secrets of its own: nobody needs them, and production's are not copied.
local function mint(s)
  local made = {}
  for _, spec in ipairs(stack.secrets(s)) do
    made[spec.name] = stack.mint(spec, spec.name, function(name) return made[name] end)
  end
  return made
end

-- beside.up(ctx, tool, kind, from) -> the twin, with the data of the backup `from` in it, compared
-- with the manifest and healthy. Raises `command` with status 3 where the server cannot hold
-- it. What is there of an earlier attempt goes first; what fails is left to beside.down.
function beside.up(ctx, tool, kind, from)
  local s = stack.get(tool)
  local twin = beside.twin(s, kind, copies.manifest(ctx, from).parts[tool])
  down(ctx, tool, kind, "without")
  local id = script(ctx, { "can", tostring(twin.memory), twin.image, table.unpack(twin.needs) }, { name = "can-" .. tool, timeout = "2h" })
  twin.id = id.stdout:match("%S+")
  local secrets = mint(twin.stack)
  local p = { tenant = "restored", domain = "restored.invalid", tools = {} }
  ctx.target:run { "mkdir", "-p", "-m", "0700", backup.dir, beside.dir, twin.dir }
  local function put(name, bytes, mode) ctx.target:put(twin.dir .. "/" .. name, bytes, { mode = mode, owner = "root", group = "root" }) end
  put("docker-compose.yml", ctx.render("stack/compose.yml", twin.compose), "0600")
  put(".env", ctx.render("stack/env", stack.env(twin.stack, p, secrets)), "0600")
  for _, f in ipairs(twin.stack.files or {}) do
    put(f.name, stack.file(twin.stack, p, f.name, secrets), f.readable and "0644" or "0600")
  end
  local o = { tool = tool, project = twin.project, dir = twin.dir, from = from, timeout = "24h" }
  copies.note(ctx, o)
  for _, verb in ipairs { "check", "stage", "compare", "swap", "clean", "again" } do copies.act(ctx, verb, o) end
  return twin
end

return beside
