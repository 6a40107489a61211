-- journal: what each call keeps and gives back, what it refuses, and that nothing is lost
-- or half-written when the disk is full, the file is bad or the process is killed.
local host = require "host"
local journal = require "journal"
local support = require "support.lbrun"
local sh, slurp, spit, quote = support.sh, support.slurp, support.spit, support.quote

local self = sh("readlink /proc/$PPID/exe"):gsub("%s+$", "")
local killat = self:gsub("[^/]*$", "") .. "killat.so"

local dir, path, opened

local function open(opts, where)
  local j = assert(journal.open(where or path, opts))
  opened[#opened + 1] = j
  return j
end

local function refused(code, value, err)
  assert.is_nil(value, code)
  assert.equal(code, err and err.code, err and err.message)
  assert.equal("journal", err.module)
  return err
end

local function new_run(j, id, fields)
  local r = { id = id, name = "provision", params = "{}", params_digest = "d-" .. id, interface = 1 }
  for k, v in pairs(fields or {}) do r[k] = v end
  local row, existing = j:run_create(r)
  assert(row, existing)
  return row, existing
end

local function sql(text, where)
  local out, status = sh(("sqlite3 -bail %s %s"):format(quote(where or path), quote(text)))
  assert.equal(0, status, out)
  return out
end

-- Run a busted file with the given body in another process, as its one spec. Its locals:
-- host, journal, path. -> output, exit status (137: killed)
local function child(body, opts)
  opts = opts or {}
  local file = dir .. "/child.lua"
  spit(file, ("local host, journal = require 'host', require 'journal'\nlocal path = %q\n" ..
    "it('is done', function()\n%s\nend)\n"):format(opts.path or path, body))
  local env = ""
  for k, v in pairs(opts.env or {}) do env = ("%s %s=%s"):format(env, k, quote(v)) end
  return sh(("%s env %s %s %s"):format(opts.wrap or "", env, quote(self), quote(file)))
end

local function killed(n, when, body)
  return child(body, { env = { LD_PRELOAD = killat, KILLAT = tostring(n), KILLAT_WHEN = when,
    KILLAT_COUNT_FILE = dir .. "/commits", ASAN_OPTIONS = "verify_asan_link_order=0:detect_leaks=0" } })
end

-- A process that lives, as the owner of a lease; :kill() ends it.
local function living()
  local p = io.popen("sleep 60 >/dev/null & echo $!", "r")
  local pid = math.tointeger(p:read "n")
  p:close()
  local stat = slurp(("/proc/%d/stat"):format(pid)):match "%) (.*)"
  local n, start = 0, nil
  for word in stat:gmatch "%S+" do
    n = n + 1
    if n == 20 then start = math.tointeger(word) end
  end
  return { pid = pid, start_time = start, boot_id = host.boot_id(), host = host.hostname() },
    function()
      sh(("kill -9 %d; until ! test -e /proc/%d || grep -q ') Z' /proc/%d/stat; do sleep 0.01; done"):format(pid, pid, pid))
    end
end

local function me()
  return { pid = host.pid(), start_time = host.start_time(), boot_id = host.boot_id(), host = host.hostname() }
end

-- Every method that takes arguments, with arguments it accepts.
local owner = { pid = 1, start_time = 1, boot_id = "b", host = "elsewhere" }
local calls = {
  verify = { "h" },
  run_create = { { id = "R2" } },
  run = { "R1" },
  runs = { { status = "open" } },
  children = { "R1" },
  run_set = { "R1", { status = "done" }, "run.done", "{}" },
  step_set = { "R1", "one", { status = "done" }, "step.done", "{}" },
  steps = { "R1" },
  effect_begin = { "R1", "one", "e", { intent = "{}" } },
  effect_end = { "R1", "one", "e", "done", { output = "" } },
  effects = { "R1", "one" },
  event = { "R1", "note", "{}" },
  events = { "R1", { after = 0 } },
  source = { "R1", "a.lua" },
  sources = { "R1" },
  pin = { "R1", "local:" },
  pin_set = { "R1", "local:", "{}" },
  path = { "local:" },
  path_set = { "local:", "local:", "{}" },
  fingerprint = { "R1", "token", "00" },
  lease_take = { "local:", "R1", owner, 60 },
  lease_beat = { "local:", "R1" },
  lease_drop = { "local:", "R1" },
  lease = { "local:" },
}

before_each(function()
  dir, opened = support.temp(), {}
  path = dir .. "/journal.db"
end)

after_each(function()
  for _, j in ipairs(opened) do j:close() end
  sh("rm -rf " .. quote(dir))
end)

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

  it("refuses to write when it was opened to look only", function()
    new_run(open(), "R1")
    local j = open { readonly = true }
    for _, call in ipairs { "run_create", "run_set", "step_set", "effect_begin", "effect_end", "event", "pin_set",
      "path_set", "fingerprint", "lease_take", "lease_beat", "lease_drop" } do
      refused("readonly", j[call](j, table.unpack(calls[call])))
    end
    assert.equal(1, select(2, j:head()))
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
    new_run(open(), "R1")
    opened[1]:close()
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

describe("a run #unit", function()
  it("is kept with every field", function()
    local j = open()
    new_run(j, "P0")
    local given = { id = "R1", name = "n", runbook = "r.lua", section = "3.2", subject = "acme", target = "local:",
      params = '{"a":1}', params_digest = "d", options = '{"x":true}', request_id = "q", parent = "P0",
      parent_step = "s", interface = 1, steps_digest = "sd" }
    local before = host.now()
    local row, existing = j:run_create(given)
    assert.is_false(existing)
    for k, v in pairs(given) do assert.equal(v, row[k], k) end
    assert.equal("open", row.status)
    assert.is_nil(row.exit)
    assert.is_true(row.created >= before - 0.001 and row.created <= host.now() + 0.001)
    assert.is_true(row.updated >= row.created - 0.001)
    assert.same(row, j:run "R1")
  end)

  it("is found by its id or by a beginning that no other has", function()
    local j = open()
    for _, id in ipairs { "AB", "ABC", "AXY", "100%" } do new_run(j, id) end
    assert.equal("AB", j:run("AB").id)
    assert.equal("ABC", j:run("ABC").id)
    assert.equal("AXY", j:run("AX").id)
    refused("ambiguous", j:run "A")
    refused("not_found", j:run "ABCD")
    refused("not_found", j:run "ab")
    refused("not_found", j:run "%")
    refused("not_found", j:run "_")
  end)

  it("is the same for the same request and parameters, and a conflict for others", function()
    local j = open()
    new_run(j, "R1", { request_id = "q", params_digest = "d" })
    local row, existing = j:run_create { id = "R2", request_id = "q", params_digest = "d" }
    assert.equal("R1", row.id)
    assert.is_true(existing)
    refused("conflict", j:run_create { id = "R2", request_id = "q", params_digest = "e" })
    refused("conflict", j:run_create { id = "R2", request_id = "q" })
    refused("not_found", j:run "R2")
    new_run(j, "R3", { params_digest = "d" })
    assert.equal(2, select(2, j:head()))
  end)

  it("has an id of its own and a parent that exists", function()
    local j = open()
    new_run(j, "R1")
    refused("conflict", j:run_create { id = "R1" })
    refused("not_found", j:run_create { id = "R2", parent = "none" })
    assert.equal(1, #j:runs())
  end)

  it("is listed newest first, by status, target, parent and number", function()
    local j = open()
    new_run(j, "R1", { target = "a" })
    new_run(j, "R2", { target = "b" })
    new_run(j, "R3", { target = "a", parent = "R1" })
    j:run_set("R2", { status = "done" }, "run.done", "{}")
    local function ids(filter)
      local out = {}
      for _, row in ipairs(j:runs(filter)) do out[#out + 1] = row.id end
      return table.concat(out, " ")
    end
    assert.equal("R3 R2 R1", ids())
    assert.equal("R3 R2", ids { limit = 2 })
    assert.equal("R3 R1", ids { target = "a" })
    assert.equal("R2", ids { status = "done" })
    assert.equal("R3", ids { status = "open", parent = "R1", target = "a" })
    assert.equal("", ids { status = "none" })
    assert.equal("R3", j:children("R1")[1].id)
    assert.equal(0, #j:children "R3")
  end)

  it("changes in what is named, and keeps the rest", function()
    local j = open()
    new_run(j, "R1", { steps_digest = "s" })
    assert.is_true(j:run_set("R1", { status = "failed", exit = 6, summary = '{"a":1}' }, "run.end", '{"e":6}'))
    assert.is_true(j:run_set("R1", {}, "run.seen"))
    local row = j:run "R1"
    assert.equal("failed", row.status)
    assert.equal(6, row.exit)
    assert.equal('{"a":1}', row.summary)
    assert.equal("s", row.steps_digest)
    j:run_set("R1", { steps_digest = "t", exit = 0 }, "x")
    assert.equal("t", j:run("R1").steps_digest)
    assert.equal(0, j:run("R1").exit)
    refused("not_found", j:run_set("R9", { status = "done" }, "run.end", "{}"))
    refused("not_found", j:run_set("R", { status = "done" }, "run.end", "{}"))
  end)

  it("keeps its sources once each, as they are", function()
    local j = open()
    local body = "return 1\0\xff\r\n"
    new_run(j, "R1", { sources = { { path = "b.lua", body = body }, { path = "a.lua", body = "" }, { path = "c", body = body } } })
    new_run(j, "R2", { sources = { { path = "other", body = body } } })
    assert.equal(body, j:source("R1", "b.lua"))
    assert.equal(body, j:source("R2", "other"))
    assert.equal("", j:source("R1", "a.lua"))
    refused("not_found", j:source("R2", "a.lua"))
    refused("not_found", j:source("R9", "a.lua"))
    local list = j:sources "R1"
    assert.equal(3, #list)
    assert.equal("a.lua", list[1].path)
    assert.equal(0, list[1].size)
    assert.equal(#body, list[2].size)
    assert.equal(list[2].sha256, list[3].sha256)
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", list[1].sha256)
    assert.equal("2", (sql "select count(*) from sources":gsub("%s", "")))
    assert.same({}, j:sources "R9")
  end)

  it("is refused whole when two of its sources have one path", function()
    local j = open()
    refused("conflict", j:run_create { id = "R1", sources = { { path = "a", body = "1" }, { path = "a", body = "2" } } })
    refused("not_found", j:run "R1")
    assert.equal(0, select(2, j:head()))
    assert.is_true(j:verify())
  end)
end)

describe("a step #unit", function()
  it("is made, then changes in what is named, and is listed by its index", function()
    local j = open()
    new_run(j, "R1")
    assert.is_true(j:step_set("R1", "b", { idx = 2, title = "B", class = "pure" }, "step", "{}"))
    assert.is_true(j:step_set("R1", "a", { idx = 1, status = "running", attempt = 1 }, "step.begin", "{}"))
    assert.is_true(j:step_set("R1", "a", { status = "failed", attempt = 2, message = "no\0\n" }, "step.end", "{}"))
    assert.is_true(j:step_set("R1", "b", nil, "step.seen"))
    local rows = j:steps "R1"
    assert.equal(2, #rows)
    assert.same({ step = "a", idx = 1, status = "failed", attempt = 2, message = "no\0\n" }, {
      step = rows[1].step, idx = rows[1].idx, status = rows[1].status, attempt = rows[1].attempt, message = rows[1].message })
    assert.same({ "b", 2, "B", "pure", "pending" }, { rows[2].step, rows[2].idx, rows[2].title, rows[2].class, rows[2].status })
    refused("not_found", j:step_set("R9", "a", {}, "step", "{}"))
    assert.same({}, j:steps "R9")
  end)
end)

describe("an effect #unit", function()
  it("keeps the first attempt's before, whatever later ones find", function()
    local j = open()
    new_run(j, "R1")
    assert.equal(1, j:effect_begin("R1", "s", "e", { idx = 1, resource = "file", intent = "i1", before = "b1", undoable = true }))
    assert.equal("open", j:effects("R1")[1].status)
    assert.is_true(j:effect_end("R1", "s", "e", "failed", { output = "o1", message = "m1" }))
    assert.equal(2, j:effect_begin("R1", "s", "e", { intent = "i2", before = "b2", undoable = true }))
    local row = j:effects("R1")[1]
    assert.equal("open", row.status)
    assert.same({ "s", "e", 1, "file", 2, "i2", "b1", true }, { row.step, row.effect, row.idx, row.resource, row.attempt,
      row.intent, row.before, row.undoable })
    assert.is_nil(row.output)
    assert.is_nil(row.ended)
    assert.is_true(j:effect_end("R1", "s", "e", "done", { output = "o\0\xff" }))
    row = j:effects("R1", "s")[1]
    assert.equal("done", row.status)
    assert.equal("o\0\xff", row.output)
    assert.is_true(row.ended >= row.started)
    assert.is_true(j:effect_end("R1", "s", "e", "undone"))
    assert.equal("o\0\xff", j:effects("R1", "s")[1].output)
  end)

  it("stands in the order of first intent, and by step where one is named", function()
    local j = open()
    new_run(j, "R1")
    for _, e in ipairs { { "s2", "x" }, { "s1", "y" }, { "s1", "x" }, { "s2", "x" } } do
      assert.is_truthy(j:effect_begin("R1", e[1], e[2], {}))
    end
    local names = {}
    for _, row in ipairs(j:effects "R1") do names[#names + 1] = row.step .. row.effect .. row.attempt end
    assert.equal("s2x2 s1y1 s1x1", table.concat(names, " "))
    assert.equal(2, #j:effects("R1", "s1"))
    assert.equal(0, #j:effects("R1", "s3"))
    assert.is_false(j:effects("R1")[1].undoable)
  end)

  it("is settled only where it was begun, and with a status that is known", function()
    local j = open()
    new_run(j, "R1")
    refused("not_found", j:effect_begin("R9", "s", "e", {}))
    refused("not_found", j:effect_end("R1", "s", "e", "done"))
    assert.is_truthy(j:effect_begin("R1", "s", "e", {}))
    for _, status in ipairs { "done", "failed", "doubt", "undone", "kept" } do
      assert.is_true(j:effect_end("R1", "s", "e", status))
      assert.equal(status, j:effects("R1")[1].status)
    end
    assert.is_false(pcall(j.effect_end, j, "R1", "s", "e", "open"))
    assert.is_false(pcall(j.effect_end, j, "R1", "s", "e", "finished"))
  end)
end)

describe("events #unit", function()
  it("number every change, in one chain", function()
    local j = open()
    assert.same({ "", 0 }, { j:head() })
    new_run(j, "R1")
    new_run(j, "R2")
    assert.is_true(j:event("R1", "note", '{"n":1}'))
    assert.is_true(j:step_set("R2", "s", {}, "step.begin", '{"a":1}'))
    assert.is_true(j:event("R1", "note"))
    refused("not_found", j:event("R9", "note", "{}"))
    local all = j:events()
    assert.equal(5, #all)
    for i, e in ipairs(all) do
      assert.equal(i, e.seq)
      assert.equal(64, #e.hash)
      assert.is_true(math.abs(e.ts - host.now()) < 60)
    end
    assert.same({ all[5].hash, 5 }, { j:head() })
    local own = j:events("R1", { after = 1 })
    assert.same({ 3, 5 }, { own[1].seq, own[2].seq })
    assert.equal('{"n":1}', own[1].data)
    assert.equal("{}", own[2].data)
    assert.equal(2, #j:events(nil, { limit = 2 }))
    assert.equal(0, #j:events("R1", { after = 5 }))
    assert.same({ true, 5 }, { j:verify() })
  end)

  it("say what the calls with an event of their own did", function()
    local j = open()
    new_run(j, "R1")
    j:effect_begin("R1", 's"1', "e\n", { resource = "file" })
    j:effect_end("R1", 's"1', "e\n", "done")
    j:pin_set("R1", "t", "{}")
    j:fingerprint("R1", "token", "ff")
    j:lease_take("t", "R1", me(), 60)
    j:lease_beat("t", "R1")
    j:lease_drop("t", "R1")
    local types = {}
    for _, e in ipairs(j:events "R1") do types[#types + 1] = e.type end
    assert.equal("run.create effect.begin effect.end pin fingerprint lease.take lease.drop", table.concat(types, " "))
    local data = require("json").decode(j:events("R1")[2].data)
    assert.same({ 's"1', "e\n", "file", 1 }, { data.step, data.effect, data.resource, data.attempt })
  end)

  it("cannot be changed or deleted through SQL", function()
    new_run(open(), "R1")
    for _, text in ipairs { "update events set data='x'", "delete from events", "replace into events select * from events",
      "insert into events select 0, ts, run, type, data, subject, state, hash from events" } do
      local out, status = sh(("sqlite3 -bail %s %s"):format(path, quote(text)))
      assert.is_not.equal(0, status, text)
      assert.is_truthy(out:find("append-only", 1, true), out)
    end
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
      local err = refused("chain", open():verify())
      assert.is_truthy(err.message:find(case[2], 1, true), case[1] .. ": " .. err.message)
      opened[#opened]:close()
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

describe("pins, paths and fingerprints #unit", function()
  it("are nil until they are set, and then the last that was set", function()
    local j = open()
    new_run(j, "R1")
    new_run(j, "R2")
    assert.same({ n = 1 }, table.pack(j:pin("R1", "t")))
    assert.same({ n = 1 }, table.pack(j:fingerprint("R1", "x")))
    assert.is_nil((j:path "t"))
    for _, v in ipairs { "1", "2" } do
      assert.is_true(j:pin_set("R1", "t", v))
      assert.is_true(j:fingerprint("R1", "x", v))
      assert.is_true(j:path_set("t", "ssh://" .. v, v))
    end
    assert.equal("2", j:pin("R1", "t"))
    assert.equal("2", j:fingerprint("R1", "x"))
    assert.same({ "ssh://2", "2" }, { j:path "t" })
    assert.is_nil((j:pin("R2", "t")))
    assert.is_nil((j:fingerprint("R2", "x")))
    assert.is_true(j:path_set("u", "local:"))
    assert.same({ "local:" }, { j:path "u" })
    assert.equal(path, j:path())
    refused("not_found", j:pin_set("R9", "t", "1"))
    refused("not_found", j:fingerprint("R9", "x", "1"))
    assert.is_true(j:verify())
  end)
end)

describe("a lease #unit", function()
  it("is one run's until that run drops it", function()
    local j = open()
    new_run(j, "R1")
    new_run(j, "R2")
    assert.is_nil((j:lease "t"))
    assert.is_true(j:lease_take("t", "R1", me(), 60))
    local err = refused("locked", j:lease_take("t", "R2", me(), 60))
    assert.same({ "t", "R1", "provision", host.pid(), host.boot_id(), 60.0 }, { err.holder.target, err.holder.run,
      err.holder.runbook, err.holder.pid, err.holder.boot_id, err.holder.ttl })
    assert.same(j:lease "t", err.holder)
    assert.equal("R1", refused("locked", j:lease_beat("t", "R2")).holder.run)
    refused("locked", j:lease_drop("t", "R2"))
    assert.is_true(j:lease_take("u", "R2", me(), 60))
    assert.is_true(j:lease_drop("t", "R1"))
    assert.is_true(j:lease_drop("t", "R1"))
    refused("not_found", j:lease_beat("t", "R1"))
    assert.is_true(j:lease_take("t", "R2", me(), 60))
    refused("not_found", j:lease_take("v", "R9", me(), 60))
    assert.is_true(j:verify())
  end)

  it("beats without an event", function()
    local j = open()
    new_run(j, "R1")
    j:lease_take("t", "R1", me(), 60)
    local first, _, seq = j:lease("t").heartbeat, j:head()
    host.sleep(0.02)
    assert.is_true(j:lease_beat("t", "R1"))
    assert.is_true(j:lease("t").heartbeat > first)
    assert.equal(seq, select(2, j:head()))
  end)

  it("goes to another process of its run once its own is dead, and never before", function()
    local j = open()
    new_run(j, "R1")
    new_run(j, "R2")
    local other, kill = living()
    assert.is_true(j:lease_take("t", "R1", other, 60))
    assert.is_true(j:lease_take("t", "R1", other, 60))
    local err = refused("locked", j:lease_take("t", "R1", me(), 60))
    assert.is_truthy(err.message:find("living process", 1, true))
    kill()
    refused("locked", j:lease_take("t", "R2", me(), 60))
    assert.is_true(j:lease_take("t", "R1", me(), 60))
    assert.equal(host.pid(), j:lease("t").pid)
  end)

  it("is dead when its number was given to a process that began later", function()
    local j = open()
    new_run(j, "R1")
    local other, kill = living()
    other.start_time = other.start_time - 1
    assert.is_true(j:lease_take("t", "R1", other, 60))
    assert.is_true(j:lease_take("t", "R1", me(), 60))
    kill()
  end)

  it("is dead after a reboot, and on another machine when its heart has stopped", function()
    local j = open()
    new_run(j, "R1")
    local there = me()
    there.boot_id = "another boot"
    assert.is_true(j:lease_take("t", "R1", there, 60))
    assert.is_true(j:lease_take("t", "R1", me(), 60))
    there.host = "another host"
    assert.is_true(j:lease_take("u", "R1", there, 0.2))
    refused("locked", j:lease_take("u", "R1", me(), 60))
    host.sleep(0.3)
    assert.is_true(j:lease_take("u", "R1", me(), 60))
  end)
end)

describe("j:key #unit", function()
  it("is made once, private, and the same for every handle", function()
    local j = open()
    local key = j:key()
    assert.equal("[secret journal.key]", tostring(key))
    assert.equal(32, #host.reveal(key))
    assert.equal("0600", host.stat(path .. ".key").mode)
    assert.equal(65, #slurp(path .. ".key"))
    assert.is_true(host.secret_eq(key, open():key()))
    assert.is_true(host.secret_eq(key, open({ readonly = true }):key()))
    assert.equal("", (sh(("ls %s | grep -v -e '^journal.db' | cat"):format(dir))))
  end)

  it("is one when two processes make it at once", function()
    open()
    local body = "local j = assert(journal.open(path)); local k = assert(j:key()); io.stdout:write(('<%s>'):format(host.reveal(k):gsub('.', function(c) return ('%02x'):format(c:byte()) end)))"
    spit(dir .. "/k.lua", ("local host, journal = require 'host', require 'journal'\nlocal path = %q\nit('x', function() %s end)"):format(path, body))
    local out = sh(("%s %s/k.lua & %s %s/k.lua; wait"):format(self, dir, self, dir))
    local first, second = out:match "<(%x+)>.*<(%x+)>"
    assert.equal(first, second, out)
    assert.equal(first .. "\n", slurp(path .. ".key"))
  end)

  it("is refused when it is not private, broken or lost", function()
    local j = open()
    new_run(j, "R1")
    refused("not_found", open({ readonly = true }):key())
    assert.is_truthy(j:key())
    local file = path .. ".key"
    local text = slurp(file)
    sh("chmod 644 " .. file)
    refused("not_private", j:key())
    sh("chmod 600 " .. file)
    for _, bad in ipairs { "", "xyz", text:sub(1, 63), text:sub(1, 64) .. "x", text .. "1", ("g"):rep(64) } do
      spit(file, bad)
      refused("corrupt", j:key())
    end
    spit(file, text:sub(1, 64))
    assert.is_truthy(j:key())
    j:fingerprint("R1", "token", "ff")
    sh("rm " .. file)
    refused("not_found", j:key())
    sh("mkdir -m 700 " .. file)
    assert.is_nil((j:key()))
  end)
end)

describe("masking #unit", function()
  it("leaves no secret in any text that is stored, but for the bodies of sources", function()
    local canary = "canary-7f3a9"
    local secret = host.secret("token", canary)
    local j = open()
    local t = "a " .. canary .. " b"
    assert.is_truthy(j:run_create { id = "R1" .. canary, name = t, runbook = t, section = t, subject = t, target = t, params = t,
      params_digest = t, options = t, request_id = t, parent_step = t, steps_digest = t, sources = { { path = t, body = "x" } } })
    new_run(j, "R2")
    j:run_set("R2", { status = t, summary = t, steps_digest = t }, t, t)
    j:step_set("R2", t, { status = t, class = t, title = t, message = t }, t, t)
    j:effect_begin("R2", t, t, { resource = t, intent = t, before = t })
    j:effect_end("R2", t, t, "done", { output = t, message = t })
    j:event("R2", t, t)
    j:pin_set("R2", t, t)
    j:path_set(t, t, t)
    j:fingerprint("R2", t, t)
    local o = me()
    o.host, o.boot_id = t, t
    j:lease_take(t, "R2", o, 60)
    assert.equal("a [secret token] b", j:pin("R2", t))
    assert.equal("a [secret token] b", j:effects("R2", t)[1].output)
    local function found() return sh(("cat %s %s-wal | grep -c %s"):format(path, path, canary)) end
    assert.equal("0\n", (found()))
    j:close()
    assert.equal("0\n", (sh(("grep -c %s %s"):format(canary, path))))
    j = open()
    new_run(j, "R3", { sources = { { path = "p", body = t } } })
    assert.equal(t, j:source("R3", "p"))
    assert.is_truthy(tostring(secret))
  end)
end)

describe("misuse #unit", function()
  local wrong = { true, 12, 1.5, { 1 }, print, io.stdout, coroutine.create(print), "\0" }

  it("raises for every wrong type in every place, and changes nothing", function()
    local j = open()
    new_run(j, "R1", { sources = { { path = "a.lua", body = "" } } })
    j:effect_begin("R1", "one", "e", {})
    local before = j:head()
    for name, args in pairs(calls) do
      for i = 1, #args do
        for _, bad in ipairs(wrong) do
          local fine = (bad == "\0" and type(args[i]) == "string" and args[i]:sub(1, 1) == "{")
            or (type(bad) == "number" and type(args[i]) == "number")
          local given = table.move(args, 1, #args, 1, {})
          given[i] = bad
          if not fine then
            assert.is_false(pcall(j[name], j, table.unpack(given, 1, #args)), ("%s %d %s"):format(name, i, tostring(bad)))
          end
        end
      end
      assert.is_false(pcall(j[name], nil, table.unpack(args)), name)
      assert.is_false(pcall(j[name], io.stdout, table.unpack(args)), name)
      assert.is_false(pcall(j[name], {}, table.unpack(args)), name)
      assert.is_false(pcall(j[name], j, ""), name)
    end
    assert.equal(before, (j:head()))
  end)

  it("raises for a field of the wrong type and for an unknown one", function()
    local j = open()
    new_run(j, "R1")
    local before = j:head()
    local function raises(call, ...)
      assert.is_false(pcall(j[call], j, ...), call)
    end
    for _, key in ipairs { "id", "name", "runbook", "section", "subject", "target", "params", "params_digest", "options",
      "request_id", "parent", "parent_step", "interface", "steps_digest", "sources" } do
      for _, bad in ipairs { true, 1.5, print } do raises("run_create", { id = "R2", [key] = bad }) end
    end
    for _, sources in ipairs { { 1 }, { {} }, { { path = "a" } }, { { path = "", body = "" } }, { { path = 1, body = "" } },
      { { path = "a", body = 1 } }, { { path = "a\0", body = "" } } } do
      raises("run_create", { id = "R2", sources = sources })
    end
    raises("run_create", { name = "no id" })
    raises("run_create", { id = "" })
    raises("run_create", { id = "R2", nmae = "x" })
    raises("run_set", "R1", { exit = "0" }, "t", "{}")
    raises("run_set", "R1", { state = "x" }, "t", "{}")
    raises("step_set", "R1", "s", { idx = "1" }, "t", "{}")
    raises("step_set", "R1", "s", { state = "1" }, "t", "{}")
    raises("effect_begin", "R1", "s", "e", { undoable = 1 })
    raises("effect_begin", "R1", "s", "e", { after = "x" })
    raises("effect_end", "R1", "s", "e", "done", { text = "x" })
    raises("events", "R1", { after = -1 })
    raises("events", "R1", { limit = 0 })
    raises("runs", { limit = "1" })
    for _, key in ipairs { "pid", "start_time", "boot_id", "host" } do
      local o = me()
      o[key] = nil
      raises("lease_take", "t", "R1", o, 60)
      o[key] = {}
      raises("lease_take", "t", "R1", o, 60)
    end
    raises("lease_take", "t", "R1", me(), 0)
    raises("lease_take", "t", "R1", me(), 0 / 0)
    assert.equal(before, (j:head()))
  end)

  it("raises on a closed journal, whose handle cannot be tampered with", function()
    local j = open()
    assert.equal(("journal (%s)"):format(path), tostring(j))
    j:close()
    assert.equal("journal (closed)", tostring(j))
    for name, args in pairs(calls) do assert.is_false(pcall(j[name], j, table.unpack(args)), name) end
    for _, name in ipairs { "head", "verify", "key", "path" } do assert.is_false(pcall(j[name], j), name) end
    assert.equal("journal", getmetatable(j))
    do
      local scoped <close> = assert(journal.open(path))
      j = scoped
    end
    assert.is_false(pcall(j.head, j))
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
    spit(dir .. "/w.lua", ("local host, journal = require 'host', require 'journal'\nlocal path = %q\nit('writes', function() %s end)"):format(path, body))
    local one = ("%s %s/w.lua"):format(self, dir)
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
      { path = dir .. "/disk/journal.db", wrap = ("unshare -m sh -c 'mkdir %s/disk && mount -t tmpfs -o size=400k,mode=700 t %s/disk && " ..
        "head -c 100000 /dev/zero >%s/disk/ballast && exec \"$@\"' sh"):format(dir, dir, dir) })
    assert.equal(0, status, out)
  end)

  it("is said when the journal is made", function()
    if host.uid() ~= 0 then return pending "needs root to mount a small disk" end
    for _, size in ipairs { 4096, 16384, 65536 } do
      local out, status = child([[
        local j, err = journal.open(path)
        assert.equal("full", err and err.code, err and err.message)]],
        { path = dir .. "/disk/journal.db", wrap = ("unshare -m sh -c 'mkdir -p %s/disk && mount -t tmpfs -o size=%d,mode=700 t %s/disk && " ..
          "exec \"$@\"' sh"):format(dir, size, dir) })
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
        assert.is_true(count == told or (when == "after" and count == told + 1), ("commit %d: told of %d, has %d"):format(n, told, count))
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
