-- hub.lua: every call to the Hub, a row each, and the resource that makes one of them. How a
-- report waits when the Hub is silent is the outbox's affair (ctx.report).

local hub = {}

-- method, path, and the fields of the body; "!" marks those that must be given. GET calls
-- are asked by hub.get, all others are reports.
hub.calls = {
  job = { "PATCH", "/api/v1/jobs/{job_id}",
    { status = "string!", step = "string", progress = "integer", exit = "integer", message = "string", run = "string" } },
  orders = { "GET", "/api/v1/orders?status=open" },
  connection = { "PUT", "/api/v1/tenants/{tenant}/connection",
    { host = "string!", port = "integer!", user = "string!", host_keys = "table", machine_id = "string" } },
  registration = { "PUT", "/api/v1/tenants/{tenant}/registration",
    { domain = "string!", tools = "table", version = "string", public_key = "string" } },
  backup = { "POST", "/api/v1/tenants/{tenant}/backups",
    { status = "string!", finished = "string", tools = "table", bytes = "integer", message = "string" } },
  restore = { "POST", "/api/v1/tenants/{tenant}/restores",
    { status = "string!", tool = "string", snapshot = "string", target = "string", seconds = "number", message = "string" } },
  notice = { "POST", "/api/v1/tenants/{tenant}/notices",
    { kind = "string!", subject = "string!", text = "string", details = "table" } },
  key = { "PUT", "/api/v1/tenants/{tenant}/key", { public_key = "string!", private_key = "string!" } },
  revocation = { "POST", "/api/v1/tenants/{tenant}/key/revocation", { reason = "string!" } },
  deletion = { "POST", "/api/v1/tenants/{tenant}/deletion",
    { reason = "string!", keep_billing_until = "string!", certificate = "string" } },
  health = { "GET", "/api/v1/tenants/{tenant}/health" },
}

local function call_of(name)
  local call = hub.calls[name]
  if not call then error(("the Hub has no call '%s'%s"):format(name, did_you_mean(name, sorted_keys(hub.calls))), 0) end
  return call
end

local function path_of(name, args)
  return (call_of(name)[2]:gsub("{([%w_]+)}", function(key)
    local value = args[key]
    if value == nil or value == "" then error(("the Hub's call '%s' needs %s"):format(name, key), 0) end
    return (tostring(value):gsub("[^%w._~-]", function(c) return ("%%%02X"):format(c:byte()) end))
  end))
end

local function matches(value, kind)
  if kind == "integer" then return math.type(value) == "integer" end
  return type(value) == kind
end

local function body_of(name, fields)
  local known = call_of(name)[3]
  for _, key in ipairs(sorted_keys(fields)) do
    if not known[key] then
      error(("the Hub's call '%s' has no field '%s'%s"):format(name, key, did_you_mean(key, sorted_keys(known))), 0)
    end
    local kind = known[key]:gsub("!$", "")
    if not matches(fields[key], kind) then
      error(("the Hub's call '%s': field '%s' is a %s, not a %s"):format(name, key, type(fields[key]), kind), 0)
    end
  end
  for _, key in ipairs(sorted_keys(known)) do
    if known[key]:sub(-1) == "!" and fields[key] == nil then
      error(("the Hub's call '%s' needs the field '%s'"):format(name, key), 0)
    end
  end
  return json.encode(fields, { sort = true })
end

-- Base URL without a slash at its end; nil: this run reports to no Hub.
local function base(given, ctx)
  local url = given.url or ctx.params.hub_url
  return url and url:gsub("/+$", "")
end

-- What stands in a path: given here, else the run's parameters.
local function args_of(given, ctx)
  return setmetatable({}, { __index = function(_, key)
    local own = given.args and given.args[key]
    if own ~= nil then return own end
    return ctx.params[key]
  end })
end

local function private(host)
  local a, b = host:match("^(%d+)%.(%d+)%.%d+%.%d+$")
  a, b = tonumber(a), tonumber(b)
  return host == "localhost" or host == "[::1]" or a == 127 or a == 10 or a == 192 and b == 168
    or a == 172 and b >= 16 and b <= 31
end

