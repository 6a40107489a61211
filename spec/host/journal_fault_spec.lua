-- journal_fault_spec.lua: nothing is lost, half-written or changed unnoticed when the file
-- is bad or tampered with, the disk is full, others write too, or the process is killed.
local host = require "host"
local journal = require "journal"
local support = require "support.lbrun"
local helper = require "support.journal"
local sh, slurp, spit, quote = support.sh, support.slurp, support.spit, support.quote
local open, new_run, refused, child, killed, me, self, script =
  helper.open, helper.new_run, helper.refused, helper.child, helper.killed, helper.me, helper.self, helper.script
local dir, path

local function sql(text)
  local out, status = sh(("sqlite3 -bail %s %s"):format(quote(path), quote(text)))
  assert.equal(0, status, out)
  return out
end

before_each(function()
  helper.begin()
  dir, path = helper.dir, helper.path
end)
after_each(helper.finish)

describe("journal.open #unit", function()
  it("makes the file and what SQLite puts beside it private, whatever the umask", function()
    local out, status = child([[
      local j = assert(journal.open(path))
      assert(j:run_create { id = "R1" })
      for _, suffix in ipairs { "", "-wal", "-shm" } do
        assert.equal("0600", host.stat(path .. suffix).mode)
      end]], { wrap = "umask 000;" })
    assert.equal(0, status, out)
    sh("rm -f " .. path)
    out, status = child("assert(journal.open(path)); assert.equal('0600', host.stat(path).mode)", { wrap = "umask 0277;" })
    assert.equal(0, status, out)
  end)

  it("makes the folder of the default path, and no other", function()
    local body = [[
      local j = assert(journal.open())
      assert.equal(journal.default_path(), j:path())
      assert.equal("0700", host.stat(j:path():match "(.*)/").mode)]]
    local out, status = child(body, { env = { XDG_STATE_HOME = dir .. "/a/b" } })
    assert.equal(0, status, out)
    assert.is_truthy(host.stat(dir .. "/a/b/lbrun/journal.db"))
    out, status = child(body, { env = { XDG_STATE_HOME = "not/absolute", HOME = dir .. "/home" } })
    assert.equal(0, status, out)
    assert.is_truthy(host.stat(dir .. "/home/.local/state/lbrun/journal.db"))
    refused("not_found", journal.open(dir .. "/none/journal.db"))
    assert.is_nil(host.stat(dir .. "/none"))
  end)

  it("makes nothing where it is told not to", function()
    refused("not_found", journal.open(path, { create = false }))
    refused("not_found", journal.open(path, { readonly = true }))
    assert.is_nil(host.stat(path))
  end)

  it("keeps what was written for the next one", function()
    local j = open()
    new_run(j, "R1")
    j:close()
    j:close()
    assert.equal("R1", open():run("R1").id)
    assert.equal("R1", open({ readonly = true }):run("R1").id)
  end)

  it("reads, when it only looks, what a killed process left in the WAL, and changes no byte", function()
    killed(4, "after", [[
      local j = assert(journal.open(path))
      assert(j:run_create { id = "R1" })
      for i = 1, 9 do assert(j:event("R1", "n", tostring(i))) end]])
    local before = sh("sha256sum " .. path)
    local j = open { readonly = true }
    assert.equal(3, #j:events("R1"))
    assert.is_true(j:verify())
    j:close()
    assert.equal(before, sh("sha256sum " .. path))
    assert.equal(3, #open():events("R1"))
  end)

  it("refuses a file that others can read, with the command that mends it", function()
    open():close()
    for _, mode in ipairs { "640", "604", "620" } do
      sh(("chmod %s %s"):format(mode, path))
      local err = refused("not_private", journal.open(path))
      assert.is_truthy(err.message:find("chmod 600 " .. path, 1, true))
    end
    sh("chmod 600 " .. path)
    assert.is_truthy(open())
  end)

  it("refuses what is not this user's own plain file", function()
    refused("unreadable", journal.open(dir))
    sh("mkfifo " .. dir .. "/fifo; chmod 600 " .. dir .. "/fifo")
    refused("unreadable", journal.open(dir .. "/fifo"))
    refused("not_found", journal.open(dir .. "/x/y"))
    spit(dir .. "/file", "")
    refused("not_found", journal.open(dir .. "/file/journal.db"))
    if host.uid() == 0 then
      open():close()
      sh("chown 12345 " .. path)
      refused("not_private", journal.open(path))
    end
  end)

  it("says so when the file may not be read", function()
    open():close()
    sh("chmod 0 " .. path)
    local out, status = child([[
      local _, err = journal.open(path)
      assert.equal("unreadable", err and err.code)
      assert.is_truthy(err.message:find("Permission denied", 1, true))
      _, err = journal.open(path, { readonly = true })
      assert.equal("unreadable", err and err.code)]],
      { wrap = host.uid() == 0 and "setpriv --bounding-set=-all --inh-caps=-all" or "" })
    assert.equal(0, status, out)
  end)

  it("refuses the journal of a newer lbrun, and leaves it as it is", function()
    local j = open()
    new_run(j, "R1")
    j:close()
    sql "PRAGMA user_version=99"
    local before = slurp(path)
    local err = refused("newer", journal.open(path))
    assert.is_truthy(err.message:find("99", 1, true))
    assert.is_truthy(err.message:find("--journal", 1, true))
    assert.equal(before, slurp(path))
  end)

  it("refuses what is no journal, and leaves it as it is", function()
    sh(("sqlite3 %s/other.db 'create table t(x); insert into t values(1)'"):format(dir))
    sh(("sqlite3 %s/app.db 'pragma application_id=7; create table t(x)'"):format(dir))
    spit(dir .. "/short", "hello")
    spit(dir .. "/long", ("not a database at all\n"):rep(1000))
    for _, name in ipairs { "other.db", "app.db", "short", "long" } do
      local file = dir .. "/" .. name
      sh("chmod 600 " .. file)
      local before = slurp(file)
      for _, readonly in ipairs { false, true } do
        local err = refused("corrupt", journal.open(file, { readonly = readonly }))
        assert.is_truthy(err.message:find(file, 1, true))
        assert.is_truthy(err.message:find("--journal", 1, true))
      end
      assert.equal(before, slurp(file))
      assert.is_nil(host.stat(file .. "-wal"))
    end
  end)

  it("refuses a damaged or truncated journal, and leaves it as it is", function()
    local j = open()
    new_run(j, "R1", { params = ("x"):rep(20000) })
    for _ = 1, 50 do assert(j:event("R1", "note", ("y"):rep(500))) end
    j:close()
    local whole = slurp(path)
    local bad = {
      whole:sub(1, 30000), whole:sub(1, 1000), whole:sub(1, 60), whole:sub(1, -4097),
      whole:sub(1, 4096) .. ("\xa5"):rep(8192) .. whole:sub(4096 + 8192 + 1),
      ("\0"):rep(#whole), ("\xff"):rep(100) .. whole:sub(101),
    }
    for i, bytes in ipairs(bad) do
      spit(path, bytes)
      refused("corrupt", journal.open(path))
      assert.equal(bytes, slurp(path), i)
    end
    spit(path, whole)
    assert.is_true(open():verify())
  end)

  it("reports damage that only a later call meets", function()
    local j = open()
    new_run(j, "R1")
    for _ = 1, 2500 do assert(j:event("R1", "note", ("y"):rep(700))) end
    j:close()
    local f = assert(io.open(path, "r+b"))
    assert(f:seek("end", -40 * 4096))
    f:write(("\xa5"):rep(40 * 4096))
    f:close()
    refused("corrupt", open():verify())
  end)

  it("takes an empty file for a new journal", function()
    spit(path, "")
    sh("chmod 600 " .. path)
    refused("not_found", journal.open(path, { readonly = true }))
    new_run(open(), "R1")
  end)

  it("raises for what is no path and no option", function()
    for _, bad in ipairs { 1, true, {}, "", "a\0b", print } do
      assert.is_false(pcall(journal.open, bad))
    end
    assert.is_false(pcall(journal.open, path, { readonyl = true }))
    assert.is_false(pcall(journal.open, path, { readonly = "yes" }))
    assert.is_false(pcall(journal.open, path, "readonly"))
    assert.is_nil(host.stat(path))
  end)
end)

describe("j:verify #unit", function()
  local function written()
    local j = open()
    new_run(j, "R1", { sources = { { path = "a", body = "one" }, { path = "b", body = "two" } } })
    j:step_set("R1", "s", { status = "running" }, "step.begin", "{}")
    j:effect_begin("R1", "s", "e", { intent = "i", before = "b" })
    j:effect_end("R1", "s", "e", "done", { output = "o" })
    j:step_set("R1", "s", { status = "done" }, "step.end", "{}")
    j:pin_set("R1", "t", "{}")
    j:path_set("t", "local:", "{}")
    j:fingerprint("R1", "token", "ff")
    j:run_set("R1", { status = "done", exit = 0 }, "run.end", "{}")
    local head = j:head()
    j:close()
    return head
  end

  local free = "drop trigger events_update; drop trigger events_delete; "

  it("finds whatever was changed by hand, and says where", function()
    local head = written()
    local whole = slurp(path)
    for _, case in ipairs {
      { free .. "update events set data='{ }' where seq=3", "event 3 was changed" },
      { free .. "update events set ts=ts+1 where seq=5", "event 5 was changed" },
      { free .. "update events set type='x' where seq=1", "event 1 was changed" },
      { free .. "update events set run='' where seq=9", "event 9 was changed" },
      { free .. "update events set state='' where seq=2", "event 2 was changed" },
      { free .. "update events set hash='0' where seq=4", "event 4 was changed" },
      { free .. "delete from events where seq=4", "event 4 is missing" },
      { free .. "delete from events where seq=1", "event 1 is missing" },
      { free .. "delete from events where seq=9", "ends at event 8" },
      { "update meta set head='0'", "head" },
      { "delete from meta", "head" },
      { "update runs set status='failed'", "of runs" },
      { "update runs set params='{\"a\":1}'", "of runs" },
      { "update steps set status='failed'", "of steps" },
      { "delete from steps", "steps has 0 rows" },
      { "update effects set before='x'", "of effects" },
      { "insert into effects(run,step,effect,attempt,status,undoable,started) values('R1','s','f',1,'done',0,0)", "of effects" },
      { "update pins set json='x'", "of pins" },
      { "update paths set url='ssh://elsewhere'", "of paths" },
      { "update fingerprints set hex='00'", "of fingerprints" },
      { "update sources set body='evil', size=4 where body=cast('one' as blob)", "stored source" },
      { "update run_sources set path='z' where path='a'", "sources of run R1" },
      { "delete from run_sources", "sources of run R1" },
      { "delete from sources where size=3", "sources of run R1" },
    } do
      sql(case[1])
      local j = open()
      local err = refused("chain", j:verify())
      assert.is_truthy(err.message:find(case[2], 1, true), case[1] .. ": " .. err.message)
      j:close()
      spit(path, whole)
    end
    assert.same({ true, 9 }, { open():verify(head) })
  end)

  it("finds by a head that was printed that the end was cut off", function()
    local head = written()
    sql(free .. [[delete from events where seq=9;
      update meta set seq=8, head=(select hash from events where seq=8);
      update runs set status='open', exit=null]])
    local j = open()
    assert.is_true(j:verify())
    local err = refused("chain", j:verify(head))
    assert.is_truthy(err.message:find("cut off", 1, true))
    refused("chain", j:verify "00")
  end)

  it("accepts any head that was printed before", function()
    local j = open()
    new_run(j, "R1")
    local head = j:head()
    j:event("R1", "note", "{}")
    assert.is_true(j:verify(head))
    assert.is_true(j:verify(head:upper()))
  end)

  it("looks at one moment while others write", function()
    local j, other = open(), open()
    new_run(j, "R1")
    assert.is_true(other:event("R1", "n", "{}"))
    assert.is_true(j:verify())
    assert.is_true(other:event("R1", "n", "{}"))
    assert.same({ true, 3 }, { j:verify() })
  end)
end)

describe("two processes on one journal #unit", function()
  it("make it together and each write whole", function()
    local body = [[
      local j = assert(journal.open(path))
      local id = "R" .. host.pid()
      assert(j:run_create { id = id, sources = { { path = "same", body = "same" } } })
      for i = 1, 60 do
        assert(j:effect_begin(id, "s", "e" .. i, { intent = "{}" }))
        assert(j:effect_end(id, "s", "e" .. i, "done", { output = ("x"):rep(500) }))
        if i % 20 == 0 then assert(j:verify()) end
      end]]
    local one = ("%s %s"):format(self, script(body))
    local out = sh(("(%s || echo FAILED) & (%s || echo FAILED) & (%s || echo FAILED); wait"):format(one, one, one))
    assert.is_nil(out:find("FAILED", 1, true), out)
    local j = open()
    assert.same({ true, 3 * 121 }, { j:verify() })
    assert.equal(3, #j:runs())
  end)

  it("of which one holds the file too long: the other says busy, and is whole", function()
    local j = open()
    new_run(j, "R1")
    local hold = io.popen(("{ echo 'begin immediate; select 1;'; sleep 7; } | sqlite3 %s"):format(path))
    assert.equal("1", hold:read "l")
    local began = host.monotonic()
    refused("busy", j:event("R1", "note", "{}"))
    assert.is_true(host.monotonic() - began < 6.5)
    assert.equal("R1", j:run("R1").id)
    hold:close()
    assert.is_true(j:event("R1", "note", "{}"))
    assert.same({ true, 2 }, { j:verify() })
  end)
end)

describe("a full disk #unit", function()
  -- The child alone sees it, and it goes with the child.
  local function small_disk(bytes, prepare)
    return ("unshare -m sh -c 'mkdir -p %s/disk && mount -t tmpfs -o size=%d,mode=700 t %s/disk && %s && exec \"$@\"' sh"):format(
      dir, bytes, dir, prepare or "true")
  end

  it("loses nothing that was said to be stored, and stores nothing by half", function()
    if host.uid() ~= 0 then return pending "needs root to mount a small disk" end
    local out, status = child([[
      local j = assert(journal.open(path))
      assert(j:run_create { id = "R1" })
      local written, err = 1, nil
      for i = 1, 500 do
        local ok
        ok, err = j:effect_begin("R1", "s", "e" .. i, { intent = ("x"):rep(3000) })
        if not ok then break end
        written = written + 1
      end
      assert.equal("full", err and err.code, err and err.message)
      assert.is_true(written > 1)
      -- Whatever is tried, it either is stored whole or says so.
      for _ = 1, 5 do
        local ok, why = j:event("R1", "note", ("y"):rep(3000))
        if ok then written = written + 1 else assert.equal("full", why.code) end
      end
      assert.same({ true, written }, { j:verify() })
      j:close()
      j = assert(journal.open(path))
      assert.same({ true, written }, { j:verify() })
      assert(os.remove(path:match "(.*)/" .. "/ballast"))
      assert(j:event("R1", "note", ("y"):rep(3000)))
      assert.same({ true, written + 1 }, { j:verify() })]],
      { path = dir .. "/disk/journal.db",
        wrap = small_disk(400 * 1024, "head -c 100000 /dev/zero >" .. dir .. "/disk/ballast") })
    assert.equal(0, status, out)
  end)

  it("is said when the journal is made", function()
    if host.uid() ~= 0 then return pending "needs root to mount a small disk" end
    for _, size in ipairs { 4096, 16384, 65536 } do
      local out, status = child([[
        local j, err = journal.open(path)
        assert.equal("full", err and err.code, err and err.message)]],
        { path = dir .. "/disk/journal.db", wrap = small_disk(size) })
      assert.equal(0, status, size .. ": " .. out)
    end
  end)
end)

describe("a killed process #unit", function()
  local body = [[
    local told = assert(io.open(path .. ".told", "a"))
    told:setvbuf "no"
    local function say(what) assert(what) told:write "x" end
    local j = assert(journal.open(path))
    say(j:run_create { id = "R1", sources = { { path = "a", body = ("z"):rep(9000) } } })
    say(j:lease_take("t", "R1", { pid = host.pid(), start_time = host.start_time(), boot_id = host.boot_id(), host = "h" }, 60))
    say(j:step_set("R1", "s", { status = "running" }, "step.begin", "{}"))
    say(j:effect_begin("R1", "s", "e", { intent = "i", before = "b", undoable = true }))
    say(j:effect_end("R1", "s", "e", "done", { output = ("o"):rep(9000) }))
    say(j:step_set("R1", "s", { status = "done" }, "step.end", "{}"))
    say(j:lease_drop("t", "R1"))
    say(j:run_set("R1", { status = "done", exit = 0 }, "run.end", "{}"))
    j:close()]]
  local events = 8

  for _, when in ipairs { "before", "torn", "after" } do
    it(("%s any commit leaves a whole journal that lacks nothing it was told of"):format(when), function()
      local n = 0
      repeat
        n = n + 1
        sh(("rm -f %s*"):format(path))
        spit(path .. ".told", "")
        local out, status = killed(n, when, body)
        local ended = status == 0
        if not ended then assert.equal(137, status, out) end
        local told = #slurp(path .. ".told")
        local j = open()
        local ok, count = j:verify()
        assert.is_true(ok, tostring(count))
        assert.equal(ended and events or math.max(0, n - (when == "after" and 1 or 2)), count, n)
        assert.is_true(count == told or (when == "after" and count == told + 1),
          ("commit %d: told of %d, has %d"):format(n, told, count))
        if count > 0 then
          assert.is_true(j:event("R1", "resumed", "{}"))
          assert.equal(9000, #j:source("R1", "a"))
        else
          new_run(j, "R1")
        end
        assert.is_true(j:verify())
        j:close()
        assert.equal("0600", host.stat(path).mode)
      until ended
      assert.equal(events + 2, n, "the format, every change, and one time undisturbed")
    end)
  end

  it("leaves its lease to its own run", function()
    killed(4, "after", body)
    local j = open()
    assert.equal("R1", j:lease("t").run)
    new_run(j, "R2")
    refused("locked", j:lease_take("t", "R2", me(), 60))
  end)
end)
