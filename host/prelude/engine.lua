-- engine.lua: runs the steps of a runbook: intent before effect, a probe after it, resume
-- of what was interrupted. It prints nothing itself and knows no command line.
local host = require "host"
local json = require "json"
local crypto = require "crypto"
local util = require "lb.util"
local script = require "lb.script"
local context = require "lb.context"
local access = require "lb.access"
local lock = require "lb.lock"
local job = require "lb.job"
local outbox = require "lb.outbox"

local engine = {}

local run_methods = {}
run_methods.__index = run_methods

-- Effects of a step -------------------------------------------------------------------

-- engine.effects(step) -> list of { id, probe, apply, ... } that hides whether an effect
-- is a resource or the step's own functions.
function engine.effects(step)
  local list = {}
  for i, r in ipairs(step.resources) do
    local def, self = r.def, r.self
    local function bind(name)
      local fn = def[name]
      return fn and function(...) return fn(self, ...) end
    end
    list[#list + 1] = {
      id = r.id, idx = i, resource = r.name, probe = bind "probe", apply = bind "apply",
      before = bind "before", undo = bind "undo", intent = bind "intent",
      undoable = def.undo ~= nil and def.undoable ~= false, rerun = true, pure = def.pure,
    }
  end
  if step.apply then
    list[#list + 1] = {
      id = "apply", idx = #list + 1, resource = "function", probe = step.probe, apply = step.apply,
      verify = step.verify, before = step.before, undo = step.undo, intent = step.intent,
      undoable = step.undo ~= nil, rerun = step.rerun or step.class == "pure",
      pure = step.class == "pure",
    }
  elseif step.verify then
    list[#list].verify = step.verify
  end
  return list
end

local function ask(effect, ctx)
  local answer = effect.probe(ctx)
  if not script.is_answer(answer) then
    util.raise("runbook", ("the probe of %s answered with a %s, not done(), pending() or unknown()")
      :format(effect.id, type(answer)))
  end
  return answer
end

-- Runs --------------------------------------------------------------------------------

-- engine.object{ id, book, env, steps, values, secrets, closure, journal, spec, identities,
-- options, display, parent } -> run
function engine.object(fields)
  local run = setmetatable(fields, run_methods)
  run.state, run.extra, run.warnings = {}, {}, {}
  run.changed, run.unchanged = 0, 0
  run.root_id = run.parent and run.parent.root_id or run.id
  return run
end

function run_methods:view()
  local conn = self.conn
  if not conn then util.raise("usage", "this runbook works on a target: give one with -t") end
  return conn:view(conn:is_root() or (conn:facts().sudo and (self.book.sudo or false)))
end

function run_methods:event(type, data)
  if self.journal and self.id then
    util.check(self.journal:event(self.id, type, util.json(data or {})))
  end
  self.display:event(self, type, data or {})
end

function run_methods:warn(step, text)
  for _, w in ipairs(self.warnings) do
    if w == text then return end
  end
  self.warnings[#self.warnings + 1] = text
  self:event("warning", { step = step, text = text })
end

-- effect, output: the effect that is done with it, in the same commit.
function run_methods:record_step(step, status, type, data, message, effect, output)
  util.check(self.journal:step_set(self.id, step.name, {
    idx = step.idx, status = status, class = step.class, title = step.title, message = message,
    effect = effect, output = output,
  }, type, util.json(data)))
end

function run_methods:step_event(step, status, type, data, message)
  self:record_step(step, status, type, data, message)
  data.step = step.name
  self.display:event(self, type, data)
end

-- Between two effects a Ctrl-C parks the run.
local function safe_place(run)
  local n, name = host.interrupted()
  if n > 0 then
    util.raise("interrupted", "interrupted", { signal = name, exit = name == "TERM" and 143 or 130 })
  end
  if run.finished then util.raise("interrupted", "the run was ended", { exit = 130 }) end
end

local function chosen(run, step)
  local function has(list)
    for _, tag in ipairs(list or {}) do
      if tag == step.name then return true end
      for _, own in ipairs(step.tags) do
        if own == tag then return true end
      end
    end
    return false
  end
  local only = run.options.tags
  if only and #only > 0 and not has(only) then return false end
  return not has(run.options.skip_tags)
end
engine.chosen = chosen

local function barrier(run, step)
  if step.class ~= "irreversible" or run.confirmed then return end
  local subject = run.subject or run.spec and run.spec.url or run.book.name
  local given = run.options.confirm
  if not given and not run.options.no_input and host.isatty("in") then
    given = host.ask(("Step %s cannot be undone. Type '%s' to go on: "):format(step.name, subject))
  end
  if given ~= subject then
    util.raise("approval", ("step %s cannot be undone; %s. Go on with: lbrun resume %s --confirm %s"):format(
      step.name, given and ("'%s' is not '%s'"):format(given, subject) or "it needs a confirmation",
      run.root_id, subject), { confirm = subject })
  end
  run.confirmed = true
  run:event("barrier.passed", { step = step.name, subject = subject })
end

-- engine.settle_jobs(run, step, effect): jobs that an earlier attempt of this step has left:
-- each is waited for, never repeated.
function engine.settle_jobs(run, step, effect)
  if not run.conn then return end
  -- A step may have started jobs as root and as the login user.
  local found = {}
  for _, as_root in ipairs { false, true } do
    local view = run.conn:view(as_root)
    local other = as_root and not run.conn:is_root()
    if not as_root or other and run.conn:facts().sudo then
      for _, id in ipairs(job.list(view, job.prefix(run.id, step.name))) do found[#found + 1] = { view, id } end
    end
  end
  for _, place in ipairs(found) do
    local view, id = place[1], place[2]
    local state = job.state(view, id)
    run:event("job.found", { step = step.name, job = id, state = state })
    if state == "running" then
      run.display:note(run, ("waiting for the command that is still running (%s)"):format(id))
      local fine, result = pcall(job.wait, view, id, {
        progress = function(line) run.display:detail(run, line) end })
      local err = not fine and util.as_error(result)
      if err and err.code ~= "job_lost" then error(err, 0) end
      state = fine and "done" or err.state
      run:event("job.ended", { step = step.name, job = id, state = state, status = fine and result.status or nil })
    end
    if state == "rebooted" then run:warn(step.name, "the server was rebooted while " .. id .. " ran") end
    effect.jobs = effect.jobs or {}
    effect.jobs[#effect.jobs + 1] = { id = id, view = view }
  end
end

function engine.forget_jobs(effect)
  local by_view = {}
  for _, j in ipairs(effect.jobs or {}) do
    if not j.view.conn.closed then
      by_view[j.view] = by_view[j.view] or {}
      table.insert(by_view[j.view], j.id)
    end
  end
  effect.jobs = nil
  for view, ids in pairs(by_view) do job.remove(view, ids) end
end

-- engine.sweep_jobs(run): what a kill between a result and its clean-up has left: all that
-- this run ever began has its result by now.
function engine.sweep_jobs(run)
  if not run.conn then return end
  local view = run:view()
  job.remove(view, job.list(view, job.prefix(run.id)))
end

-- A full disk shows in many ways; the reason comes first in the message.
local function name_full_disk(run, err, output)
  local text = (err.message .. output):lower()
  if run.spec and (text:find("no space left on device", 1, true) or text:find("enough free space", 1, true)) then
    err.message = ("the disk of %s is full: %s"):format(run.spec.url, err.message)
  end
end

local function doubt(step, effect, why)
  util.raise("doubt", ("step %s is in doubt: %s: %s"):format(step.name, effect.id, why),
    { effect = effect.id, why = why })
end

-- An apply that did nothing but start child runs may be entered again: each child is
-- journaled, and ctx.child finds it.
local function only_children(run, step, effect)
  local place, found = ("%s/%s/"):format(step.name, effect.id), false
  for _, child in ipairs(util.check(run.journal:children(run.id))) do
    found = found or child.parent_step:sub(1, #place) == place
  end
  if not found then return false end
  for _, event in ipairs(util.check(run.journal:events(run.id, {}))) do
    if event.type == "effect.direct" then
      local data = json.decode(event.data)
      if data.step == step.name and data.effect == effect.id then return false end
    end
  end
  return true
end

-- engine.touch(run, step, effect): its apply itself acts on the target.
function engine.touch(run, step, effect)
  if not effect.touched and (effect.children or 0) > 0 then
    run:event("effect.direct", { step = step.name, effect = effect.id })
  end
  effect.touched = true
end

-- What the probe says now, with the rules for effects that have none.
local function look(run, step, effect, row, ctx)
  local open = row and row.status == "open"
  if open and not effect.probe and not effect.rerun and only_children(run, step, effect) then
    return script.answer("pending", "goes on with its child run")
  end
  if effect.settled == "redo" then
    return script.answer("pending", "to be done again, as a person decided")
  end
  if effect.probe then return ask(effect, ctx) end
  if open and not effect.rerun then
    return script.answer("unknown", "it was interrupted and has no probe that could tell whether it took effect")
  end
  return script.answer("pending", effect.intent and effect.intent(ctx) or "runs each time")
end

local function verify(step, effect, ctx)
  if effect.verify then
    local answer = effect.verify(ctx)
    if answer == nil or answer == true then return end
    if script.is_answer(answer) and answer.state == "done" then return end
    util.raise("verify", ("%s: the check after it failed%s"):format(effect.id,
      script.is_answer(answer) and answer.text ~= "" and ": " .. answer.text or ""))
  end
  if not effect.probe then return end
  local answer = ask(effect, ctx)
  if answer.state == "unknown" then doubt(step, effect, answer.text) end
  if answer.state ~= "done" then
    util.raise("verify", ("%s was applied, but its probe still finds a change pending:\n%s"):format(
      effect.id, util.last_lines(answer.text, 8)), { detail = answer.text })
  end
end

-- One attempt at one effect. Returns whether something was changed. `finish` is given for
-- the step's last effect: it commits the result and the end of the step together.
local function attempt(run, step, effect, finish)
  local journal = run.journal
  local row = run.effects[step.name] and run.effects[step.name][effect.id]
  if row and (row.status == "done" or row.status == "kept") then
    return row.attempt and row.attempt > 0 and not effect.pure
  end
  local open = row and row.status == "open"
  if open then engine.settle_jobs(run, step, effect) end
  local ctx = context.new(run, step, nil, false)
  local answer = look(run, step, effect, row, ctx)
  if answer.state == "done" then
    if row then
      util.check(journal:effect_end(run.id, step.name, effect.id, "done", {
        message = open and "found done by its probe after an interruption" or "found done by its probe" }))
      row.status = "done"
      engine.forget_jobs(effect)
      run.display:event(run, "effect.done", { step = step.name, effect = effect.id, found = true })
    end
    return row ~= nil and not effect.pure
  end
  if answer.state ~= "pending" then
    if not open then
      util.check(journal:effect_begin(run.id, step.name, effect.id, {
        idx = effect.idx, resource = effect.resource, intent = util.json { text = "" },
        undoable = row and row.undoable or false }))
    end
    doubt(step, effect, answer.text)
  end
  safe_place(run)
  barrier(run, step)
  if effect.settled == "redo" then
    -- The decision is used up: another crash puts the step in doubt again.
    run:step_event(step, "open", "step.redo", { effect = effect.id })
  end
  -- Once: before the first attempt that was more than a doubt.
  local fresh = effect.undoable and not (row and row.undoable)
  local before = fresh and effect.before and effect.before(ctx) or nil
  effect.attempt = util.check(journal:effect_begin(run.id, step.name, effect.id, {
    idx = effect.idx, resource = effect.resource, undoable = effect.undoable,
    intent = util.json { text = util.cut(answer.text, 65536) },
    before = before and util.check(json.encode(before)) or nil,
  }))
  run.effects[step.name] = run.effects[step.name] or {}
  run.effects[step.name][effect.id] = { status = "open", attempt = effect.attempt, undoable = effect.undoable }
  effect.settled = nil
  run.display:event(run, "effect.begin", { step = step.name, effect = effect.id, diff = answer.text })
  local window = util.window(65536)
  run.output = window
  local fine, failure = pcall(function()
    local active = context.new(run, step, effect, false)
    effect.children, effect.touched = 0, false -- a second attempt finds the children of the first
    effect.apply(active)
    verify(step, effect, active)
  end)
  run.output = nil
  if not fine then
    local err = util.as_error(failure)
    if err.code == "lost" or err.code == "detached" or err.code == "interrupted" or err.code == "later" then error(err, 0) end
    if err.code == "timeout" or err.code == "job_lost" then
      -- Whether it took effect is what the probe is for; a pending answer is no proof
      -- that the command is not still running.
      if effect.probe and err.code == "timeout" then
        local asked, again = pcall(ask, effect, ctx)
        if asked and again.state == "done" then fine = true end
      end
      if err.code == "job_lost" then error(err, 0) end
      if not fine then doubt(step, effect, err.message) end
    elseif err.code == "doubt" then
      error(err, 0)
    else
      name_full_disk(run, err, window.text())
      err.effect, err.output, err.pending_before = effect.id, window.text(), answer.text
      error(err, 0)
    end
  end
  if finish then
    finish(not effect.pure, effect.id, window.text())
  else
    util.check(journal:effect_end(run.id, step.name, effect.id, "done", { output = window.text() }))
  end
  run.effects[step.name][effect.id].status = "done"
  engine.forget_jobs(effect)
  run.display:event(run, "effect.done", { step = step.name, effect = effect.id })
  return not effect.pure
end

-- Is nothing of the failed effect left behind? Only if its probe sees just what it saw.
local function is_clean(run, step, effect, err)
  for _, row in pairs(run.effects[step.name] or {}) do
    if row.status == "done" and (row.attempt or 0) > 0 then return false end
  end
  if not err.pending_before then return true end
  if not effect.probe then return false end
  local fine, answer = pcall(ask, effect, context.new(run, step, nil, false))
  return fine and answer.state == "pending" and answer.text == err.pending_before
end

local final = { doubt = true, interrupted = true, detached = true, approval = true, key = true, auth_failed = true,
  journal = true, source = true, identity = true, hostkey = true, connect = true, locked = true, later = true }

-- How often the step was retried since a person last began or resumed the run: a kill does
-- not give it its retries back.
local function past_retries(run, step)
  local count = 0
  for _, event in ipairs(util.check(run.journal:events(run.id, {}))) do
    if event.type == "run.resume" then count = 0
    elseif event.type == "step.retry" and json.decode(event.data).step == step.name then count = count + 1 end
  end
  return count
end

-- One effect with retries and reconnections.
local function perform(run, step, effect, finish)
  local retries, lost = nil, 0
  while true do
    local fine, result = pcall(attempt, run, step, effect, finish)
    if fine then return result end
    local err = util.as_error(result)
    if err.code == "lost" or err.code == "job_lost" then
      lost = lost + 1
      if lost > 5 then
        util.raise(err.code == "lost" and "connect" or "command", err.message .. " (given up after 5 tries)")
      end
      run:event("effect.interrupted", { step = step.name, effect = effect.id, why = err.message })
      if err.code == "lost" then
        if not run.conn or run.conn.spec.kind == "local" then error(err, 0) end
        if access.reconnect(run) then
          run:warn(step.name, "the server was rebooted during this run")
          lock.take_target(run)
        end
        run:attach_output()
      end
    elseif final[err.code] and err.code ~= "key" then
      error(err, 0)
    else
      err.clean = is_clean(run, step, effect, err)
      local row = run.effects[step.name] and run.effects[step.name][effect.id]
      if row and row.status == "open" then
        util.check(run.journal:effect_end(run.id, step.name, effect.id, "failed", {
          output = err.output, message = err.message }))
        row.status = "failed"
        engine.forget_jobs(effect)
      end
      retries = retries or #step.retry > 0 and past_retries(run, step) or 0
      local wait = err.code ~= "key" and step.retry[retries + 1]
      if not wait then error(err, 0) end
      retries = retries + 1
      run:event("step.retry", { step = step.name, after = wait, attempt = retries, why = err.message })
      if run.options.worker then
        util.raise("later", ("%s; again in %s"):format(err.message, util.show_seconds(wait)), { at = host.now() + wait })
      end
      local slept = host.sleep(wait)
      if not slept then safe_place(run) end
    end
  end
end

local function do_step(run, step)
  local known = run.step_rows[step.name]
  if known and (known.status == "done" or known.status == "skipped") then return end
  if not chosen(run, step) then
    run:step_event(step, "skipped", "step.skipped", {})
    return
  end
  safe_place(run)
  local started = host.monotonic()
  run.display:begin_step(run, step)
  local changed = 0
  local list = engine.effects(step)
  local ended
  local function outcome()
    return { changed = changed, effects = #list, seconds = host.monotonic() - started }
  end
  local function finish(did, effect, output)
    if did then changed = changed + 1 end
    ended = outcome()
    run:record_step(step, "done", "step.done", ended, nil, effect, output)
  end
  for i, effect in ipairs(list) do
    local row = run.effects[step.name] and run.effects[step.name][effect.id]
    if known and known.status == "redo" and row and row.status == "open" then effect.settled = "redo" end
    local fine, result = pcall(perform, run, step, effect, i == #list and finish or nil)
    if not fine then
      local err = util.as_error(result)
      err.step = step.name
      local status = ({ doubt = "doubt", interrupted = "parked", detached = "parked", approval = "parked",
        later = "parked" })[err.code]
        or "failed"
      run:step_event(step, status, "step." .. status, { code = err.code, message = err.message,
        effect = err.effect, seconds = host.monotonic() - started }, err.message)
      error(err, 0)
    end
    if result and not ended then changed = changed + 1 end
  end
  run.changed = run.changed + changed
  run.unchanged = run.unchanged + #list - changed
  if not ended then
    ended = outcome()
    run:record_step(step, "done", "step.done", ended)
  end
  ended.step = step.name
  run.display:event(run, "step.done", ended)
end

function run_methods:attach_output()
  if not self.conn then return end
  self.conn.on_output = function(result)
    if not self.output then return end
    self.output.add("$ " .. util.cut(result.command:gsub("%s+", " "), 200) .. "\n" .. result.stdout .. result.stderr)
  end
end

local function load_rows(run)
  run.effects, run.step_rows = {}, {}
  for _, row in ipairs(util.check(run.journal:effects(run.id))) do
    run.effects[row.step] = run.effects[row.step] or {}
    run.effects[row.step][row.effect] = row
  end
  for _, row in ipairs(util.check(run.journal:steps(run.id))) do run.step_rows[row.step] = row end
  local known = {}
  for _, event in ipairs(util.check(run.journal:events(run.id, {}))) do
    if event.type == "state" then
      local data = json.decode(event.data)
      run.state[data.key] = data.value
    elseif event.type == "barrier.passed" then
      run.confirmed = true
    elseif event.type == "warning" then
      local text = json.decode(event.data).text
      if not known[text] then run.warnings[#run.warnings + 1] = text end
      known[text] = true
    end
  end
end

-- The run's secrets are the ones it began with, by a keyed fingerprint.
function engine.check_secrets(run)
  local key = util.check(run.journal:key())
  for _, name in ipairs(util.keys(run.secrets)) do
    local print = crypto.hmac_sha256(key, run.secrets[name])
    local known = run.journal:fingerprint(run.id, name)
    if known and known ~= print then
      util.raise("key", ("parameter '%s' is not the secret that run %s began with"):format(name, run.id))
    elseif not known then
      util.check(run.journal:fingerprint(run.id, name, print))
    end
  end
end

local function connect(run)
  if run.parent and (not run.spec or run.parent.spec and run.spec.url == run.parent.spec.url) then
    run.conn = run.parent.conn
    run.borrowed = true
    run:attach_output()
    return
  end
  if not run.spec then return end
  run.display:note_status(run, "connecting to " .. run.spec.url)
  run.conn = access.connect(run)
  run:attach_output()
end

local function after_job_open(run)
  for _, steps in pairs(run.effects or {}) do
    for _, row in pairs(steps) do
      if row.status == "open" then return true end
    end
  end
  return false
end

local function preflight(run)
  if not run.book.preflight then return end
  run.book.preflight(context.new(run, { name = "preflight", sudo = run.book.sudo }, nil, true))
end

-- What the runbook does when a run of it has failed; its own failure is a warning.
local function on_failure(run, err)
  if not run.book.on_failure or not run.began or not err.step then return end
  local number = 1
  for _, event in ipairs(util.check(run.journal:events(run.id, {}))) do
    if event.type == "run.failed" then number = number + 1 end
  end
  local fine, failure = pcall(function()
    local step = { name = "on_failure", sudo = run.book.sudo }
    run.book.on_failure(context.new(run, step, { id = "on_failure" }, false),
      { number = number, step = err.step, code = err.code, message = json.decode(util.json { host.mask(err.message) })[1] })
  end)
  if not fine then run:warn(nil, "on_failure of the runbook failed: " .. util.as_error(failure).message) end
end

-- engine.execute(run) -> exit. Every way out leaves the journal's row of the run settled.
function engine.execute(run)
  local started = host.monotonic()
  local fine, failure = pcall(function()
    load_rows(run)
    for i, step in ipairs(run.steps) do step.idx = i end
    local changed = run.changed_sources
    if changed then
      run:warn(nil, ("the files on disk have changed since (%s); the run goes on with the code it began with")
        :format(table.concat(changed, ", ", 1, math.min(3, #changed)) .. (#changed > 3 and ", ..." or "")))
    end
    -- A child on its parent's target is under its parent's lock.
    local own = run.spec and not (run.parent and run.parent.spec and run.parent.spec.url == run.spec.url)
    -- The journal's lease comes before the connection: a second run is refused early.
    if own then lock.check_journal(run) end
    connect(run)
    if own then lock.take(run) end
    run.began = next(run.step_rows) ~= nil or next(run.effects) ~= nil
    if not run.began then preflight(run) end
    run.began = true
    for _, step in ipairs(run.steps) do do_step(run, step) end
    if run.resumed then engine.sweep_jobs(run) end
  end)
  local status, exit, err = "done", #run.warnings > 0 and 3 or 0, nil
  if not fine then
    err = util.as_error(failure)
    if err.code == "doubt" then
      status, exit = "doubt", 9
      err.where = err.where or { run = run.id, step = err.step } -- a child's, where it is one
    elseif err.code == "interrupted" or err.code == "detached" then
      local _, signal = host.interrupted()
      status, exit = "parked", err.exit or signal == "TERM" and 143 or 130
    elseif err.code == "approval" then status, exit = "parked", 7
    elseif err.code == "later" then status, exit = "parked", 10
    elseif err.code == "lost" and not err.step then status, exit = "failed", util.exits.connect
    elseif util.exits[err.code] then status, exit = "failed", util.exit_of(err)
    elseif err.step then status, exit = "failed", err.clean and 5 or 6
    elseif err.code == "script" or err.code == "internal" then status, exit = "failed", 1
    else status, exit = "failed", next(run.effects or {}) and 6 or 5 end
  end
  if status == "done" or status == "failed" then
    local settled, trouble = pcall(function()
      if status == "failed" then on_failure(run, err) end
      outbox.finish(run)
    end)
    if not settled and status == "done" then
      err = util.as_error(trouble)
      status, exit = "failed", util.exit_of(err)
    elseif status == "done" then exit = #run.warnings > 0 and 3 or 0 end
  end
  -- Refused before its first step: nothing was touched, there is nothing to resume.
  -- A resume that does not even get through leaves its run as open as it was.
  if not run.began and not run.resumed and status == "failed" then status = "refused" end
  -- A run that waits for days locks nobody out meanwhile.
  local keep = not (err and err.code == "later")
    and (status == "doubt" or err and err.code == "detached" or after_job_open(run))
  local summary = {
    status = status, exit = exit, changed = run.changed, unchanged = run.unchanged,
    warnings = json.array(run.warnings), seconds = host.monotonic() - started,
    code = err and err.code, message = err and err.message, step = err and err.step,
    next = engine.next_command(run, status, err), due = engine.due(run, err), parked = err and err.code == "later" and host.now() or nil,
  }
  run.finished = true
  if not run.parent or run.leased then lock.drop(run, keep) end
  local recorded, why = pcall(function()
    util.check(run.journal:run_set(run.id, { status = status, exit = exit, summary = util.json(summary) },
      "run." .. status, util.json(summary)))
  end)
  if not recorded then
    -- When the journal was what failed, it has been said.
    if not (err and util.exit_of(err) == 13) then
      summary.message = (summary.message and summary.message .. "; " or "") ..
        "and the journal cannot be written: " .. tostring(why)
    end
    exit, summary.exit = 13, 13
  end
  summary.head = run.journal:head()
  for _, extra in ipairs(run.extra) do extra:close() end
  if run.conn and not run.borrowed then run.conn:close() end
  run.display:summary(run, summary)
  return exit, summary, err
end

-- When a worker goes on with a run that has ended so, nil: not by itself.
function engine.due(run, err)
  if run.parent or not err then return nil end
  if err.code == "later" then return err.at end
  local passing = err.code == "interrupted" or err.code == "connect" or err.code == "lost" or err.code == "locked"
  if not run.options.worker or not passing then return nil end
  return host.now() + (err.code == "interrupted" and 0 or 300)
end

-- engine.begin(run) -> exit of a new run. One without a target has no lease that shows that
-- it is alive.
function engine.begin(run)
  if run.spec then return engine.execute(run) end
  util.check(lock.carry(run.journal, run.id))
  local exit, summary, err = engine.execute(run)
  lock.put_down(run.journal, run.id)
  return exit, summary, err
end

-- engine.carry_on(run, event) -> exit of a run that goes on; raises locked, with nothing
-- changed, where another process does so.
function engine.carry_on(run, event)
  local mine, why = lock.carry(run.journal, run.id)
  if not mine then
    util.raise(why.code == "locked" and "locked" or "journal", ("run %s: %s"):format(run.id, tostring(why)))
  end
  local row = util.check(run.journal:run(run.id))
  if row.status == "done" or row.status == "abandoned" or row.status == "undone" or row.status == "undoing" then
    lock.put_down(run.journal, run.id)
    util.raise("usage", ("run %s is %s: there is nothing to resume"):format(row.id, row.status))
  end
  local done = 0
  for _, s in ipairs(util.check(run.journal:steps(run.id))) do
    if s.status == "done" then done = done + 1 end
  end
  util.check(run.journal:run_set(run.id, { status = "open" }, event, json.encode { done = done }))
  run.display:event(run, event, { done = done })
  local changed = require("lb.loader").changed_files(run.journal, run)
  if #changed > 0 then run.changed_sources = changed end
  local exit, summary, err = engine.execute(run)
  lock.put_down(run.journal, run.id)
  return exit, summary, err
end

function engine.next_command(run, status, err)
  if err and err.code == "later" then
    return ("lbrun worker (goes on at %s), or now: lbrun resume %s"):format(host.date("%Y-%m-%d %H:%M:%S", err.at), run.root_id)
  end
  if status == "done" or status == "refused" then return nil end
  if status == "doubt" then
    return ("lbrun settle %s %s --done|--redo|--fail --reason TEXT"):format(err.where.run, err.where.step or "STEP")
  end
  local command = "lbrun resume " .. run.root_id
  local root = run
  while root.parent do root = root.parent end
  -- Those it was given; what it has minted itself it finds again.
  for _, name in ipairs(util.keys(root.book.params)) do
    if root.book.params[name].kind == "secret" and root.secrets[name] then command = ("%s %s=@FILE"):format(command, name) end
  end
  if err.code == "approval" and err.confirm then command = ("%s --confirm %s"):format(command, util.quote(err.confirm)) end
  return command
end

-- Child runs --------------------------------------------------------------------------

-- ctx.child{ runbook, params, target }: a run of its own under the parent's lock. The same
-- call in a resumed step finds the child that it began.
function engine.child(parent, step, effect, options)
  for k in pairs(options) do
    if k ~= "runbook" and k ~= "params" and k ~= "target" then
      util.misuse(("child: unknown option '%s'"):format(tostring(k)))
    end
  end
  if effect.touched and (effect.children or 0) == 0 then
    parent:event("effect.direct", { step = step.name, effect = effect.id })
  end
  effect.children = (effect.children or 0) + 1
  local place = ("%s/%s/%d"):format(step.name, effect.id, effect.children)
  local loader = require "lb.loader"
  local child
  for _, row in ipairs(util.check(parent.journal:children(parent.id))) do
    if row.parent_step == place then child = row end
  end
  if child and child.status == "done" then
    local summary = json.decode(child.summary)
    for _, text in ipairs(summary.warnings) do parent:warn(step.name, text) end
    return summary
  end
  if child and child.status == "undoing" then
    util.raise("usage", ("child run %s is being undone: lbrun undo %s goes on with that"):format(child.id, child.id))
  elseif child and child.status == "undone" then
    child = nil -- what it did is gone: another one does it anew
  end
  local run = child and loader.resume(parent.journal, child, { parent = parent, display = parent.display, given = options.params })
    or loader.child(parent, place, options)
  local exit, summary, err = engine.execute(run)
  if run.borrowed then
    -- The child may have lost the connection and made another, or switched to one.
    parent.conn = run.conn
    parent:attach_output()
  end
  if err then
    err.message = ("child run %s: %s"):format(run.id, err.message)
    error(err, 0)
  end
  if exit == 3 then
    for _, text in ipairs(run.warnings) do parent:warn(step.name, text) end
  end
  return summary
end

return engine
