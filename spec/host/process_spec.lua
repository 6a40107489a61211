-- process_spec.lua: Local commands as streams.

local host = require "host"
local process = require "process"

local function collect(p, timeout)
  local got = { out = {}, err = {} }
  while true do
    local which, data = p:read(timeout or 20)
    if which == "eof" then break end
    assert(which, tostring(data))
    table.insert(got[which], data)
  end
  return table.concat(got.out), table.concat(got.err)
end

local function run(argv, opts, input)
  local p <close> = assert(process.spawn(argv, opts))
  if input then assert(p:write(input, 20)) end
  p:shut()
  local out, err = collect(p)
  return out, err, assert(p:wait(20))
end

local function alive(pid)
  local f = io.open("/proc/" .. pid .. "/stat")
  if not f then return false end
  local state = f:read("a"):match("%) (%a)")
  f:close()
  return state ~= "Z" and state ~= "X"
end

local function eventually(check)
  for _ = 1, 200 do
    if check() then return true end
    host.sleep(0.02)
  end
  return false
end

describe("process #unit", function()
  it("gives output, errors and the exit status", function()
    local out, err, result = run { "sh", "-c", "echo out; echo err >&2; exit 3" }
    assert.same({ "out\n", "err\n", { status = 3 } }, { out, err, result })
  end)

  it("gives the signal that ended the command", function()
    for _, name in ipairs { "KILL", "TERM", "SEGV" } do
      local _, _, result = run { "sh", "-c", "kill -" .. name .. " $$" }
      assert.same({ signal = name }, result)
    end
  end)

  it("passes arguments as they are", function()
    local words = { "", " ", "a b", "$HOME", "'", '"', "\\", "é", "*", "\n", "-n" }
    local out = run { "printf", "<%s>", table.unpack(words) }
    assert.equal("<" .. table.concat(words, "><") .. ">", out)
  end)

  it("passes input, strings with any bytes", function()
    local bytes = {}
    for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
    bytes = table.concat(bytes)
    assert.equal(bytes, (run({ "cat" }, nil, bytes)))
    assert.equal("", (run({ "cat" }, nil, "")))
  end)

  it("moves much more than a pipe holds, both ways at once", function()
    local p <close> = assert(process.spawn { "cat" })
    local block = ("0123456789abcdef"):rep(65536)
    local writer = host.task(function()
      for _ = 1, 20 do assert(p:write(block, 20)) end
      return p:shut()
    end)
    local n = 0
    while true do
      local which, data = p:read(20)
      if which == "eof" then break end
      assert.equal("out", which)
      n = n + #data
    end
    assert.equal(20 * #block, n)
    assert.same({ true, true }, { writer:join() })
    assert.same({ status = 0 }, p:wait(5))
  end)

  it("lets the command wait while nobody reads", function()
    local p <close> = assert(process.spawn({ "sh", "-c",
      "head -c 50000000 /dev/zero; echo done >&2" }, { kill_on_close = true }))
    host.sleep(0.3)
    collectgarbage()
    local f = assert(io.open("/proc/self/statm"))
    local resident = tonumber(f:read("a"):match("%d+ (%d+)")) * 4096
    f:close()
    assert.is_true(resident < 600e6, resident)
    local out, err = collect(p)
    assert.equal(50000000, #out)
    assert.equal("done\n", err)
  end)

  it("does not let one flooded pipe hide the other", function()
    local p <close> = assert(process.spawn({ "sh", "-c", "echo seen >&2; cat /dev/zero" },
      { kill_on_close = true }))
    host.sleep(0.2)
    local seen
    for _ = 1, 3 do
      local which = p:read(5)
      seen = seen or which == "err"
    end
    assert.is_true(seen)
  end)

  it("gives both ends of output, though the command ends later or earlier", function()
    local p <close> = assert(process.spawn { "sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 4" })
    assert.equal("eof", (p:read(5)))
    assert.equal("eof", (p:read(5)))
    assert.same({ status = 4 }, p:wait(5))
    assert.same({ status = 4 }, p:wait(5))
    local q <close> = assert(process.spawn { "sh", "-c", "(sleep 0.2; echo late) & exit 5" })
    assert.same({ status = 5 }, q:wait(5))
    assert.same({ "out", "late\n" }, { q:read(5) })
    assert.equal("eof", (q:read(5)))
  end)

  it("gives the command real pipes, which it may open again", function()
    local out, err = run({ "sh", "-c", "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr" },
      nil, "in\n")
    assert.same({ "in\nout\n", "err\n" }, { out, err })
  end)

  it("leaves the command no descriptors but its three", function()
    local f = assert(io.open("/dev/null")) -- opened without O_CLOEXEC
    assert.equal("0\n1\n2\n", (run { "sh", "-c", "ls /proc/$$/fd" }))
    f:close()
  end)

  it("gives the command its default signals", function()
    local out = run { "sh", "-c", "grep -E 'Sig(Ign|Blk)' /proc/self/status" }
    -- Of the 31 standard ones: glibc keeps 32 and 33 to itself, whatever we inherited.
    for mask in out:gmatch("(%x+)\n") do
      assert.equal(0, tonumber(mask, 16) & 0x7fffffff, out)
    end
  end)
end)

describe("process options #unit", function()
  it("add to the environment, or replace it", function()
    local out = run({ "sh", "-c", "echo $LB_A-$LB_B-$HOME" },
      { env = { LB_A = "a b", LB_B = "", HOME = "/x" } })
    assert.equal("a b--/x\n", out)
    assert.equal("A=1\n", (run({ "/usr/bin/env" }, { env = { A = "1" }, clear_env = true })))
    assert.equal("", (run({ "/usr/bin/env" }, { clear_env = true })))
    local inherited = run { "env" }
    assert.truthy(inherited:find("PATH=" .. os.getenv("PATH"), 1, true))
  end)

  it("set the directory", function()
    assert.equal("/usr\n", (run({ "pwd" }, { cwd = "/usr" })))
  end)

  it("are refused when unknown or of another type", function()
    for _, wrong in ipairs {
      { envs = {} }, { [1] = "x" }, { env = "A=1" }, { env = { "A=1" } }, { env = { A = 1 } },
      { env = { ["A=B"] = "x" } }, { env = { [""] = "x" } }, { env = { A = "x\0y" } },
      { cwd = 1 }, { cwd = "a\0b" }, { clear_env = "yes" }, { kill_on_close = 1 },
    } do
      assert.has_error(function() process.spawn({ "true" }, wrong) end)
    end
    local s <close> = host.secret("x", "12345678")
    assert.has_error(function() process.spawn({ "true" }, { env = { A = s } }) end)
    assert.has_error(function() process.spawn { "true", s } end)
  end)
end)

describe("process that cannot start #unit", function()
  it("is an error with a code, and leaves nothing behind", function()
    local function descriptors()
      local n = 0
      for _ in pairs(assert(host.list("/proc/self/fd"))) do n = n + 1 end
      return n
    end
    local before = descriptors()
    local dir = os.tmpname()
    for _ = 1, 20 do
      local p, err = process.spawn { "lbrun-no-such-command" }
      assert.is_nil(p)
      assert.same({ "not_found", "process", "spawn" }, { err.code, err.module, err.op })
      assert.equal("process: spawn: cannot start lbrun-no-such-command: No such file or directory",
        tostring(err))
      p, err = process.spawn { "/etc" }
      assert.is_nil(p)
      assert.equal("denied", err.code)
      p, err = process.spawn { dir }
      assert.is_nil(p)
      assert.equal("denied", err.code)
      p, err = process.spawn({ "true" }, { cwd = "/lbrun-no-such-folder" })
      assert.is_nil(p)
      assert.equal("process: spawn: cannot enter /lbrun-no-such-folder: No such file or directory",
        tostring(err))
      p, err = process.spawn({ "true" }, { cwd = dir })
      assert.is_nil(p)
      assert.truthy(tostring(err):find("cannot enter", 1, true))
    end
    local p, err = process.spawn { "true", ("x"):rep(3000000) }
    assert.is_nil(p)
    assert.equal("too_large", err.code)
    os.remove(dir)
    host.sleep(0.01)
    assert.equal(before, descriptors())
  end)
end)

describe("process stream #unit", function()
  it("times out and can be read again", function()
    local p <close> = assert(process.spawn { "sh", "-c", "read x; echo $x" })
    local which, err = p:read(0.02)
    assert.is_nil(which)
    assert.equal("timeout", err.code)
    local result
    result, err = p:wait(0)
    assert.is_nil(result)
    assert.equal("timeout", err.code)
    assert.is_true(p:write("late\n", 5))
    assert.same({ "out", "late\n" }, { p:read(5) })
    assert.same({ "eof" }, { p:read(5) })
    assert.same({ status = 0 }, p:wait(5))
  end)

  it("gives what is there with a timeout of zero", function()
    local p <close> = assert(process.spawn { "sh", "-c", "echo there; read x" })
    host.sleep(0.2)
    assert.same({ "out", "there\n" }, { p:read(0) })
  end)

  it("times out a write that nobody reads, and writes the rest later", function()
    local p <close> = assert(process.spawn({ "sh", "-c", "sleep 0.3; wc -c" }))
    local ok, err = p:write(("x"):rep(1000000), 0.05)
    assert.is_nil(ok)
    assert.equal("timeout", err.code)
    assert.is_true(p:shut())
    assert.equal("1000000\n", (collect(p)))
  end)

  it("fails to write to a command that has ended, or was shut", function()
    local p <close> = assert(process.spawn { "true" })
    assert.same({ status = 0 }, p:wait(5))
    local ok, err = p:write("x", 5)
    assert.is_nil(ok)
    assert.equal("closed", err.code)
    local q <close> = assert(process.spawn { "sh", "-c", "exec <&-; sleep 5" })
    local block = ("x"):rep(100000)
    repeat
      ok, err = q:write(block, 5)
    until not ok
    assert.equal("closed", err.code)
    q:kill("KILL")
    local r <close> = assert(process.spawn { "cat" })
    assert.is_true(r:shut())
    assert.is_true(r:shut())
    ok, err = r:write("x", 5)
    assert.is_nil(ok)
    assert.equal("closed", err.code)
  end)

  it("is used by one task at a time for each direction", function()
    local p <close> = assert(process.spawn({ "sleep", "5" }, { kill_on_close = true }))
    local reader = host.task(function() return p:read() end)
    local waiter = host.task(function() return p:wait() end)
    local writer = host.task(function() return p:write(("x"):rep(1000000)) end)
    host.sleep(0)
    for _, twice in ipairs { function() p:read(1) end, function() p:wait(1) end,
        function() p:write("x", 1) end } do
      local ok, err = pcall(twice)
      assert.is_false(ok)
      assert.truthy(err:find("another task already", 1, true), err)
    end
    p:close()
    for _, t in ipairs { reader, waiter, writer } do
      local ok, value, err = t:join(5)
      assert.is_true(ok)
      assert.is_nil(value)
      assert.equal("closed", err.code)
    end
  end)

  it("is interrupted with its task, and goes on for others", function()
    local p <close> = assert(process.spawn { "sh", "-c", "read x; echo $x" })
    local t = host.task(function() return p:read() end)
    host.sleep(0)
    t:cancel()
    local ok, value, err = t:join(5)
    assert.same({ true, nil, "interrupted" }, { ok, value, err.code })
    p:write("x\n", 5)
    assert.same({ "out", "x\n" }, { p:read(5) })
  end)

  it("raises after close, which may come twice", function()
    local p = assert(process.spawn { "cat" })
    p:close()
    p:close()
    assert.equal("process (closed)", tostring(p))
    for _, call in ipairs { function() p:read(1) end, function() p:write("x") end,
        function() p:shut() end, function() p:wait(1) end, function() p:pid() end,
        function() p:kill("TERM") end } do
      assert.has_error(call)
    end
  end)

  it("refuses wrong types", function()
    local p <close> = assert(process.spawn { "cat" })
    local wrong_self = { 1, true, "x", {}, print, io.stdout, coroutine.create(print) }
    for _, wrong in ipairs(wrong_self) do
      for _, name in ipairs { "read", "write", "shut", "wait", "pid", "kill", "close" } do
        assert.has_error(function() p[name](wrong, "x") end)
      end
    end
    for _, wrong in ipairs { true, "1", {}, print, io.stdout, -1, 0 / 0 } do
      assert.has_error(function() p:read(wrong) end)
      assert.has_error(function() p:wait(wrong) end)
      assert.has_error(function() p:write("x", wrong) end)
    end
    for _, wrong in ipairs { 1, true, {}, print, io.stdout, "SIGTERM", "term", "", "NOPE" } do
      assert.has_error(function() p:kill(wrong) end)
    end
    for _, wrong in ipairs { 1, true, {}, print, io.stdout } do
      assert.has_error(function() p:write(wrong) end)
    end
    assert.has_error(function() p:write() end)
    assert.has_error(function() p:kill() end)
    for _, wrong in ipairs { 1, true, "ls", print, io.stdout, {}, { "" }, { 1 }, { "a\0b" },
        { "ls", 1 }, { "ls", {} }, { "ls", "a\0b" } } do
      assert.has_error(function() process.spawn(wrong) end)
    end
    for _, wrong in ipairs { 1, true, "x", print, io.stdout } do
      assert.has_error(function() process.spawn({ "true" }, wrong) end)
    end
    assert.has_error(function() process.spawn() end)
    assert.has_error(function() table.sort({ 1, 2, 3 }, function() p:read(1) end) end)
  end)
end)

describe("process group #unit", function()
  it("is killed whole", function()
    local p <close> = assert(process.spawn { "sh", "-c", "sleep 60 & echo $!; sleep 60 & echo $!; wait" })
    local text = ""
    while not text:match("%d+\n%d+\n") do text = text .. select(2, p:read(5)) end
    local a, b = text:match("(%d+)\n(%d+)\n")
    assert.is_true(alive(a) and alive(b))
    assert.is_true(p:kill("KILL"))
    assert.same({ signal = "KILL" }, p:wait(5))
    assert.is_true(eventually(function() return not alive(a) and not alive(b) end))
    assert.equal("eof", (p:read(5)))
    local ok, err = p:kill("KILL")
    assert.is_nil(ok)
    assert.equal("not_found", err.code)
  end)

  it("can be killed when its leader is gone but others hold the pipes", function()
    local p <close> = assert(process.spawn { "sh", "-c", "sleep 60 & echo $!" })
    local child = select(2, p:read(5)):match("%d+")
    assert.same({ status = 0 }, p:wait(5))
    assert.is_true(p:kill("TERM"))
    assert.equal("eof", (p:read(5)))
    assert.is_true(eventually(function() return not alive(child) end))
  end)

  it("is not that of the host", function()
    local p <close> = assert(process.spawn { "sh", "-c", "ps -o pgid=,sid= -p $$ 2>/dev/null || cut -d' ' -f5,6 /proc/$$/stat" })
    local group, session = collect(p):match("(%d+)%s+(%d+)")
    assert.same({ p:pid(), p:pid() }, { tonumber(group), tonumber(session) })
  end)

  it("goes on after close, and is reaped", function()
    local p = assert(process.spawn { "sh", "-c", "echo; sleep 0.3" })
    local pid = p:pid()
    p:read(5)
    p:close()
    assert.is_true(alive(pid))
    assert.is_true(eventually(function() return io.open("/proc/" .. pid .. "/stat") == nil end))
  end)

  it("goes on when its stream is collected, and is reaped", function()
    local pid
    do
      local p = assert(process.spawn { "sh", "-c", "sleep 0.3" })
      pid = p:pid()
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(alive(pid))
    assert.is_true(eventually(function() return io.open("/proc/" .. pid .. "/stat") == nil end))
  end)

  it("is killed at close when it was spawned so", function()
    local p = assert(process.spawn({ "sh", "-c", "sleep 60 & echo $!; wait" }, { kill_on_close = true }))
    local child = select(2, p:read(5)):match("%d+")
    local pid = p:pid()
    p:close()
    assert.is_true(eventually(function() return not alive(child) and not alive(pid) end))
  end)

  it("runs beside a hundred others", function()
    local tasks = {}
    for i = 1, 100 do
      tasks[i] = host.task(function()
        local out, err, result = run({ "sh", "-c", "cat; echo e >&2; exit $0", tostring(i) }, nil,
          "in" .. i)
        return out .. err .. result.status
      end)
    end
    for i = 1, 100 do
      assert.same({ true, ("in%de\n%d"):format(i, i) }, { tasks[i]:join() })
    end
  end)
end)
