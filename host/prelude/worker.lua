-- worker.lua: `lbrun worker`: takes in orders and carries on every run of the journal that is
-- due, several at once. It may be killed at any moment, and more than one may work on a
-- journal. It decides nothing of a run: runs say themselves when they are due (ctx.later).
local host = require "host"
local json = require "json"
local http = require "http"
local util = require "lb.util"
local params = require "lb.params"
local outbox = require "lb.outbox"
local lock = require "lb.lock"
local display_of = require "lb.display"
local notify = require "lb.notify"

local worker = {}

local param = params.param
local declared = {
  orders = param.string { optional = true, description = "a folder of orders, one JSON file each" },
  hub_url = param.string { optional = true, pattern = "^https?://", description = "the Hub, for its open orders and for reports" },
  runner_token = param.secret { optional = true, description = "the Hub's token" },
  defaults = param.string { optional = true, description = "JSON file: parameters of runs that an order does not name" },
  fleet = param.string { optional = true, description = "JSON file: parameters of fleet-status.lua, which watches, a run a day" },
  runbook = param.string { default = "fulfil.lua", description = "what an order is carried out by" },
  every = param.duration { default = 30, description = "how often orders and due runs are looked for" },
}

local function say(w, text)
  if w.said[text] then return end
  w.said[text] = true
  w.display:say("worker: " .. text)
  if w.display.json then w.display:line { type = "worker", text = text } end
end

