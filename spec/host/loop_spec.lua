-- loop_spec.lua: Tasks and waits: host.task, host.sleep, and how a run of the loop ends.

local host = require "host"
local process = require "process"

local function elapsed(fn, ...)
  local began = host.monotonic()
  fn(...)
  return host.monotonic() - began
end

-- Runs a file of its own in another lbrun-spec, where it may be interrupted or hang.
local function other(source, opts)
  local path = os.tmpname()
  os.rename(path, path .. "_spec.lua")
  path = path .. "_spec.lua"
  local f = assert(io.open(path, "w"))
  f:write('local host = require "host"\ndescribe("x", function() it("y", function()\n', source,
    "\nend) end)\n")
  f:close()
  local p <close> = assert(process.spawn({ "/proc/self/exe", path }, { kill_on_close = true }))
  local out = {}
  while true do
    local which, data = p:read(20)
    if which ~= "out" and which ~= "err" then
      assert.equal("eof", which, tostring(data))
      break
    end
    out[#out + 1] = data
    if opts and opts.on_output then opts.on_output(p, table.concat(out)) end
  end
  os.remove(path)
  return assert(p:wait(20)), table.concat(out)
end

describe("task #unit", function()
  it("hands its arguments in and its results out", function()
    local t = host.task(function(...) return select("#", ...), ... end, 1, nil, "x", nil)
    assert.same({ true, 4, 1, nil, "x", nil, n = 6 }, table.pack(t:join()))
    assert.same({ true, 4, 1, nil, "x", nil, n = 6 }, table.pack(t:join()))
    assert.same({ true, n = 1 }, table.pack(host.task(function() end):join()))
  end)

  it("hands out as many results as the stack takes", function()
    local t = host.task(function(n) return table.unpack({}, 1, n) end, 10000)
    assert.equal(10001, select("#", t:join()))
  end)

  it("starts when the one that made it waits", function()
    local order = {}
    local t = host.task(function() order[#order + 1] = "task" end)
    order[#order + 1] = "maker"
    t:join()
    assert.same({ "maker", "task" }, order)
  end)

  it("keeps its error, of any type, for join", function()
    local value = setmetatable({}, { __tostring = function() return "mine" end })
    local t = host.task(function() error(value) end)
    host.sleep(0)
    assert.same({ false, value }, { t:join() })
    assert.same({ false, value }, { t:join() })
    assert.same({ false, nil, n = 2 }, table.pack(host.task(function() error(nil) end):join()))
    local ok, err = host.task(function() error("text", 0) end):join()
    assert.is_false(ok)
    assert.equal("text", err)
  end)

  it("survives the error of another", function()
    local good = host.task(function() host.sleep(0.02) return "good" end)
    for _ = 1, 10 do host.task(function() host.sleep(0) error("bad") end) end
    assert.same({ true, "good" }, { good:join() })
  end)

  it("closes what it has pending when it fails", function()
    local closed
    local t = host.task(function()
      local _ <close> = setmetatable({}, { __close = function() closed = true end })
      host.sleep(0)
      error("bad")
    end)
    assert.is_false((t:join()))
    assert.is_true(closed)
  end)

  it("may be joined by many, and while it runs by another's deadline", function()
    local t = host.task(function() host.sleep(0.05) return "x" end)
    local joiners = {}
    for i = 1, 20 do
      joiners[i] = host.task(function()
        if i % 2 == 0 then return t:join(0.001) end
        return t:join()
      end)
    end
    for i = 1, 20 do
      local ok, a, b = joiners[i]:join()
      assert.is_true(ok)
      if i % 2 == 0 then
        assert.is_nil(a)
        assert.equal("timeout", b.code)
      else
        assert.same({ true, "x" }, { a, b })
      end
    end
  end)

  it("runs beside a thousand others", function()
    local tasks, sum = {}, 0
    local took = elapsed(function()
      for i = 1, 1000 do
        tasks[i] = host.task(function()
          host.sleep(0.001 * (i % 50))
          return i
        end)
      end
      for i = 1, 1000 do sum = sum + select(2, tasks[i]:join()) end
    end)
    assert.equal(500500, sum)
    assert.is_true(took < 5, took)
  end)

  it("runs on without its handle", function()
    local done
    host.task(function() host.sleep(0.02) done = true end)
    collectgarbage()
    collectgarbage()
    host.sleep(0.05)
    assert.is_true(done)
  end)

  it("takes turns with others when it yields without a wait", function()
    local order = {}
    local function worker(name)
      return function()
        for i = 1, 3 do
          order[#order + 1] = name .. i
          coroutine.yield("ignored", i)
        end
      end
    end
    local a, b = host.task(worker "a"), host.task(worker "b")
    a:join()
    b:join()
    assert.equal("a1 b1 a2 b2 a3 b3", table.concat(order, " "))
  end)

  it("may start and join tasks itself, deeply", function()
    local function nest(n)
      if n == 0 then host.sleep(0) return 0 end
      local ok, below = host.task(nest, n - 1):join()
      assert(ok, below)
      return below + 1
    end
    assert.equal(300, nest(300))
  end)

  it("says what it is", function()
    local t = host.task(function() host.sleep(0) end)
    assert.equal("task (running)", tostring(t))
    t:join()
    assert.equal("task (done)", tostring(t))
    t = host.task(error)
    t:join()
    assert.equal("task (failed)", tostring(t))
    assert.equal("task", getmetatable(t))
  end)

  it("refuses what is no function, no handle and no time", function()
    local t = host.task(function() end)
    for _, wrong in ipairs { 1, true, "x", {}, io.stdout, coroutine.create(print) } do
      assert.has_error(function() host.task(wrong) end)
      assert.has_error(function() t.join(wrong) end)
      assert.has_error(function() t.cancel(wrong) end)
    end
    for _, wrong in ipairs { -1, 0 / 0, true, "1", {}, print, io.stdout } do
      assert.has_error(function() t:join(wrong) end)
      assert.has_error(function() host.sleep(wrong) end)
    end
    assert.has_error(function() host.task() end)
    assert.has_error(function() host.sleep() end)
    assert.has_error(function() host.sleep(nil) end)
  end)
end)

describe("cancel #unit", function()
  it("ends the wait of the task as interrupted, and all later ones", function()
    local t = host.task(function()
      local a, b = select(2, host.sleep(100)), select(2, host.sleep(100))
      return a.code, b.code, tostring(a)
    end)
    host.sleep(0)
    t:cancel()
    t:cancel()
    assert.same({ true, "interrupted", "interrupted", "host: sleep: interrupted" }, { t:join(5) })
    t:cancel()
  end)

  it("works on a task that has not begun, and on one that joins", function()
    local early = host.task(function() return select(2, host.sleep(100)).code end)
    early:cancel()
    assert.same({ true, "interrupted" }, { early:join(5) })
    local forever = host.task(function() host.sleep(100) end)
    local joiner = host.task(function() return select(2, forever:join()).code end)
    host.sleep(0)
    joiner:cancel()
    assert.same({ true, "interrupted" }, { joiner:join(5) })
    forever:cancel()
    assert.is_true((forever:join(5)))
  end)

  it("closes a task that goes on all the same", function()
    local closed = 0
    for _, wait in ipairs { function() host.sleep(100) end, coroutine.yield } do
      local t = host.task(function()
        local _ <close> = setmetatable({}, { __close = function() closed = closed + 1 end })
        while true do wait() end
      end)
      host.sleep(0)
      t:cancel()
      local ok, err = t:join(5)
      assert.is_false(ok)
      assert.equal("interrupted", err.code)
      assert.equal("host: task: the task was cancelled", tostring(err))
    end
    assert.equal(2, closed)
  end)

  it("leaves the one that cancels alone, unless it is the same", function()
    local t = host.task(function() host.sleep(100) end)
    host.sleep(0)
    t:cancel()
    assert.is_true(host.sleep(0))
    local me
    me = host.task(function()
      me:cancel()
      return select(2, host.sleep(100)).code
    end)
    assert.same({ true, "interrupted" }, { me:join(5) })
  end)
end)

describe("wait #unit", function()
  it("lasts as long as it was asked to, by the monotonic clock", function()
    for _, seconds in ipairs { 0, 0.001, 0.01, 0.1 } do
      local took = elapsed(host.sleep, seconds)
      assert.is_true(took >= seconds and took < seconds + 0.5, took)
    end
  end)

  it("does not delay other tasks", function()
    local took = elapsed(function()
      local tasks = {}
      for i = 1, 50 do tasks[i] = host.task(host.sleep, 0.1) end
      for i = 1, 50 do tasks[i]:join() end
    end)
    assert.is_true(took < 0.6, took)
  end)

  it("lets a task that is due go on at once when the loop has other things to wait for", function()
    -- both timers are due when the loop is entered again
    local quick, slow = host.task(host.sleep, 0.01), host.task(host.sleep, 3)
    local done = host.monotonic() + 0.05
    host.sleep(0)
    while host.monotonic() < done do end
    assert.is_true(elapsed(function() quick:join() end) < 1)
    slow:cancel()
  end)

  it("raises where Lua cannot yield", function()
    local object = setmetatable({}, { __tostring = function() host.sleep(0) return "x" end })
    local t = host.task(function() end)
    for _, inside in ipairs {
      function() table.sort({ 1, 2, 3 }, function() host.sleep(0) end) end,
      function() ("x"):gsub("x", function() host.sleep(0) end) end,
      function() tostring(object) end,
      function() table.sort({ 1, 2, 3 }, function() t:join() end) end,
      function() return assert(coroutine.resume(coroutine.create(host.sleep), 0)) end,
      function() return coroutine.wrap(function() t:join() end)() end,
    } do
      local ok, err = pcall(inside)
      assert.is_false(ok)
      assert.truthy(tostring(err):find("cannot", 1, true), tostring(err))
    end
    assert.is_true(host.sleep(0))
  end)

  it("works under pcall, in metamethods and in iterators", function()
    local t = setmetatable({}, {
      __index = function(_, k) host.sleep(0) return k end,
      __add = function() host.sleep(0) return "sum" end,
      __call = function(_, _, i) host.sleep(0) if (i or 0) < 3 then return (i or 0) + 1 end end,
    })
    assert.equal("x", t.x)
    assert.equal("sum", t + t)
    local n = 0
    for i in t do n = n + i end
    assert.equal(6, n)
    assert.same({ true, true }, { pcall(host.sleep, 0) })
    assert.same({ true, true }, { xpcall(host.sleep, debug.traceback, 0) })
  end)

  it("raises in a task that nothing can ever wake", function()
    local status, out = other [[
      local a, b
      a = host.task(function() return b:join() end)
      b = host.task(function() return a:join() end)
      local ok, first, value = a:join()
      assert.is_true(ok)
      assert.is_false(first)
      assert.truthy(value:find("would never end", 1, true), value)
    ]]
    assert.same({ status = 0 }, status, out)
  end)

  it("refuses a task that joins itself", function()
    local t
    t = host.task(function() return t:join() end)
    local ok, err = t:join(5)
    assert.is_false(ok)
    assert.truthy(err:find("cannot join itself", 1, true))
  end)
end)

describe("end of the main task #unit", function()
  it("interrupts and closes all others", function()
    local status, out = other [[
      host.task(function()
        local _, err = host.sleep(1000)
        io.stderr:write("waiting: ", err.code, "\n")
        local ok, problem = pcall(host.task, print)
        io.stderr:write("no more: ", tostring(not ok), "\n")
      end)
      host.task(function()
        local _ <close> = setmetatable({}, { __close = function() io.stderr:write("closed\n") end })
        while true do host.sleep(1000) end
      end)
      host.task(function() while true do coroutine.yield() end end)
      host.sleep(0.01)
    ]]
    assert.same({ status = 0 }, status, out)
    assert.truthy(out:find("waiting: interrupted", 1, true), out)
    assert.truthy(out:find("no more: true", 1, true), out)
    assert.truthy(out:find("closed", 1, true), out)
  end)
end)

describe("signal #unit", function()
  it("ends the wait of every task once", function()
    local sent = false
    local status, out = other([[
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = host.task(function()
          local _, err = host.sleep(60)
          return err.code, host.sleep(0.01)
        end)
      end
      io.stderr:write("ready\n")
      local ok, err = host.sleep(60)
      assert.is_nil(ok)
      assert.equal("interrupted", err.code)
      assert.is_true(host.sleep(0.01))
      for i = 1, 3 do assert.same({ true, "interrupted", true }, { tasks[i]:join(5) }) end
    ]], { on_output = function(p, out)
      if not sent and out:find("ready", 1, true) then
        sent = true
        assert.is_true(p:kill("INT"))
      end
    end })
    assert.same({ status = 0 }, status, out)
  end)

  it("is found by the next wait of a task that did not wait", function()
    local status, out = other [[
      os.execute("kill -TERM " .. host.pid())
      local ok, err = host.sleep(60)
      assert.is_nil(ok)
      assert.equal("interrupted", err.code)
    ]]
    assert.same({ status = 0 }, status, out)
  end)
end)
