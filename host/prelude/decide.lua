-- decide.lua: what a person decides about a run: undo, settle, abandon. Each decision is
-- journaled with its reason.
local host = require "host"
local json = require "json"
local util = require "lb.util"
local access = require "lb.access"
local context = require "lb.context"
local engine = require "lb.engine"
local lock = require "lb.lock"
local display_of = require "lb.display"

local decide = {}

-- Step and effect of a run, by the row that the journal has of it.
local function finder(run)
  local by_name = {}
  for _, step in ipairs(run.steps) do
    for _, effect in ipairs(engine.effects(step)) do
      by_name[step.name .. "\0" .. effect.id] = { step = step, effect = effect }
    end
  end
  return function(row) return by_name[row.step .. "\0" .. row.effect] end
end

-- The effects of a run that were changed and stand, last first, with what undoes them.
local function undo_list(rows, find)
  local can, cannot = {}, {}
  for i = #rows, 1, -1 do
    local row = rows[i]
    if (row.status == "done" or row.status == "failed" or row.status == "open") and (row.attempt or 0) > 0 then
      local found = find(row)
      if found and found.effect.undo and row.undoable then
        can[#can + 1] = { row = row, step = found.step, effect = found.effect }
      elseif not (found and found.effect.pure) then
        cannot[#cannot + 1] = row
      end
    end
  end
  return can, cannot
end

-- What runs on the target for an effect that was interrupted has to end first: else it would
-- take effect after it was undone.
local function settle_jobs(run, rows, find)
  for _, row in ipairs(rows) do
    local found = row.status == "open" and find(row)
    if found then engine.settle_jobs(run, found.step, found.effect) end
  end
end

-- decide.undo(run) -> exit. A run of which something was undone is not resumed any more: undo
-- goes on where it stopped.
function decide.undo(run)
  local display = run.display
  local rows = util.check(run.journal:effects(run.id))
  local find = finder(run)
  local can, cannot = undo_list(rows, find)
  local function tell(state, words, step, effect)
    if display.json then display:line { type = "undo.effect", run = run.id, step = step, effect = effect, state = state }
    else host.write("out", ("%s: %s %s\n"):format(words, step, effect)) end
  end
  for _, row in ipairs(cannot) do tell("kept", "cannot be undone", row.step, row.effect) end
  if #can == 0 then
    local exit = #cannot > 0 and 3 or 0
    display_of.result(run.options, run.id .. ": nothing to undo", { run = run.id, exit = exit })
    return exit
  end
  if not run.options.yes then
    local answer = not run.options.no_input and host.isatty("in")
      and host.ask(("Undo %d effects of %s? Type yes: "):format(#can, run.id)) or nil
    if answer ~= "yes" then
      for _, u in ipairs(can) do tell("would", "would undo", u.row.step, u.row.effect) end
      util.raise("approval", ("undo of %d effects needs a yes: lbrun undo %s --yes"):format(#can, run.id))
    end
  end
  local exit = #cannot > 0 and 3 or 0
  local fine, failure = pcall(function()
    if run.spec then
      lock.check_journal(run)
      run.conn = access.connect(run)
      lock.take(run)
      run:attach_output()
    end
    util.check(run.journal:run_set(run.id, { status = "undoing" }, "run.undoing", util.json { effects = #can }))
    settle_jobs(run, rows, find)
    for _, u in ipairs(can) do
      local window = util.window(65536)
      run.output = window
      local effect = u.effect
      effect.attempt = "undo"
      local before = u.row.before and json.decode(u.row.before)
      local ok, err = pcall(effect.undo, context.new(run, u.step, effect, false), before)
      run.output = nil
      if not ok then
        err = util.as_error(err)
        -- The next try starts its commands anew; after a lost connection it finds them.
        if err.code == "command" then engine.forget_jobs(effect) end
        run:event("undo.failed", { step = u.step.name, effect = effect.id, why = err.message })
        util.raise(err.code == "lost" and "connect" or "undo",
          ("undo of %s in step %s failed: %s; when that is mended: lbrun undo %s"):format(effect.id, u.step.name, err.message, run.id),
          { exit = 6 })
      end
      util.check(run.journal:effect_end(run.id, u.step.name, effect.id, "undone", { output = window.text() }))
      engine.forget_jobs(effect)
      if display.json then tell("undone", "undone", u.step.name, effect.id)
      else display:say(("  undone: %s %s"):format(u.step.name, effect.id)) end
    end
    engine.sweep_jobs(run)
  end)
  run.finished = true
  lock.drop(run, false)
  if run.conn then run.conn:close() end
  if not fine then error(failure, 0) end
  util.check(run.journal:run_set(run.id, { status = "undone", exit = exit }, "run.undone",
    util.json { undone = #can, kept = #cannot }))
  display_of.result(run.options, ("%s: %d effects undone, %d cannot be undone"):format(run.id, #can, #cannot),
    { run = run.id, status = "undone", exit = exit, undone = #can, kept = #cannot })
  return exit
end

-- decide.settle(journal, row, step, verdict, reason, options) -> exit
function decide.settle(journal, row, step, verdict, reason, options)
  if row.status == "abandoned" or row.status == "undone" or row.status == "undoing" then
    util.raise("usage", ("run %s is %s: there is nothing to settle"):format(row.id, row.status))
  end
  local found
  for _, s in ipairs(util.check(journal:steps(row.id))) do
    if s.step == step then found = s end
  end
  if not found then
    local names = {}
    for _, s in ipairs(util.check(journal:steps(row.id))) do names[#names + 1] = s.step end
    util.raise("usage", ("run %s has no step '%s'%s"):format(row.id, step, util.did_you_mean(step, names)))
  end
  local open = {}
  for _, e in ipairs(util.check(journal:effects(row.id, step))) do
    if e.status == "open" then open[#open + 1] = e end
  end
  if #open == 0 then
    util.raise("usage", ("step '%s' of %s is not in doubt"):format(step, row.id))
  end
  local pid = lock.alive(journal, row)
  if pid then
    util.raise("locked", ("run %s is running, process %d"):format(row.id, pid))
  end
  for _, e in ipairs(open) do
    if verdict == "done" then
      util.check(journal:effect_end(row.id, step, e.effect, "done", { message = "settled by a person: " .. reason }))
    elseif verdict == "fail" then
      util.check(journal:effect_end(row.id, step, e.effect, "failed", { message = "settled by a person: " .. reason }))
    end
  end
  local data = util.json { verdict = verdict, reason = reason, by = host.user(), step = step }
  local status = verdict == "redo" and "redo" or verdict == "fail" and "failed" or "settled"
  util.check(journal:step_set(row.id, step, { status = status, message = reason }, "step.settled", data))
  util.check(journal:run_set(row.id, { status = verdict == "fail" and "failed" or "parked" }, "run.settled", data))
  local top = row
  while top.parent do top = util.check(journal:run(top.parent)) end
  display_of.result(options, ("%s: step %s settled as %s\nnext: lbrun resume %s"):format(row.id, step, verdict, top.id),
    { run = row.id, step = step, exit = 0, message = ("step %s settled as %s"):format(step, verdict),
      next = "lbrun resume " .. top.id })
  return 0
end

-- decide.abandon(run, journal, row, reason, options) -> exit. The leases go; what was done stays.
function decide.abandon(run, journal, row, reason, options)
  local pid = lock.alive(journal, row)
  if pid then
    util.raise("locked", ("run %s is running, process %d: interrupt it first"):format(row.id, pid))
  end
  local freed = "its target's lock was released"
  if run and run.spec then
    local fine, err = pcall(function()
      run.conn = access.connect(run)
      run.leased = true
      lock.drop(run, false)
      run.conn:close()
    end)
    if not fine then
      freed = ("its target could not be reached to release the lock there (%s)"):format(util.as_error(err).message)
      journal:lease_drop(row.target, row.id)
    end
  end
  util.check(journal:run_set(row.id, { status = "abandoned" }, "run.abandoned",
    util.json { reason = reason, by = host.user() }))
  display_of.result(options, ("%s: abandoned; %s; what it did stays as it is (lbrun show %s)"):format(row.id, freed, row.id),
    { run = row.id, status = "abandoned", exit = 0 })
  return 0
end

return decide
