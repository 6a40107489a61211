-- access.lua: how a run gets to its server: the ordered access paths, the pinned identity
-- (machine-id and host keys), and reconnecting. It changes nothing on the target.
local host = require "host"
local json = require "json"
local ssh = require "ssh"
local util = require "lb.util"
local target = require "lb.target"

local access = {}

local function decode(text)
  return text and json.decode(text) or nil
end

-- The paths to try, in order and without doubles.
local function paths(run)
  local list, seen = {}, {}
  local function add(spec)
    if spec and not seen[spec.url] then
      seen[spec.url] = true
      list[#list + 1] = spec
    end
  end
  add(run.spec)
  if run.spec.kind == "local" then return list end
  local proved = run.journal and run.journal:path(run.spec.url)
  if proved then add(target.parse(proved)) end
  if run.book.access then
    for _, path in ipairs(run.book.access(run.values)) do add(target.sibling(run.spec, path)) end
  end
  return list
end

-- What is known of the server: the run's own pins, else what earlier runs proved, unless
-- the target names a fingerprint, which stands above older knowledge.
local function pinned(run)
  if not run.journal then return nil end
  local own = decode(run.id and run.journal:pin(run.id, run.spec.url))
  if own or run.spec.fingerprint then return own end
  local _, record = run.journal:path(run.spec.url)
  return decode(record)
end

function access.check(run, conn, pins)
  local fine, facts = pcall(conn.facts, conn)
  if not fine then
    conn:close()
    error(facts, 0)
  end
  if not pins then return facts end
  if pins.machine_id and pins.machine_id ~= "" and facts.machine_id ~= pins.machine_id then
    conn:close()
    util.raise("identity", ("%s is not the same server: its machine-id is %s, this target was pinned to %s. "
      .. "If it was reinstalled on purpose, name its new key: -t '%s?fingerprint=SHA256:...'")
      :format(conn.url, facts.machine_id, pins.machine_id, run.spec.url))
  end
  return facts
end

local function options_for(run, spec, pins, timeout)
  local key_pins = pins and pins.host_keys and #pins.host_keys > 0 and pins.host_keys or nil
  return {
    identities = run.identities, timeout = timeout, host_keys = key_pins,
    fingerprint = not key_pins and (spec.fingerprint or run.spec.fingerprint) or nil,
    accept_new = not key_pins and not run.spec.fingerprint and not run.visitor, no_input = run.options.no_input,
  }
end

local function explain_hostkey(run, err)
  util.raise("hostkey", ("%s. If the server was reinstalled on purpose, name its new key: -t '%s?fingerprint=SHA256:...'")
    :format(tostring(err), run.spec.url))
end

-- One path. nil, err where the next path may be tried; raises where not.
local function try(run, spec, pins, timeout)
  local conn, err = target.connect(spec, options_for(run, spec, pins, timeout))
  if conn then return conn end
  if err.code == "hostkey" then explain_hostkey(run, err) end
  if err.code == "identity" then util.raise("key", tostring(err)) end
  if err.code == "interrupted" then util.raise("interrupted", "interrupted while connecting") end
  return nil, err
end

-- All paths, the first one with a head start: a closed port that drops packets must not
-- hold up the path that works. -> connection and its path, or nil and what each one said.
local function race(run, list, pins)
  local tasks, results = {}, {}
  local function launch(i)
    tasks[i] = host.task(function()
      local conn, err = try(run, list[i], pins, 20)
      results[i] = { conn = conn, err = err }
    end)
  end
  local function settle(i, wait)
    if results[i] then return results[i].conn ~= nil end
    local ok, err = tasks[i]:join(wait)
    if ok then return results[i].conn ~= nil end
    if type(err) == "table" and err.code == "timeout" then return false end
    if type(err) == "table" and err.code == "interrupted" then
      util.raise("interrupted", "interrupted while connecting")
    end
    error(err, 0)
  end
  local winner
  local fine, failure = pcall(function()
    for i = 1, #list do
      launch(i)
      if settle(i, i < #list and 0.7 or 0.05) then
        winner = i
        return
      end
    end
    while not winner do
      local waiting = false
      for i = 1, #list do
        if settle(i, 0.05) then
          winner = i
          return
        end
        waiting = waiting or not results[i]
      end
      if not waiting then return end
    end
  end)
  for i, task in pairs(tasks) do
    if i ~= winner then
      task:cancel()
      if results[i] and results[i].conn then results[i].conn:close() end
    end
  end
  if not fine then error(failure, 0) end
  if winner then return results[winner].conn, list[winner] end
  return nil, results
end

-- access.connect(run) -> connection, pinned and checked.
function access.connect(run)
  local list, pins = paths(run), pinned(run)
  local conn, spec = race(run, list, pins)
  if conn then
    local facts = access.check(run, conn, pins)
    if spec.kind == "ssh" then access.record(run, conn, facts, pins) end
    return conn
  end
  local tried, refused = {}, nil
  for i, result in ipairs(spec) do
    local err = result.err
    if err.code == "auth_failed" then refused = true end
    tried[i] = ("%s (%s)"):format(list[i].url, tostring(err.message or err))
  end
  util.raise(refused and "auth_failed" or "connect",
    ("cannot log in to %s: %s"):format(run.spec.url, table.concat(tried, "; ")))
end

-- Pin the server to the run, and keep the path that worked for later runs.
function access.record(run, conn, facts, pins)
  if not run.journal then return end
  local key = conn:host_key()
  local record = { machine_id = facts.machine_id, host_keys = json.array(facts.host_keys) }
  if #facts.host_keys == 0 then record.host_keys = json.array { key.key } end
  local text = json.encode(record)
  if run.id and not run.journal:pin(run.id, run.spec.url) then
    util.check(run.journal:pin_set(run.id, run.spec.url, text))
    if not pins and key.trusted == "new" then
      run:event("target.accepted", { target = conn.url, fingerprint = key.fingerprint, type = key.type })
    end
  end
  if run.id then util.check(run.journal:path_set(run.spec.url, conn.url, text)) end
end

-- A second, new connection to the same server by another path (ctx.reconnect).
function access.second(run, path)
  local spec = target.sibling(run.conn.spec, path)
  local pins = pinned(run)
  local facts = run.conn:facts()
  pins = pins or { machine_id = facts.machine_id, host_keys = facts.host_keys }
  local conn, err = try(run, spec, pins, 10)
  if not conn then
    util.raise("connect", ("no new connection by %s: %s"):format(spec.url, tostring(err.message or err)))
  end
  access.check(run, conn, pins)
  return conn
end

-- One command on another server than the run's, by the paths that earlier runs proved. A
-- server that no run has been to is trusted by known_hosts or a fingerprint alone; what is
-- seen there is not kept. -> the command's result
function access.visit(run, place, command, options)
  if place.spec.kind ~= "ssh" then util.misuse("visit: " .. place.spec.url .. " is not another server") end
  local identities = table.move(run.identities or {}, 1, #(run.identities or {}), 1, {})
  identities[#identities + 1] = place.identity
  local visitor = { spec = place.spec, journal = run.journal, book = {}, values = {}, options = run.options,
    identities = identities, visitor = true }
  local conn = access.connect(visitor)
  local view = conn:view(true)
  local fine, result = pcall(view.try, view, command, options)
  conn:close()
  if not fine then error(result, 0) end
  return result
end

-- After a lost connection: bounded tries, then connect. Notices a reboot.
function access.reconnect(run)
  local before = run.conn and run.conn.fact_table
  if run.conn then run.conn:close() end
  local waits = { 0, 1, 2, 4, 8, 15, 30, 30 }
  for i, wait in ipairs(waits) do
    if wait > 0 then
      local _, err = host.sleep(wait)
      if err then util.raise("interrupted", "interrupted while reconnecting") end
    end
    local fine, result = pcall(access.connect, run)
    if fine then
      run.conn = result
      local facts = result:facts()
      local rebooted = before and before.boot_id ~= facts.boot_id
      run:event("target.reconnected", { target = result.url, rebooted = rebooted or nil })
      return rebooted
    end
    local err = util.as_error(result)
    local again = err.code == "connect" or err.code == "lost" or err.code == "auth_failed" or err.code == "timeout"
    if not again or i == #waits then error(err, 0) end
  end
end

-- The public keys that this lbrun can log in with: the identity files, then the agent.
function access.identities(run)
  local list = {}
  for _, file in ipairs(target.identities(run.spec, run.identities)) do
    local key = ssh.public_key(file)
    if key then list[#list + 1] = key end
  end
  for _, key in ipairs(ssh.agent_keys() or {}) do list[#list + 1] = key end
  return list
end

return access
