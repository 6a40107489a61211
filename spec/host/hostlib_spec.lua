-- hostlib_spec.lua: the module host: files, machine, secrets, output, questions, signals, the end.

local host = require "host"
local program = require "support.program"

local dir

local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

local function spit(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local function sh(script, ...) return program.sh(script, ...) end

-- The code and message of an expected failure.
local function failure(first, err, ...)
  assert.is_nil(first)
  assert.equal("host", err.module)
  assert.equal(0, select("#", ...))
  return err.code, err.message
end

local function raises(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(err)
end

describe("host files #unit", function()
  before_each(function() dir = program.temp() end)
  after_each(function() sh('rm -rf "$1"', dir) end)

  describe("read_file", function()
    it("returns bytes as they are", function()
      local bytes = ("\0\r\n\255"):rep(10000)
      spit(dir .. "/f", bytes)
      assert.equal(bytes, host.read_file(dir .. "/f"))
      spit(dir .. "/f", "")
      assert.equal("", host.read_file(dir .. "/f"))
    end)

    it("reads files whose size is not told", function()
      assert.is_truthy(host.read_file "/proc/self/status":find "Pid:")
      assert.equal("", host.read_file "/dev/null")
    end)

    it("says what is wrong with a path", function()
      assert.equal("not_found", failure(host.read_file(dir .. "/none")))
      assert.equal("not_found", failure(host.read_file(dir .. "/none/more")))
      local code, message = failure(host.read_file(dir))
      assert.equal("is_directory", code)
      assert.equal(dir .. ": Is a directory", message)
      assert.equal("io", failure(host.read_file "/proc/self/mem"))
    end)

    it("reads no more than max", function()
      spit(dir .. "/f", ("x"):rep(1000))
      assert.equal(1000, #host.read_file(dir .. "/f", { max = 1000 }))
      assert.equal("too_large", failure(host.read_file(dir .. "/f", { max = 999 })))
      assert.equal("too_large", failure(host.read_file("/proc/self/status", { max = 10 })))
      assert.equal("too_large", failure(host.read_file("/dev/zero", { max = 100000 })))
    end)

    it("with private refuses what others could read", function()
      spit(dir .. "/f", "secret")
      for _, mode in ipairs { "0600", "0400", "0700" } do
        sh('chmod "$1" "$2"/f', mode, dir)
        assert.equal("secret", host.read_file(dir .. "/f", { private = true }))
      end
      for _, mode in ipairs { "0640", "0604", "0660", "0601", "0620" } do
        sh('chmod "$1" "$2"/f', mode, dir)
        local code, message = failure(host.read_file(dir .. "/f", { private = true }))
        assert.equal("not_private", code)
        assert.equal(dir .. "/f can be read by others; chmod 600 it", message)
      end
    end)

    it("with private refuses a foreign owner", function()
      spit(dir .. "/f", "secret")
      if host.uid() ~= 0 then return pending "needs root to give a file away" end
      sh('chmod 600 "$1"/f; chown 12345 "$1"/f', dir)
      local code, message = failure(host.read_file(dir .. "/f", { private = true }))
      assert.equal("not_private", code)
      assert.equal(dir .. "/f belongs to somebody else", message)
    end)

    it("with private looks at what a link points to", function()
      spit(dir .. "/f", "secret")
      sh('chmod 644 "$1"/f; ln -s f "$1"/l', dir)
      assert.equal("not_private", failure(host.read_file(dir .. "/l", { private = true })))
    end)

    it("reads a pipe to its end without holding up other tasks", function()
      sh('mkfifo "$1"/p', dir)
      sh('(sleep 0.2; echo one; sleep 0.2; echo two) >"$1"/p 2>/dev/null &', dir)
      host.sleep(0.1)
      local reader = host.task(host.read_file, dir .. "/p")
      local turns = 0
      local ticker = host.task(function() while true do assert(host.sleep(0.01)) turns = turns + 1 end end)
      assert.same({ true, "one\ntwo\n" }, { reader:join(5) })
      ticker:cancel()
      assert.is_true(turns > 10)
    end)

    it("gives up when its task is cancelled", function()
      sh('mkfifo "$1"/p', dir)
      local reader = host.task(function()
        local text, err = host.read_file(dir .. "/p")
        return text, err and err.code
      end)
      host.sleep(0.1)
      reader:cancel()
      local ok, text, code = reader:join(5)
      assert.is_true(ok)
      assert.is_nil(text)
      assert.equal("interrupted", code)
    end)

    it("refuses other arguments", function()
      for _, bad in ipairs { {}, true, print } do
        assert.is_truthy(raises(host.read_file, bad):find("string expected", 1, true))
      end
      assert.is_truthy(raises(host.read_file):find("string expected", 1, true))
      assert.is_truthy(raises(host.read_file, ""):find("not a path", 1, true))
      assert.is_truthy(raises(host.read_file, "a\0b"):find("not a path", 1, true))
      assert.is_truthy(raises(host.read_file, "a", { maximum = 1 }):find("unknown option 'maximum'", 1, true))
      assert.is_truthy(raises(host.read_file, "a", { max = "1" }):find("must be an integer", 1, true))
      assert.is_truthy(raises(host.read_file, "a", { max = 0 }):find("must be from 1", 1, true))
      assert.is_truthy(raises(host.read_file, "a", { private = 1 }):find("must be a boolean", 1, true))
      assert.is_truthy(raises(host.read_file, "a", "b"):find("table expected", 1, true))
    end)
  end)

  describe("write_file", function()
    it("writes bytes with exactly the mode given", function()
      local bytes = ("\0\r\n\255"):rep(10000)
      local before = sh("umask").out
      assert.is_true(host.write_file(dir .. "/f", bytes, "0666"))
      assert.equal(bytes, slurp(dir .. "/f"))
      assert.equal("0666", host.stat(dir .. "/f").mode)
      assert.is_true(host.write_file(dir .. "/f", "", 384))
      assert.equal("0600", host.stat(dir .. "/f").mode)
      assert.is_true(host.write_file(dir .. "/g", "x"))
      assert.equal("0600", host.stat(dir .. "/g").mode)
      assert.equal(before, sh("umask").out)
    end)

    it("replaces the name, not what it pointed to", function()
      spit(dir .. "/old", "old")
      sh('ln -s old "$1"/l', dir)
      assert.is_true(host.write_file(dir .. "/l", "new", "0644"))
      assert.equal("old", slurp(dir .. "/old"))
      assert.equal("file", host.stat(dir .. "/l", { follow = false }).type)
    end)

    it("takes a secret", function()
      assert.is_true(host.write_file(dir .. "/f", host.secret("pw", "canary-9000"), "0600"))
      assert.equal("canary-9000", slurp(dir .. "/f"))
    end)

    it("works in the current folder", function()
      local script = dir .. "/s.lua"
      spit(script, [[return require "host".write_file("here", "x", "0644") and 0 or 1]])
      -- The runner is found from the top of the sources.
      local here = sh("pwd").out:gsub("\n", "")
      local r = program.sh('cd "$1" && ln -sf "$2"/spec . && "$3" --script s.lua', dir, here, program.spec)
      assert.equal("", r.err)
      assert.equal("x", slurp(dir .. "/here"))
    end)

    it("with exclusive refuses a name that is taken, and keeps it", function()
      assert.is_true(host.write_file(dir .. "/f", "first", "0600", { exclusive = true }))
      assert.equal("exists", failure(host.write_file(dir .. "/f", "second", "0600", { exclusive = true })))
      assert.equal("first", slurp(dir .. "/f"))
      sh('ln -s nowhere "$1"/l', dir)
      assert.equal("exists", failure(host.write_file(dir .. "/l", "x", "0600", { exclusive = true })))
    end)

    it("leaves nothing behind when it fails", function()
      sh('mkdir "$1"/d', dir)
      assert.equal("not_found", failure(host.write_file(dir .. "/none/f", "x", "0600")))
      assert.equal("is_directory", failure(host.write_file(dir .. "/d", "x", "0600")))
      assert.equal("is_directory", failure(host.write_file(dir .. "/d/", "x", "0600")))
      assert.equal("too_large", failure(host.write_file(dir .. "/" .. ("x"):rep(300), "x", "0600")))
      assert.equal("d\n", sh('ls -A "$1"', dir).out)
    end)

    it("keeps the old file when the disk is full", function()
      local script = [[
        local host = require "host"
        local ok, err = host.write_file("DIR/f", ("x"):rep(1 << 20), "0600")
        io.write(tostring(ok), " ", err.code, " ", err.message, "\n")
        for _, e in ipairs(host.list "DIR") do io.write(e.name, "\n") end
        io.write(host.read_file "DIR/f")
        return 0]]
      local r = program.script(script:gsub("DIR", dir), ([[unshare -m sh -c '
        mount -t tmpfs -o size=64k none "$0" 2>/dev/null || exit 77
        printf old >"$0"/f
        "$@"' %s "$@"]]):format(dir))
      if r.status ~= 0 and r.out == "" then return pending "cannot mount a small file system here" end
      assert.equal(("nil no_space %s/f: No space left on device\nf\nold"):format(dir), r.out)
    end)

    it("refuses other arguments", function()
      assert.is_truthy(raises(host.write_file, "f", 12):find("string or secret", 1, true))
      assert.is_truthy(raises(host.write_file, "f"):find("string or secret", 1, true))
      assert.is_truthy(raises(host.write_file, "f", {}):find("string or secret", 1, true))
      for _, mode in ipairs { "rw", "", "0800", 4096, -1, "77777", 1.5, true } do
        raises(host.write_file, dir .. "/f", "x", mode)
      end
      assert.is_truthy(raises(host.write_file, "f", "x", "0600", { excl = true }):find("unknown option", 1, true))
      assert.equal("", sh('ls -A "$1"', dir).out)
    end)
  end)

  describe("list", function()
    it("gives names and kinds in order", function()
      sh('cd "$1" && touch b .a && mkdir d && ln -s b c && mkfifo e', dir)
      assert.same({ { name = ".a", type = "file" }, { name = "b", type = "file" }, { name = "c", type = "link" },
        { name = "d", type = "directory" }, { name = "e", type = "other" } }, host.list(dir))
      assert.same({}, host.list(dir .. "/d"))
    end)

    it("says what is wrong with a path", function()
      spit(dir .. "/f", "")
      assert.equal("not_found", failure(host.list(dir .. "/none")))
      assert.equal("not_found", failure(host.list(dir .. "/f")))
      raises(host.list)
      raises(host.list, {})
    end)
  end)

  describe("stat", function()
    it("tells type, mode, owner, size and time", function()
      spit(dir .. "/f", "12345")
      sh('chmod 4750 "$1"/f; touch -d @1000000000.5 "$1"/f; ln -s f "$1"/l', dir)
      local s = host.stat(dir .. "/f")
      assert.same({ type = "file", mode = "4750", uid = host.uid(), gid = s.gid, size = 5, mtime = 1000000000.5 }, s)
      assert.equal("file", host.stat(dir .. "/l").type)
      assert.equal("link", host.stat(dir .. "/l", { follow = false }).type)
      assert.equal("directory", host.stat(dir).type)
      assert.equal("other", host.stat("/dev/null").type)
    end)

    it("says what is wrong", function()
      assert.equal("not_found", failure(host.stat(dir .. "/none")))
      raises(host.stat, dir, { follow = 1 })
      raises(host.stat, dir, { nofollow = true })
    end)
  end)

  describe("mkdir", function()
    it("makes a folder with exactly the mode given", function()
      assert.is_true(host.mkdir(dir .. "/a", "0777"))
      assert.equal("0777", host.stat(dir .. "/a").mode)
      assert.equal("exists", failure(host.mkdir(dir .. "/a", "0700")))
      assert.equal("not_found", failure(host.mkdir(dir .. "/x/y", "0700")))
    end)

    it("with parents makes those too, and takes what is there", function()
      assert.is_true(host.mkdir(dir .. "/a/b//c/", "0700", { parents = true }))
      assert.equal("0700", host.stat(dir .. "/a/b/c").mode)
      assert.is_true(host.mkdir(dir .. "/a/b/c", "0755", { parents = true }))
      assert.equal("0700", host.stat(dir .. "/a/b/c").mode)
      spit(dir .. "/f", "")
      assert.equal("exists", failure(host.mkdir(dir .. "/f", "0755", { parents = true })))
      assert.equal("not_found", failure(host.mkdir(dir .. "/f/g", "0755", { parents = true })))
      raises(host.mkdir, dir .. "/z", "0755", { parent = true })
    end)
  end)

  it("realpath resolves links and dots", function()
    spit(dir .. "/f", "")
    sh('ln -s f "$1"/l', dir)
    local real = host.realpath(dir)
    assert.equal(real .. "/f", host.realpath(dir .. "/./../" .. dir:match "[^/]+$" .. "/l"))
    assert.equal("not_found", failure(host.realpath(dir .. "/none")))
    raises(host.realpath, "")
  end)

  it("remove takes a file, a link or an empty folder", function()
    sh('cd "$1" && touch f && ln -s d l && mkdir d d/e', dir)
    assert.is_true(host.remove(dir .. "/f"))
    assert.is_true(host.remove(dir .. "/l"))
    assert.equal("exists", failure(host.remove(dir .. "/d")))
    assert.is_true(host.remove(dir .. "/d/e"))
    assert.is_true(host.remove(dir .. "/d"))
    assert.equal("not_found", failure(host.remove(dir .. "/d")))
  end)
end)

describe("host machine #unit", function()
  it("tells the time", function()
    assert.is_true(math.abs(host.now() - os.time()) < 2)
    local before = host.monotonic()
    host.sleep(0.02)
    local took = host.monotonic() - before
    assert.is_true(took >= 0.02 and took < 1)
    assert.equal("2001-09-09 01:46:40", host.date("%Y-%m-%d %H:%M:%S", 1000000000, true))
    assert.equal("2001-09-09", host.date("%F", 1000000000.9, true))
    assert.equal(os.date "%Y", host.date "%Y")
    raises(host.date)
    raises(host.date, "%Y", "x")
    raises(host.date, "%Y", 0 / 0)
    raises(host.date, ("%c"):rep(100))
  end)

  it("tells who and where it is", function()
    assert.equal(sh("id -u").out, host.uid() .. "\n")
    assert.equal(sh("id -un").out, host.user() .. "\n")
    assert.equal(sh("hostname").out, host.hostname() .. "\n")
    assert.equal(os.getenv "HOME", host.home())
    assert.equal(os.getenv "PATH", host.getenv "PATH")
    assert.is_nil(host.getenv "LBRUN_NO_SUCH_VARIABLE")
    assert.equal("0.1.0", host.version())
    assert.equal(1, host.interface())
    raises(host.getenv)
  end)

  it("tells a process from another that has its number", function()
    local pid, start, boot = host.pid(), host.start_time(), host.boot_id()
    assert.is_truthy(boot:find "^%x+%-%x+%-%x+%-%x+%-%x+$")
    assert.is_true(host.process_alive(pid, start, boot))
    assert.is_false(host.process_alive(pid, start + 1, boot))
    assert.is_false(host.process_alive(pid, start, "another boot"))
    assert.is_false(host.process_alive(0, 0, boot))
    assert.is_false(host.process_alive(-1, start, boot))
    assert.is_false(host.process_alive(1 << 40, start, boot))
    raises(host.process_alive, "x", 1, "")
    raises(host.process_alive, 1, 1)
  end)

  it("counts a process that has ended but is not collected as gone", function()
    local pipe = io.popen "exec sh -c 'echo $$'"
    local pid = pipe:read "n"
    host.sleep(0.2)
    local stat = slurp(("/proc/%d/stat"):format(pid))
    local start = tonumber(stat:match("%) Z" .. (" %S+"):rep(18) .. " (%d+)"))
    assert.is_number(start)
    assert.is_false(host.process_alive(pid, start, host.boot_id()))
    pipe:close()
  end)

  it("finds its data beside the checkout it was built in", function()
    local data = host.data_dirs()
    local root = sh("pwd -P").out:gsub("\n", "")
    assert.same({ root = root, lua = root .. "/modules/lua", runbooks = root .. "/runbooks",
      templates = root .. "/templates" }, data)
  end)

  it("finds its data where LBRUN_DATA says", function()
    local r = program.script([[io.write(require "host".data_dirs().templates) return 0]],
      'LBRUN_DATA=/opt/books "$@"')
    assert.equal("/opt/books/templates", r.out)
  end)

  it("names the word that was probably meant", function()
    local words = { "tenant", "tools", "ssh_port" }
    assert.equal("tenant", host.nearest("tennant", words))
    assert.equal("tools", host.nearest("tool", words))
    assert.is_nil(host.nearest("zebra", words))
    assert.is_nil(host.nearest("zebra", {}))
    assert.is_nil(host.nearest(("x"):rep(1000), words))
    raises(host.nearest, "x", { 1 })
    raises(host.nearest, "x")
  end)
end)

describe("host secrets #unit", function()
  it("compare without telling where they differ", function()
    local a, b, c = host.secret("a", "canary-9000"), host.secret("b", "canary-9000"), host.secret("c", "canary-9001")
    assert.is_true(host.secret_eq(a, b))
    assert.is_false(host.secret_eq(a, c))
    assert.is_true(host.secret_eq(a, "canary-9000"))
    assert.is_false(host.secret_eq(a, "canary-900"))
    assert.is_false(host.secret_eq("", a))
    raises(host.secret_eq, a)
    raises(host.secret_eq, a, 1)
  end)

  it("are revealed by name of the deed only", function()
    local s = host.secret("pw", "canary\0-9000")
    assert.equal("canary\0-9000", host.reveal(s))
    assert.is_true(host.is_secret(s))
    assert.is_false(host.is_secret "canary")
    assert.is_truthy(raises(host.reveal, "x"):find("secret expected", 1, true))
    assert.is_truthy(raises(host.reveal):find("secret expected", 1, true))
  end)

  it("are strings of 8 bytes or more with a name", function()
    raises(host.secret, "pw", "1234567")
    raises(host.secret, "", "12345678")
    raises(host.secret, "pw", 1234567890)
    raises(host.secret, "pw")
    raises(host.secret, nil, "12345678")
  end)

  it("are masked in a text while they live", function()
    local s = host.secret("pw", "canary-7351")
    assert.equal("a [secret pw] b", host.mask "a canary-7351 b")
    assert.equal("", host.mask "")
    assert.is_true(host.is_secret(s))
    raises(host.mask)
    raises(host.mask, {})
  end)
end)

describe("host output #unit", function()
  it("goes to the stream it names, in order", function()
    local r = program.script [[
      local host = require "host"
      for i = 1, 100 do host.write("out", i .. "\n") host.write("err", "e" .. i .. "\n") end
      return 5]]
    assert.equal(5, r.status)
    local out, err = {}, {}
    for i = 1, 100 do out[i], err[i] = i .. "\n", "e" .. i .. "\n" end
    assert.equal(table.concat(out), r.out)
    assert.equal(table.concat(err), r.err)
  end)

  it("masks a secret that comes in pieces, and shows the rest", function()
    local r = program.script [[
      local host = require "host"
      local s = host.secret("pw", "canary-9000")
      for c in ("x canary-9000 canary-90"):gmatch "." do host.write("out", c) end
      host.flush_mask "out"
      host.write("out", "01\n")
      return host.is_secret(s) and 0 or 1]]
    assert.equal(0, r.status)
    assert.is_nil(r.out:find("canary-9000", 1, true))
    assert.is_truthy(r.out:find("x [secret pw] ", 1, true))
  end)

  it("appears while the task waits", function()
    local r = program.script([[
      local host = require "host"
      local s = host.secret("pw", "canary-9000")
      host.write("out", "ca")
      host.sleep(0.3)
      host.write("err", host.is_secret(s) and "|" or "")
      host.sleep(0.1)
      return 0]], '"$@" 2>&1')
    assert.equal("ca|", r.out)
  end)

  it("takes megabytes", function()
    local r = program.script([[
      local host = require "host"
      for i = 1, 1000 do host.write("out", ("x"):rep(9999) .. "\n") end
      return 0]], '"$@" | cksum; "$@" >out.$$; cksum <out.$$; rm out.$$')
    local a, b = r.out:match "^(%d+ 10000000)\n(%d+ 10000000)\n$"
    assert.is_not_nil(a, r.out)
    assert.equal(a, b)
  end)

  it("does not hold up a run whose reader has stopped", function()
    local r = program.script([[
      local host = require "host"
      for i = 1, 50 do host.write("out", ("x"):rep(9999) .. "\n") end
      local before, turns = host.monotonic(), 0
      while host.monotonic() - before < 0.3 do host.sleep(0.01) turns = turns + 1 end
      host.write("err", turns > 10 and "went on\n" or "stood still\n")
      return 0]], '"$@" | (sleep 1; wc -c)')
    assert.equal("went on\n", r.err)
    assert.equal("500000", r.out:match "%d+")
  end)

  it("fails with an error when the disk is full, and the run ends with 1", function()
    local r = program.script([[
      local host = require "host"
      local ok, err = host.write("out", ("x"):rep(100000))
      if ok then host.sleep(0.1) ok, err = host.write("out", "x") end
      host.write("err", err.code .. "\n")
      return 0]], '"$@" >/dev/full')
    assert.equal("no_space\nlbrun: cannot write to standard output: No space left on device\n", r.err)
    assert.equal(1, r.status)
  end)

  it("keeps a worse exit status than its own", function()
    assert.equal(6, program.script([[require "host".write("out", "x") return 6]], '"$@" >/dev/full').status)
  end)

  it("ends quietly with 141 when its reader went away", function()
    local r = program.script([[
      local host = require "host"
      for i = 1, 200 do
        local ok, err = host.write("out", ("x"):rep(999) .. "\n")
        if not ok then host.write("err", err.code .. "\n") break end
        host.sleep(0.01)
      end
      return 0]], '("$@"; echo $? >&2) | head -n 1 >/dev/null')
    assert.equal("closed\n141\n", r.err)
  end)

  it("refuses other arguments", function()
    raises(host.write, "in", "x")
    raises(host.write, "stdout", "x")
    raises(host.write, "out")
    raises(host.write, "out", {})
    raises(host.flush_mask, "in")
    raises(host.isatty, "x")
  end)

  it("knows a terminal and its width", function()
    local script = [[
      local host = require "host"
      host.write("err", ("%s %s %s %d"):format(host.isatty "in", host.isatty "out", host.isatty "err", host.width()))
      return 0]]
    assert.equal("false false false 80", program.script(script, '"$@" </dev/null').err)
    assert.equal("false false false 132", program.script(script, 'COLUMNS=132 "$@" </dev/null').err)
    assert.equal("false false false 80", program.script(script, 'COLUMNS=wide "$@" </dev/null').err)
    local r = program.script(script, [[cat >"$3.sh" <<END
stty cols 97; exec $1 $2 $3
END
script -qec "sh $3.sh" /dev/null </dev/null]])
    assert.equal("true true true 97", r.out)
  end)
end)

describe("host input #unit", function()
  it("reads standard input to its end", function()
    local script = [[
      local host = require "host"
      local text, err = host.read_stdin { max = 100000 }
      host.write("out", text and #text .. "" or err.code)
      return 0]]
    assert.equal("12", program.script(script, '(printf 123456; sleep 0.2; printf 789012) | "$@"').out)
    assert.equal("0", program.script(script, '"$@" </dev/null').out)
    assert.equal("0", program.script(script, '"$@" <&-').out)
    assert.equal("100000", program.script(script, 'head -c 100000 /dev/zero | "$@"').out)
    assert.equal("too_large", program.script(script, 'head -c 100001 /dev/zero | "$@"').out)
    assert.equal("5", program.script(script, 'printf "skipped\\n12345" >"$3.in"; (read x; "$@") <"$3.in"').out)
    raises(host.read_stdin, { max = -1 })
    raises(host.read_stdin, { limit = 1 })
  end)

  it("is given up on the first signal", function()
    local r = program.script([[
      local host = require "host"
      local text, err = host.read_stdin()
      host.write("out", tostring(text) .. " " .. err.code .. " " .. table.concat({ host.interrupted() }, " "))
      return 130]], 'sleep 1 | { exec 3<&0; "$@" <&3 & sleep 0.4; kill -INT $!; wait $!; }')
    assert.equal("nil interrupted 1 INT", r.out)
    assert.equal(130, r.status)
  end)

  describe("ask", function()
    -- Types `input` half a second after the start, at a terminal of its own.
    local function at_terminal(text, input, more)
      return program.script(text, ([[
        (sleep 0.5; printf %%b %s; sleep 0.4; %s) | script -qec "$1 $2 $3" /dev/null]]):format(
          program.quote(input), more or ":"))
    end

    it("returns the line that is typed", function()
      local r = at_terminal([[
        local host = require "host"
        local answer, err = host.ask "Name? "
        host.write("out", "<" .. (answer or err.code) .. ">")
        return 0]], "acme\\n")
      assert.equal("Name? acme\r\n<acme>", r.out)
    end)

    it("echoes no secret and returns none as a string", function()
      local r = at_terminal([[
        local host = require "host"
        local answer = host.ask("Key: ", { secret = true, name = "hub.token" })
        host.write("out", tostring(answer) .. " " .. host.reveal(answer))
        return 0]], "canary-9000\\n")
      assert.equal("Key: \r\n[secret hub.token] [secret hub.token]", r.out)
    end)

    it("refuses a secret that is too short to be masked", function()
      local r = at_terminal([[
        local host = require "host"
        local answer, err = host.ask("Key: ", { secret = true })
        host.write("out", tostring(answer) .. " " .. err.code)
        return 0]], "canary\\n")
      assert.equal("Key: \r\nnil too_short", r.out)
    end)

    it("takes no answer that was typed before the question", function()
      local r = program.script([[
        local host = require "host"
        local before = host.monotonic()
        while host.monotonic() - before < 0.5 do host.sleep(0.1) end
        local answer, err = host.ask "Sure? "
        host.write("out", "<" .. (answer or err.code) .. ">")
        return 0]], [[(sleep 0.2; echo yes; sleep 0.8; echo no; sleep 0.3) | script -qec "$1 $2 $3" /dev/null]])
      assert.is_truthy(r.out:find("<no>", 1, true), r.out)
    end)

    it("ends when the terminal says that nothing comes", function()
      local r = at_terminal([[
        local host = require "host"
        local answer, err = host.ask "Name? "
        host.write("out", tostring(answer) .. " " .. err.code)
        return 0]], "\\004")
      assert.equal("Name? nil closed", r.out:gsub("%^D\b\b", ""), nil)
    end)

    it("ends at Ctrl-C and puts the echo back", function()
      local r = at_terminal([[
        local host = require "host"
        local answer, err = host.ask("Key: ", { secret = true })
        local echo = io.popen "stty -a </dev/tty":read "a":match "[%s](%-?echo)%s"
        local stop = io.popen "stty -a </dev/tty":read "a":match "susp = ([^;]+)"
        host.write("out", tostring(answer) .. " " .. err.code .. " " .. echo .. " " .. stop)
        return 0]], "\\003")
      assert.is_truthy(r.out:find("nil interrupted echo ^Z", 1, true), r.out)
    end)

    it("does not hold up other tasks", function()
      local r = at_terminal([[
        local host = require "host"
        local turns = 0
        local ticker = host.task(function() while host.sleep(0.02) do turns = turns + 1 end end)
        host.ask "Name? "
        ticker:cancel()
        host.write("out", turns > 5 and "went on" or "stood still")
        return 0]], "x\\n")
      assert.equal("Name? x\r\nwent on", r.out)
    end)

    it("has nobody to ask without a terminal", function()
      local r = program.script([[
        local host = require "host"
        local answer, err = host.ask "Name? "
        host.write("out", tostring(answer) .. " " .. err.code)
        return 0]], 'setsid -w "$@" </dev/null')
      assert.equal("nil no_terminal", r.out)
    end)

    it("refuses other arguments", function()
      raises(host.ask)
      raises(host.ask, "x", { secret = 1 })
      raises(host.ask, "x", { hidden = true })
    end)
  end)
end)

describe("signals #unit", function()
  local function signalled(script, shell) return program.script(script, '"$@" & ' .. shell) end

  it("are counted, and end a wait once each", function()
    local r = signalled([[
      local host = require "host"
      host.write("out", host.interrupted() .. " ")
      for _ = 1, 2 do
        local ok, err = host.sleep(5)
        host.write("out", (ok and "slept" or err.code) .. " " .. table.concat({ host.interrupted() }, " ") .. " ")
      end
      return 143]], 'sleep 0.3; kill -INT $!; sleep 0.2; kill -TERM $!; wait $!')
    assert.equal("0 interrupted 1 INT interrupted 2 TERM ", r.out)
    assert.equal(143, r.status)
  end)

  it("end the process at the third, whatever Lua does", function()
    local r = signalled([[
      local host = require "host"
      while true do host.sleep(5) end]], 'for i in 1 2 3; do sleep 0.2; kill -INT $!; done; wait $!')
    assert.equal(130, r.status)
  end)
end)

describe("program's end #unit", function()
  it("reports an error that nobody caught, masked, with exit 1", function()
    local r = program.script [[
      local host = require "host"
      KEEP = host.secret("pw", "canary-9000")
      error("it was canary-9000", 0)]]
    assert.equal(1, r.status)
    assert.is_truthy(r.err:find("^lbrun: internal: it was %[secret pw%]\nstack traceback:"))
  end)

  it("reports error values of any kind", function()
    assert.is_truthy(program.script "error(nil)".err:find "^lbrun: internal: nil\n")
    assert.is_truthy(program.script "error({})".err:find "^lbrun: internal: table: ")
    assert.equal("lbrun: internal: an error that cannot be shown\n",
      program.script "error(setmetatable({}, { __tostring = function() error 'x' end }))".err)
    local r = program.script [[
      require "host".deadline(0.05)
      error(setmetatable({}, { __tostring = function() while true do end end }))]]
    assert.equal("lbrun: internal: an error that cannot be shown\n", r.err)
    assert.equal(1, r.status)
  end)

  it("reports a missing exit status", function()
    local r = program.script "return 'zero'"
    assert.equal("lbrun: internal: no exit status came back\n", r.err)
    assert.equal(1, r.status)
  end)

  it("does not wait for tasks that nobody joined", function()
    local began = host.monotonic()
    local r = program.script [[
      local host = require "host"
      host.task(function() host.sleep(60) end)
      host.sleep(0.01)
      return 0]]
    assert.equal(0, r.status)
    assert.is_true(host.monotonic() - began < 5)
  end)
end)
