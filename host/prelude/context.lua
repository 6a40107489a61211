-- context.lua: the ctx that a probe, an apply or an undo is given. It decides nothing.
local host = require "host"
local json = require "json"
local ssh = require "ssh"
local template = require "template"
local crypto = require "crypto"
local util = require "lb.util"
local access = require "lb.access"
local envfile = require "lb.envfile"
local job = require "lb.job"
local outbox = require "lb.outbox"

local context = {}

-- A view of the target as runbooks see it: the view's methods, and job with the names of
-- the run, step, effect and attempt filled in.
local function facade(run, view, step, effect)
  local f = {}
  for name, method in pairs(getmetatable(view).__index) do
    if name ~= "exec" and name ~= "shell" and name ~= "needs_sudo" and name ~= "require_root" then
      local acts = effect and (name == "run" or name == "try" or name == "put")
      f[name] = function(_, ...)
        if acts then require("lb.engine").touch(run, step, effect) end
        return method(view, ...)
      end
    end
  end
  f.url = view.conn.url
  f.is_root = view.as_root or view.conn:is_root()
  f.sudo = function() return facade(run, view.conn:view(true), step, effect) end
  f.job = function(_, cmd, options)
    options = options or {}
    local names = { name = true, timeout = true, progress = true, ok = true, env = true, cwd = true }
    for k in pairs(options) do
      if not names[k] then
        util.misuse(("unknown option '%s' of job%s"):format(tostring(k), k == "stdin" and
          ": a command that is given input is not a job, use run" or ""))
      end
    end
    local target = require "lb.target"
    local command, _, shown = target.arguments(cmd, { env = options.env, cwd = options.cwd })
    if not effect then util.misuse("a job belongs to an apply or an undo, not to a probe") end
    require("lb.engine").touch(run, step, effect)
    effect.jobs = effect.jobs or {}
    local id = job.id(run.id, step.name, effect.id, effect.attempt, options.name or tostring(#effect.jobs + 1))
    effect.jobs[#effect.jobs + 1] = { id = id, view = view }
    run:event("job.start", { step = step.name, effect = effect.id, job = id })
    job.start(view, id, command)
    local result = job.wait(view, id, {
      timeout = options.timeout or step.timeout, whole = options.progress ~= nil,
      progress = function(line)
        run.display:detail(run, line)
        if options.progress then options.progress(line) end
      end,
      on_interrupt = function() run.display:note(run, "parking when this command ends; Ctrl-C again detaches and leaves it running") end,
    })
    result.command = shown
    result.ok = false
    for _, fine in ipairs(options.ok or { 0 }) do
      if fine == result.status then result.ok = true end
    end
    if view.conn.on_output then view.conn.on_output(result) end
    if not result.ok then
      util.raise("command", ("%s ended with status %d: %s"):format(options.name and effect.id .. ": its " .. options.name
        or "'" .. shown:gsub("%s+", " "):sub(1, 120) .. "'",
        result.status, util.last_lines(result.stderr ~= "" and result.stderr or result.stdout, 5)), result)
    end
    return result
  end
  return f
end

-- context.new(run, step, effect, planning) -> ctx. effect is nil in a probe.
function context.new(run, step, effect, planning)
  local ctx = {
    params = run.values, run = run.id, step = step.name, planning = planning or false,
    effect = effect and effect.id, attempt = effect and effect.attempt,
  }
  local sudo = step.sudo
  if sudo == nil then sudo = run.book.sudo or false end

  local function conn()
    if not run.conn then
      util.raise("usage", ("the runbook '%s' works on a target: give one with -t"):format(run.book.name))
    end
    return run.conn
  end
  local function view_of(c, as_root)
    return facade(run, c:view(as_root), step, effect)
  end
  local lazy = {
    target = function() return view_of(conn(), sudo) end,
    root = function() return view_of(conn(), true) end,
    login = function() return view_of(conn(), false) end,
    facts = function() return conn():facts() end,
    controller = function() return conn():facts().client end,
  }
  local cache, cached_for = {}, run.conn

  function ctx.log(text) run:event("log", { step = step.name, text = tostring(text) }) end
  function ctx.warn(text) run:warn(step.name, tostring(text)) end
  function ctx.progress(n, total, what) run.display:progress(run, n, total, what) end

  function ctx.secret(name)
    local secret = run.secrets[name]
    if not secret then util.raise("key", ("there is no secret '%s' in this run"):format(tostring(name))) end
    return secret
  end
  -- A root-only file of NAME=value lines on the target, as secrets; nil: there is none.
  function ctx.secrets_of(path)
    conn()
    return envfile.secrets(run, path)
  end
  -- An age file of NAME=value lines on the target, opened with an identity, as secrets, and
  -- as texts what in it is sealed again or public (SEALED_*).
  function ctx.secrets_sealed(path, identity)
    conn()
    return envfile.sealed(run, path, identity)
  end
  -- A file of JSON on the target, { NAME = "text", TOOL = { NAME = "text" } }, as a list of
  -- { tool, name, value = secret }; nil: there is none.
  function ctx.secrets_in_json(path)
    conn()
    return envfile.json_secrets(run, path)
  end

  -- The lbrun that runs, as a tar archive of what `make install` puts below PREFIX.
  function ctx.package() return require("lb.package").archive() end
  function ctx.source(path)
    local text = run.closure:read("templates/" .. path)
    if not text then util.misuse(("there is no templates/%s"):format(path)) end
    return text
  end
  function ctx.render(path, vars, options)
    local all = {}
    for k, v in pairs(run.values) do all[k] = v end
    for k, v in pairs(vars or {}) do all[k] = v end
    local merged = { name = "templates/" .. path }
    for k, v in pairs(options or {}) do merged[k] = v end
    return util.check(template.render(ctx.source(path), all, merged))
  end

  -- Here, not on the target, whose clock may be wrong or lying: seconds since 1970.
  function ctx.now() return math.floor(host.now()) end
  -- The head of the journal's chain, by which what stands before it is known unchanged.
  function ctx.head() return run.journal and run.journal:head() or nil end

  -- The run parks until then (seconds from now, or { at = epoch }); `lbrun worker` goes on
  -- with it, by the same apply from its beginning.
  function ctx.later(when, why)
    if planning or not effect then util.misuse("later belongs to an apply") end
    local at = type(when) == "table" and when.at or host.now() + util.duration(when)
    util.raise("later", tostring(why), { at = at })
  end

  function ctx.state_get(key) return run.state[key] end
  function ctx.state_set(key, value)
    if planning then util.misuse("a plan keeps no state") end
    util.check(json.encode { key = key, value = value })
    run.state[key] = value
    run:event("state", { key = key, value = value })
  end

  -- Old content stays on the target, one copy a path and run: the first one.
  function ctx.stash(path)
    local view = run:view()
    local dir = job.state_dir(view) .. "/undo/" .. run.id
    local ref = crypto.sha256(path):sub(1, 24)
    local q = util.quote
    view:run(("umask 077; mkdir -p %s && chmod 700 %s && { [ -e %s ] || { cp -a --reflink=auto -- %s %s && mv -T %s %s; }; }")
      :format(q(dir), q(dir), q(dir .. "/" .. ref), q(path), q(dir .. "/" .. ref .. ".tmp"),
        q(dir .. "/" .. ref .. ".tmp"), q(dir .. "/" .. ref)))
    return ref
  end
  function ctx.unstash(ref, path)
    local view = run:view()
    local from = job.state_dir(view) .. "/undo/" .. run.id .. "/" .. ref
    local q = util.quote
    view:run(("cp -a -- %s %s && mv -fT %s %s"):format(q(from), q(path .. ".lbrun-undo"), q(path .. ".lbrun-undo"), q(path)))
  end

  function ctx.reconnect(path)
    local second = access.second(run, path)
    second.on_output = run.conn.on_output
    run.extra[#run.extra + 1] = second
    return view_of(second, sudo)
  end
  function ctx.switch(path)
    local url = require("lb.target").sibling(run.conn.spec, path).url
    if run.conn.url == url then return end
    local chosen
    for i, c in ipairs(run.extra) do
      if c.url == url and not c.closed then chosen = i end
    end
    if not chosen then util.misuse(("switch(%s): first prove that path with reconnect"):format(path)) end
    local old = run.conn
    run.conn = table.remove(run.extra, chosen)
    access.record(run, run.conn, run.conn:facts())
    old:close()
    run:event("target.switched", { target = url })
  end

  function ctx.ssh_algorithms()
    return run.conn and run.conn.session and ssh.algorithms() or nil
  end
  function ctx.identities()
    return run.conn and run.conn.session and access.identities(run) or nil
  end
  -- A report to the Hub: entered, then sent if the Hub answers. -> its row in the outbox
  function ctx.report(r)
    if planning or not effect then util.misuse("a report is made by an apply") end
    return outbox.report(run, step, r)
  end
  -- The row of the report that this step of the run made, nil when it made none.
  function ctx.reported(key)
    if not run.id then return nil end
    local row, err = run.journal:outbox_one(outbox.id(run, step, key))
    if not row and err.code ~= "not_found" then util.check(nil, err) end
    return row
  end
  -- fn alone among all runs of this journal that name the same thing; -> what it returns.
  function ctx.exclusive(name, fn)
    if planning or not effect then util.misuse("exclusive belongs to an apply") end
    return require("lb.lock").turn(run, name, fn)
  end
  -- What a command that only reads says on another server: a tenant of tenants.json or the
  -- URL of a target. As root, over a connection of its own; the journal is told nothing.
  -- -> { stdout, stderr, status }, whatever the status; raises where nobody can log in.
  function ctx.visit(name, command, options)
    if planning then util.misuse("a plan visits no other server") end
    return access.visit(run, require("lb.loader").target(name), command, options)
  end
  -- Whether tenants.json names a tenant.
  function ctx.known(name) return type(require("lb.loader").tenants()[name]) == "table" end
  -- The server at this target was installed anew by this run: what earlier runs knew of its
  -- identity is dropped, and the next one that connects pins it again.
  function ctx.forget(url)
    if planning or not effect then util.misuse("forget belongs to an apply") end
    local spec = require("lb.target").parse(url)
    if spec.kind == "ssh" then util.check(run.journal:path_set(spec.url, spec.url, nil)) end
  end
  function ctx.child(options)
    if planning or not effect then util.misuse("a child run is started by an apply") end
    return require("lb.engine").child(run, step, effect, options)
  end

  return setmetatable(ctx, { __metatable = false, __index = function(_, key)
    local make = lazy[key]
    if not make then return nil end
    if cached_for ~= run.conn then cache, cached_for = {}, run.conn end
    if cache[key] == nil then cache[key] = make() end
    return cache[key]
  end })
end


return context
