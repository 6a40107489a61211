-- main.lua: the commands. It maps a parsed command line to the parts that do the work,
-- and every failure to one line on stderr and an exit code.
local host = require "host"
local json = require "json"
local journal = require "journal"
local notify = require "lb.notify"
local util = require "lb.util"
local lock = require "lb.lock"

local commands = {}

local function journal_path(options)
  if options.journal then return options.journal end
  local state = host.getenv("XDG_STATE_HOME")
  if not state or state == "" then state = (host.home() or "") .. "/.local/state" end
  return state .. "/lbrun/journal.db"
end

-- To look into a journal of an older format, it is brought forward first.
local function look_into(path)
  local j, err = journal.open(path, { readonly = true })
  if j or err.code ~= "readonly" then return j, err end
  local older, why = journal.open(path, { create = false })
  if not older then return nil, why end
  older:close()
  return journal.open(path, { readonly = true })
end

local function open_journal(options, readonly)
  local path = journal_path(options)
  local j, err
  if readonly then j, err = look_into(path) else j, err = journal.open(path) end
  if j then return j end
  if readonly and err.code == "not_found" then
    util.raise("usage", ("there is no journal at %s: nothing was run yet, or name it with --journal"):format(path))
  end
  util.raise("journal", ("journal %s: %s"):format(path, err.message or tostring(err)))
end

local function one_run(j, cli, need)
  local id = cli.operands[1]
  if not id then util.raise("usage", ("lbrun %s needs a run; `lbrun runs` lists them"):format(need or cli.command)) end
  local row, err = j:run(id)
  if not row then
    util.raise("usage", ("run '%s': %s; `lbrun runs` lists them"):format(id, err and err.message or "not found"))
  end
  return row
end

