-- netcup.lua: `lbrun netcup ...`: the operator's look at netcup's servers and DNS zones, and
-- the login. It changes nothing of a server; runbooks do that, with the module netcup.
local host = require "host"
local json = require "json"
local netcup = require "netcup"
local util = require "lb.util"

local M = {}

-- What the module's errors mean for the exit code; an error that is not here is a failure
-- that left nothing partial.
local exits = {
  auth_failed = 12, access_denied = 12, expired_token = 12, denied = 12, store = 12,
  connect = 4, resolve = 4, tls = 4, timeout = 4, aborted = 4,
  not_found = 2, invalid = 2, ambiguous = 2, locked = 8, interrupted = 130,
}

local function check(value, err)
  if value ~= nil then return value end
  util.raise(err.code, tostring(err), { cause = err, exit = exits[err.code] or 5 })
end

local function folder(variable, default)
  local dir = host.getenv(variable)
  if not dir or dir == "" then dir = (host.home() or "") .. default end
  return dir .. "/lbrun"
end

local function setting(name)
  local value = host.getenv(name)
  return value ~= "" and value or nil
end

-- The DNS interface has credentials of its own: the control panel's customer number, an API
-- key and the API password, in a file that nobody else may read.
function M.credentials()
  local path = setting "LBRUN_CCP_CREDENTIALS" or folder("XDG_CONFIG_HOME", "/.config") .. "/netcup-dns.json"
  local text, err = host.read_file(path, { max = 65536, private = true })
  if not text then
    local what = err.code == "not_found"
      and ("there is no %s; it holds {\"customer\": ..., \"api_key\": ..., \"api_password\": ...}, mode 0600, "
        .. "made in the customer control panel under Master Data, API"):format(path)
      or err.message
    util.raise("key", "netcup DNS: " .. what)
  end
  local data = json.decode(text)
  if type(data) ~= "table" then util.raise("key", ("netcup DNS: %s is not JSON"):format(path)) end
  local out = { customer = data.customer and tostring(data.customer) }
  for _, name in ipairs { "api_key", "api_password" } do
    local fine, secret = pcall(host.secret, "netcup " .. name, data[name])
    if not fine then util.raise("key", ("netcup DNS: %s has no %s, or one shorter than 8 characters"):format(path, name)) end
    out[name] = secret
  end
  if not out.customer then util.raise("key", ("netcup DNS: %s has no customer"):format(path)) end
  return out
end

-- M.open(more) -> client, by the settings of the environment.
function M.open(more)
  local dir = folder("XDG_STATE_HOME", "/.local/state")
  util.check(host.mkdir(dir, "0700", { parents = true }))
  local options = {
    store = dir .. "/netcup.json", issuer = setting "LBRUN_NETCUP_ISSUER", client_id = setting "LBRUN_NETCUP_CLIENT_ID",
    api = setting "LBRUN_NETCUP_API", ccp = setting "LBRUN_CCP_API", ca_file = setting "LBRUN_CA_FILE",
    -- A person waits for the answer.
    patience = 4,
  }
  for k, v in pairs(more or {}) do options[k] = v end
  local fine, client = pcall(netcup.open, options)
  if fine then return client, options.store end
  util.raise("usage", ("netcup: a setting is wrong (LBRUN_NETCUP_ISSUER, LBRUN_NETCUP_API, LBRUN_CCP_API, "
    .. "LBRUN_NETCUP_CLIENT_ID): %s"):format(tostring(client):gsub("^bad argument #1 to '[^']*' ", "")))
end

-- Values of the interface for JSON: lists stay lists, secrets show their name alone.
local function plain(value)
  if host.is_secret(value) then return tostring(value) end
  if type(value) ~= "table" then return value end
  local copy = {}
  for k, v in pairs(value) do copy[k] = plain(v) end
  return getmetatable(value) and json.array(copy) or copy
end

-- Foreign text in a line of a table.
local function cell(value)
  if value == nil or value == "" then return "-" end
  return (tostring(value):gsub("%c", "?"))
end

