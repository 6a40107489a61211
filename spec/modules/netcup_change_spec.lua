-- netcup_change_spec.lua: what the module netcup changes: snapshots, rescue system, images,
-- keys, reverse DNS and the DNS interface, against the stand-in of netcup.py.
local host = require "host"
local http = require "http"
local support = require "support.netcup"

local s

local function failed(code, value, err)
  assert.is_nil(value)
  assert.equal("netcup", type(err) == "table" and err.module, tostring(err))
  assert.equal(code, err.code, tostring(err))
  return err
end

local quick = { interval = 0.01 }

describe("netcup #unit", function()
  local c
  setup(function() s = support.start() end)
  teardown(function() s.stop() end)
  before_each(function()
    s.control "reset"
    os.remove(s.store)
    c = s.login()
  end)
  after_each(function()
    assert.same({}, s.control("log").violations)
  end)

  local function done(task, err)
    return assert(c:wait(assert(task, tostring(err)), quick))
  end

  describe("snapshots", function()
    it("of a server with UEFI are taken of its disk while it is off, and not online", function()
      local err = failed("refused", c:snapshot_check(111007, { online = true }))
      assert.equal("server.snapshot.create.error.online.uefi", err.reason)
      assert.equal(1, #err.reasons)
      err = failed("refused", c:snapshot_create(111007, { name = "a", online = true }))
      assert.equal("server.snapshot.create.error.online.uefi", err.reason)
      assert.matches("switch the server off", err.message)
      assert.is_true(c:snapshot_check(111007, { disk = "vda" }))
      failed("refused", c:snapshot_check(111007, { disk = "sda" }))
      done(c:power(111007, "off"))
      done(c:snapshot_create(111007, { name = "before update", description = "ö", disk = "vda" }))
      local list = assert(c:snapshots(111007))
      assert.equal(1, #list)
      assert.equal("SHUTOFF", list[1].state)
      assert.is_false(list[1].online)
      assert.equal("ö", list[1].description)
      failed("refused", c:snapshot_create(111007, { name = "before update", disk = "vda" }))
      assert.equal(0, #assert(c:snapshots(111003)))
    end)

    it("of a server with BIOS are taken online, and never exported", function()
      assert.is_true(c:snapshot_check(111003, { online = true }))
      done(c:snapshot_create(111003, { name = "live", online = true }))
      assert.equal("RUNNING", assert(c:snapshot(111003, "live")).state)
      local err = failed("refused", c:snapshot_export(111003, "live"))
      assert.equal("server.snapshot.export.wrongstate", err.reason)
      assert.matches("while the server is off", err.message)
    end)

    it("that were taken while the server was off are exported to a secret address", function()
      done(c:power(111007, "poweroff"))
      done(c:snapshot_create(111007, { name = "off", disk = "vda" }))
      s.control("tasks", { scale = 0.0001 })
      done(c:snapshot_export(111007, "off"))
      local snapshot = assert(c:snapshot(111007, "off"))
      assert.is_true(snapshot.exported)
      assert.is_true(host.is_secret(snapshot.downloadInfos.presignedUrl))
    end)

    it("are reverted to, which starts the server, and deleted, by any name", function()
      local name = "a/b ?&=%2F:é"
      done(c:power(111007, "off"))
      done(c:snapshot_create(111007, { name = name, disk = "vda" }))
      done(c:snapshot_revert(111007, name))
      assert.equal("RUNNING", assert(c:server(111007)).serverLiveInfo.state)
      assert.equal(1, assert(c:server(111007)).snapshotCount)
      done(c:snapshot_delete(111007, name))
      assert.equal(0, #assert(c:snapshots(111007)))
      failed("not_found", c:snapshot_delete(111007, name))
      failed("not_found", c:snapshot_revert(111007, name))
      failed("not_found", c:snapshot(111007, name))
      failed("not_found", c:snapshots(5))
    end)

    it("wait for the end of maintenance", function()
      s.control("fault", { match = "POST .*/snapshots ", status = 503, times = 2 })
      done(c:snapshot_create(111003, { name = "x", online = true }))
    end)
  end)

  it("the rescue system is started with a secret password, and left", function()
    assert.same({ active = false }, c:rescue(111007))
    failed("refused", c:rescue_off(111007))
    done(c:power(111007, "off"))
    done(c:rescue_on(111007))
    local rescue = assert(c:rescue(111007))
    assert.is_true(rescue.active)
    assert.is_true(host.is_secret(rescue.password))
    assert.equal("[secret netcup password]", tostring(rescue.password))
    assert.is_true(assert(c:server(111007)).rescueSystemActive)
    failed("refused", c:rescue_on(111007))
    done(c:rescue_off(111007))
    assert.same({ active = false }, c:rescue(111007))
  end)

  describe("images", function()
    it("are found by distribution, version and firmware", function()
      local function id(options) return assert(c:find_image(111007, options)).id end
      assert.equal(10, #assert(c:image_flavours(111007)))
      assert.equal(128, id { name = "Debian 13", uefi = true })
      assert.equal(119, id { name = "debian 13", uefi = false })
      assert.equal(128, id { name = "Debian 13.6.0", uefi = true })
      assert.equal(132, id { name = "Debian 13", uefi = true, arch = "arm64" })
      assert.equal(130, id { name = "Debian cloudimg 13", uefi = true })
      assert.equal(117, id { name = "Ubuntu 22.04", uefi = true })
      failed("not_found", c:find_image(111007, { name = "Debian 1", uefi = true }))
      failed("not_found", c:find_image(111007, { name = "Debian 12", uefi = false }))
      failed("not_found", c:find_image(111007, { name = "Debian 13", uefi = true, flavour = "docker" }))
      local err = failed("ambiguous", c:find_image(111007, { name = "Ubuntu", uefi = true }))
      assert.matches("Ubuntu 24%.04%.4", err.message)
      assert.matches("Ubuntu 22%.04%.5", err.message)
    end)

    it("are installed with a host name and keys; the root password is a secret from the first answer on", function()
      local key = assert(c:add_ssh_key("acme", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 acme"))
      local image = assert(c:find_image(111007, { name = "Debian 13", uefi = true }))
      local task = assert(c:reinstall(111007, {
        image = image.id, hostname = "acme.example", disk = "vda", full_disk = true, ssh_keys = { key.id },
        ssh_passwords = false, user = "deploy", user_password = host.secret("user", "Canary-123"), locale = "de_DE.UTF-8",
        timezone = "Europe/Berlin", script = host.secret("script", "echo script-canary"), email = false,
      }))
      assert.is_true(host.is_secret(task.result.rootPassword))
      task = done(task)
      assert.is_true(host.is_secret(task.result.rootPassword))
      assert.equal("acme.example", assert(c:server(111007)).hostname)
      local body = s.requests "POST .*/image"[1].body
      assert.matches('"additionalUserPassword":"Canary%-123"', body)
      assert.matches('"customScript":"echo script%-canary"', body)
      assert.matches('"sshKeyIds":%[' .. key.id .. "%]", body)
      assert.matches('"rootPartitionFullDiskSize":true', body)
    end)

    it("that are not there, or with unknown keys, are refused with the field's name", function()
      local err = failed("invalid", c:reinstall(111007, { image = 1 }))
      assert.matches("imageFlavourId: does not exist", err.message)
      assert.equal(422, err.status)
      failed("invalid", c:reinstall(111007, { image = 128, ssh_keys = { 5 } }))
      s.control("tasks", { next = { "ERROR" } })
      failed("task_failed", c:wait(assert(c:reinstall(111007, { image = 128 })), quick))
    end)
  end)

  it("SSH keys are listed, added and deleted", function()
    assert.equal(1, #assert(c:ssh_keys()))
    local key = assert(c:add_ssh_key("b", "ssh-ed25519 AAAA b"))
    assert.equal(2, #assert(c:ssh_keys()))
    assert.is_true(c:delete_ssh_key(key.id))
    assert.is_true(c:delete_ssh_key(key.id))
    assert.equal(1, #assert(c:ssh_keys()))
    failed("denied", c:delete_ssh_key(1))
  end)

  it("reverse DNS is set, read and deleted, for IPv4 and IPv6", function()
    for _, ip in ipairs { "198.18.28.137", "2001:db8:c1:5e9e::1" } do
      assert.same({}, c:rdns(ip))
      s.control("set", { rdns_missing = 404 })
      assert.same({}, c:rdns(ip))
      s.control("set", { rdns_missing = 200 })
      assert.is_true(c:set_rdns(ip, "mail.acme.example"))
      assert.same({ name = "mail.acme.example" }, c:rdns(ip))
      assert.is_true(c:delete_rdns(ip))
      assert.same({}, c:rdns(ip))
    end
    failed("invalid", c:set_rdns("192.0.2.1", "mail.acme.example"))
  end)

  it("the stand-in refuses what netcup's document does not have, so that a wrong request is seen", function()
    local token = host.secret("token", s.control("log").access[1])
    local function status(method, path, kind, body, accept)
      return assert(http.request { url = s.base .. "/scp-core/api" .. path, method = method, bearer = token, timeout = 10,
        headers = { ["Content-Type"] = kind, Accept = accept or "application/json" }, body = body }).status
    end
    local merge, plain = "application/merge-patch+json", "application/json"
    local server, snapshots = "/v1/servers/111007", "/v1/servers/111007/snapshots"
    assert.equal(406, status("GET", "/ping"))
    assert.equal(200, status("GET", "/ping", nil, nil, "*/*"))
    local wrong = {
      { 404, "DELETE", server }, { 404, "POST", "/v1/servers" }, { 422, "GET", "/v1/servers/abc" },
      { 422, "GET", "/v1/servers?limt=1" }, { 422, "GET", "/v1/servers?limit=x" }, { 422, "GET", "/v1/tasks?state=ROLLBACKS" },
      { 415, "PATCH", server, plain, '{"state":"ON"}' }, { 422, "PATCH", server, merge, '{"state":"RUNNING"}' },
      { 422, "PATCH", server, merge, '{"nickname":"a","hostname":"b"}' }, { 400, "PATCH", server, merge, "{" },
      { 422, "POST", snapshots, plain, '{"onlineSnapshot":true}' }, { 422, "POST", snapshots, plain, '{"name":1}' },
      { 415, "POST", "/v1/servers/111007/rescuesystem" }, { 422, "POST", "/v1/rdns/ipv4", plain, '{"ip":"1.2.3","rdns":"a.example"}' },
      { 422, "POST", "/v1/servers/111007/image", plain, '{"imageFlavourId":"128"}' },
    }
    for _, w in ipairs(wrong) do
      assert.equal(w[1], status(w[2], w[3], w[4], w[5]), w[2] .. " " .. w[3] .. " " .. (w[5] or ""))
    end
    assert.equal(#wrong, #s.control("log").violations)
    s.control "reset"
  end)

  describe("DNS", function()
    local function open(more)
      local o = { customer = "100000", api_key = host.secret("key", "api-key-canary-123"),
        api_password = host.secret("password", "api-password-canary-123") }
      for k, v in pairs(more or {}) do o[k] = v end
      return s.open(o)
    end
    local function logins()
      local n = 0
      for _, r in ipairs(s.requests "endpoint") do
        if r.body:find('"action":"login"', 1, true) then n = n + 1 end
      end
      return n
    end

    it("records are added, changed and removed one by one, and others left alone", function()
      local d = open()
      local list = assert(d:dns_records "acme.example")
      assert.equal(1, #list)
      list = assert(d:dns_update("acme.example", {
        { hostname = "@", type = "MX", priority = 10, destination = "mail.acme.example" },
        { hostname = "*", type = "A", destination = "203.0.113.42" },
      }))
      assert.equal(3, #list)
      local by_host = {}
      for _, r in ipairs(list) do by_host[r.hostname] = r end
      assert.equal("10", by_host["@"].priority)
      assert.equal("unknown", by_host["*"].state)
      by_host.www.destination = "203.0.113.7"
      assert(d:dns_update("acme.example", { by_host.www }))
      by_host["*"].delete = true
      list = assert(d:dns_update("acme.example", { by_host["*"] }))
      assert.equal(2, #list)
      assert.equal("203.0.113.7", s.control("zone", { zone = "acme.example" }).records[1].destination)
      assert.equal(1, logins())
      assert.is_true(d:dns_logout())
      assert.is_true(d:dns_logout())
      assert.equal(0, #s.control("log").sessions)
    end)

    it("a zone has numbers, and a time to live that is set", function()
      local d = open()
      local zone = assert(d:zone "acme.example")
      assert.equal(86400, zone.ttl)
      assert.is_false(zone.dnssecstatus)
      assert.equal(300, assert(d:set_zone_ttl("acme.example", 300)).ttl)
      assert.equal(300, assert(d:zone "acme.example").ttl)
    end)

    it("a zone without records is an empty list, although the interface calls it an error (5029)", function()
      assert.equal(0, #assert(open():dns_records "empty.example"))
    end)

    it("a session that has ended (4001) is begun again, once", function()
      local d = open()
      assert(d:zone "acme.example")
      s.control "sessions"
      assert(d:zone "acme.example")
      assert.equal(2, logins())
      s.control "sessions"
      assert.is_true(d:dns_logout())
      s.control("set", { dns_no_session = true })
      local err = failed("auth_failed", d:zone "acme.example")
      assert.equal(4001, err.reason)
      assert.equal(4, logins())
    end)

    it("wrong credentials (4013) are told from a wrong request and from too many of them", function()
      local err = failed("auth_failed", open { api_password = host.secret("p", "not-the-password") }:zone "acme.example")
      assert.equal(4013, err.reason)
      assert.matches("credentials are not valid", err.message)
      failed("auth_failed", open { customer = "1" }:zone "acme.example")
      local d = open()
      failed("invalid", d:zone "elsewhere.example")
      failed("invalid", d:dns_update("acme.example", { { id = "9", hostname = "x", type = "A", destination = "203.0.113.1" } }))
      s.control("set", { dns_limit = "infoDnsZone" })
      assert(d:zone "acme.example")
      s.control("set", { dns_limit = "login" })
      assert(open():zone "acme.example")
      s.control("set", { dns_many_errors = true })
      local asked = #s.requests "endpoint"
      failed("rate_limited", d:zone "acme.example")
      -- whoever goes on is shut out
      assert.equal(asked + 1, #s.requests "endpoint")
    end)

    it("an answer that is none fails as protocol, and a server that is away as connect", function()
      local d = open()
      s.control("fault", { match = "endpoint", status = 200, body = "<html>", kind = "text/html" })
      failed("protocol", d:zone "acme.example")
      failed("connect", open { ccp = "http://127.0.0.1:9/?JSON", patience = 0 }:zone "acme.example")
    end)

    it("credentials and session stay masked while they are in use", function()
      local d = open()
      assert(d:zone "acme.example")
      collectgarbage()
      local session = s.control("log").sessions[1]
      local masked = host.mask(("api-key-canary-123 api-password-canary-123 %s"):format(session))
      for _, secret in ipairs { "api-key-canary-123", "api-password-canary-123", session } do
        assert.is_nil(masked:find(secret, 1, true), masked)
      end
    end)
  end)
end)
