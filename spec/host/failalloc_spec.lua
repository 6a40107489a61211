-- failalloc_spec.lua: lets each allocation of each native module fail in turn: no crash, no
-- leak, no descriptor left open, an error that says so, and the module works afterwards.

local host = require "host"
local process = require "process"

-- Globals of a spec are looked up by a function, which needs memory.
local getenv, pcall = os.getenv, pcall

-- The shim (spec/support/failalloc.c) is preloaded into another run of this very file.
local shim = getenv "failalloc:live"
local here = debug.getinfo(1, "S").source:sub(2)

local function inside(name)
  local exe = assert(host.realpath "/proc/self/exe")
  local p <close> = assert(process.spawn({ exe, "--filter", name, here }, {
    kill_on_close = true,
    env = {
      LD_PRELOAD = exe:gsub("[^/]*$", "") .. "failalloc.so",
      ASAN_OPTIONS = "verify_asan_link_order=0:abort_on_error=1",
    },
  }))
  local out = {}
  while true do
    local which, data = p:read(600)
    if which == "eof" then break end
    if not which then error(tostring(data) .. "\n" .. table.concat(out), 0) end
    out[#out + 1] = data
  end
  out = table.concat(out)
  local status = assert(p:wait(60))
  assert.same({ status = 0 }, status, out)
  assert.truthy(out:find("1 passed, 0 failed", 1, true), out)
end

-- Handles of the loop are freed in its next turns.
local function settle()
  for _ = 1, 3 do
    collectgarbage()
    host.sleep(0)
  end
end

-- How many allocations are not freed, how many descriptors are not closed.
local function measure()
  local descriptors = #assert(host.list "/proc/self/fd")
  settle()
  return tonumber((getenv "failalloc:live")), descriptors
end

local function text_of(err)
  if type(err) == "table" and err.code then return err.code .. " " .. tostring(err.message) end
  return tostring(err)
end

-- work() does the same each time and gives true, or nil and an error. `stride` > 1 leaves
-- allocations out where there are too many for all. With prepare(), which runs before each
-- work(), nothing fails in that, nor what libraries ask for.
local function sweep(work, stride, prepare)
  local function attempt(arm)
    if prepare then prepare() end
    getenv(arm or "failalloc:off")
    local ok, value, err = pcall(work)
    local failed = getenv "failalloc:off" == "failed"
    if not ok then return failed, value end
    if not value then return failed, err end
    return failed, nil
  end
  for _ = 1, 3 do
    local _, err = attempt()
    assert.is_nil(err, text_of(err))
    settle()
  end
  for _, kind in ipairs(prepare and { "*", "+*" } or { "", "+" }) do
    local n, errors
    local function pass()
      n, errors = 1, 0
      while true do
        local failed, err = attempt("failalloc:" .. n .. kind)
        settle()
        if err ~= nil then errors = errors + 1 end
        if not failed then return assert.is_nil(err, text_of(err)) end
        n = n + (stride or 1)
      end
    end
    pass()
    local before, open = measure()
    local grown
    -- caches of the libraries are full after some passes, a leak grows in every one
    for _ = 1, 4 do
      pass()
      local now, still_open = measure()
      grown, before = now - before, now
      print(("%d%s allocations, %d errors, %d blocks more"):format(n, kind, errors, grown))
      assert.equal(open, still_open)
      if grown < 3 + n // 200 then break end
    end
    assert.is_true(grown < 3 + n // 200, grown .. " blocks are left behind")
  end
  local _, err = attempt()
  assert.is_nil(err, text_of(err))
end

local cases = {}

function cases.secrets()
  sweep(function()
    local _ <close> = host.secret("x", "hunter2-hunter2\nsecond-line")
    local masked = host.mask("a hunter2-hunter2 b")
    assert(masked == "a [secret x] b", masked)
    local stream = host.mask_stream()
    local out = stream:feed("a hunter2-") .. stream:feed("hunter2 b second") .. stream:flush()
    assert(not out:find("hunter2", 1, true), out)
    return true
  end)
end

function cases.tasks()
  sweep(function()
    local a = host.task(function(x) host.sleep(0) return x, {} end, "x")
    local b = host.task(function() return a:join() end)
    local ok, joined, x = b:join()
    if not ok then return nil, joined end
    if not joined then return nil, x end
    assert(x == "x")
    return true
  end)
end

function cases.processes()
  local block = ("x"):rep(200000)
  sweep(function()
    local p <close>, err = process.spawn({ "cat" }, { env = { A = "b" }, kill_on_close = true })
    if not p then return nil, err end
    local writer = host.task(function()
      local done, ok, problem = pcall(p.write, p, block, 10)
      p:shut()
      if not done then return nil, ok end
      return ok, problem
    end)
    local n = 0
    while true do
      local which, data = p:read(2)
      if which == "eof" then break end
      if not which then return nil, data end
      n = n + #data
    end
    local ok, written, problem = writer:join(10)
    if not ok then return nil, written end
    if not written then return nil, problem end
    assert(n == #block, n)
    return p:wait(10)
  end)
end

function cases.files()
  local dir = os.tmpname()
  os.remove(dir)
  assert(host.mkdir(dir, "0700"))
  sweep(function()
    for _, call in ipairs {
      function() return host.write_file(dir .. "/f", "text", "0600") end,
      function() return host.read_file(dir .. "/f", { max = 100 }) end,
      function() return host.stat(dir .. "/f") end,
      function() return host.list(dir) end,
      function() return host.realpath(dir .. "/f") end,
      function() return host.remove(dir .. "/f") end,
    } do
      local ok, err = call()
      if not ok then
        host.remove(dir .. "/f")
        return nil, err
      end
    end
    return true
  end)
  assert.same({}, host.list(dir))
  assert(host.remove(dir))
end

function cases.json()
  local json = require "json"
  local text = [[{"a":[1,2.5,"x\u00e9\ud83d\ude00",null,true],"b":{"c":{"d":[[],{}]}},"e":"]] ..
    ("long "):rep(100) .. '"}'
  sweep(function()
    local value, err = json.decode(text)
    if value == nil then return nil, err end
    local out
    out, err = json.encode(value, { sort = true, pretty = true })
    if not out then return nil, err end
    assert(#out > 500)
    local broken
    broken, err = json.decode('{"a":[1,{"b":')
    assert(broken == nil)
    if err.code ~= "syntax" then return nil, err end
    return true
  end)
end

function cases.template()
  local template = require "template"
  local text = ([[
server_name {{ name | nginx }};
{%% for k, v in map %%}{{ k }}={{ v | sh }} {%% if loop.last %%}end{%% endif %%}
{%% endfor %%}{%% raw %%}{{ x }}{%% endraw %%}
S={{ s | env }}
]]):gsub("%%%%", "%%")
  sweep(function()
    local s <close> = host.secret("s", "hunter2 $hunter2")
    local out, err = template.render(text, { name = "example.org", map = { a = "1 2", b = "3'4" }, s = s })
    if not out then return nil, err end
    local _ <close> = type(out) == "userdata" and out or nil
    local names
    names, err = template.check(text)
    if not names then return nil, err end
    assert(#names > 0)
    return true
  end)
end

function cases.crypto()
  local crypto = require "crypto"
  local key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUJ+gXsBvHLeN0v5bmhGq0kTeXdpAQTWQ1Qz7HpP1k9 me"
  sweep(function()
    local token, err = crypto.token(16)
    if not token then return nil, err end
    local back
    back, err = crypto.unbase64(crypto.base64(token))
    if not back then return nil, err end
    assert(crypto.equal(back, token))
    assert(#crypto.sha256(token) == 64 and #crypto.hmac_sha256("key", token) == 64)
    local public
    public, err = crypto.ssh_public_key(key)
    if not public then return nil, err end
    return true
  end)
end

function cases.crypto_formats()
  local crypto = require "crypto"
  local password = host.secret("p", "hunter2 hunter2")
  local site = crypto.self_signed { names = { "a.example.org", "192.0.2.1" } }
  local bundle = crypto.pkcs12 { cert = site.cert, key = site.key, password = password, chain = site.cert }
  local id = crypto.age_identity()
  local sealed = crypto.age_encrypt("hunter2 hunter2", id.recipient, { armor = true })
  sweep(function()
    local cert, err = crypto.certificate(site.cert)
    if not cert then return nil, err end
    local same
    same, err = crypto.certificate_matches(site.cert, site.key)
    if not same then return nil, err or "out of memory" end
    local pair = crypto.ed25519_keypair { comment = "me" }
    local _ <close> = pair.private
    local opened
    opened, err = crypto.age_decrypt(sealed, id.identity, { name = "s" })
    if not opened then return nil, err end
    local _ <close> = opened
    local again
    again, err = crypto.age_encrypt(opened, id.recipient)
    if not again then return nil, err end
    return true
  end, 53)
  sweep(function()
    local made <close> = crypto.self_signed({ names = { "a", "10.0.0.1" } }).key
    local file <close>, err = crypto.pkcs12 { cert = site.cert, key = site.key, password = password }
    if not file then return nil, err end
    local parts
    parts, err = crypto.pkcs12_open(bundle, password)
    if not parts then return nil, err end
    local _ <close> = parts.key
    return made ~= nil
  end, 997)
end

function cases.journal()
  local journal = require "journal"
  local dir = os.tmpname()
  os.remove(dir)
  assert(host.mkdir(dir, "0700"))
  local round = 0
  sweep(function()
    round = round + 1
    local path = dir .. "/" .. round .. ".db"
    local run = ("run-%d"):format(round)
    local _ <close> = setmetatable({}, { __close = function()
      for _, f in ipairs { "", "-wal", "-shm", ".key" } do os.remove(path .. f) end
    end })
    local j, err = journal.open(path)
    if not j then return nil, err end
    local result
    for _, call in ipairs {
      function()
        return j:run_create { id = run, name = "n", runbook = "n.lua", params = "{}",
          params_digest = "d", options = "{}", interface = 1, steps_digest = "s",
          sources = { { path = "n.lua", body = "return 1" } } }
      end,
      function() return j:effect_begin(run, "step", "effect", { idx = 1, intent = '"i"' }) end,
      function() return j:effect_end(run, "step", "effect", "done", { output = "out" }) end,
      function() return j:run(run) end,
      function() return j:events(run, {}) end,
      function() return j:verify() end,
    } do
      result, err = call()
      if not result then break end
    end
    j:close()
    if not result then return nil, err end
    return true
  end, 17)
  os.remove(dir)
end

-- libssh2 1.10 does not look whether OpenSSL gave it an HMAC, nor in the key exchange whether
-- it got any memory: that is left out.
function cases.db()
  local db = require "db"
  local dir = os.tmpname()
  os.remove(dir)
  assert(host.mkdir(dir, "0700"))
  sweep(function()
    os.remove(dir .. "/a.db")
    local d <close>, err = db.open(dir .. "/a.db", { create = true })
    if not d then return nil, err end
    local ok, problem = d:exec "create table t(a, b)"
    if not ok then return nil, problem end
    ok, problem = d:transaction(function()
      local n, e = d:exec("insert into t values(?, :b)", { "x", b = db.blob "y" })
      if not n then return nil, e end
      host.sleep(0)
      return true
    end)
    if not ok then return nil, problem end
    local rows
    rows, problem = d:rows "select * from t"
    if not rows then return nil, problem end
    assert(#rows == 1 and rows[1].a == "x")
    return d:backup(dir .. "/b.db", { pages = 1, progress = function() end })
  end, 5)
  assert.equal(2, #host.list(dir))
  os.execute("rm -rf " .. dir)
end

function cases.ssh()
  local ssh = require "ssh"
  local sshd = require "support.sshd"
  local server = sshd.start()
  local options = server:options { known_hosts = server.dir .. "/known" }
  local session
  local function prepare()
    if session and session:alive() then return end
    if session then session:close() end
    session = assert(ssh.connect("127.0.0.1", options))
  end
  local ok, err = pcall(sweep, function()
    local stream <close>, err = session:exec("cat; echo done")
    if not stream then return nil, err end
    local done, problem = stream:write("hello\n", 2)
    if not done then return nil, problem end
    stream:shut()
    while true do
      local which, data = stream:read(2)
      if which == "eof" then break end
      if not which then return nil, data end
    end
    return stream:wait(2)
  end, 1, prepare)
  if session then session:close() end
  server:stop()
  assert(ok, err)
end

-- What is read and made ready before a request, which then fails at once: nobody listens
-- there. What libcurl asks for does not fail, since libcurl 7.88 then divides by zero.
function cases.netcup()
  local netcup = require "netcup"
  local dir = os.tmpname()
  os.remove(dir)
  assert(host.mkdir(dir, "0700"))
  local store = dir .. "/tokens.json"
  assert(host.write_file(store, '{"issuer":"http://127.0.0.1:9/realms/scp","client_id":"scp","refresh_token":"refresh-token",'
    .. '"access_token":"e30.eyJpZCI6NX0.signature","expires_at":9999999999,"lifetime":9999999999}\n', "0600"))
  sweep(function()
    local c = netcup.open { store = store, issuer = "http://127.0.0.1:9/realms/scp", api = "http://127.0.0.1:9", patience = 0,
      ccp = "http://127.0.0.1:9/?JSON", customer = "1", api_key = host.secret("k", "api-key-1"),
      api_password = host.secret("p", "api-password") }
    for _, call in ipairs {
      { "snapshot_create", 7, { name = "a", description = "b", disk = "vda" } },
      { "reinstall", 7, { image = 1, ssh_keys = { 1, 2 }, script = "x", hostname = "a.example" } },
      { "dns_update", "acme.example", { { hostname = "@", type = "A", destination = "203.0.113.1" } } },
      { "tasks", { server = 7, query = "a b" } },
      { "device" },
    } do
      local value, err = c[call[1]](c, call[2], call[3])
      if value or err.code ~= "connect" then return nil, err end
    end
    return true
  end, 1, function() end)
  os.remove(store)
  host.remove(dir)
end

local names = {}
for name in pairs(cases) do names[#names + 1] = name end
table.sort(names)

describe("every allocation that fails #slow", function()
  for _, name in ipairs(names) do
    local rule = ("leaves no trace in '%s'"):format(name)
    it(rule, function()
      if shim then cases[name]() else inside(rule) end
    end)
  end
end)
