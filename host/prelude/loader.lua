-- loader.lua: makes run objects: a new run of a runbook, one that is resumed, a child.
-- Everything is checked here before a target is touched.
local host = require "host"
local json = require "json"
local crypto = require "crypto"
local util = require "lb.util"
local params = require "lb.params"
local script = require "lb.script"
local sources = require "lb.sources"
local target = require "lb.target"
local engine = require "lb.engine"

local loader = {}

local alphabet = "abcdefghjkmnpqrstuvwxyz23456789"

-- A name that can be typed: runbook-xxxxxx.
function loader.new_id(name)
  local hex = crypto.token(6)
  local tail = {}
  for i = 1, 6 do
    local n = tonumber(hex:sub(2 * i - 1, 2 * i), 16) % #alphabet + 1
    tail[i] = alphabet:sub(n, n)
  end
  return name:gsub("[^%w-]", "-") .. "-" .. table.concat(tail)
end

-- The runbook file: as named, with .lua, or of the installed runbooks.
function loader.find(name)
  local data = host.data_dirs()
  for _, path in ipairs { name, name .. ".lua", data.runbooks .. "/" .. name, data.runbooks .. "/" .. name .. ".lua" } do
    local seen = host.stat(path)
    if seen and seen.type == "file" then return path end
  end
  local known = {}
  for _, entry in ipairs(host.list(data.runbooks) or {}) do
    if entry.name:match("%.lua$") then known[#known + 1] = entry.name end
  end
  util.raise("usage", ("there is no runbook '%s'%s; `lbrun list` shows those there are"):format(name,
    util.did_you_mean(name:match("[^/]+$") or name, known)))
end

function loader.open(path)
  local closure = sources.collect(loader.find(path))
  local book, env = script.load(closure)
  return { closure = closure, book = book, env = env }
end

-- tenants.json: { "acme": { "target": "ssh://...", "identity": "...", "params": "..." } }
function loader.tenants()
  local config = host.getenv("XDG_CONFIG_HOME")
  if not config or config == "" then config = (host.home() or "") .. "/.config" end
  local path = host.getenv("LBRUN_TENANTS") or config .. "/lbrun/tenants.json"
  local text, err = host.read_file(path, { max = 1048576 })
  if not text then
    if err.code == "not_found" then return {}, path end
    util.raise("usage", ("tenants file %s: %s"):format(path, tostring(err)))
  end
  local data, bad = json.decode(text)
  if type(data) ~= "table" then
    util.raise("usage", ("tenants file %s: %s"):format(path, tostring(bad or "expected a JSON object")))
  end
  return data, path
end

-- One -t argument -> { spec, identity, params, tenant }
function loader.target(name)
  if name:match("^ssh://") or name:match("^local:?$") then return { spec = target.parse(name) } end
  local tenants, path = loader.tenants()
  local t = tenants[name]
  if type(t) ~= "table" or type(t.target) ~= "string" then
    util.raise("usage", ("'%s' is neither a target (ssh://user@host:port, local:) nor a tenant of %s%s"):format(
      name, path, util.did_you_mean(name, util.keys(tenants))))
  end
  return { spec = target.parse(t.target), identity = t.identity, params = t.params, tenant = name }
end

local function guard_local(spec, options)
  if spec and spec.kind == "local" and host.uid() == 0 and not options.allow_local_root then
    util.raise("usage", "local: as root is this very machine with all rights; say --allow-local-root if that is meant")
  end
end

local function identities(options, place)
  local list = {}
  for _, path in ipairs(options.identity or {}) do list[#list + 1] = path end
  if place and place.identity then list[#list + 1] = place.identity end
  for _, path in ipairs(list) do
    local seen, err = host.stat(path)
    if not seen then util.raise("key", ("identity %s: %s"):format(path, tostring(err or "not found"))) end
  end
  return list
end

-- A tenant's file describes the tenant to every runbook: each takes the names it declares,
-- and the others are told, for one of them may be a slip.
local function given_params(cli, book, place, display)
  local file, others = {}, {}
  if place and place.params then
    for k, v in pairs(params.file(place.params, book.params)) do
      if book.params[k] then file[k] = v else others[#others + 1] = k end
    end
    table.sort(others)
    if #others > 0 then
      display:say(("%s: not for this runbook: %s"):format(place.params, table.concat(others, ", ")))
    end
  end
  for k, v in pairs(cli.options.params_file and params.file(cli.options.params_file, book.params) or {}) do file[k] = v end
  if place and place.tenant and book.params.tenant and file.tenant == nil then file.tenant = place.tenant end
  return file
end

-- loader.fresh(cli, opened, place, display) -> run without journal row: enough for a plan.
function loader.fresh(cli, opened, place, display)
  local book, closure = opened.book, opened.closure
  guard_local(place and place.spec, cli.options)
  local values, secrets = params.read(book.params, cli.params, given_params(cli, book, place, display),
    { ask = not cli.options.no_input })
  local steps = script.steps(book, values, closure)
  if cli.options.tags then loader.check_tags(cli.options, steps) end
  return engine.object {
    book = book, env = opened.env, steps = steps, values = values, secrets = secrets, closure = closure,
    spec = place and place.spec, identities = identities(cli.options, place), options = cli.options,
    display = display, subject = values.tenant or place and place.tenant,
  }
end

-- loader.given(opened, values, secrets, options, display) -> run without journal row, of a
-- runbook without a target whose parameters are at hand as values.
function loader.given(opened, values, secrets, options, display)
  local declared, own = {}, {}
  for name, p in pairs(opened.book.params) do
    if p.kind ~= "secret" then declared[name] = p
    elseif secrets[name] then own[name] = secrets[name]
    elseif not p.optional then util.raise("key", ("missing parameter '%s': give %s=@FILE"):format(name, name)) end
  end
  local checked = params.read(declared, {}, values)
  return engine.object {
    book = opened.book, env = opened.env, steps = script.steps(opened.book, checked, opened.closure), values = checked,
    secrets = own, closure = opened.closure, identities = identities(options), options = options, display = display,
    subject = checked.tenant,
  }
end

-- loader.request(book, values) -> the request id that a runbook gives its runs itself, such as
-- an order's number, or nil
function loader.request(book, values)
  local request = book.request and book.request(values)
  if request ~= nil and (type(request) ~= "string" or request == "") then
    util.raise("script", ("the request of runbook '%s' is not a text"):format(book.name))
  end
  return request
end

function loader.check_tags(options, steps)
  local known = {}
  for _, s in ipairs(steps) do
    known[s.name] = true
    for _, tag in ipairs(s.tags) do known[tag] = true end
  end
  for _, list in ipairs { options.tags or {}, options.skip_tags or {} } do
    for _, tag in ipairs(list) do
      if not known[tag] then
        util.raise("usage", ("no step has the tag '%s'%s; known: %s"):format(tag,
          util.did_you_mean(tag, util.keys(known)), table.concat(util.keys(known), ", ")))
      end
    end
  end
end

-- What resume needs to know again of the command line.
local function kept_options(run)
  local o = run.options
  return json.encode {
    identities = json.array(run.identities), tags = o.tags and json.array(o.tags) or nil,
    skip_tags = o.skip_tags and json.array(o.skip_tags) or nil, allow_local_root = o.allow_local_root,
    fingerprint = run.spec and run.spec.fingerprint,
  }
end

-- Give a fresh run its row in the journal. -> run, or the existing row for its request id.
function loader.register(run, journal, extra)
  extra = extra or {}
  local values = json.encode(run.values, { sort = true })
  local prints = {}
  local key = util.check(journal:key())
  for _, name in ipairs(util.keys(run.secrets)) do
    prints[#prints + 1] = name .. "=" .. crypto.hmac_sha256(key, run.secrets[name])
  end
  local digest = crypto.sha256(table.concat({ run.book.name, run.spec and run.spec.url or "", values,
    table.concat(prints, "\n") }, "\n"))
  run.id = loader.new_id(run.book.name)
  local row, existing
  -- A run that is there knows its secrets: resume asks for those that it began with.
  util.check(journal:together(function()
    row, existing = util.check(journal:run_create {
      id = run.id, name = run.book.name, runbook = run.closure.main, section = run.book.section,
      subject = run.subject, target = run.spec and run.spec.url, params = values, params_digest = digest,
      options = kept_options(run), request_id = extra.request_id, parent = extra.parent,
      parent_step = extra.parent_step, interface = host.interface(), steps_digest = script.digest(run.steps),
      sources = run.closure:list(),
    })
    if existing == true then return end
    run.journal = journal
    engine.check_secrets(run)
    local path = run.closure.paths[run.closure.main]
    util.check(journal:event(run.id, "run.source", json.encode { path = host.realpath(path) or path }))
  end))
  if existing == true then return nil, row end
  run.root_id = run.parent and run.parent.root_id or run.id
  run.path = run.closure.paths[run.closure.main]
  return run
end

-- Where the runbook of a run lay when it began, nil where that is not known.
local function source_path(journal, id)
  for _, event in ipairs(util.check(journal:events(id, { limit = 20 }))) do
    if event.type == "run.source" then return json.decode(event.data).path end
  end
end

-- loader.resume(journal, row, { display, cli, parent, given }) -> run, with the code and the
-- parameters it began with. given: a child's parameters, for the secrets among them.
function loader.resume(journal, row, fields)
  if row.interface ~= host.interface() then
    util.raise("source", ("run %s was begun by a host of interface %d, this one is %d: resume it with that version")
      :format(row.id, row.interface, host.interface()))
  end
  local closure = sources.stored(journal, row)
  local book, env = script.load(closure)
  local values = util.check(json.decode(row.params))
  local kept = util.check(json.decode(row.options))
  local options = {}
  for k, v in pairs(fields.cli and fields.cli.options or fields.parent and fields.parent.options or {}) do
    options[k] = v
  end
  options.tags, options.skip_tags = kept.tags, kept.skip_tags
  options.allow_local_root = options.allow_local_root or kept.allow_local_root or false
  local secrets = {}
  local names = {}
  for name, p in pairs(book.params) do
    if p.kind == "secret" and (not p.optional or journal:fingerprint(row.id, name)) then
      -- Optional at first, it is needed once the run has begun with it.
      names[name] = setmetatable({ optional = false }, { __index = p })
    end
  end
  if fields.parent then
    for name in pairs(names) do secrets[name] = (fields.given or {})[name] or fields.parent.secrets[name] end
  elseif fields.secrets then
    for name in pairs(names) do
      secrets[name] = fields.secrets[name]
        or util.raise("key", ("the run began with the secret '%s': give %s=@FILE"):format(name, name))
    end
  elseif next(names) then
    local file = options.params_file and params.file(options.params_file, book.params) or {}
    local only = {}
    for name in pairs(names) do only[name] = file[name] end
    local _, got = params.read(names, fields.cli and fields.cli.params, only, { ask = not options.no_input })
    secrets = got
  end
  if fields.cli and not next(names) and #(fields.cli.params or {}) > 0 then
    util.raise("params", "resume goes on with the parameters the run began with; start a new run for others")
  end
  local steps = script.steps(book, values, closure)
  if script.digest(steps) ~= row.steps_digest then
    util.raise("steps_changed", ("the step list of run %s is not the one it began with: "
      .. "its `steps` is not a pure function of the parameters"):format(row.id))
  end
  local spec = row.target and target.parse(row.target)
  if spec and kept.fingerprint then spec.fingerprint = kept.fingerprint end
  guard_local(spec, options)
  local ids = kept.identities or {}
  if options.identity and #options.identity > 0 then ids = identities(options) end
  local run = engine.object {
    id = row.id, book = book, env = env, steps = steps, values = values, secrets = secrets,
    closure = closure, journal = journal, spec = spec, identities = ids, options = options,
    display = fields.display, subject = row.subject, parent = fields.parent, resumed = true,
    path = source_path(journal, row.id),
  }
  engine.check_secrets(run)
  return run
end

-- A run with no more than what it takes to reach its target, for abandon.
function loader.bare(journal, row, fields)
  local kept = json.decode(row.options) or {}
  local spec = row.target and target.parse(row.target)
  if spec and kept.fingerprint then spec.fingerprint = kept.fingerprint end
  local closure = sources.stored(journal, row)
  local book = script.load(closure)
  return engine.object {
    id = row.id, book = book, steps = {}, values = json.decode(row.params), secrets = {}, closure = closure,
    journal = journal, spec = spec, identities = kept.identities or {}, options = fields.cli.options,
    display = fields.display,
  }
end

-- Which files have changed on disk since the run began.
function loader.changed_files(journal, run)
  local path = source_path(journal, run.id)
  if not path then return {} end
  if not host.stat(path) then return { path } end
  local fine, now = pcall(sources.collect, path)
  if not fine then return { path } end
  return run.closure:changed(now)
end

function loader.child(parent, place, options)
  local base = parent.path and parent.path:match("^(.*)/[^/]+$")
  local path = options.runbook
  if base and host.stat(base .. "/" .. path) then path = base .. "/" .. path end
  local opened = loader.open(path)
  local values, secrets = {}, {}
  for name, value in pairs(options.params or {}) do
    local p = opened.book.params[name]
    if p and p.kind == "secret" then secrets[name] = value else values[name] = value end
  end
  local declared = {}
  for name, p in pairs(opened.book.params) do
    if p.kind ~= "secret" then declared[name] = p
    elseif not secrets[name] then secrets[name] = parent.secrets[name] end
  end
  local checked = params.read(declared, {}, values)
  local run = engine.object {
    book = opened.book, env = opened.env, steps = script.steps(opened.book, checked, opened.closure),
    values = checked, secrets = secrets, closure = opened.closure,
    spec = options.target and target.parse(options.target) or parent.spec,
    identities = parent.identities,
    options = { no_input = true, confirm = parent.options.confirm, allow_local_root = parent.options.allow_local_root },
    display = parent.display, subject = checked.tenant or parent.subject, parent = parent,
  }
  return loader.register(run, parent.journal, { parent = parent.id, parent_step = place })
end

return loader
