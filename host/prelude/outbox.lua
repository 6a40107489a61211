-- outbox.lua: what the Hub is to be told. A report is entered in the journal before it is
-- sent, and settled by its answer; what got none waits there. It knows no call of the Hub.
local host = require "host"
local json = require "json"
local crypto = require "crypto"
local http = require "http"
local util = require "lb.util"

local outbox = {}

local claim_seconds, request_seconds, connect_seconds = 60, 15, 5
local at_the_end = { entries = 20, seconds = 30 } -- what a run spends on others' reports

local function owner()
  return { pid = host.pid(), start_time = host.start_time(), boot_id = host.boot_id(), host = host.hostname() }
end

-- By which a token is known again without being kept.
function outbox.fingerprint(journal, secret)
  return crypto.hmac_sha256(util.check(journal:key()), secret)
end

local function one_line(text)
  return util.cut(text:gsub("%c+", " "), 200)
end

-- What an answer means: sent, refused (it is told, and not tried again), or open (it
-- waits). The second value: the Hub as a whole is not to be had now.
local function judge(answer, err)
  if not answer then return { status = "open", error = err }, true end
  local code, body = answer.status, answer.body or ""
  local said = { answered = code, answer = util.cut(body, 4096) }
  if code >= 200 and code < 300 then
    if body == "" or json.decode(body) ~= nil then
      said.status = "sent"
      return said
    end
    said.status, said.error = "open", ("answered %d with what is no JSON: %s"):format(code, one_line(body))
    return said
  end
  said.error = ("answered %d%s"):format(code, body ~= "" and ": " .. one_line(body) or "")
  said.status = code >= 400 and code < 500 and code ~= 408 and code ~= 429 and "refused" or "open"
  return said, code == 429 or code == 503
end

-- outbox.send(journal, row, secret, seconds) -> outcome, silent; nil when another process
-- has it, or an older one must go first.
function outbox.send(journal, row, secret, seconds)
  local me = owner()
  local mine, why = journal:outbox_claim(row.id, me, claim_seconds)
  if not mine then
    if why.code ~= "locked" and why.code ~= "conflict" then util.check(nil, why) end
    return nil
  end
  local fine, answer, err = pcall(http.request, {
    url = row.url .. row.path, method = row.method, json = row.body, bearer = secret,
    headers = { ["Idempotency-Key"] = row.id },
    timeout = math.max(1, math.min(request_seconds, seconds or request_seconds)), connect_timeout = connect_seconds,
  })
  if not fine then answer, err = nil, { message = tostring(answer) } end
  local outcome, silent = judge(answer, err and err.message)
  util.check(journal:outbox_end(row.id, me, outcome))
  return outcome, silent
end

-- outbox.empty(journal, { [fingerprint] = secret }, { entries, seconds, skip }) -> number
-- that was sent. Oldest first; a Hub that does not answer is left alone.
function outbox.empty(journal, secrets, limits)
  local stop = limits.seconds and host.monotonic() + limits.seconds
  local silent, tried, sent = {}, 0, 0
  for _, row in ipairs(util.check(journal:outbox { status = "open" })) do
    local secret, left = secrets[row.fingerprint], stop and stop - host.monotonic()
    if limits.entries and tried >= limits.entries or left and left <= 0 or host.interrupted() > 0 then break end
    if secret and not silent[row.url] and not (limits.skip and limits.skip[row.id]) then
      local outcome, is_silent = outbox.send(journal, row, secret, left)
      if outcome then
        tried = tried + 1
        if outcome.status == "sent" then sent = sent + 1 end
      end
      silent[row.url] = is_silent
    end
  end
  return sent
end

function outbox.id(run, step, key)
  return crypto.sha256(table.concat({ run.id, step.name, key }, "\n")):sub(1, 32)
end

-- outbox.report(run, step, { key, call, method, url, path, body, token }) -> row. The same
-- run, step and key are the same report, which is entered once.
function outbox.report(run, step, r)
  local journal, secret = run.journal, run.secrets[r.token]
  if not secret then
    util.raise("key", ("the Hub's token is missing: give %s=@FILE"):format(r.token))
  end
  for _, text in ipairs { r.url, r.path, r.body or "" } do
    if host.mask(text) ~= text then util.misuse(("the report '%s' to the Hub holds a secret"):format(r.call)) end
  end
  local row = util.check(journal:outbox_add {
    id = outbox.id(run, step, r.key), run = run.id, step = step.name, call = r.call, method = r.method, url = r.url,
    path = r.path, body = r.body, token = r.token, fingerprint = outbox.fingerprint(journal, secret),
  })
  if row.status ~= "open" then return row end
  -- What waits for the same address goes first: an old state must not overwrite a new one.
  run.reported = run.reported or {}
  for _, other in ipairs(util.check(journal:outbox { status = "open", fingerprint = row.fingerprint })) do
    if other.url == row.url and other.path == row.path and other.n <= row.n then
      run.reported[other.id] = true
      local outcome = outbox.send(journal, other, secret)
      if not outcome or outcome.status == "open" then break end
    end
  end
  run.reported[row.id] = true
  return util.check(journal:outbox_one(row.id))
end

function outbox.name(row)
  return ("%s %s"):format(row.method, row.path)
end

-- outbox.finish(run): sends what waits for a token that this run has, then says what the
-- Hub has not taken of this run's own reports. Such a warning is no part of the run for
-- good: the next resume may find it settled.
function outbox.finish(run)
  local journal = run.journal
  local names = util.keys(run.secrets)
  if #names > 0 and not run.parent and #util.check(journal:outbox { status = "open" }) > 0 then
    local secrets = {}
    for _, name in ipairs(names) do secrets[outbox.fingerprint(journal, run.secrets[name])] = run.secrets[name] end
    local sent = outbox.empty(journal, secrets,
      { entries = at_the_end.entries, seconds = at_the_end.seconds, skip = run.reported })
    if sent > 0 then run.display:note(run, ("%d report%s that waited %s sent to the Hub"):format(sent,
      sent == 1 and "" or "s", sent == 1 and "was" or "were")) end
  end
  for _, row in ipairs(util.check(journal:outbox { run = run.id })) do
    local text
    if row.status == "open" then
      text = ("the Hub was not told '%s' (%s): %s; a later run sends it, or: lbrun outbox send %s=@FILE"):format(row.call,
        outbox.name(row), row.error or "an older report waits", row.token)
    elseif row.status == "refused" then
      text = ("the Hub did not take '%s' (%s): %s; it is not sent again"):format(row.call, outbox.name(row), row.error)
    end
    if text then
      run.warnings[#run.warnings + 1] = text
      util.check(journal:event(run.id, "hub.warning", util.json { text = text, report = row.id }))
      run.display:event(run, "warning", { text = text })
    end
  end
end

return outbox
