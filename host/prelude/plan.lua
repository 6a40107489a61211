-- plan.lua: asks every probe what would change and prints it. It writes nothing on the
-- target and nothing into the journal, takes no lock and mints no secret.
local host = require "host"
local util = require "lb.util"
local script = require "lb.script"
local context = require "lb.context"
local access = require "lb.access"
local engine = require "lb.engine"
local web = require "lb.web"

local plan = {}

local marks = { done = "=", pending = "~", after = "+", unknown = "?", failed = "!" }

local function text_of(answer)
  return answer.text:gsub("\n$", "")
end

-- One effect: its state and text. What cannot be asked because an earlier step has not
-- been applied is shown by its whole intent.
local function look(run, step, effect, waits_for)
  local ctx = context.new(run, step, nil, true)
  local intent = effect.intent and function()
    local fine, text = pcall(effect.intent, ctx)
    return fine and tostring(text) or ""
  end or function() return "" end
  if not effect.probe then
    if waits_for then return "after", waits_for, intent() end
    return "pending", effect.pure and "checked each time" or "runs each time (it has no probe)", intent()
  end
  local fine, answer = pcall(effect.probe, ctx)
  if fine and script.is_answer(answer) then
    if answer.state == "after" then return "after", answer.text, intent() end
    if answer.state == "unknown" and waits_for then return "after", waits_for, intent() end
    return answer.state, text_of(answer), ""
  end
  if waits_for then return "after", waits_for, intent() end
  if fine then util.raise("runbook", ("the probe of %s gave no answer"):format(effect.id)) end
  local err = util.as_error(answer)
  if err.code == "lost" or err.code == "timeout" then error(err, 0) end
  return "failed", err.message, ""
end

local function indent(text)
  return (("      " .. text):gsub("\n", "\n      "))
end

-- plan.show(run) -> exit
function plan.show(run)
  local display = run.display
  web.read_only(run.env)
  if run.spec then
    run.conn = access.connect(run)
  end
  local function out(text)
    if not display.json then host.write("out", text .. "\n") end
  end
  out(("plan of %s%s%s"):format(run.book.name, run.subject and " of " .. run.subject or "",
    run.spec and " on " .. run.conn.url or ""))
  if run.book.preflight then
    run.book.preflight(context.new(run, { name = "preflight", sudo = run.book.sudo }, nil, true))
  end
  local counts = { done = 0, pending = 0, after = 0, unknown = 0, failed = 0 }
  local waits_for
  for _, step in ipairs(run.steps) do
    if engine.chosen(run, step) then
      local lines, changes = {}, false
      local before = waits_for
      for _, effect in ipairs(engine.effects(step)) do
        local state, text, intent = look(run, step, effect, changes and step.name or before)
        if not effect.pure or state ~= "pending" and state ~= "after" then counts[state] = counts[state] + 1 end
        if state ~= "done" and not effect.pure then changes = true end
        if display.json then
          display:line { type = "plan.effect", step = step.name, effect = effect.id, state = state,
            text = text, intent = intent ~= "" and intent or nil }
        end
        if state ~= "done" or display.verbose >= 1 then
          lines[#lines + 1] = ("  %s %s%s"):format(marks[state], effect.id,
            state == "after" and ("  after(%s)"):format(text) or state == "unknown" and "  unknown: " .. text
            or state == "failed" and "  cannot be asked: " .. text or "")
          if state == "pending" and text ~= "" then lines[#lines + 1] = indent(text) end
          if state == "after" and intent ~= "" then lines[#lines + 1] = indent(intent:gsub("\n$", "")) end
        end
      end
      if #lines > 0 then
        out(("step %s (%s)"):format(step.name, step.title))
        out(table.concat(lines, "\n"))
      end
      if changes then waits_for = step.name end
    end
  end
  local changes = counts.pending + counts.after
  for _, text in ipairs(run.warnings) do out("warning: " .. text) end
  if run.conn then run.conn:close() end
  local exit = 0
  if counts.failed > 0 then exit = 5
  elseif counts.unknown > 0 then exit = 9
  elseif changes > 0 and run.options.detailed_exitcode then exit = 10
  elseif #run.warnings > 0 then exit = 3 end
  if display.json then
    display:line { type = "summary", exit = exit, pending = counts.pending, after = counts.after,
      done = counts.done, unknown = counts.unknown, failed = counts.failed }
  end
  out(("%d to change, %d after them, %d as they should be%s%s; nothing was changed"):format(counts.pending, counts.after,
    counts.done, counts.unknown > 0 and (", %d unknown"):format(counts.unknown) or "",
    counts.failed > 0 and (", %d cannot be asked"):format(counts.failed) or ""))
  return exit
end

return plan
