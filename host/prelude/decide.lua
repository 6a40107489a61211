-- decide.lua: what a person decides about a run: undo, settle, abandon. Each decision is
-- journaled with its reason.
local host = require "host"
local json = require "json"
local util = require "lb.util"
local access = require "lb.access"
local context = require "lb.context"
local engine = require "lb.engine"
local lock = require "lb.lock"

local decide = {}

-- The effects of a run that were changed and stand, last first, with what undoes them.
local function undo_list(run)
  local by_name = {}
  for _, step in ipairs(run.steps) do
    for _, effect in ipairs(engine.effects(step)) do
      by_name[step.name .. "\0" .. effect.id] = { step = step, effect = effect }
    end
  end
  local can, cannot = {}, {}
  local rows = util.check(run.journal:effects(run.id))
  for i = #rows, 1, -1 do
    local row = rows[i]
    if (row.status == "done" or row.status == "failed" or row.status == "open") and (row.attempt or 0) > 0 then
      local found = by_name[row.step .. "\0" .. row.effect]
      if found and found.effect.undo then
        can[#can + 1] = { row = row, step = found.step, effect = found.effect }
      elseif not (found and found.effect.pure) then
        cannot[#cannot + 1] = row
      end
    end
  end
  return can, cannot
end

-- decide.undo(run) -> exit
function decide.undo(run)
  local display = run.display
  local can, cannot = undo_list(run)
  for _, row in ipairs(cannot) do
    host.write("out", ("cannot be undone: %s %s\n"):format(row.step, row.effect))
  end
  if #can == 0 then
    host.write("out", ("%s: nothing to undo\n"):format(run.id))
    return #cannot > 0 and 3 or 0
  end
  if not run.options.yes then
    local answer = not run.options.no_input and host.isatty("in")
      and host.ask(("Undo %d effects of %s? Type yes: "):format(#can, run.id)) or nil
    if answer ~= "yes" then
      for _, u in ipairs(can) do
        host.write("out", ("would undo: %s %s\n"):format(u.row.step, u.row.effect))
      end
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
        run:event("undo.failed", { step = u.step.name, effect = effect.id, why = err.message })
        util.raise(err.code == "lost" and "connect" or "undo",
          ("undo of %s in step %s failed: %s"):format(effect.id, u.step.name, err.message), { exit = 6 })
      end
      util.check(run.journal:effect_end(run.id, u.step.name, effect.id, "undone", { output = window.text() }))
      display:say(("  undone: %s %s"):format(u.step.name, effect.id))
    end
  end)
  run.finished = true
  lock.drop(run, false)
  if run.conn then run.conn:close() end
  if not fine then error(failure, 0) end
  util.check(run.journal:run_set(run.id, { status = "undone", exit = exit }, "run.undone",
    json.encode { undone = #can, kept = #cannot }))
  host.write("out", ("%s: %d effects undone, %d cannot be undone\n"):format(run.id, #can, #cannot))
  return exit
end

-- decide.settle(journal, row, step, verdict, reason) -> exit
function decide.settle(journal, row, step, verdict, reason)
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
  local data = json.encode { verdict = verdict, reason = reason, by = host.user(), step = step }
  local status = verdict == "redo" and "redo" or verdict == "fail" and "failed" or "settled"
  util.check(journal:step_set(row.id, step, { status = status, message = reason }, "step.settled", data))
  util.check(journal:run_set(row.id, { status = verdict == "fail" and "failed" or "parked" }, "run.settled", data))
  host.write("out", ("%s: step %s settled as %s\nnext: lbrun resume %s\n"):format(row.id, step, verdict, row.id))
  return 0
end

-- decide.abandon(journal, row, reason) -> exit. The leases go; what was done stays.
function decide.abandon(run, journal, row, reason)
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
    json.encode { reason = reason, by = host.user() }))
  host.write("out", ("%s: abandoned; %s; what it did stays as it is (lbrun show %s)\n"):format(row.id, freed, row.id))
  return 0
end

return decide
