-- sandbox_spec.lua: what a runbook cannot do: escapes, deadline, watchdog, memory ceiling.

local host = require "host"
local program = require "support.program"

-- Runs text in a sandbox: true, results... | false, error, traceback.
local function run(text, extra)
  local env = host.sandbox_env()
  for k, v in pairs(extra or {}) do env[k] = v end
  return host.call(assert(host.load(text, "@book.lua", env)))
end

local function value(text, extra)
  local ok, result = run(text, extra)
  if not ok then error(result, 0) end
  return result
end

local function message(text, extra)
  local ok, err = run(text, extra)
  assert.is_false(ok)
  return tostring(err)
end

describe("sandbox environment #unit", function()
  it("holds these names and no others", function()
    local names = {}
    for name in pairs(host.sandbox_env()) do names[#names + 1] = name end
    table.sort(names)
    assert.equal("_G _VERSION assert collectgarbage error getmetatable ipairs math next pairs pcall print " ..
      "rawequal rawget rawlen rawset select setmetatable string table tonumber tostring type utf8 xpcall",
      table.concat(names, " "))
  end)

  it("is its own _G, and no other sandbox's", function()
    assert.is_true(value "_G.x = 1; return x == 1 and _G._G == _G")
    assert.is_nil(value "return x")
  end)

  it("has no chance in it, so that steps come out the same again", function()
    assert.is_nil(value "return math.random or math.randomseed")
    assert.equal("a b c d e", value [[
      local t, seen = { e = 1, c = 1, a = 1, d = 1, b = 1 }, {}
      for k in pairs(t) do seen[#seen + 1] = k end
      return table.concat(seen, " ")]])
  end)

  it("counts memory but does not steer the collector", function()
    assert.is_true(value "return collectgarbage('count') > 0")
    for _, what in ipairs { "stop", "collect", "generational" } do
      assert.is_truthy(message(("collectgarbage(%q)"):format(what)):find("can only ask", 1, true))
    end
    assert.is_truthy(message "collectgarbage()":find("can only ask", 1, true))
  end)

  it("prints to standard error, masked", function()
    local r = program.script [[
      local host = require "host"
      local s = host.secret("pw", "canary-9000")
      host.load("print('x canary-9000 y', nil, 1, s)", "@b.lua",
        setmetatable({ s = s }, { __index = host.sandbox_env() }))()
      return 0]]
    assert.equal("", r.out)
    assert.equal("x [secret pw] y\tnil\t1\t[secret pw]\n", r.err)
  end)

  describe("pairs", function()
    it("goes through numbers, then strings, then the rest", function()
      assert.equal("-1.5 1 2 3.25 10 A a b true", value [[
        local t, seen = { 7, 7, [10] = 1, [-1.5] = 1, [3.25] = 1, b = 1, a = 1, A = 1, [true] = 1 }, {}
        for k, v in pairs(t) do seen[#seen + 1] = tostring(k) end
        return table.concat(seen, " ")]])
    end)

    it("leaves out what the loop has cleared, and may overwrite", function()
      assert.equal("a c", value [[
        local t, seen = { a = 1, b = 1, c = 1 }, {}
        for k in pairs(t) do seen[#seen + 1] = k t.b = nil t[k] = 2 end
        return table.concat(seen, " ")]])
    end)

    it("asks __pairs, which may wait", function()
      assert.equal("k", value([[
        local t = setmetatable({}, { __pairs = function(t) sleep(0.001) return next, { k = 1 } end })
        for k in pairs(t) do return k end]], { sleep = host.sleep }))
    end)

    it("refuses what is no table, and its iterator takes anything", function()
      assert.is_truthy(message "pairs(1)":find("table expected", 1, true))
      assert.is_truthy(message "pairs()":find("value expected", 1, true))
      assert.equal("x", value "local f = pairs { x = 1 } return (f(1, 2))")
      assert.is_nil(value "local f = pairs { x = 1 } f() return (f())")
    end)

    it("is fast enough for ten thousand keys", function()
      local began = host.monotonic()
      assert.equal(10000, value [[
        local t, n = {}, 0
        for i = 1, 10000 do t["key" .. i] = i end
        for _ in pairs(t) do n = n + 1 end
        return n]])
      assert.is_true(host.monotonic() - began < 0.5)
    end)
  end)
end)

describe("sandbox escapes #unit", function()
  it("find no io, os, debug, coroutine, load or require", function()
    for _, name in ipairs { "io", "os", "debug", "coroutine", "package", "require", "load", "loadfile",
      "loadstring", "dofile", "warn", "host", "journal", "arg" } do
      assert.is_nil(value("return " .. name), name)
    end
  end)

  it("find no string.dump, by table or by method", function()
    assert.is_nil(value "return string.dump")
    assert.is_nil(value "return ('').dump")
  end)

  it("cannot have bytecode loaded", function()
    local fn, err = host.load(string.dump(function() return 1 end), "@b.lua", {})
    assert.is_nil(fn)
    assert.equal("syntax", err.code)
  end)

  it("do not reach the metatable of strings", function()
    assert.is_nil(value "return getmetatable('')")
    assert.is_truthy(message "setmetatable('', {})":find("table expected", 1, true))
    assert.is_truthy(message "('').x = 1":find("attempt to index", 1, true))
  end)

  it("poison their own libraries only", function()
    value "string.rep = function() return 'evil' end; table.concat = nil; math.floor = nil; pcall = nil"
    assert.equal("aa", ("a"):rep(2))
    assert.equal("aa", value "return ('a'):rep(2)")
    assert.equal("a", value "return string.rep('a', 1)")
    assert.is_function(table.concat)
    assert.is_function(pcall)
  end)

  it("see no metatable that the host has set", function()
    local api = setmetatable({}, { __index = function() return "api" end })
    assert.is_nil(value("return getmetatable(api)", { api = api }))
    assert.is_nil(value("return getmetatable(s)", { s = host.secret("pw", "canary-9000") }))
    assert.is_nil(value "return getmetatable(print)")
    local _, err = host.read_file "/nonexistent"
    assert.is_nil(value("return getmetatable(err)", { err = err }))
    assert.is_nil(value([[
      local ok, err = pcall(fail)
      return getmetatable(err)]], { fail = function() error(err, 0) end }))
  end)

  it("cannot replace a metatable that the host has set", function()
    local api = setmetatable({}, { __index = function() return "api" end })
    assert.is_truthy(message("setmetatable(api, {})", { api = api }):find("protected", 1, true))
    assert.is_truthy(message("setmetatable(api, nil)", { api = api }):find("protected", 1, true))
    assert.equal("api", api.x)
  end)

  it("keep their own metatables and honour __metatable", function()
    assert.is_true(value "local mt = {} return getmetatable(setmetatable({}, mt)) == mt")
    assert.equal("mine", value "return getmetatable(setmetatable({}, { __metatable = 'mine' }))")
    assert.is_truthy(message "setmetatable(setmetatable({}, { __metatable = 1 }), {})":find("protected", 1, true))
    assert.is_true(value "local t = setmetatable({}, {}) return getmetatable(setmetatable(t, nil)) == nil")
  end)

  it("cannot reach into host objects with raw access", function()
    local s = host.secret("pw", "canary-9000")
    for _, text in ipairs { "rawset(s, 'a', 1)", "rawget(s, 'a')", "rawlen(s)", "s.a = 1", "return s.a",
      "return s .. ''", "return #s", "return s + 1", "for k in pairs(s) do end", "next(s)",
      "return string.format('%d', s)", "return string.rep(s, 1)", "return table.concat { s }" } do
      local ok, err = run(text, { s = s })
      assert.is_false(ok, text)
      assert.is_nil(tostring(err):find "canary", text)
    end
    assert.equal("[secret pw]", value("return string.format('%s', s)", { s = s }))
    assert.equal("[secret pw]", value("return tostring(s)", { s = s }))
  end)

  it("cannot have finalizers, which run where no deadline reaches", function()
    assert.is_truthy(message "setmetatable({}, { __gc = function() end })":find("__gc", 1, true))
    assert.is_truthy(message "setmetatable({}, { __gc = true })":find("__gc", 1, true))
    assert.is_truthy(message [[
      local mt = setmetatable({}, { __index = {} })
      mt.__gc = 1
      setmetatable({}, mt)]]:find("__gc", 1, true))
    local ran = false
    value([[
      for i = 1, 100 do
        local mt = {}
        local t = setmetatable({}, mt)
        mt.__gc = ran
      end]], { ran = function() ran = true end })
    collectgarbage()
    collectgarbage()
    assert.is_false(ran)
  end)

  it("get nothing of the host out of an error", function()
    local ok, err = run "error(setmetatable({}, { __tostring = function() return 'mine' end }))"
    assert.is_false(ok)
    assert.equal("mine", tostring(err))
    assert.is_truthy(message "local function f() return f() + 1 end f()":find("stack overflow", 1, true))
    assert.equal("nil", message "error()")
  end)

  it("cannot leave through a changed _ENV", function()
    assert.is_nil(value "local g = _G; local _ENV = { g = g }; return g.io or g.os or load")
    assert.is_truthy(message "local _ENV = nil; return print":find("_ENV", 1, true))
  end)
end)

describe("deadline #unit", function()
  before_each(function() host.deadline(0.05) end)
  after_each(function() host.deadline(3600) end)

  local function expires(text, extra)
    local began = host.monotonic()
    local ok, err = run(text, extra)
    local took = host.monotonic() - began
    assert.is_false(ok, text)
    assert.equal("deadline", type(err) == "table" and err.code or err, text)
    assert.is_true(took < 2, text)
    return err
  end

  it("ends a loop", function()
    local err = expires "while true do end"
    assert.equal("lua: deadline: no wait and no end within 0.05 s of Lua time", tostring(err))
    expires "::again:: goto again"
    expires "local function f() return f() end f()"
    expires "for i = 1, math.huge do local _ = i end"
    expires "repeat local s = ('x'):rep(10) until false"
  end)

  it("is not swallowed by pcall", function()
    expires "while true do pcall(function() while true do end end) end"
    expires "local function f() pcall(f) while true do end end f()"
    expires "pcall(pcall, pcall, function() while true do end end) return 'swallowed'"
    expires "local ok, err = pcall(function() while true do end end) return err.code"
    expires "for i = 1, 100 do pcall(function() for j = 1, 100 do pcall(function() while true do end end) end end) end"
  end)

  it("is not swallowed by xpcall and its handler", function()
    expires "while true do xpcall(function() while true do end end, function() end) end"
    expires "xpcall(function() while true do end end, function() while true do end end)"
    expires "xpcall(function() error 'x' end, function() while true do end end)"
    expires "xpcall(error, function(e) xpcall(error, function() while true do end end) end)"
    expires "xpcall(function() while true do end end, error) return 1"
    expires "xpcall(function() while true do end end, function(e) return { code = 'mine' } end) return 1"
  end)

  it("is not swallowed by values that are to be closed", function()
    expires [[
      local function trap() return setmetatable({}, { __close = function() while true do end end }) end
      local a <close> = trap()
      local b <close> = trap()
      while true do end]]
    expires [[
      while true do
        pcall(function()
          local a <close> = setmetatable({}, { __close = function() while true do end end })
        end)
      end]]
    expires [[
      local a <close> = setmetatable({}, { __close = function() error "another" end })
      while true do end]]
  end)

  it("reaches metamethods and callbacks of C functions", function()
    expires "local t = setmetatable({}, { __index = function() while true do end end }) return t.x"
    expires "return tostring(setmetatable({}, { __tostring = function() while true do end end }))"
    expires "return ('a'):gsub('.', function() while true do end end)"
    expires "table.sort({ 1, 2, 3 }, function() while true do end end)"
    expires "return #setmetatable({}, { __len = function() while true do end end })"
    expires "for k in pairs(setmetatable({}, { __pairs = function() while true do end end })) do end"
    expires "for _ in function() return 1 end do end"
  end)

  it("reaches the error that an error handler of the host meets", function()
    local ok, err = run [[
      local t = setmetatable({}, { __tostring = function() while true do end end })
      error(t)]]
    assert.is_false(ok)
    local shown, why = host.call(tostring, err)
    assert.is_false(shown)
    assert.equal("deadline", why.code)
  end)

  it("begins anew at each wait", function()
    assert.equal("done", value([[
      for i = 1, 6 do
        for j = 1, 1e5 do end
        for _ = 1, 5 do for j = 1, 2e5 do end end
        sleep(0.001)
      end
      return "done"]], { sleep = host.sleep }))
  end)

  it("counts the work of Lua, not the time of others", function()
    assert.equal("done", value("sleep(0.2) return 'done'", { sleep = host.sleep }))
  end)

  it("holds in tasks, each for itself", function()
    local fn = host.load("while true do pcall(function() while true do end end) end", "@b.lua", host.sandbox_env())
    local tasks = {}
    for i = 1, 3 do tasks[i] = host.task(fn) end
    local fine = host.task(function() host.sleep(0.01) return "fine" end)
    for _, task in ipairs(tasks) do
      local ok, err = task:join()
      assert.is_false(ok)
      assert.equal("deadline", err.code)
    end
    assert.same({ true, "fine" }, { fine:join() })
  end)

  it("holds for what a task has still to close", function()
    local ok, err = host.task(host.load([[
      local a <close> = setmetatable({}, { __close = function() while true do end end })
      while true do end]], "@b.lua", host.sandbox_env())):join()
    assert.is_false(ok)
    assert.equal("deadline", err.code)
  end)

  it("holds in coroutines that trusted code makes", function()
    local fn = host.load("while true do pcall(function() while true do end end) end", "@b.lua", host.sandbox_env())
    local ok, err = host.call(coroutine.wrap(fn))
    assert.is_false(ok)
    assert.equal("deadline", err.code)
    assert.is_true((host.call(function() for _ = 1, 1e5 do end end)))
  end)

  it("ends at host.call, after which the caller goes on", function()
    for _ = 1, 3 do expires "while true do end" end
    local n = 0
    for i = 1, 1e5 do n = n + i end
    assert.equal(5000050000, n)
  end)

  it("ends at the pcall of embedded code, but not when a runbook called that code", function()
    local embedded = assert(load([[
      local f = ...
      local ok, err = pcall(f)
      return ok, err and err.code]], "=lb/spec.lua"))
    local loop = host.load("while true do end", "@b.lua", host.sandbox_env())
    local results
    host.task(assert(load("local keep, f, loop = ... keep(f(loop))", "=lb/spec.lua")),
      function(...) results = { ... } end, embedded, loop):join()
    assert.same({ false, "deadline" }, results)
    expires("while true do embedded(loop) end", { embedded = embedded, loop = loop })
  end)

  it("accepts 0.01 to 3600 seconds and tells the one before", function()
    assert.equal(0.05, host.deadline(1, "spec"))
    assert.equal(1, host.deadline(nil, "renamed"))
    assert.equal(1, host.deadline(0.05))
    for _, bad in ipairs { 0, 0.001, 3601, -1, 0 / 0, math.huge } do
      assert.has_error(function() host.deadline(bad) end)
    end
    assert.has_error(function() host.deadline "x" end)
  end)
end)

describe("watchdog #unit", function()
  local function stuck(text)
    return program.script(([[
      local host = require "host"
      host.deadline(0.1, "nightly\27[1m")
      return host.load(%q, "@b.lua", host.sandbox_env())() or 0]]):format(text))
  end

  it("ends the process when a pattern does not return, with one line", function()
    local began = host.monotonic()
    local r = stuck "return (('a'):rep(60)):find(('a*'):rep(60) .. 'b')"
    assert.equal(1, r.status)
    assert.equal("lbrun: internal: a Lua call did not return within 0.2 s (runbook nightly?[1m); " ..
      "the journal is intact, see lbrun explain\n", r.err)
    assert.is_true(host.monotonic() - began < 3)
  end)

  it("ends the process when a pcall would hide that", function()
    assert.equal(1, stuck "while true do pcall(string.find, ('a'):rep(60), ('a*'):rep(60) .. 'b') end".status)
    assert.equal(1, stuck "table.move({}, 1, 1e15, 2)".status)
  end)

  it("leaves alone what waits", function()
    local r = program.script [[
      local host = require "host"
      host.deadline(0.05)
      for i = 1, 10 do host.sleep(0.05) end
      return 7]]
    assert.equal(7, r.status)
    assert.equal("", r.err)
  end)
end)

describe("memory ceiling #unit", function()
  it("gives a runbook an error, and the host goes on", function()
    local r = program.script [[
      local host = require "host"
      local env = host.sandbox_env()
      local ok, err = host.call(host.load("return ('x'):rep(600 * 1024 * 1024)", "@b.lua", env))
      io.write(tostring(ok), " ", tostring(err), "\n")
      ok, err = host.call(host.load("local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(2^20) .. i end", "@b.lua", env))
      io.write(tostring(ok), " ", tostring(err), "\n")
      ok, err = host.call(host.load("local s = 'x' while true do s = s .. s end", "@b.lua", env))
      io.write(tostring(ok), " ", tostring(err), "\n")
      return 0]]
    assert.equal(("false not enough memory\n"):rep(3), r.out)
    assert.equal(0, r.status)
  end)
end)

describe("host.call #unit", function()
  it("returns what the function returns", function()
    assert.same({ true, 1, nil, 3, n = 4 }, table.pack(host.call(function(...) return ... end, 1, nil, 3)))
    assert.same({ true, n = 1 }, table.pack(host.call(function() end)))
  end)

  it("returns any error value, with a traceback that names the place", function()
    local ok, err, traceback = run "local function inner()\n error({ code = 'mine' })\nend\ninner()"
    assert.is_false(ok)
    assert.same({ code = "mine" }, err)
    assert.is_truthy(traceback:find("book.lua:2: in", 1, true))
    ok, err = host.call(error)
    assert.same({ false, nil }, { ok, err })
    assert.is_false((host.call(nil)))
  end)

  it("waits inside", function()
    assert.same({ true, true }, { host.call(host.sleep, 0.001) })
    local ok, err = host.call(function() host.sleep(0.001) error("late", 0) end)
    assert.same({ false, "late" }, { ok, err })
  end)

  it("lets runbooks wait inside pcall and xpcall", function()
    assert.same({ true, true, "late" }, { run([[
      local a = pcall(sleep, 0.001)
      local _, b = xpcall(function() sleep(0.001) error("late", 0) end, function(e) return e end)
      return a, b]], { sleep = host.sleep }) })
    assert.same({ true, true, 1, 2 }, { run "return xpcall(function(...) return ... end, print, 1, 2)" })
    assert.same({ true, false, "handled x" },
      { run "return xpcall(function() error('x', 0) end, function(e) return 'handled ' .. e end)" })
    assert.is_truthy(message "xpcall(print)":find("function expected", 1, true))
  end)
end)

describe("host.load #unit", function()
  it("gives functions that see their environment alone", function()
    local env = { x = 5 }
    local fn = host.load("y = x return print", "@b.lua", env)
    assert.is_nil(fn())
    assert.equal(5, env.y)
  end)

  it("says where a text is wrong", function()
    local long = "/a/folder/with/a/long/name/so/that/lua/would/shorten/it/in/its/messages/book.lua"
    local fn, err = host.load("x = 1\ny = = 2\n", "@" .. long, {})
    assert.is_nil(fn)
    assert.same({ "syntax", long, 2, "unexpected symbol near '='" }, { err.code, err.file, err.line, err.message })
    fn, err = host.load("x = 'open", "@b.lua", {})
    assert.is_nil(fn)
    assert.equal(1, err.line)
  end)

  it("skips a first line for the shell, and keeps counting from it", function()
    assert.equal(3, host.load("#!/usr/bin/env lbrun\nreturn 3", "@b.lua", {})())
    assert.is_nil(host.load("#!/usr/bin/env lbrun", "@b.lua", {})())
    local _, err = host.load("#!x\n\n=", "@b.lua", {})
    assert.equal(3, err.line)
  end)

  it("refuses a name under which text would pass for embedded code", function()
    for _, name in ipairs { "=lb/evil.lua", "lb", "" } do
      assert.has_error(function() host.load("", name, {}) end)
    end
    assert.has_error(function() host.load("", "@b.lua") end)
    assert.has_error(function() host.load(nil, "@b.lua", {}) end)
    assert.has_error(function() host.load({}, "@b.lua", {}) end)
  end)
end)
