-- journal_spec.lua: what each call of the journal keeps and gives back, who may hold a
-- lease, what is masked, and what is misuse.
local host = require "host"
local journal = require "journal"
local support = require "support.lbrun"
local helper = require "support.journal"
local sh, slurp, spit, quote = support.sh, support.slurp, support.spit, support.quote
local open, new_run, refused, living, me, self, script =
  helper.open, helper.new_run, helper.refused, helper.living, helper.me, helper.self, helper.script
local dir, path

local function sql(text)
  local out, status = sh(("sqlite3 -bail %s %s"):format(quote(path), quote(text)))
  assert.equal(0, status, out)
  return out
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
  together = { function() end },
}

before_each(function()
  helper.begin()
  dir, path = helper.dir, helper.path
end)
after_each(helper.finish)

describe("changes together #unit", function()
  local function both(j)
    assert(j:fingerprint("R1", "token", "00"))
    assert(j:event("R1", "note", "{}"))
  end

  it("are one commit", function()
    local j = open()
    new_run(j, "R1")
    local _, before = j:head()
    local watch = open()
    assert.is_true(j:together(function()
      both(j)
      local _, seen = watch:head()
      assert.equal(before, seen)
    end))
    local _, after = j:head()
    assert.equal(before + 2, after)
    assert.equal("00", watch:fingerprint("R1", "token"))
    assert.equal(after, select(2, j:verify()))
  end)

  it("are none when the function raises, and the error is the one it raised", function()
    local j = open()
    new_run(j, "R1")
    local head = j:head()
    local fine, err = pcall(j.together, j, function()
      both(j)
      error({ code = "mine" })
    end)
    assert.is_false(fine)
    assert.equal("mine", err.code)
    assert.equal(head, (j:head()))
    assert.is_nil(j:fingerprint("R1", "token"))
    assert.truthy(j:event("R1", "note", "{}"))
  end)

  it("are none when one of them failed, whether or not the function cared", function()
    local j = open()
    new_run(j, "R1")
    local head = j:head()
    local ok, err = j:together(function()
      both(j)
      assert.is_nil(j:event("nobody", "note", "{}"))
      assert.is_nil(j:event("R1", "note", "{}"))
    end)
    assert.is_nil(ok)
    assert.equal("not_found", err.code)
    assert.equal(head, (j:head()))
  end)

  it("do not wait, do not nest and do not outlive their journal", function()
    local j = open()
    new_run(j, "R1")
    for word, f in pairs {
      together = function() j:together(function() end) end,
      close = function() j:close() end,
      wait = function() host.sleep(0.01) end,
    } do
      local fine, err = pcall(j.together, j, f)
      assert.is_false(fine, word)
      assert.matches(word, tostring(err))
    end
    assert.truthy(j:event("R1", "note", "{}"))
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

  it("is settled with the end of its step in one commit, or neither is", function()
    local j = open()
    new_run(j, "R1")
    assert.is_truthy(j:effect_begin("R1", "s", "e", {}))
    local _, before = j:head()
    refused("not_found", j:step_set("R1", "s", { status = "done", effect = "other", output = "o" }, "step.done", "{}"))
    assert.same({ "open", 0 }, { j:effects("R1")[1].status, #j:steps "R1" })
    assert.equal(before, select(2, j:head()))
    assert.is_true(j:step_set("R1", "s", { status = "done", effect = "e", output = "o" }, "step.done", "{}"))
    assert.same({ "done", "o", "done" }, { j:effects("R1")[1].status, j:effects("R1")[1].output, j:steps("R1")[1].status })
    local types = {}
    for _, event in ipairs(j:events("R1", {})) do types[#types + 1] = event.type end
    assert.same({ "effect.begin", "effect.end", "step.done" }, table.move(types, #types - 2, #types, 1, {}))
    assert.is_truthy(j:verify())
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
    local body = [[
      local bytes = host.reveal(assert(assert(journal.open(path)):key()))
      local hex = bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
      io.stdout:write("<" .. hex .. ">")]]
    local one = ("%s %s"):format(self, script(body))
    local out = sh(("%s & %s; wait"):format(one, one))
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

describe("a journal that is used wrongly #unit", function()
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
            or (type(bad) == type(args[i]) and type(bad) ~= "table" and type(bad) ~= "string")
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

  it("refuses to write when it was opened to look only", function()
    new_run(open(), "R1")
    local j = open { readonly = true }
    for _, call in ipairs { "run_create", "run_set", "step_set", "effect_begin", "effect_end", "event", "pin_set",
      "path_set", "fingerprint", "lease_take", "lease_beat", "lease_drop" } do
      refused("readonly", j[call](j, table.unpack(calls[call])))
    end
    assert.equal(1, select(2, j:head()))
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