local function places(options)
  local loader = require "lb.loader"
  local names = {}
  for _, name in ipairs(options.target or {}) do names[#names + 1] = name end
  if options.targets_file then
    local text, err = host.read_file(options.targets_file, { max = 1048576 })
    if not text then util.raise("usage", ("targets file: %s"):format(tostring(err))) end
    for name in text:gmatch("[^\r\n]+") do
      name = name:match("^%s*(.-)%s*$")
      if name ~= "" and name:sub(1, 1) ~= "#" then names[#names + 1] = name end
    end
  end
  local list, seen = {}, {}
  for _, name in ipairs(names) do
    local place = loader.target(name)
    if seen[place.spec.url] then util.raise("usage", ("target %s is named twice"):format(place.spec.url)) end
    seen[place.spec.url] = true
    list[#list + 1] = place
  end
  return list
end

-- The worst exit of a batch: success and warnings are below every failure.
local function worse(a, b)
  local function rank(code)
    return code == 0 and 0 or code == 3 and 1 or code == 10 and 2 or 100 + code
  end
  return rank(b) > rank(a) and b or a
end

local function batch(list, parallel, display, fn)
  if #list <= 1 then return fn(list[1]) end
  local exit, next_one = 0, 1
  local function worker()
    while next_one <= #list do
      local place = list[next_one]
      next_one = next_one + 1
      local fine, result = pcall(fn, place)
      if not fine then
        local err = util.as_error(result)
        host.write("err", ("lbrun: [%s] %s\n"):format(place.spec.url, err.message))
        result = util.exit_of(err)
        if display.json then
          display:line { type = "summary", target = place.spec.url, exit = result, code = err.code, message = err.message }
        end
      end
      exit = worse(exit, result)
      if host.interrupted() > 0 then return end
    end
  end
  local tasks = {}
  for i = 1, math.min(parallel or 4, #list) do tasks[i] = host.task(worker) end
  for _, t in ipairs(tasks) do
    local ok, err = t:join()
    while not ok and type(err) == "table" and err.code == "interrupted" do ok, err = t:join() end
  end
  return exit
end

function commands.run(cli)
  local options = cli.options
  local loader, engine, display_of = require "lb.loader", require "lb.engine", require "lb.display"
  if #cli.operands ~= 1 then util.raise("usage", "name one runbook: lbrun RUNBOOK.lua [name=value ...]") end
  local list = places(options)
  local opened = loader.open(cli.operands[1])
  if options.check then return commands.plan(cli) end
  local display = display_of.new(options, #list > 1)
  -- Every parameter is checked for every target before the first one is touched.
  local runs = {}
  for i = 1, math.max(1, #list) do runs[i] = loader.fresh(cli, opened, list[i], display) end
  local j = open_journal(options)
  local i = 0
  return batch(#list > 0 and list or { false }, options.parallel, display, function()
    i = i + 1
    local request = options.request_id and #runs > 1 and options.request_id .. "/" .. runs[i].spec.url or options.request_id
      or loader.request(runs[i].book, runs[i].values)
    local run, existing = loader.register(runs[i], j, { request_id = request })
    if not run then
      if existing.status == "open" then
        util.raise("locked", ("request %s is run %s, which is open: lbrun explain %s"):format(request, existing.id, existing.id))
      end
      display:say(("request %s is run %s: %s"):format(request, existing.id, existing.status))
      if options.json then
        display:line { type = "summary", run = existing.id, status = existing.status, exit = existing.exit, existing = true }
      end
      return existing.exit or 0
    end
    run:event("run.start", { name = run.book.name, target = run.spec and run.spec.url })
    local exit = engine.begin(run)
    notify.failure(options, exit, run.id)
    return exit
  end)
end

function commands.plan(cli)
  local loader, plan, display_of = require "lb.loader", require "lb.plan", require "lb.display"
  if #cli.operands ~= 1 then util.raise("usage", "name one runbook: lbrun plan RUNBOOK.lua [name=value ...]") end
  local list = places(cli.options)
  local opened = loader.open(cli.operands[1])
  local display = display_of.new(cli.options, #list > 1)
  local exit = 0
  -- What earlier runs proved of the server (pins, paths) is read, never written.
  local j = look_into(journal_path(cli.options))
  for i = 1, math.max(1, #list) do
    local run = loader.fresh(cli, opened, list[i], display)
    run.journal = j or nil
    run.event = function(self, type, data) self.display:event(self, type, data or {}) end
    exit = worse(exit, plan.show(run))
  end
  return exit
end

local function open_runs(j)
  local list = {}
  for _, row in ipairs(util.check(j:runs { limit = 1000 })) do
    local open = row.status == "open" or row.status == "parked" or row.status == "doubt" or row.status == "failed"
    if open and not row.parent then list[#list + 1] = row end
  end
  return list
end

function commands.resume(cli)
  local loader, engine, display_of = require "lb.loader", require "lb.engine", require "lb.display"
  local j = open_journal(cli.options)
  local row
  if cli.operands[1] then
    row = one_run(j, cli)
  else
    local list = open_runs(j)
    if #list == 0 then
      display_of.result(cli.options, "no run is open", { exit = 0 })
      return 0
    end
    if #list > 1 then
      local shown = display_of.new(cli.options, false)
      for _, r in ipairs(list) do
        if shown.json then shown:line { type = "run", run = r.id, status = r.status, target = r.target }
        else host.write("out", ("%-26s %-9s %s\n"):format(r.id, r.status, r.target or "-")) end
      end
      util.raise("usage", ("%d runs are open; name one: lbrun resume RUN"):format(#list))
    end
    row = list[1]
  end
  if row.parent then util.raise("usage", ("%s is a child: resume its parent %s"):format(row.id, row.parent)) end
  if row.status == "undoing" then
    util.raise("usage", ("run %s is being undone: lbrun undo %s goes on with that; what is to be done again is a new run")
      :format(row.id, row.id))
  end
  if row.status == "done" or row.status == "abandoned" or row.status == "undone" or row.status == "refused" then
    util.raise("usage", ("run %s is %s: there is nothing to resume"):format(row.id, row.status))
  end
  local pid = lock.alive(j, row)
  if pid then
    util.raise("locked", ("run %s is running, process %d"):format(row.id, pid))
  end
  local display = display_of.new(cli.options, false)
  local run = loader.resume(j, row, { display = display, cli = cli })
  local exit = engine.carry_on(run, "run.resume")
  notify.failure(cli.options, exit, run.id)
  return exit
end

function commands.undo(cli)
  local loader, decide, display_of = require "lb.loader", require "lb.decide", require "lb.display"
  local j = open_journal(cli.options)
  local row = one_run(j, cli)
  if row.status == "undone" then util.raise("usage", ("run %s is undone already"):format(row.id)) end
  local pid = lock.alive(j, row)
  if pid then
    util.raise("locked", ("run %s is running, process %d: interrupt it first"):format(row.id, pid))
  end
  return decide.undo(loader.resume(j, row, { display = display_of.new(cli.options), cli = cli }))
end

function commands.settle(cli)
  local j = open_journal(cli.options)
  local row = one_run(j, cli)
  local o = cli.options
  local verdict = o.done and "done" or o.redo and "redo" or o.fail and "fail"
  if not cli.operands[2] or not verdict or not o.reason or o.reason == "" then
    util.raise("usage", "lbrun settle RUN STEP --done|--redo|--fail --reason TEXT")
  end
  return require("lb.decide").settle(j, row, cli.operands[2], verdict, o.reason, o)
end

function commands.abandon(cli)
  local j = open_journal(cli.options)
  local row = one_run(j, cli)
  if not cli.options.reason or cli.options.reason == "" then
    util.raise("usage", "lbrun abandon RUN --reason TEXT")
  end
  if row.parent then util.raise("usage", ("%s is a child: abandon its parent %s"):format(row.id, row.parent)) end
  if row.status == "done" or row.status == "undone" then
    util.raise("usage", ("run %s is %s"):format(row.id, row.status))
  end
  local loader, display_of = require "lb.loader", require "lb.display"
  local fine, run = pcall(loader.bare, j, row, { display = display_of.new(cli.options), cli = cli })
  return require("lb.decide").abandon(fine and run or nil, j, row, cli.options.reason, cli.options)
end

for _, name in ipairs { "show", "log", "explain" } do
  commands[name] = function(cli)
    local j = open_journal(cli.options, true)
    return require("lb.report")[name](j, one_run(j, cli), cli.options)
  end
end

function commands.runs(cli)
  return require("lb.report").runs(open_journal(cli.options, true), cli.options)
end

function commands.outbox(cli)
  local word = cli.operands[1] or "list"
  local looks = word == "list"
  return require("lb.outbox_command").run(open_journal(cli.options, looks), word, cli)
end

function commands.list(cli)
  return require("lb.report").list(cli.operands[1], cli.options)
end

function commands.describe(cli)
  if #cli.operands ~= 1 then util.raise("usage", "lbrun describe RUNBOOK.lua") end
  return require("lb.report").describe(cli.operands[1], cli.options)
end

function commands.doctor(cli)
  return require("lb.doctor").examine(journal_path(cli.options), cli.options)
end

commands["verify-journal"] = function(cli)
  local j = open_journal(cli.options, true)
  local ok, count = j:verify()
  if not ok then util.raise("journal", count.message or tostring(count)) end
  local head = j:head()
  if cli.options.json then host.write("out", json.encode { ok = true, events = count, head = head } .. "\n")
  else host.write("out", ("%d events, the hash chain is whole, head %s\n"):format(count, head)) end
  return 0
end

function commands.worker(cli)
  return require("lb.worker").command(open_journal(cli.options), cli)
end

function commands.netcup(cli)
  return require("lb.netcup").command(cli)
end

-- main(cli) -> exit status
return function(cli)
  local command = commands[cli.command]
  if not command then
    host.write("err", ("lbrun: '%s' comes with a later version\n"):format(tostring(cli.command)))
    return 2
  end
  local deadline = tonumber(host.getenv("LBRUN_LUA_DEADLINE") or "")
  if deadline and deadline > 0 then host.deadline(deadline) end
  local fine, result = pcall(command, cli)
  if fine then return result end
  local err = util.as_error(result)
  if cli.options.json then
    require("lb.display").result(cli.options, err.message, { exit = util.exit_of(err), code = err.code })
  end
  host.write("err", ("lbrun: %s\n"):format(err.message))
  return util.exit_of(err)
end