-- Rows of runs that are due, and when the next one will be. One that was killed is open,
-- with the time it was due before.
local function due_runs(w)
  local now, list, following = host.now(), {}, nil
  for _, status in ipairs { "parked", "open" } do
    for _, row in ipairs(util.check(w.journal:runs { status = status, limit = 100000 })) do
      local summary = not row.parent and row.summary and json.decode(row.summary)
      local due = type(summary) == "table" and tonumber(summary.due)
      -- The clock was set back since it parked: what it waits for is asked now, not a day late.
      if due and (tonumber(summary.parked) or 0) > now + 60 then due = now end
      if due and not w.going[row.id] and not (w.wait[row.id] and w.wait[row.id] > host.monotonic()) then
        if due > now then following = math.min(following or due, due)
        elseif not lock.alive(w.journal, row) then list[#list + 1] = { row = row, due = due } end
      end
    end
  end
  table.sort(list, function(a, b) return a.due < b.due end)
  return list, following
end

local function carry(w, row)
  -- Another worker may have carried it a moment ago; it is due again at another time.
  local now = util.check(w.journal:run(row.id))
  if now.summary ~= row.summary or now.status ~= row.status then return end
  local loader, engine = require "lb.loader", require "lb.engine"
  local run = loader.resume(w.journal, row, { display = w.display, secrets = w.secrets,
    cli = { options = w.options, params = {} } })
  local exit = engine.carry_on(run, "run.continue")
  if exit ~= 0 and exit ~= 3 and exit ~= 10 then w.exit = math.max(w.exit, exit) end
  notify.failure(w.options, exit, row.id)
end

local function start(w, row)
  w.going[row.id] = host.task(function()
    local fine, failure = pcall(carry, w, row)
    if not fine then
      local err = util.as_error(failure)
      -- Another worker was faster: that is how it should be.
      if err.code ~= "locked" and err.code ~= "usage" then
        say(w, ("run %s cannot go on: %s"):format(row.id, err.message))
        w.exit = math.max(w.exit, util.exit_of(err))
      end
      w.wait[row.id] = host.monotonic() + (err.code == "locked" and 5 or 300)
    end
    w.going[row.id] = nil
  end)
end

-- An order is a table of the runbook's parameters; its id is the request id, so that it is
-- carried out once, whoever takes it in and how often.
-- Registered and due are two commits: the one that died in between is made good here.
local function due_at_once(w, run, existing, where)
  local row = existing or util.check(w.journal:run(run.id))
  if not row.summary and not lock.alive(w.journal, row) then
    util.check(w.journal:run_set(row.id, { summary = util.json { due = host.now() } }, "run.order", util.json { from = where }))
  end
end

-- What an order does not choose: who is told of it, and what is run where.
local not_an_orders = { "hub_url", "target", "provision", "restore_server" }

local function take_in(w, order, where)
  local loader = require "lb.loader"
  if type(order) ~= "table" or type(order.order) ~= "string" then
    return say(w, ("%s: an order is a JSON object with an id in 'order'"):format(where))
  end
  local request = "order/" .. order.order
  if w.known[request] then return end
  w.opened = w.opened or loader.open(w.values.runbook)
  local values = {}
  for k, v in pairs(w.defaults) do values[k] = v end
  for k, v in pairs(order) do values[k] = v end
  local declared_here = w.opened.book.params
  for _, name in ipairs(not_an_orders) do
    if order[name] ~= nil then
      return say(w, ("%s: '%s' is no order's affair: it belongs in the worker's defaults"):format(where, name))
    end
  end
  for name in pairs(order) do
    if declared_here[name] and declared_here[name].kind == "secret" then
      return say(w, ("%s: an order holds no secrets ('%s')"):format(where, name))
    end
  end
  if declared_here.hub_url and values.hub_url == nil then values.hub_url = w.values.hub_url end
  local fine, run, existing = pcall(function()
    return loader.register(loader.given(w.opened, values, w.secrets, w.options, w.display), w.journal, { request_id = request })
  end)
  if not fine then return say(w, ("%s: %s"):format(where, util.as_error(run).message)) end
  w.known[request] = true
  due_at_once(w, run, existing, where)
end

local function take_in_folder(w)
  local dir = w.values.orders
  if not dir then return end
  local list, err = host.list(dir)
  if not list then util.raise("usage", ("orders=%s: %s"):format(dir, tostring(err))) end
  local names = {}
  for _, entry in ipairs(list) do
    if entry.name:match("^[^.].*%.json$") then names[#names + 1] = entry.name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local path = dir .. "/" .. name
    local text = host.read_file(path, { max = 1048576 })
    local order, bad = json.decode(text or "")
    if order == nil then say(w, ("%s: %s"):format(path, tostring(bad))) else take_in(w, order, path) end
  end
end

local function watch_fleet(w)
  if not w.values.fleet then return end
  local request = "fleet/" .. math.floor(host.now()) // 86400
  if w.known[request] then return end
  local loader = require "lb.loader"
  local values = params.file(w.values.fleet, {})
  values.watch = true
  if values.hub_url == nil then values.hub_url = w.values.hub_url end
  local run, existing = loader.register(loader.given(loader.open "fleet-status.lua", values, w.secrets, w.options, w.display),
    w.journal, { request_id = request })
  w.known[request] = true
  due_at_once(w, run, existing, w.values.fleet)
end

local function take_in_hub(w)
  local url = w.values.hub_url
  if not url or not w.secrets.runner_token then return end
  url = url:gsub("/+$", "")
  local answer, err = http.request { url = url .. "/api/v1/orders?status=open", bearer = w.secrets.runner_token,
    timeout = 15, connect_timeout = 5 }
  local list = answer and answer.status == 200 and json.decode(answer.body)
  if type(list) ~= "table" then
    return say(w, ("the Hub gives no list of orders: %s"):format(answer and "it answered " .. answer.status or tostring(err)))
  end
  for i, order in ipairs(list) do take_in(w, order, ("order %d of the Hub"):format(i)) end
end

local function empty_outbox(w)
  local token = w.secrets.runner_token
  if not token then return end
  outbox.empty(w.journal, { [outbox.fingerprint(w.journal, token)] = token }, { entries = 20, seconds = 30 })
end

local function count(t)
  local n = 0
  for _ in pairs(t) do n = n + 1 end
  return n
end

-- worker.command(journal, cli) -> exit status
function worker.command(journal, cli)
  local file = cli.options.params_file and params.file(cli.options.params_file, declared) or {}
  local values, secrets = params.read(declared, cli.params, file, { ask = false })
  local options = {}
  for k, v in pairs(cli.options) do options[k] = v end
  options.worker, options.no_input = true, true
  local w = { journal = journal, values = values, secrets = secrets, options = options, going = {}, wait = {}, said = {},
    known = {}, exit = 0, display = display_of.new(cli.options, true), defaults = {} }
  if values.defaults then w.defaults = params.file(values.defaults, {}) end
  local look = 0
  while host.interrupted() == 0 do
    if host.monotonic() >= look then
      take_in_folder(w)
      take_in_hub(w)
      watch_fleet(w)
      empty_outbox(w)
      look = host.monotonic() + values.every
    end
    local list, following = due_runs(w)
    local free = (options.parallel or 4) - count(w.going)
    for i = 1, math.min(free, #list) do start(w, list[i].row) end
    if count(w.going) == 0 and #list == 0 and options.once then break end
    local rest = math.min(look - host.monotonic(), following and following - host.now() or values.every)
    if next(w.going) then rest = math.min(rest, 0.2) end
    host.sleep(math.max(0.05, rest))
  end
  -- What is going on parks at its next safe place.
  while next(w.going) do host.sleep(0.1) end
  local n, name = host.interrupted()
  if n > 0 and not options.once then return name == "TERM" and 143 or 130 end
  return w.exit
end

return worker
