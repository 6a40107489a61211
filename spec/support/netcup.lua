-- netcup.lua: starts the stand-in for netcup (netcup.py) for a spec, and talks to its
-- control. It asserts nothing.
local host = require "host"
local http = require "http"
local json = require "json"
local netcup = require "netcup"
local process = require "process"

local M = {}

-- start{ tls = boolean } -> stand-in
function M.start(options)
  local s = { dir = os.tmpname() }
  os.remove(s.dir)
  assert(host.mkdir(s.dir, "0700"))
  if options and options.tls then os.execute("sh spec/support/httpd.sh " .. s.dir) end
  s.server = assert(process.spawn({ "python3", "-B", "spec/support/netcup.py", s.dir }, { kill_on_close = true }))
  local out = ""
  while not out:find "ready" do
    local which, data = s.server:read(20)
    assert(which == "out", data)
    out = out .. data
  end
  s.base = "http://127.0.0.1:" .. out:match "plain (%d+)"
  local port = out:match "tls (%d+)"
  s.tls = port and "https://localhost:" .. port
  s.store = s.dir .. "/tokens.json"

  function s.control(word, data)
    local r = assert(http.request { url = s.base .. "/_/" .. word, method = "POST", json = json.encode(data or {}), timeout = 10 })
    assert(r.status == 200, r.body)
    return json.decode(r.body)
  end

  -- Settings of netcup.open.
  function s.settings(more)
    local base = more and more.tls and s.tls or s.base
    local o = { store = s.store, issuer = base .. "/realms/scp", api = base .. "/scp-core/api/v1", timeout = 10, patience = 5,
      ccp = base .. "/run/webservice/servers/endpoint.php?JSON", backoff = 0.02 }
    for k, v in pairs(more or {}) do
      if k ~= "tls" then o[k] = v end
    end
    return o
  end

  function s.open(more)
    return netcup.open(s.settings(more))
  end

  -- A client that is logged in.
  function s.login(more)
    s.control("set", { approve = "approved", interval = 0.05 })
    local c = s.open(more)
    local ok, err = c:login(assert(c:device()))
    assert(ok, tostring(err))
    return c
  end

  -- Requests that the stand-in got, of a method and a path that match.
  function s.requests(pattern)
    local list = {}
    for _, r in ipairs(s.control("log").requests) do
      if not pattern or (r.method .. " " .. r.path .. " " .. r.grant):match(pattern) then list[#list + 1] = r end
    end
    return list
  end

  function s.stop()
    s.server:close()
    os.execute("rm -rf " .. s.dir)
  end
  return s
end

return M