local function write_table(heads, rows)
  local widths = {}
  for i, head in ipairs(heads) do widths[i] = #head end
  for _, row in ipairs(rows) do
    for i = 1, #heads do
      row[i] = cell(row[i])
      widths[i] = math.max(widths[i], utf8.len(row[i]) or #row[i])
    end
  end
  local function line(row)
    local out = {}
    for i, text in ipairs(row) do
      out[i] = i < #row and text .. (" "):rep(widths[i] - (utf8.len(text) or #text)) or text
    end
    host.write("out", table.concat(out, "  ") .. "\n")
  end
  line(heads)
  for _, row in ipairs(rows) do line(row) end
end

-- Rows as a table, or each as a JSON line { type = kind, [kind] = row } and a summary.
local function present(cli, kind, rows, heads, row_of, none)
  if cli.options.json then
    local display = require("lb.display").new(cli.options)
    for _, row in ipairs(rows) do display:line { type = kind, [kind] = plain(row) } end
    display:line { type = "summary", exit = 0, count = #rows }
    return 0
  end
  if #rows == 0 then
    host.write("out", none .. "\n")
    return 0
  end
  local cells = {}
  for i, row in ipairs(rows) do cells[i] = row_of(row) end
  write_table(heads, cells)
  return 0
end

local function facts(cli, kind, data, lines)
  if cli.options.json then
    local display = require("lb.display").new(cli.options)
    display:line { type = kind, [kind] = plain(data) }
    display:line { type = "summary", exit = 0 }
    return 0
  end
  for _, pair in ipairs(lines) do
    if pair[2] ~= nil then host.write("out", ("%-12s %s\n"):format(pair[1], cell(pair[2]))) end
  end
  return 0
end

local commands = {}

function commands.login(cli)
  if cli.options.no_input then
    util.raise("usage", "netcup login waits for a person in a browser: leave --no-input out")
  end
  local client, store = M.open()
  local device = check(client:device())
  local display = require("lb.display").new(cli.options)
  local where = device.verification_uri_complete or device.verification_uri
  if cli.options.json then
    display:line { type = "login", verification_uri = device.verification_uri, user_code = device.user_code,
      verification_uri_complete = device.verification_uri_complete, expires_in = device.expires_in }
  else
    host.write("err", ("Open this in a browser, log in and allow the access:\n\n  %s\n\n(code %s; waiting for at most %s)\n")
      :format(cell(where), cell(device.user_code), util.show_seconds(device.expires_in)))
  end
  check(client:login(device))
  local who = check(client:whoami())
  display.result(cli.options, ("logged in as %s; the login is kept in %s and lives while it is used once in 30 days")
    :format(cell(who.customer), store), { exit = 0, customer = who.customer, user_id = who.user_id })
  return 0
end

function commands.logout(cli)
  local client = M.open()
  check(client:logout { revoke = cli.options.revoke })
  require("lb.display").result(cli.options, cli.options.revoke and "logged out; netcup no longer accepts the login"
    or "logged out here; netcup accepts the login until it was not used for 30 days (--revoke ends it at once)", { exit = 0 })
  return 0
end

function commands.whoami(cli)
  local client, store = M.open()
  local who = check(client:whoami())
  who.store = store
  return facts(cli, "user", who, {
    { "customer", who.customer }, { "user id", who.user_id }, { "email", who.email }, { "issuer", who.issuer },
    { "login in", store },
  })
end

local function addresses(server)
  local list = {}
  for _, a in ipairs(server.ipv4Addresses or {}) do list[#list + 1] = a.ip end
  for _, a in ipairs(server.ipv6Addresses or {}) do list[#list + 1] = ("%s/%d"):format(a.networkPrefix, a.networkPrefixLength or 64) end
  return list
end

-- The server of an operand: its id, netcup's name of it, its nickname or its host name.
local function find(client, word)
  if word:match("^%d+$") and #word < 10 then return math.tointeger(tonumber(word)) end
  local found, names = nil, {}
  for _, s in ipairs(check(client:servers())) do
    for _, name in ipairs { s.name, s.nickname or "", s.hostname or "" } do
      if name == word and found and found ~= s.id then
        util.raise("usage", ("netcup: %s is the name of several servers: give the id"):format(word))
      end
      if name == word then found = s.id end
      if name ~= "" then names[#names + 1] = name end
    end
  end
  if not found then
    util.raise("usage", ("netcup: no server '%s'%s; lbrun netcup servers lists them"):format(word, util.did_you_mean(word, names)))
  end
  return found
end

-- Each row's details, four servers at a time.
local function with_details(client, rows)
  local next_row = 1
  local function worker()
    while rows[next_row] do
      local i = next_row
      next_row = i + 1
      rows[i] = check(client:server(rows[i].id))
    end
  end
  local tasks = {}
  for i = 1, math.min(4, #rows) do tasks[i] = host.task(worker) end
  for _, task in ipairs(tasks) do
    local ok, err = task:join()
    if ok == nil then check(nil, err) end
    if not ok then error(err, 0) end
  end
  return rows
end

function commands.servers(cli)
  local client = M.open()
  local rows = check(client:servers())
  local detailed = cli.options.verbose > 0
  if detailed then rows = with_details(client, rows) end
  local heads = { "ID", "NAME", "NICKNAME", "HOSTNAME", "PRODUCT" }
  if detailed then heads = { "ID", "NICKNAME", "STATE", "ADDRESS", "SITE", "PRODUCT" } end
  return present(cli, "server", rows, heads, function(s)
    local product = s.template and s.template.name
    if s.disabled then product = (product or "") .. " (disabled)" end
    if not detailed then return { s.id, s.name, s.nickname, s.hostname, product } end
    return { s.id, s.nickname, s.serverLiveInfo and s.serverLiveInfo.state, addresses(s)[1], s.site and s.site.city, product }
  end, "the account has no server")
end

function commands.server(cli)
  local client = M.open()
  local s = check(client:server(find(client, cli.operands[2])))
  local live = s.serverLiveInfo or {}
  local disks = {}
  for i, d in ipairs(live.disks or {}) do disks[i] = ("%s %d GiB"):format(d.dev, (d.capacityInMiB or 0) // 1024) end
  return facts(cli, "server", s, {
    { "id", s.id }, { "name", s.name }, { "nickname", s.nickname ~= "" and s.nickname or nil }, { "hostname", s.hostname },
    { "product", s.template and s.template.name }, { "site", s.site and s.site.city }, { "disabled", s.disabled or nil },
    { "state", live.state }, { "up for", live.uptimeInSeconds and util.show_seconds(live.uptimeInSeconds) },
    { "firmware", live.uefi ~= nil and (live.uefi and "UEFI" or "BIOS") or nil }, { "cpus", live.cpuCount },
    { "memory", live.maxServerMemoryInMiB and ("%d MiB"):format(live.maxServerMemoryInMiB) },
    { "disks", #disks > 0 and table.concat(disks, ", ") or nil },
    { "addresses", #addresses(s) > 0 and table.concat(addresses(s), ", ") or nil },
    { "rescue", s.rescueSystemActive and "active" or nil }, { "snapshots", s.snapshotCount },
  })
end

function commands.snapshots(cli)
  local client = M.open()
  local id = find(client, cli.operands[2])
  return present(cli, "snapshot", check(client:snapshots(id)), { "NAME", "TAKEN", "STATE", "ONLINE", "EXPORTED", "DESCRIPTION" },
    function(s) return { s.name, s.creationTime, s.state, s.online and "yes" or "no", s.exported and "yes" or "no", s.description } end,
    ("server %d has no snapshots"):format(id))
end

function commands.metrics(cli)
  local client = M.open()
  local id = find(client, cli.operands[2])
  local rows = {}
  for _, what in ipairs { "cpu", "disk", "network", "packets" } do
    local data = check(client:metrics(id, what, { hours = cli.options.hours or 1 }))
    local by_series = {}
    for _, sample in ipairs(data.samples) do
      for name, value in pairs(sample.values) do
        local row = by_series[name] or { what = what, series = name, unit = data.unit, samples = 0, mean = 0, max = value }
        by_series[name] = row
        row.samples, row.mean = row.samples + 1, row.mean + value
        row.last, row.max = value, math.max(row.max, value)
      end
    end
    for _, name in ipairs(util.keys(by_series)) do
      local row = by_series[name]
      row.mean = row.mean / row.samples
      rows[#rows + 1] = row
    end
  end
  local function number(value) return ("%.2f"):format(value) end
  return present(cli, "metric", rows, { "WHAT", "SERIES", "LAST", "MEAN", "MAX", "UNIT" }, function(r)
    return { r.what, r.series, number(r.last), number(r.mean), number(r.max), r.unit }
  end, ("server %d has no metrics of that time"):format(id))
end

function commands.tasks(cli)
  local client = M.open()
  local options = {}
  if cli.operands[2] then options.server = find(client, cli.operands[2]) end
  return present(cli, "task", check(client:tasks(options)), { "TASK", "NAME", "STATE", "DONE", "STARTED" }, function(t)
    local percent = t.taskProgress and t.taskProgress.progressInPercent
    return { t.uuid, t.name, t.state, percent and ("%.0f %%"):format(percent), t.startedAt }
  end, "there are no tasks")
end

function commands.dns(cli)
  local client = M.open(M.credentials())
  local name = cli.operands[2]
  local fine, zone, err = pcall(client.zone, client, name)
  if not fine then util.raise("usage", ("netcup: '%s' is not the name of a zone"):format(cell(name))) end
  zone = check(zone, err)
  local records = check(client:dns_records(name))
  check(client:dns_logout())
  if not cli.options.json then
    host.write("out", ("zone %s, TTL %s s, %d records\n"):format(cell(zone.name), cell(zone.ttl), #records))
  end
  return present(cli, "record", records, { "ID", "HOST", "TYPE", "PRIO", "DESTINATION", "STATE" }, function(r)
    return { r.id, r.hostname, r.type, r.priority ~= "0" and r.priority or nil, r.destination, r.state == "yes" and "live" or "not yet" }
  end, "the zone has no records")
end

local needs = { server = "a server's ID", snapshots = "a server's ID", metrics = "a server's ID", dns = "a ZONE" }
local may = { tasks = true }

-- M.command(cli) -> exit status
function M.command(cli)
  local word = cli.operands[1]
  local command = commands[word]
  if not command then
    local names = util.keys(commands)
    util.raise("usage", ("unknown command 'netcup %s' (there are %s)%s"):format(cell(word),
      table.concat(names, ", "), util.did_you_mean(word, names)))
  end
  if needs[word] and not cli.operands[2] then util.raise("usage", ("netcup %s needs %s"):format(word, needs[word])) end
  if cli.operands[2] and not needs[word] and not may[word] then
    util.raise("usage", ("netcup %s does not take '%s'"):format(word, cell(cli.operands[2])))
  end
  if cli.options.revoke and word ~= "logout" then util.raise("usage", ("netcup %s does not take --revoke"):format(word)) end
  if cli.options.hours and word ~= "metrics" then util.raise("usage", ("netcup %s does not take --hours"):format(word)) end
  return command(cli)
end

return M