-- hub.check(ctx, needs?): for a preflight: refuses parameters with which no report could be
-- made; needs names the one that the reports' paths have (job_id).
function hub.check(ctx, needs)
  local p = ctx.params
  needs = needs or "job_id"
  if not p.hub_url then return end
  if (p[needs] or "") == "" then fail("params", ("hub_url is given without %s: there is nothing to report on"):format(needs)) end
  if not pcall(ctx.secret, "runner_token") then
    fail("key", "hub_url is given without runner_token: give runner_token=@FILE (mode 0600)")
  end
  local host = p.hub_url:match("^http://(%[[%x:]+%])") or p.hub_url:match("^http://([^/:]+)")
  if host and not private(host) then
    fail("params", ("hub_url %s is not https: the token would travel unencrypted"):format(p.hub_url))
  end
end

-- hub.report(ctx, { call, fields?, args?, url?, token?, key? }) -> the report's row, or nil
-- where there is no Hub. For an apply or on_failure; a second report of one call in a step
-- needs a key of its own.
function hub.report(ctx, given)
  local url = base(given, ctx)
  if not url then return nil end
  local fields = given.fields or {}
  if type(fields) == "function" then fields = fields(ctx) end
  if call_of(given.call)[1] == "GET" then error(("the Hub's call '%s' is no report"):format(given.call), 0) end
  return ctx.report {
    key = given.key and given.call .. " " .. given.key or given.call, call = given.call, method = call_of(given.call)[1],
    url = url, path = path_of(given.call, args_of(given, ctx)), body = body_of(given.call, fields),
    token = given.token or "runner_token",
  }
end

-- hub.hand_over(ctx, { public_key, private_key }) -> the Hub's address when it took the key
-- pair, else nil and why. A private half waits in no outbox: who fails makes another pair.
function hub.hand_over(ctx, pair)
  local url = base({}, ctx)
  local answer = http.try { url = url .. path_of("key", ctx.params), method = call_of("key")[1], timeout = 15, connect_timeout = 5,
    bearer = ctx.secret "runner_token", headers = { ["Idempotency-Key"] = crypto.sha256(pair.public_key) },
    json = template.render('{"public_key":{{ public_key | json }},"private_key":{{ private_key | json }}}', pair, { name = "key" }) }
  if answer.ok then return url end
  return nil, answer.status == 0 and answer.message or ("it answered %d"):format(answer.status)
end

-- hub.get(ctx, { call, args?, url?, token? }) -> what the Hub answers to a GET call, or nil
-- and why
function hub.get(ctx, given)
  local url = base(given, ctx)
  if not url then return nil, "no Hub is known" end
  local call = call_of(given.call)
  if call[1] ~= "GET" then error(("the Hub's call '%s' is a report"):format(given.call), 0) end
  local answer = http.try { url = url .. path_of(given.call, args_of(given, ctx)), timeout = 15, connect_timeout = 5,
    bearer = ctx.secret(given.token or "runner_token") }
  if answer.status == 0 then return nil, answer.message end
  local fine, data = pcall(json.decode, answer.body)
  if not answer.ok or not fine then return nil, ("the Hub answered %d"):format(answer.status) end
  return data
end

local function key_of(self)
  return self.key and self.call .. " " .. self.key or self.call
end

-- hub.reported { call, fields?, args?, url?, token?, key? }: the Hub was told, or the report
-- waits in the outbox; done where there is no Hub. It is no change of the server.
hub.reported = resource("hub.reported", {
  args = { call = "string", fields = "table|function|nil", args = "table?", url = "string?", token = "string?", key = "string?" },
  pure = true,
  check = function(self)
    if call_of(self.call)[1] == "GET" then error(("the Hub's call '%s' is no report"):format(self.call), 0) end
    if type(self.fields) ~= "function" then body_of(self.call, self.fields or {}) end
  end,
  id = key_of,
  probe = function(self, ctx)
    if not base(self, ctx) or ctx.planning or ctx.reported(key_of(self)) then return done() end
    return pending(("tell the Hub: %s %s"):format(call_of(self.call)[1], path_of(self.call, args_of(self, ctx))))
  end,
  apply = function(self, ctx) hub.report(ctx, self) end,
})

return hub
