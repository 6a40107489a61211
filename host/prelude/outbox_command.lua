-- outbox_command.lua: `lbrun outbox`: a person looks at what waits for the Hub, sends it, or
-- decides that it shall not be sent.
local host = require "host"
local util = require "lb.util"
local params = require "lb.params"
local outbox = require "lb.outbox"
local display_of = require "lb.display"

local command = {}

local shown = 10 -- so many reports that the Hub did not take are named, the others are counted

local function out(fmt, ...)
  host.write("out", fmt:format(...) .. "\n")
end

local function when(ts)
  return host.date("%Y-%m-%d %H:%M:%S", ts)
end

local function waiting(journal)
  return util.check(journal:outbox { status = "open" })
end

local words = {}

-- What waits; with -v also what was settled.
function words.list(journal, _, cli)
  local options, open = cli.options, 0
  local rows = options.verbose > 0 and util.check(journal:outbox {}) or waiting(journal)
  for _, row in ipairs(rows) do
    if row.status == "open" then open = open + 1 end
    if options.json then
      display_of.new(options):line { type = "report", id = row.id, status = row.status, call = row.call,
        method = row.method, url = row.url .. row.path, body = row.body, run = row.run, step = row.step, token = row.token,
        attempts = row.attempts, answered = row.answered, error = row.error, created = row.created, updated = row.updated }
    else
      out("%s  %-7s  %s  %-12s %s%s, run %s, tried %d time%s", row.id:sub(1, 12), row.status, when(row.created), row.call,
        row.method, " " .. row.url .. row.path, row.run, row.attempts, row.attempts == 1 and "" or "s")
      if row.error then out("              %s", row.error) end
    end
  end
  local names = {}
  for _, row in ipairs(rows) do
    if row.status == "open" then names[row.token] = true end
  end
  local given = {}
  for i, name in ipairs(util.keys(names)) do given[i] = name .. "=@FILE" end
  local next_command = open > 0 and "lbrun outbox send " .. table.concat(given, " ") or nil
  display_of.result(options, ("%d report%s wait%s for the Hub%s"):format(open, open == 1 and "" or "s", open == 1 and "s" or "",
    next_command and "\nnext: " .. next_command or ""), { exit = 0, waiting = open, next = next_command })
  return 0
end

function words.send(journal, id, cli)
  if id then util.raise("usage", ("lbrun outbox send takes no '%s': it sends all that wait for a token, oldest first"):format(id)) end
  local rows = waiting(journal)
  if #rows == 0 then
    display_of.result(cli.options, "no report waits for the Hub", { exit = 0, sent = 0, waiting = 0 })
    return 0
  end
  local declared = {}
  for _, row in ipairs(rows) do declared[row.token] = params.param.secret { optional = true } end
  local names = util.keys(declared)
  if #names == 1 then declared[names[1]].optional = false end
  local file = cli.options.params_file and params.file(cli.options.params_file, declared) or {}
  local only = {}
  for _, name in ipairs(names) do only[name] = file[name] end
  local _, secrets = params.read(declared, cli.params, only, { ask = not cli.options.no_input })
  local by_print, fits = {}, 0
  for name, secret in pairs(secrets) do
    local print = outbox.fingerprint(journal, secret)
    by_print[print] = secret
    local of_it = 0
    for _, row in ipairs(rows) do
      if row.fingerprint == print then of_it = of_it + 1 end
    end
    if of_it == 0 then util.raise("key", ("no report that waits was made with this %s"):format(name)) end
    fits = fits + of_it
  end
  if fits == 0 then util.raise("key", ("the token is missing: give %s=@FILE"):format(table.concat(names, "=@FILE, or "))) end
  local sent = outbox.empty(journal, by_print, {})
  local open = waiting(journal)
  local refused, told = 0, 0
  local function tell(text, row, why)
    told = told + 1
    if told <= shown then host.write("err", ("lbrun: the Hub %s '%s' (%s): %s\n"):format(text, row.call, outbox.name(row), why)) end
  end
  for _, row in ipairs(rows) do
    local now = util.check(journal:outbox_one(row.id))
    if now.status == "refused" then
      refused = refused + 1
      tell("did not take", row, now.error)
    elseif now.status == "open" and by_print[row.fingerprint] then
      tell("was not told", row, now.error or "an older report waits")
    end
  end
  if told > shown then host.write("err", ("lbrun: and %d more; `lbrun outbox -v` lists them\n"):format(told - shown)) end
  local exit = (refused > 0 or #open > 0) and 3 or 0
  display_of.result(cli.options, ("%d sent, %d refused, %d wait"):format(sent, refused, #open),
    { exit = exit, sent = sent, refused = refused, waiting = #open })
  return exit
end

function words.drop(journal, id, cli)
  if not id then util.raise("usage", "lbrun outbox drop needs the ID of a report; `lbrun outbox` lists them") end
  local row, err = journal:outbox_one(id)
  if not row then
    if err.code ~= "not_found" and err.code ~= "ambiguous" then util.check(nil, err) end
    util.raise("usage", ("report '%s': %s; `lbrun outbox` lists them"):format(id, err.message))
  end
  local reason = ("dropped by %s%s"):format(host.user(), cli.options.reason and ": " .. cli.options.reason or "")
  local ok, why = journal:outbox_drop(row.id, reason)
  if not ok then
    if why.code == "conflict" then
      util.raise("usage", ("report %s is %s: there is nothing to drop"):format(row.id:sub(1, 12), row.status))
    end
    if why.code == "locked" then util.raise("locked", why.message) end
    util.check(nil, why)
  end
  display_of.result(cli.options, ("%s: %s of run %s is not sent"):format(row.id:sub(1, 12), row.call, row.run),
    { exit = 0, id = row.id, run = row.run })
  return 0
end

-- command.run(journal, word, cli) -> exit
function command.run(journal, word, cli)
  local fn = words[word]
  if not fn then
    util.raise("usage", ("lbrun outbox knows list, send and drop, not '%s'%s"):format(word, util.did_you_mean(word, util.keys(words))))
  end
  if word ~= "send" and #cli.params > 0 then
    util.raise("usage", ("lbrun outbox %s takes no parameter '%s'"):format(word, cli.params[1][1]))
  end
  if word == "list" and cli.operands[2] then util.raise("usage", ("lbrun outbox list takes no '%s'"):format(cli.operands[2])) end
  return fn(journal, cli.operands[2], cli)
end

return command
