-- netcup_spec.lua: the module netcup against the stand-in of netcup.py, which checks each
-- request by netcup's own OpenAPI document: the login, the tokens, servers and tasks.
local host = require "host"
local netcup = require "netcup"
local support = require "support.netcup"

local s

local function failed(code, value, err)
  assert.is_nil(value)
  assert.equal("table", type(err), tostring(err))
  assert.equal("netcup", err.module)
  assert.equal(code, err.code, tostring(err))
  assert.is_true(#err.message > 0)
  return err
end

local function seconds(fn)
  local began = host.monotonic()
  fn()
  return host.monotonic() - began
end

local function slurp(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text = f:read "a"
  f:close()
  return text
end

describe("netcup #unit", function()
  setup(function() s = support.start { tls = true } end)
  teardown(function() s.stop() end)
  before_each(function()
    s.control "reset"
    os.remove(s.store)
  end)
  after_each(function()
    assert.same({}, s.control("log").violations)
  end)

  describe("login", function()
    local function login(approve, set)
      s.control("set", { approve = approve, interval = 0.05 })
      if set then s.control("set", set) end
      local c = s.open()
      local device = assert(c:device())
      return c, device, c:login(device)
    end

    it("shows where to log in, and keeps the device code secret", function()
      local device = assert(s.open():device())
      assert.equal("ABCD-EFGH", device.user_code)
      assert.equal(s.base .. "/realms/scp/device?user_code=ABCD-EFGH", device.verification_uri_complete)
      assert.equal(s.base .. "/realms/scp/device", device.verification_uri)
      assert.equal(5, device.interval)
      assert.equal(600, device.expires_in)
      assert.is_true(host.is_secret(device.device_code))
    end)

    it("waits while it is pending, and keeps the tokens in a file of 0600", function()
      local c, _, ok, err = login { "pending", "pending", "approved" }
      assert.is_true(ok, tostring(err))
      assert.equal(3, #s.requests "device_code")
      assert.equal("0600", host.stat(s.store).mode)
      assert.is_nil(host.stat(s.store .. ".new"))
      local who = assert(c:whoami())
      assert.same({ user_id = 555001, customer = "100000", email = "user@example.com", issuer = s.base .. "/realms/scp" }, who)
      -- another client finds the login there, and asks for no token
      local asked = #s.requests "token refresh"
      assert.equal(3, #assert(s.open():servers()))
      assert.equal(asked, #s.requests "token refresh")
    end)

    it("asks 5 seconds less often when it is told to slow down", function()
      s.control("set", { approve = { "slow_down", "approved" }, interval = 0.05 })
      local c = s.open()
      local device = assert(c:device())
      assert.is_true(c:login(device))
      local polls = s.requests "device_code"
      assert.equal(2, #polls)
      local pause = polls[2].at - polls[1].at
      assert.is_true(pause >= 5.04 and pause < 7, pause)
    end)

    it("stops when the login is refused, expired or not known", function()
      local c, device, value, err = login "denied"
      failed("access_denied", value, err)
      failed("access_denied", c:login(device))
      c, device, value, err = login "expired"
      assert.matches("lbrun netcup login", failed("expired_token", value, err).message)
      failed("expired_token", c:login(device))
      c, device, value, err = login "approved"
      assert.is_true(value, tostring(err))
      -- a code is good for one login
      assert.equal("invalid_grant", failed("auth_failed", c:login(device)).reason)
    end)

    it("gives up by itself when the code has expired", function()
      local took = seconds(function()
        failed("expired_token", select(3, login("pending", { device_life = 0.4 })))
      end)
      assert.is_true(took < 3, took)
    end)

    it("refuses a login without offline access, and keeps nothing of it", function()
      local _, _, value, err = login("approved", { offline = false })
      failed("auth_failed", value, err)
      assert.is_nil(host.stat(s.store))
    end)

    it("finds the endpoints in the issuer's discovery document, and trusts no other issuer's", function()
      s.control("set", { issuer = "https://elsewhere.example/realms/scp" })
      failed("protocol", s.open():device())
      s.control "reset"
      failed("protocol", s.open { issuer = s.base .. "/realms/other" }:device())
      failed("connect", s.open { issuer = "http://127.0.0.1:9/realms/scp", patience = 0 }:device())
      failed("auth_failed", s.open { client_id = "scp-cli" }:device())
      -- nor one that would have tokens sent in clear
      s.control("set", { openid = s.base .. "/realms/scp/protocol/openid-connect" })
      failed("protocol", s.open { tls = true, ca_file = s.dir .. "/ca.pem" }:device())
    end)

    it("verifies TLS by the CA file, and by the system's authorities without one", function()
      local c = s.login { tls = true, ca_file = s.dir .. "/ca.pem" }
      assert.equal(3, #assert(c:servers()))
      failed("tls", s.open { tls = true }:device())
    end)

    it("is forgotten by logout, which leaves netcup's side alone unless told", function()
      local c = s.login()
      assert.is_true(c:logout())
      assert.is_nil(host.stat(s.store))
      assert.equal(0, #s.requests "revoke")
      assert.equal(1, #s.control("log").refresh)
      assert.matches("lbrun netcup login", failed("auth_failed", c:servers()).message)
      assert.is_true(c:logout())
      c = s.login()
      assert.is_true(c:logout { revoke = true })
      assert.equal(1, #s.requests "revoke")
      assert.equal(0, #s.control("log").refresh)
      assert.is_nil(host.stat(s.store))
      c = s.login()
      s.control("fault", { match = "revoke", status = 500, times = 9 })
      failed("server", c:logout { revoke = true })
      assert.is_truthy(host.stat(s.store))
    end)
  end)

  describe("tokens", function()
    it("are refreshed once for all calls that wait", function()
      local c = s.login()
      s.control("set", { slow_refresh = 0.3 })
      s.control "expire"
      local tasks = {}
      for i = 1, 8 do tasks[i] = host.task(function() return c:servers() end) end
      for _, task in ipairs(tasks) do
        local ok, list, err = task:join()
        assert.is_true(ok)
        assert.equal(3, #assert(list, tostring(err)))
      end
      assert.equal(1, #s.requests "token refresh_token")
    end)

    it("are refreshed once for two clients of one store", function()
      local a, b = s.login(), s.open()
      assert(b:servers())
      s.control("set", { slow_refresh = 0.3 })
      s.control "expire"
      local one = host.task(function() return a:servers() end)
      local two = host.task(function() return b:servers() end)
      local _, first, err1 = one:join()
      local _, second, err2 = two:join()
      assert.equal(3, #assert(first, tostring(err1)))
      assert.equal(3, #assert(second, tostring(err2)))
      assert.equal(1, #s.requests "token refresh_token")
    end)

    it("are refreshed before they expire, also while a task is waited for", function()
      local c = s.login()
      s.control("set", { access_life = 1 })
      s.control "expire"
      local task = assert(c:power(111003, "on"))
      assert.equal("FINISHED", task.state)
      s.control("tasks", { scale = 0.3 })
      task = assert(c:power(111007, "powercycle"))
      assert.equal("FINISHED", assert(c:wait(task, { interval = 0.1 })).state)
      assert.is_true(#s.requests "token refresh_token" >= 4)
      -- none of them was used after its end
      local log = s.control "log"
      assert.same({}, log.violations)
    end)

    it("that are refused although they look fresh are refreshed and the call is made again", function()
      local c = s.login()
      assert(c:servers())
      s.control "expire"
      assert.equal(3, #assert(c:servers()))
      assert.equal(3, #s.requests "GET /scp%-core/api/v1/servers")
      s.control("fault", { match = "GET /scp-core/api/v1/servers", status = 401, times = 2, body = { message = "No." } })
      local err = failed("auth_failed", c:servers())
      assert.matches("No%.", err.message)
      assert.matches("IP restriction", err.message)
      assert.equal(401, err.status)
    end)

    it("that rotate are stored before they are used", function()
      local c = s.login()
      s.control("set", { rotate = true })
      local before = slurp(s.store)
      s.control "expire"
      assert(c:servers())
      local after = slurp(s.store)
      assert.are_not.equal(before, after)
      local log = s.control "log"
      assert.equal(2, #log.refresh)
      local found = 0
      for _, token in ipairs(log.refresh) do
        if after:find(token, 1, true) and not before:find(token, 1, true) then found = found + 1 end
      end
      assert.equal(1, found)
    end)

    it("that were revoked ask for a new login", function()
      local c = s.login()
      s.control "revoke"
      local err = failed("auth_failed", c:servers())
      assert.matches("Offline user session not found", err.message)
      assert.matches("lbrun netcup login", err.message)
    end)

    it("are not given up for a sign-in server that is away for a while", function()
      local c = s.login()
      s.control "expire"
      s.control("fault", { match = "grant_type=refresh_token", status = 503, times = 2 })
      assert.equal(3, #assert(c:servers()))
      s.control "expire"
      s.control("fault", { match = "grant_type=refresh_token", drop = true, times = 1 })
      assert.equal(3, #assert(c:servers()))
      s.control "expire"
      s.control("fault", { match = "grant_type=refresh_token", status = 503, times = 99 })
      local hasty = s.open { patience = 0.1 }
      failed("maintenance", hasty:servers())
    end)

    it("go on being refreshed when the call that began it is cancelled", function()
      local c = s.login()
      s.control("set", { slow_refresh = 0.3, rotate = true })
      s.control "expire"
      local task = host.task(function() return c:servers() end)
      host.sleep(0.15)
      task:cancel()
      local _, value, err = task:join()
      failed("interrupted", value, err)
      assert.equal(3, #assert(c:servers()))
      assert.equal(1, #s.requests "token refresh_token")
    end)

    it("of a store that others can read, or of another issuer, are not used", function()
      s.login()
      os.execute("chmod 644 " .. s.store)
      assert.matches("chmod 600", failed("store", s.open():servers()).message)
      os.execute("chmod 600 " .. s.store)
      failed("auth_failed", s.open { issuer = s.base .. "/realms/other" }:servers())
      for _, text in ipairs { "", "{", "[]", '{"issuer":1}', ("x"):rep(100000) } do
        local f = assert(io.open(s.store, "wb"))
        f:write(text)
        f:close()
        local value, err = s.open():servers()
        assert.is_nil(value)
        assert.is_true(err.code == "store" or err.code == "auth_failed", tostring(err))
      end
      os.remove(s.store)
      os.execute("ln -s /dev/null " .. s.store)
      failed("store", s.open():servers())
    end)

    it("are masked by their values, in the store's file and on the way", function()
      local c = s.login()
      assert(c:servers())
      local log = s.control "log"
      local text = host.mask(log.access[1] .. " " .. log.refresh[1])
      assert.is_nil(text:find(log.access[1]:sub(1, 40), 1, true), text)
      assert.is_nil(text:find(log.refresh[1], 1, true), text)
      assert.matches("%[secret netcup access token%]", text)
      assert.matches("%[secret netcup refresh token%]", text)
    end)

    it("that do not tell the user's id make userinfo tell it", function()
      s.control("set", { id_claim = false })
      local c = s.login()
      assert.equal("ops", assert(c:ssh_keys())[1].name)
      assert.equal(1, #s.requests "userinfo")
      assert(c:ssh_keys())
      assert.equal(1, #s.requests "userinfo")
    end)
  end)

  describe("servers", function()
    it("are listed, looked for, and described with their live state", function()
      local c = s.login()
      local list = assert(c:servers())
      assert.equal(3, #list)
      assert.equal("wrk-02", list[2].nickname)
      assert.equal("RS 2000 G12 Pro", list[2].template.name)
      assert.same({ 111007 }, { assert(c:servers { query = "WRK" })[1].id })
      assert.equal(111003, assert(c:servers { ip = "198.18.28.3" })[1].id)
      assert.equal(111010, assert(c:servers { name = "v0000000000000000010" })[1].id)
      assert.equal(0, #assert(c:servers { query = "a b&c=d%" }))
      local server = assert(c:server(111007))
      assert.equal("RUNNING", server.serverLiveInfo.state)
      assert.is_true(server.serverLiveInfo.uefi)
      assert.equal(1048576, server.serverLiveInfo.disks[1].capacityInMiB)
      assert.is_nil(server.serverLiveInfo.interfaces[1].vlanId)
      assert.is_nil(assert(c:server(111007, { live = false })).serverLiveInfo)
      local err = failed("not_found", c:server(99))
      assert.equal("error.notfound", err.reason)
      assert.equal(404, err.status)
    end)

    it("come page by page", function()
      local c = s.login()
      s.control("server", { many = 197 })
      local list = assert(c:servers())
      assert.equal(200, #list)
      assert.equal(3, #s.requests "GET /scp%-core/api/v1/servers")
      local seen = {}
      for _, x in ipairs(list) do seen[x.id] = true end
      local n = 0
      for _ in pairs(seen) do n = n + 1 end
      assert.equal(200, n)
    end)

    it("are switched off and on, and restarted, each as a task", function()
      local c = s.login()
      local function power(what)
        local task = assert(c:power(111007, what))
        assert(c:wait(task, { interval = 0.01 }))
        return assert(c:server(111007)).serverLiveInfo.state
      end
      assert.equal("SHUTOFF", power "off")
      assert.equal("RUNNING", power "on")
      assert.equal("RUNNING", power "on")
      assert.equal("SHUTOFF", power "poweroff")
      assert.equal("RUNNING", power "powercycle")
      assert.equal("RUNNING", power "reset")
      assert.equal("PAUSED", power "suspend")
      local sent = s.requests "PATCH"
      assert.equal("application/merge-patch+json", sent[1].type)
      assert.equal('{"state":"OFF"}', sent[1].body)
      assert.equal("stateOption=POWERCYCLE", sent[5].query)
    end)

    it("get a nickname and a host name", function()
      local c = s.login()
      assert.same({ state = "FINISHED" }, c:set_nickname(111010, "töpferei \"1\""))
      assert.equal("töpferei \"1\"", assert(c:server(111010)).nickname)
      assert.equal("FINISHED", c:set_nickname(111010, "").state)
      assert(c:wait(assert(c:set_hostname(111010, "web.acme.example")), { interval = 0.01 }))
      assert.equal("web.acme.example", assert(c:server(111010)).hostname)
    end)

    it("have metrics with units, in the order of time", function()
      local c = s.login()
      local cpu = assert(c:metrics(111007, "cpu", { hours = 2 }))
      assert.equal("percent", cpu.unit)
      assert.equal(120, #cpu.samples)
      local last = cpu.samples[120]
      assert.is_true(math.abs(last.values.CPU0 - 1.8666666666666668) < 1e-9)
      assert.equal(145, last.values.CPU1)
      for i = 2, 120 do assert.equal(60, cpu.samples[i].at - cpu.samples[i - 1].at) end
      assert.is_true(math.abs(last.at - host.now()) < 120)
      local units = {}
      for _, what in ipairs { "disk", "network", "packets" } do
        local m = assert(c:metrics(111007, what))
        assert.equal(60, #m.samples)
        units[what] = m.unit
      end
      assert.same({ disk = "operations/s", network = "bytes/s", packets = "packets/s" }, units)
      assert.equal(60 * 24 * 7, #assert(c:metrics(111007, "cpu", { hours = 168 })).samples)
      failed("not_found", c:metrics(5, "cpu"))
    end)
  end)

  describe("tasks", function()
    it("are waited for with their progress, and read by their id", function()
      local c = s.login()
      s.control("tasks", { scale = 0.1 })
      local task = assert(c:power(111007, "off"))
      assert.equal("PENDING", task.state)
      local seen, last = {}, -1
      local done = assert(c:wait(task, { interval = 0.05, progress = function(t, percent)
        seen[t.state] = true
        assert.is_true(percent >= last)
        last = percent
        host.sleep(0)
      end }))
      assert.equal("FINISHED", done.state)
      assert.equal(100, last)
      assert.is_true(seen.RUNNING and seen.FINISHED)
      assert.is_nil(done.message)
      assert.equal("FINISHED", assert(c:task(task.uuid)).state)
      assert.equal("FINISHED", assert(c:wait(task.uuid)).state)
      failed("not_found", c:task "00000000-0000-0000-0000-000000000000")
    end)

    it("are listed, by server and by state", function()
      local c = s.login()
      s.control("tasks", { next = { "HANG" } })
      local hung = assert(c:power(111007, "off"))
      local other = assert(c:power(111003, "off"))
      assert(c:wait(other, { interval = 0.01 }))
      assert.equal(other.uuid, assert(c:tasks())[1].uuid)
      assert.same({ hung.uuid }, { assert(c:tasks { server = 111007 })[1].uuid })
      assert.equal(1, #assert(c:tasks { state = "FINISHED" }))
      assert.equal(2, #assert(c:tasks { query = "statechange" }))
      local cancelled = assert(c:cancel_task(hung.uuid))
      assert.equal("CANCELED", cancelled.state)
      assert.same({ state = "FINISHED" }, c:cancel_task(hung.uuid))
    end)

    it("that fail say why", function()
      local c = s.login()
      s.control("tasks", { next = { "ERROR", "ROLLBACK", "CANCELED" } })
      local err = failed("task_failed", c:wait(assert(c:power(111007, "off")), { interval = 0.01 }))
      assert.equal("ERROR", err.state)
      assert.equal("server.task.failed", err.reason)
      assert.matches("The node refused the operation", err.message)
      assert.equal("ROLLBACK", failed("task_failed", c:wait(assert(c:power(111007, "off")), { interval = 0.01 })).state)
      local task = assert(c:power(111007, "off"))
      err = failed("task_failed", c:wait(task, { interval = 0.01 }))
      assert.equal("CANCELED", err.state)
      assert.equal(task.uuid, err.task)
    end)

    it("that hang are left at the deadline, and can be waited for again", function()
      local c = s.login()
      s.control("tasks", { next = { "HANG" } })
      local task = assert(c:power(111007, "off"))
      local err
      local took = seconds(function() err = failed("timeout", c:wait(task, { interval = 0.05, timeout = 0.3 })) end)
      assert.is_true(took < 2, took)
      assert.matches("still RUNNING", err.message)
      assert.equal(task.uuid, err.task)
    end)

    it("are waited for through maintenance, a lost connection and a token's end", function()
      local c = s.login()
      s.control("tasks", { scale = 0.1 })
      local task = assert(c:power(111007, "off"))
      s.control("fault", { match = "GET /scp-core/api/v1/tasks/", status = 503, times = 2 })
      s.control("fault", { match = "GET /scp-core/api/v1/tasks/", drop = true, times = 1 })
      s.control("fault", { match = "GET /scp-core/api/v1/tasks/", status = 502, body = "<html>", kind = "text/html" })
      s.control "expire"
      assert.equal("FINISHED", assert(c:wait(task, { interval = 0.05 })).state)
    end)

    it("that netcup does not name are said to be untracked", function()
      local c = s.login()
      s.control("set", { untracked = true })
      local task = assert(c:power(111007, "off"))
      assert.same({ state = "ACCEPTED" }, task)
      failed("untracked", c:wait(task))
    end)

    it("stop being waited for when the waiter is cancelled, or its function raises", function()
      local c = s.login()
      s.control("tasks", { next = { "HANG", "HANG" } })
      local task = assert(c:power(111007, "off"))
      local waiter = host.task(function() return c:wait(task, { interval = 0.05 }) end)
      host.sleep(0.1)
      waiter:cancel()
      local _, value, err = waiter:join()
      failed("interrupted", value, err)
      local fine, problem = pcall(c.wait, c, task, { interval = 0.05, progress = function() error("enough", 0) end })
      assert.is_false(fine)
      assert.equal("enough", problem)
    end)
  end)

  describe("what fails in passing", function()
    local path = "GET /scp-core/api/v1/servers"
    it("is tried again, after what Retry-After asks for", function()
      local c = s.login()
      s.control("fault", { match = path, status = 429, headers = { "Retry-After: 1" }, body = { code = "x", message = "slow" } })
      local took = seconds(function() assert(c:servers()) end)
      assert.is_true(took >= 1 and took < 3, took)
      s.control("fault", { match = path, status = 503,
        headers = { "Retry-After: " .. host.date("%a, %d %b %Y %H:%M:%S GMT", host.now() + 2, true) } })
      took = seconds(function() assert(c:servers()) end)
      assert.is_true(took >= 0.8 and took < 4, took)
    end)

    it("fails in the end, with its own code", function()
      local c = s.login { patience = 0.2 }
      for status, code in pairs { [503] = "maintenance", [429] = "rate_limited", [409] = "busy", [500] = "server" } do
        s.control("fault", { match = path, status = status, times = 30 })
        local err = failed(code, c:servers())
        assert.equal(status, err.status)
        assert.equal("Node is in maintenance mode.", err.message)
        s.control "reset"
        c = s.login { patience = 0.2 }
      end
      s.control("fault", { match = path, status = 503, headers = { "Retry-After: 3600" } })
      assert.is_true(seconds(function() failed("maintenance", c:servers()) end) < 1)
      s.control("fault", { match = path, status = 200, body = "no json", kind = "text/plain" })
      failed("protocol", c:servers())
      s.control("fault", { match = path, status = 200, body = { a = 1 } })
      failed("protocol", c:servers())
      s.control("fault", { match = path, status = 403 })
      failed("denied", c:servers())
    end)

    it("is not tried again when it may have changed something", function()
      local c = s.login()
      s.control("fault", { match = "PATCH", drop = true })
      local err = failed("aborted", c:power(111007, "off"))
      assert.matches("whether it was carried out is not known", err.message)
      s.control("fault", { match = "PATCH", status = 500 })
      failed("server", c:power(111007, "off"))
      assert.equal(2, #s.requests "PATCH")
      s.control("fault", { match = "PATCH", status = 503, times = 2 })
      assert(c:power(111007, "off"))
      assert.equal(5, #s.requests "PATCH")
    end)
  end)

  it("raises for wrong types, ranges and unknown options", function()
    local c = s.open()
    local function raises(pattern, fn, ...)
      local fine, err = pcall(fn, ...)
      assert.is_false(fine)
      assert.matches(pattern, tostring(err))
    end
    raises("option 'store' is needed", netcup.open, {})
    raises("table", netcup.open)
    raises("unknown option 'stroe'", netcup.open, { stroe = "x" })
    raises("option 'api'", netcup.open, { store = "x", api = "ftp://x" })
    raises("option 'issuer'", netcup.open, { store = "x", issuer = "https://user:pw@x/" })
    raises("'api_key' must be a secret", netcup.open, { store = "x", customer = "1", api_key = "abcdefgh" })
    raises("client_id", netcup.open, { store = "x", client_id = "a&b" })
    local calls = {
      server = { {}, { "111007" }, { 0 }, { 1.5 }, { 1 << 31 }, { 7, { lvie = true } }, { 7, { live = 1 } } },
      servers = { { { querry = "x" } }, { 1 }, { { query = 1 } } },
      power = { { 7 }, { 7, "away" }, { 7, 1 }, { "7", "on" } },
      set_nickname = { { 7 }, { 7, 1 }, { 7, ("x"):rep(256) }, { 7, "a\nb" } },
      set_hostname = { { 7 }, { 7, "" }, { 7, "-a" }, { 7, "a..b" }, { 7, "a b" }, { 7, ("x"):rep(64) } },
      metrics = { { 7 }, { 7, "ram" }, { 7, "cpu", { hours = 0 } }, { 7, "cpu", { hours = 1441 } }, { 7, "cpu", { ours = 1 } } },
      task = { {}, { 1 }, { "../users" }, { "" } },
      cancel_task = { {}, { "a b c d e f g" } },
      wait = { {}, { {} }, { 1 }, { "00000000", { progress = 1 } }, { "00000000", { timeout = -1 } }, { "00000000", { x = 1 } } },
      tasks = { { { server = "7" } }, { { state = 1 } }, { 7 } },
      login = { {}, { {} }, { { interval = 1, expires_in = 1, device_code = "not-a-secret" } } },
      logout = { { { revoke = 1 } }, { { all = true } } },
      snapshots = { {}, { "7" } },
      snapshot = { { 7 }, { 7, "" }, { 7, 1 } },
      snapshot_check = { { 7 }, { 7, {} }, { 7, { online = true, disk = "vda" } } },
      snapshot_create = { { 7 }, { 7, { online = true } }, { 7, { name = "x" } }, { 7, { name = "", online = true } },
        { 7, { name = "x", online = true, disk = "vda" } } },
      snapshot_revert = { { 7 } }, snapshot_delete = { { 7, ("x"):rep(256) } }, snapshot_export = { { "7", "x" } },
      rescue = { {} }, rescue_on = { { true } }, rescue_off = { { -1 } },
      image_flavours = { {} },
      find_image = { { 7 }, { 7, { name = "Debian 13" } }, { 7, { uefi = true } }, { 7, { name = "x", uefi = "yes" } } },
      reinstall = { { 7 }, { 7, {} }, { 7, { image = "119" } }, { 7, { image = 119, user_password = "Abcdefg1" } },
        { 7, { image = 119, ssh_keys = { "1" } } }, { 7, { image = 119, ssh_keys = 1 } }, { 7, { image = 119, script = 1 } },
        { 7, { image = 119, hostnam = "x" } } },
      add_ssh_key = { {}, { "x" }, { "x", 1 }, { "", "ssh-ed25519 A" } }, delete_ssh_key = { {}, { "1" } },
      rdns = { {}, { "host" }, { 1 }, { "1.2.3" }, { "../x" } },
      set_rdns = { { "1.2.3.4" }, { "1.2.3.4", "x" }, { "1.2.3.4", "a.b." }, { "1.2.3.4", "a.1" }, { "x", "a.example" } },
      delete_rdns = { {}, { "1.2.3.4.5" } },
      zone = { {}, { "acme" }, { "a/b.c" } }, set_zone_ttl = { { "acme.example" }, { "acme.example", 1 } },
      dns_records = { {} }, dns_update = { { "acme.example" }, { "acme.example", {} }, { "acme.example", { 1 } } },
    }
    for name, list in pairs(calls) do
      for _, arguments in ipairs(list) do
        local fine, err = pcall(c[name], c, table.unpack(arguments))
        assert.is_false(fine, name)
        assert.equal("string", type(err))
      end
    end
    raises("without customer, api_key", c.zone, c, "acme.example")
    raises("client", c.servers)
    assert.matches("^netcup client of http", tostring(c))
  end)
end)
