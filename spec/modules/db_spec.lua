-- db_spec.lua: what comes back is what went in, a transaction is whole or not at all, and a backup
-- is of one moment whoever writes.
local db = require "db"
local host = require "host"
local process = require "process"

local dir

local function path(name) return dir .. "/" .. name end

local function open(name, opts)
  opts = opts or {}
  if opts.create == nil and not opts.readonly then opts.create = true end
  return assert(db.open(path(name or "a.db"), opts))
end

local function slurp(file)
  local f = assert(io.open(file, "rb"))
  local text = f:read "a"
  f:close()
  return text
end

local function code(value, err)
  assert.is_nil(value)
  assert.equal("db", err.module)
  return err.code
end

local function raises(pattern, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.matches(pattern, tostring(err))
end

-- Another process that runs Python with the file's path as argument.
local function python(source, ...)
  return assert(process.spawn({ "python3", "-c", source, ... }, { kill_on_close = true }))
end

local function line_of(p)
  local which, data = p:read(20)
  assert.equal("out", which, data)
  return data
end

describe("db #unit", function()
  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(host.mkdir(dir, "0700"))
  end)
  after_each(function() os.execute("rm -rf " .. dir) end)

  describe("open", function()
    it("makes a file of the given mode only when asked to", function()
      assert.equal("not_found", code(db.open(path "a.db")))
      open("a.db"):close()
      assert.equal("0600", host.stat(path "a.db").mode)
      open("b.db", { create = true, mode = "0640" }):close()
      assert.equal("0640", host.stat(path "b.db").mode)
      assert.equal("not_found", code(db.open(path "no/a.db", { create = true })))
    end)

    it("refuses what is no database", function()
      assert.equal("is_directory", code(db.open(dir)))
      assert.equal("io", code(db.open "/dev/null"))
      local f = assert(io.open(path "text", "w"))
      f:write(("not a database "):rep(100))
      f:close()
      assert.equal("corrupt", code(db.open(path "text")))
    end)

    it("takes no path for a URI", function()
      open("file:x?mode=memory"):close()
      assert.truthy(host.stat(path "file:x?mode=memory"))
    end)

    it("keeps a readonly handle from writing", function()
      open():exec "create table t(a)"
      local d <close> = assert(db.open(path "a.db", { readonly = true }))
      assert.equal("readonly", code(d:exec "insert into t values(1)"))
      assert.same({}, d:rows "select * from t")
      assert.equal(3, d:transaction(function() return 3 end))
    end)

    it("has databases in memory, each its own", function()
      local a <close> = db.open ":memory:"
      local b <close> = db.open ":memory:"
      a:exec "create table t(a)"
      assert.equal("syntax", code(b:rows "select * from t"))
      raises("no backup", a.backup, a, path "x")
    end)

    it("raises for wrong arguments", function()
      raises("string expected", db.open, 1)
      raises("not a path", db.open, "")
      raises("not a path", db.open, "a\0b")
      raises("unknown option 'color'", db.open, path "a", { color = 1 })
      raises("octal", db.open, path "a", { mode = "rw" })
      raises("'mode' must be a string", db.open, path "a", { mode = 384 })
      raises("'timeout' is at most 8", db.open, path "a", { timeout = 9 })
      raises("not readonly", db.open, path "a", { create = true, readonly = true })
    end)
  end)

  describe("statements", function()
    it("give back each type as it was bound", function()
      local d <close> = open()
      d:exec "create table t(i, v)"
      local all = ""
      for i = 0, 255 do all = all .. string.char(i) end
      local values = { 0, -1, math.maxinteger, math.mininteger, 1.0, 0.1, -1e300, math.huge, "", "x",
        "it's \"quoted\" -- ; \\ %", "a\0b", "\u{e9}\u{1F600}", db.null }
      for i, v in ipairs(values) do
        assert.equal(1, (d:exec("insert into t values(?, ?)", { i, v })))
      end
      for i, v in ipairs(values) do
        local got = assert(d:one("select v from t where i = ?", { i })).v
        assert.equal(v, got)
        assert.equal(math.type(v), math.type(got))
      end
      for _, bytes in ipairs { "", "\0", all } do
        local row = d:one("select ? as v, typeof(?1) as type", { db.blob(bytes) })
        assert.same({ v = bytes, type = "blob" }, row)
      end
      assert.same({ a = 1, b = 0, c = "text", d = "null" },
        d:one("select ? a, ? b, typeof(?) c, typeof(?) d", { true, false, "x", db.null }))
      assert.equal("null", tostring(db.null))
    end)

    it("never read a bound value as SQL", function()
      local d <close> = open()
      d:exec "create table t(a)"
      for _, text in ipairs { "'); drop table t; --", "\"", "''", "?", ":a", "`t`" } do
        d:exec("insert into t values(?)", { text })
        assert.equal(text, d:one("select a from t where a = :a", { a = text }).a)
      end
      assert.equal(6, d:one("select count(*) n from t").n)
    end)

    it("bind by place and by name", function()
      local d <close> = open()
      assert.same({ a = 2, b = 1, c = 2 }, d:one("select ?2 a, ?1 b, ?2 c", { 1, 2 }))
      assert.same({ a = 1, b = 2, c = 3, d = 1 }, d:one("select :a a, @b b, $c c, :a d", { a = 1, b = 2, c = 3 }))
      raises("parameter 2 has no value", d.one, d, "select ?, ?", { 1 })
      raises("parameter :a has no value", d.one, d, "select :a")
      raises("no parameter 3", d.one, d, "select ?, ?", { 1, 2, 3 })
      raises("no parameter b", d.one, d, "select :a", { a = 1, b = 2 })
      raises("no parameter 1", d.one, d, "select :a", { 1, a = 1 })
    end)

    it("raise for what they cannot hold", function()
      local d <close> = open()
      raises("not a table", d.one, d, "select ?", { {} })
      raises("not a function", d.one, d, "select ?", { print })
      raises("NaN", d.one, d, "select ?", { 0 / 0 })
      raises("not a userdata", d.one, d, "select ?", { host.secret("s", "hunter2-hunter2") })
      raises("table expected", d.one, d, "select ?", 1)
      raises("string expected", d.one, d, 1)
      raises("zero byte", d.one, d, "select 1\0")
      raises("unknown option", d.one, d, "select 1", nil, { x = 1 })
      raises("string expected", db.blob, 1)
      raises("two columns of the result are named a", d.rows, d, "select 1 a, 2 a")
      raises("no statement", d.rows, d, " -- nothing")
      raises("one statement only", d.rows, d, "select 1; select 2")
      raises("one statement only", d.exec, d, "select ?; select 2", { 1 })
      raises("db:transaction", d.exec, d, "begin")
      raises("db:transaction", d.exec, d, "savepoint a")
      assert.same({ { a = 1 } }, d:rows "select 1 a; -- no more")
    end)

    it("count what they change", function()
      local d <close> = open()
      local n, id = d:exec [[
        create table t(id integer primary key, a); -- two
        insert into t(a) values(1), (2), (3);
        update t set a = 0 where id > 1 ]]
      assert.equal(5, n)
      assert.equal(3, id)
      assert.equal(0, (d:exec "update t set a = 1 where id = 9"))
      assert.equal(0, (d:exec ""))
      assert.same({ { id = 1 }, { id = 2 } }, d:rows "select id from t where id < 3 order by id")
      assert.same({ { id = 4 } }, d:rows("insert into t(a) values(?) returning id", { 1 }))
      assert.is_nil(d:one "select 1 from t where id = 99")
      assert.equal(1, select("#", d:one "select 1 from t where id = 99"))
    end)

    it("tell failures apart", function()
      local d <close> = open()
      d:exec "create table t(a integer unique not null check(a != 7)) strict"
      assert.equal(1, (d:exec "insert into t values(1)"))
      for _, v in ipairs { 1, db.null, 7, "x" } do
        assert.equal("constraint", code(d:exec("insert into t values(?)", { v })))
      end
      local _, err = d:rows "selec 1"
      assert.equal("syntax", err.code)
      assert.matches("selec", tostring(err))
      assert.equal("syntax", code(d:rows "select * from nowhere"))
    end)

    it("end at their deadline, and the handle lives on", function()
      local d <close> = open()
      local forever = "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) n from r"
      local began = host.monotonic()
      assert.equal("timeout", code(d:one(forever, nil, { timeout = 0.1 })))
      assert.is_true(host.monotonic() - began < 2)
      assert.equal(1, d:one "select 1 a".a)
    end)

    it("raise on a closed handle", function()
      local d = open()
      d:close()
      d:close()
      for _, method in ipairs { "exec", "rows", "one", "transaction", "backup" } do
        raises("closed", d[method], d, "x")
      end
      assert.equal("database (closed)", tostring(d))
    end)

    it("say that a file is damaged", function()
      local d = open()
      d:exec "create table t(a, b)"
      d:transaction(function()
        for i = 1, 2000 do d:exec("insert into t values(?, ?)", { i, ("x"):rep(100) }) end
      end)
      d:close()
      local f = assert(io.open(path "a.db", "r+b"))
      f:seek("set", 8192)
      f:write(("\xff"):rep(60000))
      f:close()
      d = assert(db.open(path "a.db"))
      assert.equal("corrupt", code(d:rows "select * from t"))
      assert.equal("corrupt", code(d:backup(path "b.db")))
      assert.equal(1, #host.list(dir))
      d:close()
    end)

    it("say that there is no room", function()
      local d <close> = open()
      d:exec "create table t(a); pragma max_page_count = 20"
      local value, err
      for _ = 1, 100 do
        value, err = d:exec("insert into t values(?)", { ("x"):rep(4000) })
        if not value then break end
      end
      assert.equal("full", code(value, err))
      assert.is_true(d:one "select count(*) n from t".n > 5)
    end)
  end)

  describe("a lock", function()
    local holder = [[
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("begin exclusive"); print("held", flush=True)
sys.stdin.read(); c.execute("commit"); print("gone", flush=True)
]]

    it("held by another is waited for while other tasks go on", function()
      local d <close> = open()
      d:exec "create table t(a)"
      local p <close> = python(holder, path "a.db")
      line_of(p)
      local turns = 0
      local ticker = host.task(function()
        for _ = 1, 10 do
          host.sleep(0.01)
          turns = turns + 1
        end
        p:shut()
      end)
      assert.equal(1, (d:exec "insert into t values(1)"))
      assert.equal(10, turns)
      ticker:join()
      local q <close> = open("a.db", { busy_timeout = 0 })
      assert.equal(1, q:one "select a from t".a)
    end)

    it("that is not let go in time is an error", function()
      local d <close> = open("a.db", { create = true, busy_timeout = 0.1 })
      d:exec "create table t(a)"
      local p <close> = python(holder, path "a.db")
      line_of(p)
      assert.equal("busy", code(d:exec "insert into t values(1)"))
      assert.equal("busy", code(d:rows "select * from t"))
      assert.equal("busy", code(d:transaction(function() error "not reached" end)))
      assert.equal("busy", code(d:backup(path "b.db")))
      local opened <close> = assert(db.open(path "a.db", { busy_timeout = 0 }))
      assert.equal("busy", code(opened:rows "select * from t"))
    end)

    it("that is waited for ends with the task or the handle", function()
      local d = open()
      d:exec "create table t(a)"
      local p <close> = python(holder, path "a.db")
      line_of(p)
      local a = host.task(function() return d:exec "insert into t values(1)" end)
      local b = host.task(function() return d:exec "insert into t values(2)" end)
      host.sleep(0.02)
      a:cancel()
      local _, value, err = a:join(5)
      assert.equal("interrupted", code(value, err))
      d:close()
      _, value, err = b:join(5)
      assert.equal("closed", code(value, err))
    end)
  end)

  describe("transaction", function()
    local d

    before_each(function()
      d = open()
      d:exec "create table t(a unique)"
    end)
    after_each(function() d:close() end)

    local function count() return d:one "select count(*) n from t".n end

    it("commits what its function did, and hands its results on", function()
      local a, b = d:transaction(function(same)
        assert.equal(d, same)
        same:exec "insert into t values(1)"
        host.sleep(0.01)
        same:exec "insert into t values(2)"
        return "x", 7
      end)
      assert.equal("x", a)
      assert.equal(7, b)
      assert.equal(2, count())
      assert.is_true(d:transaction(function() end))
    end)

    it("rolls back when its function raises, and the error goes on", function()
      for _, wait in ipairs { false, true } do
        local ok, err = pcall(d.transaction, d, function()
          d:exec "insert into t values(1)"
          if wait then host.sleep(0) end
          error({ code = "mine" })
        end)
        assert.is_false(ok)
        assert.equal("mine", err.code)
        assert.equal(0, count())
      end
    end)

    it("rolls back when its function returns nil, err", function()
      local value, err = d:transaction(function()
        d:exec "insert into t values(1)"
        return d:exec "insert into t values(1)"
      end)
      assert.equal("constraint", code(value, err))
      assert.equal(0, count())
    end)

    it("rolls back when its task is cancelled", function()
      local task = host.task(function()
        return d:transaction(function()
          d:exec "insert into t values(1)"
          while true do host.sleep(1) end
        end)
      end)
      host.sleep(0.01)
      task:cancel()
      task:join(5)
      assert.equal(0, count())
      assert.is_true(d:transaction(function() end))
    end)

    it("is not joined by another task", function()
      local order = {}
      local task = host.task(function()
        return d:transaction(function()
          d:exec "insert into t values(1)"
          host.sleep(0.05)
          order[#order + 1] = "first"
          error "no"
        end)
      end)
      host.sleep(0.01)
      assert.equal(1, (d:exec "insert into t values(2)"))
      order[#order + 1] = "second"
      assert.is_false((task:join()))
      assert.same({ "first", "second" }, order)
      assert.same({ { a = 2 } }, d:rows "select a from t")
    end)

    it("does not go on after SQLite gave it up", function()
      local value, err = d:transaction(function()
        d:exec "insert into t values(1)"
        assert.equal("constraint", code(d:exec "insert or rollback into t values(1)"))
        assert.equal("aborted", code(d:exec "insert into t values(3)"))
        return "ignored"
      end)
      assert.equal("aborted", code(value, err))
      assert.equal(0, count())
    end)

    it("does not hold another, nor a backup", function()
      d:transaction(function()
        raises("open already", d.transaction, d, print)
        raises("inside a transaction", d.backup, d, path "b.db")
      end)
      raises("function expected", d.transaction, d, 1)
    end)

    it("ends when its function closes the handle", function()
      local e = assert(db.open(path "a.db"))
      assert.equal("closed", code(e:transaction(function()
        e:exec "insert into t values(1)"
        e:close()
      end)))
      assert.equal(0, count())
    end)
  end)

  describe("backup", function()
    local function fill(d, rows)
      d:exec "create table account(id integer primary key, amount integer, pad text)"
      d:transaction(function()
        for _ = 1, rows do d:exec("insert into account(amount, pad) values(100, ?)", { ("p"):rep(900) }) end
      end)
    end

    it("is whole, private and takes the place of an older one", function()
      local d <close> = open()
      fill(d, 500)
      local f = assert(io.open(path "b.db", "w"))
      f:write "old"
      f:close()
      os.execute("chmod 644 " .. path "b.db")
      local seen = {}
      local pages = assert(d:backup(path "b.db", { pages = 10, progress = function(done, total)
        assert.is_true(done <= total)
        if done < total then assert.equal("old", slurp(path "b.db")) end
        seen[#seen + 1] = done
        host.sleep(0)
      end }))
      assert.equal(pages, seen[#seen])
      assert.is_true(#seen >= pages // 10)
      assert.equal("0600", host.stat(path "b.db").mode)
      local b <close> = assert(db.open(path "b.db", { readonly = true }))
      assert.equal(50000, b:one "select sum(amount) n from account".n)
      assert.equal(2, #host.list(dir))
    end)

    it("of an empty database is one too", function()
      local d <close> = open()
      assert(d:backup(path "b.db"))
      local b <close> = assert(db.open(path "b.db"))
      assert.same({}, b:rows "select * from sqlite_schema")
    end)

    it("lets other tasks go on, also those that write through the same handle", function()
      local d <close> = open()
      fill(d, 2000)
      local turns, going = 0, true
      local writer = host.task(function()
        while going do
          assert(d:exec "update account set amount = amount + 1 where id = 1")
          assert(d:exec "update account set amount = amount - 1 where id = 1")
          turns = turns + 1
          host.sleep(0.001)
        end
      end)
      assert(d:backup(path "b.db", { pages = 5 }))
      going = false
      assert.is_true((writer:join()))
      assert.is_true(turns > 3)
    end)

    it("is interrupted with its task, and leaves nothing behind", function()
      local d <close> = open()
      fill(d, 500)
      local task
      task = host.task(function()
        return d:backup(path "b.db", { pages = 1, progress = function(done)
          if done > 3 then task:cancel() end
        end })
      end)
      local _, value, err = task:join(5)
      assert.equal("interrupted", code(value, err))
      raises("stop here", d.backup, d, path "b.db", { pages = 1, progress = function() error "stop here" end })
      host.sleep(0.1)
      assert.equal(1, #host.list(dir))
    end)

    it("says why there is none", function()
      local d <close> = open()
      fill(d, 10)
      assert.equal("not_found", code(d:backup(path "no/b.db")))
      assert(host.mkdir(path "folder", "0700"))
      assert.equal("denied", code(d:backup(path "folder")))
      os.execute("rmdir " .. path "folder")
      assert.equal(1, #host.list(dir))
      raises("not a path", d.backup, d, "")
      raises("string expected", d.backup, d, 1)
      raises("'pages' must be from 1", d.backup, d, path "b", { pages = 0 })
      raises("'progress' must be a function", d.backup, d, path "b", { progress = 1 })
      raises("unknown option", d.backup, d, path "b", { x = 1 })
    end)

    -- Each transaction of the other process moves money; the sum is the invariant.
    local writer = [[
import random, sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
if sys.argv[2] == "wal": c.execute("pragma journal_mode=wal")
c.execute("pragma synchronous=off")
print("ready", flush=True)
n = 0
while True:
    c.execute("begin immediate")
    for _ in range(5):
        a, b, m = random.randrange(1, 3001), random.randrange(1, 3001), random.randrange(50)
        c.execute("update account set amount = amount - ? where id = ?", (m, a))
        c.execute("update account set amount = amount + ? where id = ?", (m, b))
    c.execute("update turns set n = n + 1")
    c.execute("commit")
]]

    for _, mode in ipairs { "wal", "delete" } do
      it("under a writer of another process is of one moment, journal mode " .. mode, function()
        local d <close> = open()
        fill(d, 3000)
        d:exec "create table turns(n); insert into turns values(0)"
        local p <close> = python(writer, path "a.db", mode)
        line_of(p)
        local function turns() return assert(d:one "select n from turns").n end
        local moved = 0
        for round = 1, 4 do
          local target = path("b" .. round)
          local before, ticks, going = turns(), 0, true
          local ticker = host.task(function()
            while going do
              host.sleep(0.002)
              ticks = ticks + 1
            end
          end)
          assert(d:backup(target, { pages = 20 }))
          going = false
          ticker:join()
          local after = turns()
          local b <close> = assert(db.open(target))
          assert.equal(300000, b:one "select sum(amount) n from account".n)
          assert.equal("ok", b:one "pragma integrity_check".integrity_check)
          local n = b:one "select n from turns".n
          assert.is_true(n >= before and n <= after, ("%d, %d, %d"):format(before, n, after))
          assert.is_true(ticks > 0)
          moved = moved + after - before
        end
        assert.is_true(moved > 0)
      end)
    end

    it("to a full disk is an error that says so and leaves nothing behind", function()
      local d = open()
      fill(d, 3000)
      d:close()
      local script = path "full.lua"
      local f = assert(io.open(script, "w"))
      f:write(([[
        local db, host = require "db", require "host"
        assert(os.execute "mount -t tmpfs -o size=1m tmpfs %s")
        local d <close> = assert(db.open("%s"))
        local value, err = d:backup("%s/b.db")
        assert(value == nil and err.code == "full", tostring(err))
        assert(#host.list("%s") == 0)
        return 0
      ]]):format(path "small", path "a.db", path "small", path "small"))
      f:close()
      assert(host.mkdir(path "small", "0700"))
      local exe = assert(host.realpath "/proc/self/exe")
      local ok = os.execute(("unshare -rm %s --script %s"):format(exe, script))
      assert.is_true(ok)
    end)
  end)
end)
