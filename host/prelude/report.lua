-- report.lua: looks into the journal for a person: runs, show, log, explain; and into the
-- runbooks: list, describe. It changes nothing.
local host = require "host"
local json = require "json"
local util = require "lb.util"
local params = require "lb.params"
local loader = require "lb.loader"
local script = require "lb.script"
local lock = require "lb.lock"

local report = {}

local function out(fmt, ...)
  host.write("out", fmt:format(...) .. "\n")
end

local function when(ts)
  return ts and host.date("%Y-%m-%d %H:%M:%S", ts) or "-"
end

local function line(data)
  host.write("out", util.json(data) .. "\n")
end

function report.runs(journal, options)
  local rows = util.check(journal:runs { limit = 200 })
  if options.json then
    for _, r in ipairs(rows) do
      line { type = "run", run = r.id, name = r.name, status = r.status, exit = r.exit, target = r.target,
        subject = r.subject, created = r.created, updated = r.updated, parent = r.parent }
    end
    return 0
  end
  if #rows == 0 then
    out("no runs yet in %s", journal:path())
    return 0
  end
  out("%-26s %-10s %-4s %-19s %s", "RUN", "STATUS", "EXIT", "BEGUN", "TARGET")
  for _, r in ipairs(rows) do
    out("%-26s %-10s %-4s %-19s %s", r.id, r.status, r.exit or "-", when(r.created), r.target or "-")
  end
  return 0
end

