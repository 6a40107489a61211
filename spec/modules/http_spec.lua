-- http_spec.lua: against a local server: what a request brings, and that each way in which
-- it can fail has its own error.
local crypto = require "crypto"
local host = require "host"
local http = require "http"
local json = require "json"
local process = require "process"
local program = require "support.program"
local ssh = require "support.sshd"

local dir, server
local ports = {}

local function url(name, path)
  local scheme = (name == "plain" or name == "silent") and "http" or "https"
  return ("%s://localhost:%d/%s"):format(scheme, ports[name], path)
end

local function get(name, path, opts)
  local o = { url = url(name, path), ca_file = dir .. "/ca.pem", timeout = 10 }
  for k, v in pairs(opts or {}) do o[k] = v end
  return http.request(o)
end

local function echo(opts, path)
  local r = assert(get("good", path or "echo", opts))
  assert.equal(200, r.status)
  return json.decode(r.body)
end

local function code(value, err)
  assert.is_nil(value)
  assert.equal("http", err.module)
  assert.is_true(#err.message > 0)
  return err.code
end

local function raises(pattern, opts)
  local ok, err = pcall(http.request, opts)
  assert.is_false(ok)
  assert.matches(pattern, tostring(err))
  return tostring(err)
end

local function with(opts)
  opts.url = opts.url or url("plain", "echo")
  return opts
end

describe("http.request #unit", function()
  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(host.mkdir(dir, "0700"))
    ssh.sh("sh spec/support/httpd.sh " .. dir)
    server = assert(process.spawn({ "python3", "spec/support/httpd.py", dir }, { kill_on_close = true }))
    local out = ""
    while not out:find "ready" do
      local which, data = server:read(20)
      assert(which == "out", data)
      out = out .. data
    end
    for name, port in out:gmatch "(%w+) (%d+)" do ports[name] = tonumber(port) end
  end)

  teardown(function()
    server:close()
    os.execute("rm -rf " .. dir)
  end)

  describe("brings", function()
    it("status, headers, body, url and time", function()
      local r = assert(get("good", "status/200"))
      assert.equal(200, r.status)
      assert.equal("said 200", r.body)
      assert.equal(8, r.bytes)
      assert.equal("8", r.headers["content-length"])
      assert.equal(url("good", "status/200"), r.url)
      assert.is_true(r.seconds > 0 and r.seconds < 10)
    end)

    it("a failure status as a response", function()
      for _, status in ipairs { 301, 404, 500, 599 } do
        local r = assert(get("plain", "status/" .. status))
        assert.equal(status, r.status)
        assert.equal("said " .. status, r.body)
      end
    end)

    it("repeated headers joined, in lower case", function()
      local h = assert(get("plain", "headers")).headers
      assert.equal("1, 2", h["x-one"])
      assert.equal("a=1, x\nb=2", h["set-cookie"])
      assert.equal("", h["x-empty"])
    end)

    it("chunked and binary bodies whole", function()
      assert.equal("abcdefg", assert(get("good", "chunked")).body)
      local body = assert(get("good", "bytes/300000")).body
      assert.equal(300000, #body)
      assert.equal(250, body:byte(251))
      assert.equal("", assert(get("good", "bytes/0")).body)
    end)
  end)

  describe("sends", function()
    it("method, headers and body as they are given", function()
      local bytes = "a=1&b=\r\n\0\xff" .. ("x"):rep(100000)
      local e = echo { method = "PUT", body = bytes, headers = { ["X-A"] = "b c", ["x-empty"] = "" } }
      assert.equal("PUT", e.method)
      assert.same({ "b c" }, e.headers["x-a"])
      assert.same({ "" }, e.headers["x-empty"])
      assert.is_nil(e.headers["content-type"])
      assert.is_nil(e.headers.expect)
      assert.equal(crypto.sha256(bytes), e.sha256)
      e = echo { body = "{}" }
      assert.equal("POST", e.method)
      e = echo { method = "DELETE" }
      assert.equal("DELETE", e.method)
      assert.equal("", e.body)
      assert.same({ "0" }, echo { method = "PATCH" }.headers["content-length"])
      assert.equal("GET", echo().method)
      e = echo { json = '{"a":1}', method = "PATCH" }
      assert.equal('{"a":1}', e.body)
      assert.same({ "application/json" }, e.headers["content-type"])
      assert.equal("x/y", echo { body = "1", headers = { ["content-type"] = "x/y" } }.headers["content-type"][1])
    end)

    it("what may change something once, also where a connection ends without an answer", function()
      assert.equal(200, assert(get("plain", "status/200")).status)
      local before = tonumber(assert(get("plain", "count")).body)
      assert.equal("aborted", code(get("plain", "empty", { method = "PATCH", body = "x" })))
      assert.equal(before + 1, tonumber(assert(get("plain", "count")).body))
    end)

    it("HEAD, which has no body", function()
      local r = assert(get("good", "echo", { method = "HEAD" }))
      assert.equal("", r.body)
      assert.is_true(tonumber(r.headers["content-length"]) > 0)
    end)

    it("secrets in headers and body without showing them", function()
      local s <close> = host.secret("token", "hunter2/hunter2+==\n")
      local e = echo { bearer = s }
      assert.same({ "Bearer hunter2/hunter2+==" }, e.headers.authorization)
      local t <close> = host.secret("body", "a secret body")
      e = echo { body = t, headers = { ["X-Key"] = t } }
      assert.equal("a secret body", e.body)
      assert.same({ "a secret body" }, e.headers["x-key"])
      local err = raises("'bearer' must be a secret", with { bearer = "plain-text-token" })
      assert.is_nil(err:find("plain-text-token", 1, true))
      err = raises("'X' is not one line", with { headers = { X = "canary\r\nY: 1" } })
      assert.is_nil(err:find("canary", 1, true))
    end)

    -- In a network of its own, whose loopback has addresses of documentation (RFC 5737, 3849).
    it("a secret over http to loopback and private networks, and to no public address", function()
      local r = program.script([[
        local host, http, json = require "host", require "http", require "json"
        local token <close> = host.secret("token", "hunter2-hunter2")
        local function try(address, opts)
          opts.url = "http://" .. address .. ":8000/"
          local r, err
          for _ = 1, 200 do -- until the server listens
            r, err = http.request(opts)
            if r or err.code ~= "connect" then break end
            host.sleep(0.05)
          end
          io.write(address, " ", r and r.status or err.code .. ": " .. err.message, "\n")
        end
        try("127.0.0.1", {})
        for _, a in ipairs { "203.0.113.7", "[2001:db8::7]" } do
          try(a, {})
          try(a, { bearer = token })
          try(a, { headers = { ["x-key"] = token }, method = "HEAD" })
          try(a, { body = token })
        end
        for _, a in ipairs { "127.0.0.1", "[::1]", "10.1.2.3", "172.31.0.1", "192.168.7.7", "100.100.0.1", "[fd00::7]" } do
          try(a, { bearer = token })
        end
        for _, a in ipairs { "172.32.0.1", "100.128.0.1" } do try(a, { bearer = token }) end
        return 0]], [[unshare -rn sh -c '
          ip link set lo up
          for a in 203.0.113.7 10.1.2.3 172.31.0.1 172.32.0.1 192.168.7.7 100.100.0.1 100.128.0.1; do ip addr add $a/32 dev lo; done
          for a in 2001:db8::7 fd00::7; do ip addr add $a/128 dev lo; done
          python3 -m http.server --bind :: 8000 >/dev/null 2>&1 & server=$!
          "$@"; status=$?
          kill $server; exit $status' sh "$@"]])
      local why = "tls: a secret would leave unencrypted over http for a public address; give an https URL\n"
      local want = "127.0.0.1 200\n"
      for _, a in ipairs { "203.0.113.7", "[2001:db8::7]" } do
        want = want .. a .. " 200\n" .. (a .. " " .. why):rep(3)
      end
      for _, a in ipairs { "127.0.0.1", "[::1]", "10.1.2.3", "172.31.0.1", "192.168.7.7", "100.100.0.1", "[fd00::7]" } do
        want = want .. a .. " 200\n"
      end
      assert.equal(want .. "172.32.0.1 " .. why .. "100.128.0.1 " .. why, r.out .. r.err)
    end)

    it("nothing through a proxy of the environment", function()
      local script = dir .. "/proxy.lua"
      local f = assert(io.open(script, "w"))
      f:write(('local r = assert(require "http".request { url = "%s" }) return r.status == 200 and 0 or 1')
        :format(url("plain", "echo")))
      f:close()
      local p <close> = assert(process.spawn({ host.realpath "/proc/self/exe", "--script", script }, {
        env = { http_proxy = "http://127.0.0.1:1", all_proxy = "http://127.0.0.1:1" } }))
      repeat local which, data = p:read(20) until which == "eof" or not which or error(data)
      assert.same({ status = 0 }, p:wait(20))
    end)
  end)

  describe("connects", function()
    it("to a Unix socket, whatever the host is called", function()
      local r = assert(http.request { url = "http://any.test/echo", unix_socket = dir .. "/http.sock" })
      assert.equal("unix", json.decode(r.body).server)
      assert.same({ "any.test" }, json.decode(r.body).headers.host)
      assert.equal("connect", code(http.request { url = "http://any.test/", unix_socket = dir .. "/none" }))
    end)

    it("to what listens on a server's loopback, over ssh, by a socket that is its owner's alone", function()
      local target = require "lb.target"
      local far <close> = setmetatable({ server = ssh.start() }, { __close = function(self) self.server:stop() end })
      local conn = assert(target.connect(target.parse(("ssh://%s@127.0.0.1:%d"):format(far.server.user, far.server.port)),
        { identities = { far.server.key }, accept_new = true }))
      local socket = conn:view(false):forward("127.0.0.1", ports.plain)
      local folder = socket:match "^(.*)/"
      assert.same({ "0700", "0600" }, { host.stat(folder).mode, host.stat(socket).mode })
      local r = assert(http.request { url = "http://health.test/echo", unix_socket = socket })
      assert.same({ 200, { "health.test" } }, { r.status, json.decode(r.body).headers.host })
      local nobody = conn:view(false):forward("127.0.0.1", 1)
      assert.equal("aborted", code(http.request { url = "http://health.test/", unix_socket = nobody, timeout = 10 }))
      conn:close()
      assert.is_nil(host.stat(folder))
    end)

    it("to the address given for a host, whose name is still verified", function()
      local key = "site.test:" .. ports.good
      local opts = { url = "https://" .. key .. "/echo", ca_file = dir .. "/ca.pem", resolve = { [key] = "127.0.0.1" } }
      assert.equal(200, assert(http.request(opts)).status)
      opts.url = ("https://bad.test:%d/echo"):format(ports.good)
      opts.resolve = { ["bad.test:" .. ports.good] = "127.0.0.1" }
      assert.equal("tls", code(http.request(opts)))
      opts.resolve = nil
      opts.url = "https://" .. key .. "/echo"
      assert.equal("resolve", code(http.request(opts)))
    end)
  end)

  describe("trusts", function()
    it("only who proves the name with a certificate of the authority", function()
      assert.equal(200, assert(get("good", "echo")).status)
      local messages = {}
      for _, name in ipairs { "wrong", "expired", "self" } do
        local value, err = get(name, "echo")
        assert.equal("tls", code(value, err))
        messages[#messages + 1] = err.message
      end
      assert.matches("no alternative certificate subject name", messages[1])
      assert.matches("expired", messages[2])
      assert.matches("self.signed", messages[3])
    end)

    it("the system's authorities, unless a file names others", function()
      assert.equal("tls", code(http.request { url = url("good", "echo") }))
      assert.equal(200, assert(get("self", "echo", { ca_file = dir .. "/self.pem" })).status)
      assert.equal("tls", code(get("good", "echo", { ca_file = dir .. "/self.pem" })))
      assert.equal("tls", code(get("good", "echo", { ca_file = dir .. "/none.pem" })))
    end)

    it("nobody who does not speak TLS", function()
      assert.equal("tls", code(http.request { url = ("https://localhost:%d/"):format(ports.plain) }))
    end)
  end)

  describe("fails", function()
    it("with resolve for a host that is not there", function()
      assert.equal("resolve", code(http.request { url = "http://no-such-host.invalid/" }))
    end)

    it("with connect where nobody listens", function()
      assert.equal("connect", code(http.request { url = "http://127.0.0.1:" .. ssh.port() .. "/" }))
    end)

    it("with timeout for a body that is slow, a server that says nothing, a silent handshake", function()
      for _, try in ipairs {
        { "good", "slow" }, { "plain", "wait/20" }, { "silent", "x" },
      } do
        local began = host.monotonic()
        assert.equal("timeout", code(get(try[1], try[2], { timeout = 0.3 })))
        assert.is_true(host.monotonic() - began < 3)
      end
      local value, err = http.request { url = ("https://localhost:%d/"):format(ports.silent), connect_timeout = 0.2 }
      assert.equal("timeout", code(value, err))
    end)

    it("with too_large for a body or headers beyond the limit", function()
      assert.equal("too_large", code(get("good", "huge", { max_bytes = 100000 })))
      assert.equal("too_large", code(get("plain", "huge")))
      assert.equal("too_large", code(get("plain", "bytes/11", { max_bytes = 10 })))
      assert.equal(10, assert(get("plain", "bytes/10", { max_bytes = 10 })).bytes)
      assert.equal("too_large", code(get("plain", "flood")))
    end)

    it("with aborted for a connection that ends too early", function()
      for _, name in ipairs { "plain", "good" } do
        assert.equal("aborted", code(get(name, "drop")))
        assert.equal("aborted", code(get(name, "empty")))
      end
    end)

    it("with protocol for what is no HTTP", function()
      assert.equal("protocol", code(get("plain", "garbage")))
      local value, err = get("plain", "badchunk")
      assert.equal("protocol", code(value, err), tostring(err))
    end)

    it("with interrupted when its task is cancelled, at once", function()
      local began = host.monotonic()
      local task = host.task(function() return get("plain", "wait/20") end)
      host.sleep(0.05)
      task:cancel()
      local _, value, err = task:join(5)
      assert.equal("interrupted", code(value, err))
      assert.is_true(host.monotonic() - began < 2)
    end)

    it("leaves others alone when a task is lost in the middle", function()
      do
        local task = host.task(function() return get("plain", "wait/20") end)
        host.sleep(0.02)
        task:cancel()
      end
      collectgarbage()
      assert.equal(200, assert(get("plain", "echo")).status)
    end)
  end)

  describe("redirects", function()
    it("are responses unless they are asked for", function()
      local r = assert(get("good", "hop/0"))
      assert.equal(302, r.status)
      assert.equal("/echo", r.headers.location)
      assert.equal("elsewhere", r.body)
    end)

    it("are followed to the end, of which the response tells", function()
      local r = assert(get("good", "hop/2", { max_redirects = 3 }))
      assert.equal(200, r.status)
      assert.equal(url("good", "echo"), r.url)
      assert.is_nil(r.headers.location)
      assert.equal("GET", json.decode(r.body).method)
    end)

    it("end where there are too many of them", function()
      assert.equal("redirect", code(get("good", "hop/3", { max_redirects = 3 })))
      assert.equal("redirect", code(get("good", "loop", { max_redirects = 20 })))
    end)

    it("never lead out of HTTP, nor out of TLS", function()
      assert.equal("redirect", code(get("plain", "file", { max_redirects = 3 })))
      assert.equal("redirect", code(get("plain", "ftp", { max_redirects = 3 })))
      assert.equal("redirect", code(get("good", "to/plain/http/localhost", { max_redirects = 3 })))
      assert.equal(200, assert(get("plain", "to/good/https/localhost", { max_redirects = 3 })).status)
    end)

    it("do not take the token to another host", function()
      local s <close> = host.secret("token", "hunter2-hunter2")
      local r = assert(get("plain", "to/plain/http/127.0.0.1", { bearer = s, max_redirects = 1 }))
      assert.is_nil(json.decode(r.body).headers.authorization)
      r = assert(get("plain", "hop/0", { bearer = s, max_redirects = 1 }))
      assert.same({ "Bearer hunter2-hunter2" }, json.decode(r.body).headers.authorization)
    end)

    it("are refused where they would take a secret of another header, or of the body, along", function()
      local s <close> = host.secret("token", "hunter2-hunter2")
      local text = raises("header 'X%-Api%-Key' holds a secret", with { headers = { ["X-Api-Key"] = s }, max_redirects = 1 })
      assert.is_nil(text:find("hunter2", 1, true))
      raises("option 'body' holds a secret", with { method = "GET", body = s, max_redirects = 1 })
      raises("option 'json' holds a secret", with { method = "GET", json = s, max_redirects = 1 })
      local r = assert(get("plain", "hop/0", { headers = { ["X-Api-Key"] = "public", cookie = s }, max_redirects = 1 }))
      assert.same({ "public" }, json.decode(r.body).headers["x-api-key"])
      r = assert(get("plain", "to/plain/http/127.0.0.1", { headers = { Cookie = s, authorization = s }, max_redirects = 1 }))
      assert.is_nil(json.decode(r.body).headers.cookie)
      assert.is_nil(json.decode(r.body).headers.authorization)
      assert.equal(200, assert(get("plain", "echo", { headers = { ["X-Api-Key"] = s } })).status)
    end)

    it("are for GET and HEAD", function()
      raises("only GET and HEAD follow redirects", with { method = "DELETE", max_redirects = 1 })
      raises("only GET and HEAD follow redirects", with { body = "x", max_redirects = 1 })
    end)
  end)

  describe("with output_path", function()
    local function names()
      local list = {}
      for _, entry in ipairs(host.list(dir .. "/out")) do list[#list + 1] = entry.name end
      return table.concat(list, " ")
    end

    setup(function() assert(host.mkdir(dir .. "/out", "0700")) end)

    it("writes a private file, whole", function()
      local path = dir .. "/out/file"
      local r = assert(get("good", "bytes/3000000", { output_path = path }))
      assert.is_nil(r.body)
      assert.equal(3000000, r.bytes)
      local stat = host.stat(path)
      assert.equal(3000000, stat.size)
      assert.equal("0600", stat.mode)
      assert.equal("file", names())
      os.remove(path)
    end)

    it("leaves no file, and an older one as it is, when there is none to have", function()
      local path = dir .. "/out/file"
      local r = assert(get("good", "status/404", { output_path = path }))
      assert.equal("said 404", r.body)
      assert.equal("", names())
      assert(host.write_file(path, "old", "0644"))
      assert.equal("aborted", code(get("good", "drop", { output_path = path })))
      assert.equal("too_large", code(get("plain", "huge", { output_path = path, max_bytes = 1000000 })))
      assert.equal("timeout", code(get("plain", "slow", { output_path = path, timeout = 0.2 })))
      assert.equal("file", names())
      assert.equal("old", host.read_file(path))
      os.remove(path)
      assert.equal("not_found", code(get("good", "echo", { output_path = dir .. "/none/file" })))
    end)
  end)

  describe("many at a time", function()
    it("fifty run side by side, each with its own answer", function()
      local began = host.monotonic()
      local tasks = {}
      for i = 1, 50 do
        tasks[i] = host.task(function()
          local r = assert(get(i % 2 == 0 and "good" or "plain", i % 5 == 0 and "wait/0.5" or "echo/" .. i))
          return i % 5 == 0 and r.body or json.decode(r.body).path
        end)
      end
      for i, task in ipairs(tasks) do
        local ok, value = task:join(20)
        assert.is_true(ok, tostring(value))
        assert.equal(i % 5 == 0 and "waited" or "/echo/" .. i, value)
      end
      assert.is_true(host.monotonic() - began < 4)
    end)

    it("end with the main task", function()
      local script = dir .. "/left.lua"
      local f = assert(io.open(script, "w"))
      f:write(([[
        local host, http = require "host", require "http"
        for _ = 1, 10 do host.task(function() http.request { url = "%s" } end) end
        host.sleep(0.1)
        return 7
      ]]):format(url("plain", "wait/30")))
      f:close()
      local began = host.monotonic()
      local p <close> = assert(process.spawn { host.realpath "/proc/self/exe", "--script", script })
      repeat local which, data = p:read(20) until which == "eof" or not which or error(data)
      assert.same({ status = 7 }, p:wait(20))
      assert.is_true(host.monotonic() - began < 5)
    end)

    it("leave no descriptor open beyond a few idle connections", function()
      get("plain", "echo")
      collectgarbage()
      local before = #host.list "/proc/self/fd"
      for _ = 1, 30 do
        get("plain", "drop")
        get("good", "empty")
        get("plain", "wait/9", { timeout = 0.01 })
      end
      collectgarbage()
      host.sleep(0)
      assert.is_true(#host.list "/proc/self/fd" <= before + 8)
    end)
  end)

  it("raises for wrong arguments", function()
    raises("table expected", nil)
    raises("table expected", "http://x/")
    raises("'url' is needed", {})
    raises("'url' must be a string", { url = 1 })
    raises("unknown option 'verify'", with { verify = false })
    for _, bad in ipairs { "", "x", "localhost/x", "http://", "http://a b/", "//x/" } do
      raises("not an absolute URL", { url = bad })
    end
    for _, bad in ipairs { "ftp://x/", "file:///etc/passwd" } do raises("not a URL of http", { url = bad }) end
    for _, bad in ipairs { "http://me@x/", "https://me:pass@x/" } do raises("without user and password", { url = bad }) end
    raises("zero byte", { url = "http://x/\0" })
    for _, bad in ipairs { "get", "", "GE T", "CONNECT" } do raises("'method' must be a name", with { method = bad }) end
    raises("HEAD has no body", with { method = "HEAD", body = "x" })
    raises("'headers' must be a table", with { headers = "x" })
    raises("keys of option 'headers' must be strings", with { headers = { "x" } })
    raises("no name of a header", with { headers = { ["a b"] = "x" } })
    raises("no name of a header", with { headers = { [""] = "x" } })
    raises("must be a string or a secret, not a number", with { headers = { a = 1 } })
    raises("not for the caller", with { headers = { ["Content-Length"] = "1" } })
    raises("not one line", with { headers = { a = "x\n" } })
    raises("'body' must be a string or a secret, not a table", with { body = {} })
    raises("exclude each other", with { body = "", json = "" })
    raises("'bearer' must be a string or a secret, not a number", with { bearer = 1 })
    raises("'resolve' must be a table", with { resolve = "x" })
    raises("must be \"host:port\"", with { resolve = { x = "127.0.0.1" } })
    raises("must be \"host:port\"", with { resolve = { ["x:y"] = "127.0.0.1" } })
    raises("must be an address", with { resolve = { ["x:1"] = "a name" } })
    raises("must be an address", with { resolve = { ["x:1"] = 1 } })
    raises("number of seconds", with { timeout = -1 })
    raises("number of seconds", with { connect_timeout = "1" })
    raises("from 0 to 50", with { max_redirects = 51 })
    raises("must be from 0", with { max_bytes = -1 })
    raises("'ca_file' must be a string", with { ca_file = 1 })
    raises("at most 107", with { unix_socket = ("x"):rep(200) })
    raises("'output_path' is empty", with { output_path = "" })
  end)

  it("raises where its task cannot wait", function()
    local ok, err = pcall(table.sort, { 1, 2 }, function() return get("plain", "echo") end)
    assert.is_false(ok)
    assert.matches("cannot wait here", err)
    assert.equal(200, assert(get("plain", "echo")).status)
  end)
end)