function report.show(journal, row, options)
  local steps = util.check(journal:steps(row.id))
  local effects = util.check(journal:effects(row.id))
  if options.json then
    local list = {}
    for _, s in ipairs(steps) do
      local own = {}
      for _, e in ipairs(effects) do
        if e.step == s.step then
          own[#own + 1] = { effect = e.effect, status = e.status, attempt = e.attempt, undoable = e.undoable,
            message = e.message, output = e.output }
        end
      end
      list[#list + 1] = { step = s.step, status = s.status, message = s.message, effects = json.array(own) }
    end
    line { type = "run", run = row.id, name = row.name, status = row.status, exit = row.exit, target = row.target,
      subject = row.subject, params = json.decode(row.params), created = row.created, updated = row.updated,
      steps = json.array(list), summary = row.summary and json.decode(row.summary) }
    return 0
  end
  out("%s  %s, exit %s", row.id, row.status, row.exit or "-")
  out("  runbook %s%s", row.runbook, row.section and ", section " .. row.section or "")
  out("  target  %s", row.target or "none")
  out("  begun   %s, last change %s", when(row.created), when(row.updated))
  out("  params  %s", row.params)
  for _, s in ipairs(steps) do
    out("  %-22s %s%s", s.step, s.status, s.message and s.message ~= "" and ": " .. s.message or "")
    for _, e in ipairs(effects) do
      if e.step == s.step then
        out("    %-9s %s%s%s", e.status, e.effect, e.attempt and e.attempt > 1 and (" (attempt %d)"):format(e.attempt) or "",
          e.message and e.message ~= "" and ": " .. e.message or "")
        if (options.verbose or 0) > 0 and e.output and e.output ~= "" then
          out("      | %s", (e.output:gsub("\n$", ""):gsub("\n", "\n      | ")))
        end
      end
    end
  end
  for _, child in ipairs(util.check(journal:children(row.id))) do
    out("  child %s  %s", child.id, child.status)
  end
  return 0
end

function report.log(journal, row, options)
  local after = 0
  while true do
    local events = util.check(journal:events(row.id, { after = after, limit = 500 }))
    for _, e in ipairs(events) do
      if options.json then
        line { ts = e.ts, run = e.run, seq = e.seq, type = e.type, data = json.decode(e.data), hash = e.hash }
      else
        out("%s  %6d  %-20s %s", when(e.ts), e.seq, e.type, e.data)
      end
      after = e.seq
    end
    if #events < 500 then return 0 end
  end
end

-- What is done, in doubt, left, and the next command.
function report.explain(journal, row, options)
  local steps, doubtful, open = {}, {}, 0
  for _, s in ipairs(util.check(journal:steps(row.id))) do steps[s.step] = s end
  for _, e in ipairs(util.check(journal:effects(row.id))) do
    if e.status == "open" then
      open = open + 1
      doubtful[#doubtful + 1] = ("%s: %s was begun and has no result"):format(e.step, e.effect)
    end
  end
  local done, left = {}, {}
  local fine, list = pcall(function()
    local closure = require("lb.sources").stored(journal, row)
    local book = script.load(closure)
    return script.steps(book, json.decode(row.params), closure)
  end)
  for _, s in ipairs(fine and list or {}) do
    local known = steps[s.name]
    if known and (known.status == "done" or known.status == "skipped") then done[#done + 1] = s.name
    else left[#left + 1] = s.name .. (known and (" (%s)"):format(known.status) or "") end
  end
  local alive = lock.alive(journal, row)
  local next_command
  if alive then next_command = nil
  elseif row.status == "done" or row.status == "undone" or row.status == "abandoned" or row.status == "refused" then next_command = nil
  elseif row.status == "undoing" then next_command = "lbrun undo " .. row.id
  elseif row.status == "doubt" then
    local step = doubtful[1] and doubtful[1]:match("^([^:]+):") or "STEP"
    next_command = ("lbrun settle %s %s --done|--redo|--fail --reason TEXT   (or lbrun resume %s, which asks the probe again)")
      :format(row.id, step, row.id)
  else next_command = "lbrun resume " .. row.id end
  if options.json then
    line { type = "explain", run = row.id, status = row.status, running = alive ~= nil, done = json.array(done),
      left = json.array(left), in_doubt = json.array(doubtful), next = next_command }
    return 0
  end
  local state = row.status
  if alive then state = ("running, process %d"):format(alive)
  elseif state == "open" then state = "interrupted: its process ended without a word" end
  out("%s is %s", row.id, state)
  out("  done      %s", #done > 0 and table.concat(done, ", ") or "nothing")
  out("  in doubt  %s", open > 0 and table.concat(doubtful, "; ") or "nothing")
  out("  left      %s", #left > 0 and table.concat(left, ", ") or "nothing")
  local summary = row.summary and json.decode(row.summary)
  if summary and summary.message then out("  because   %s", summary.message) end
  if next_command then out("next: %s", next_command) end
  return 0
end

function report.list(dir, options)
  dir = dir or host.data_dirs().runbooks
  local entries, err = host.list(dir)
  if not entries then util.raise("usage", ("cannot list %s: %s"):format(dir, tostring(err))) end
  local exit = 0
  for _, entry in ipairs(entries) do
    if entry.type == "file" and entry.name:match("%.lua$") then
      local fine, opened = pcall(loader.open, dir .. "/" .. entry.name)
      if not fine then
        exit = 3
        host.write("err", ("lbrun: %s\n"):format(util.as_error(opened).message))
      elseif options.json then
        line { type = "runbook", name = opened.book.name, file = dir .. "/" .. entry.name,
          summary = opened.book.summary, section = opened.book.section }
      else
        out("%-18s %s%s", entry.name, opened.book.summary, opened.book.section and ("  (%s)"):format(opened.book.section) or "")
      end
    end
  end
  return exit
end

function report.describe(path, options)
  local opened = loader.open(path)
  local book = opened.book
  if options.json then
    line { type = "runbook", name = book.name, summary = book.summary, section = book.section,
      params = params.schema(book.params, book.name) }
    return 0
  end
  out("%s - %s%s", book.name, book.summary, book.section and ("  (section %s)"):format(book.section) or "")
  local names = util.keys(book.params)
  if #names > 0 then out("parameters:") end
  for _, name in ipairs(names) do
    local p = book.params[name]
    local default = p.optional and " (optional)" or " (required)"
    if p.default ~= nil then
      local text = type(p.default) == "table" and util.json(json.array(p.default)) or tostring(p.default)
      default = text ~= "" and (" (default %s)"):format(text) or " (optional)"
    end
    out("  %-22s %s%s%s", name, params.expects(p), default, p.description and "\n" .. (" "):rep(25) .. p.description or "")
  end
  -- Words of any kind, then paths: most runbooks can name their steps by one of the two.
  local fine, steps
  for _, prefix in ipairs { "", "/" } do
    local values = {}
    for name, p in pairs(book.params) do values[name] = params.example(p, prefix .. name) end
    fine, steps = pcall(script.steps, book, values, opened.closure)
    if fine then break end
  end
  if fine then
    out("steps:")
    for _, s in ipairs(steps) do
      out("  %-22s %-13s %s%s", s.name, s.class, s.title, #s.tags > 0 and ("  [%s]"):format(table.concat(s.tags, " ")) or "")
    end
  end
  return 0
end

return report
