-- outbox_spec.lua: the outbox in the journal: entries, claims, the way forward from a journal
-- without one; and `lbrun outbox` as a person meets it.
local helper = require "support.journal"
local support = require "support.lbrun"
local hubs = require "support.hub"
local journal = require "journal"
local open, refused = helper.open, helper.refused

local function entry(id, fields)
  local r = { id = id, run = "R1", step = "report", call = "job", method = "PATCH", url = "http://hub", path = "/jobs/1",
    body = "{}", token = "runner_token", fingerprint = "f1" }
  for k, v in pairs(fields or {}) do r[k] = v end
  return r
end

describe("the outbox of the journal #unit", function()
  local j
  before_each(function()
    helper.begin()
    j = open()
    helper.new_run(j, "R1")
  end)
  after_each(helper.finish)

  it("keeps an entry until it is settled, once, and its chain covers it", function()
    local row, existing = j:outbox_add(entry "aa11")
    assert.same({ "aa11", "open", 0, false }, { row.id, row.status, row.attempts, existing })
    row, existing = j:outbox_add(entry("aa11", { body = "other" }))
    assert.same({ "{}", true }, { row.body, existing })
    assert.is_true(j:outbox_claim("aa11", helper.me(), 60))
    assert.is_true(j:outbox_end("aa11", helper.me(), { status = "open", error = "silent" }))
    assert.is_true(j:outbox_claim("aa11", helper.me(), 60))
    assert.is_true(j:outbox_end("aa11", helper.me(), { status = "sent", answered = 200, answer = "{}" }))
    row = j:outbox_one "aa"
    assert.same({ "sent", 2, 200, "{}" }, { row.status, row.attempts, row.answered, row.answer })
    assert.is_nil(row.error)
    -- What comes late changes nothing.
    assert.is_true(j:outbox_end("aa11", helper.me(), { status = "open", error = "late" }))
    assert.equal("sent", j:outbox_one("aa11").status)
    refused("conflict", j:outbox_claim("aa11", helper.me(), 60))
    refused("conflict", j:outbox_drop "aa11")
    assert.is_true(j:verify())
    j:close()
    support.sh(("sqlite3 %s \"UPDATE outbox SET status = 'open'\""):format(helper.path))
    refused("chain", open():verify())
  end)

  it("lets one process send an entry, and another one when that one has died", function()
    j:outbox_add(entry "aa11")
    local other, kill = helper.living()
    assert.is_true(j:outbox_claim("aa11", other, 60))
    assert.matches("is being sent by process", refused("locked", j:outbox_claim("aa11", helper.me(), 60)).message)
    kill()
    assert.is_true(j:outbox_claim("aa11", helper.me(), 60))
    -- The end of the dead one's claim is not the end of this one.
    assert.is_true(j:outbox_end("aa11", other, { status = "open", error = "late" }))
    refused("locked", j:outbox_claim("aa11", helper.me(), 60))
  end)

  it("gives an entry back when its claim has run out, and for ever waits for no other machine", function()
    j:outbox_add(entry "aa11")
    local far = helper.me()
    far.host = "elsewhere"
    assert.is_true(j:outbox_claim("aa11", far, 0.2))
    refused("locked", j:outbox_claim("aa11", helper.me(), 60))
    os.execute "sleep 0.3"
    assert.is_true(j:outbox_claim("aa11", helper.me(), 60))
  end)

  it("holds back what an older entry for the same address and token must precede", function()
    j:outbox_add(entry "aa11")
    j:outbox_add(entry "bb22")
    j:outbox_add(entry("cc33", { path = "/jobs/2" }))
    j:outbox_add(entry("dd44", { fingerprint = "f2" }))
    assert.matches("older", refused("locked", j:outbox_claim("bb22", helper.me(), 60)).message)
    assert.is_true(j:outbox_claim("cc33", helper.me(), 60))
    assert.is_true(j:outbox_claim("dd44", helper.me(), 60))
    assert.is_true(j:outbox_drop("aa11", "not needed"))
    assert.is_true(j:outbox_claim("bb22", helper.me(), 60))
    local ids = {}
    for i, row in ipairs(j:outbox { status = "open", fingerprint = "f1" }) do ids[i] = row.id end
    assert.same({ "bb22", "cc33" }, ids)
    assert.equal(4, #j:outbox { run = "R1" })
    refused("not_found", j:outbox_one "zz")
    refused("not_found", j:outbox_add(entry("ee55", { run = "R2" })))
  end)

  it("is added to a journal of the format before it, whose runs stay as they are", function()
    j:close()
    support.sh(("sqlite3 %s 'DROP TABLE outbox_claims; DROP TABLE outbox; PRAGMA user_version=1'"):format(helper.path))
    refused("readonly", journal.open(helper.path, { readonly = true }))
    j = open()
    assert.equal("R1", j:run("R1").id)
    assert.equal("open", j:outbox_add(entry "aa11").status)
    assert.is_true(j:verify())
  end)
end)

describe("lbrun outbox #unit", function()
  local home, hub
  local book = [[return runbook { name = "told", summary = "x", params = { hub_url = param.string {}, n = param.integer { default = 1 },
    runner_token = param.secret {} }, steps = function(p)
      local list = {}
      for i = 1, p.n do list[i] = step { name = "r" .. i, class = "pure", resources = {
        hub.reported { call = "job", args = { job_id = "j-" .. i }, fields = { status = "COMPLETED" } } } } end
      return list
    end }]]
  before_each(function()
    home = support.home()
    hub = hubs.new(home.dir .. "/hub", "token-of-this-spec-12345").start()
    hub.stop()
  end)
  after_each(function()
    hub.stop()
    home.remove()
  end)
  local function wait_for(n)
    local r = home.run(("%s hub_url=%s runner_token=@%s n=%d"):format(home.runbook("told", book), hub.url, hub.token_file, n))
    assert.equal(3, r.exit, r.err)
  end

  it("lists what waits, sends it with its token, and says what is left and what next", function()
    assert.equal(2, home.run("outbox").exit)
    wait_for(2)
    local list = home.run "outbox"
    assert.equal(0, list.exit, list.err)
    assert.matches("^%x+  open .-job +PATCH http://127.0.0.1:%d+/api/v1/jobs/j%-1, run told%-%w+, tried 1 time\n", list.out)
    assert.matches("2 reports wait for the Hub\nnext: lbrun outbox send runner_token=@FILE\n$", list.out)
    local silent = home.run("outbox send runner_token=@" .. hub.token_file)
    assert.equal(3, silent.exit)
    assert.matches("the Hub was not told 'job'", silent.err)
    assert.equal(12, home.run("outbox send --no-input").exit)
    support.sh(("install -m 600 /dev/null %s/other"):format(home.dir))
    support.spit(home.dir .. "/other", "some-other-token\n")
    local other = home.run(("outbox send runner_token=@%s/other"):format(home.dir))
    assert.equal(12, other.exit)
    assert.matches("no report that waits was made with this runner_token", other.err)
    hub.start()
    local sent = home.json("outbox send --json runner_token=@" .. hub.token_file)
    assert.equal(0, sent.exit, sent.err)
    assert.same({ 2, 0, 0 }, { sent.last.sent, sent.last.refused, sent.last.waiting })
    assert.matches("0 reports wait", home.run("outbox").out)
    assert.equal(2, #hub.requests())
    assert.matches("sent", home.run("outbox -v").out)
  end)

  it("drops one that a person names, and says so where there is none", function()
    wait_for(1)
    local id = home.run("outbox").out:match "^(%x+)"
    assert.equal(0, home.run { "outbox", "drop", id, "--reason", "cancelled" }.exit)
    local again = home.run { "outbox", "drop", id }
    assert.equal(2, again.exit)
    assert.matches("is dropped: there is nothing to drop", again.err)
    assert.equal(2, home.run("outbox drop").exit)
    assert.equal(2, home.run("outbox drop ffffff").exit)
    local typo = home.run "outbox sned"
    assert.equal(2, typo.exit)
    assert.matches("did you mean 'send'", typo.err)
    assert.matches("cancelled", home.run("outbox -v").out)
    hub.start()
    assert.equal(0, home.run("outbox send runner_token=@" .. hub.token_file).exit)
    assert.equal(0, #hub.requests())
  end)

  it("run by several at once sends each report once, also to a slow Hub", function()
    wait_for(8)
    hub.start()
    hub.fault { kind = "slow", seconds = 0.2 }
    support.sh(("for i in 1 2 3; do env HOME=%s XDG_STATE_HOME=%s/state %s outbox send runner_token=@%s & done; wait"):format(
      home.dir, home.dir, support.binary, hub.token_file))
    assert.equal(8, #hub.requests())
    for _, r in ipairs(hub.requests()) do assert.is_true(r.effective) end
    assert.equal(0, home.run("verify-journal").exit)
  end)

  it("and the journal know a token by its fingerprint alone, and no program's arguments name it", function()
    local canary, token = require "support.canary", "token-of-this-spec-12345"
    local args = ("%s hub_url=%s runner_token=@%s -vvv"):format(home.runbook("told", book), hub.url, hub.token_file)
    local text = ""
    for _, command in ipairs { args, "outbox", "outbox -v --json", "outbox send -vvv runner_token=@" .. hub.token_file } do
      local r = home.run(command, { before = ("env ASAN_OPTIONS=detect_leaks=0 strace -f -v -e trace=execve -s 65535 -o %s/trace"):format(home.dir) })
      assert.matches("execve%(.*lbrun", support.slurp(home.dir .. "/trace"))
      text = text .. r.out .. r.err .. support.slurp(home.dir .. "/trace")
    end
    hub.start()
    text = text .. home.run("outbox send -vvv runner_token=@" .. hub.token_file).err .. home.run("log " .. text:match "told%-%w+").out
    text = text .. support.sh(("cat %s/state/lbrun/journal.db*"):format(home.dir))
    assert.equal(1, #hub.requests())
    assert.equal("right", hub.requests()[1].token)
    assert.same({}, canary.find(text, { token = token }))
  end)
end)

describe("the outbox's bounds #unit", function()
  local home, hub, path
  before_each(function()
    home = support.home()
    hub = hubs.new(home.dir .. "/hub", "token-of-this-spec-12345").start()
    path = home.runbook("told", [[return runbook { name = "told", summary = "x", params = { hub_url = param.string {},
      n = param.integer { default = 1 }, bytes = param.integer { default = 1 }, runner_token = param.secret {} }, steps = function(p)
        local list = {}
        for i = 1, p.n do list[i] = step { name = "r" .. i, class = "pure", resources = {
          hub.reported { call = "job", args = { job_id = "j-" .. i }, fields = { status = "COMPLETED", message = ("x"):rep(p.bytes) } } } } end
        return list
      end }]])
  end)
  after_each(function()
    hub.stop()
    home.remove()
  end)
  local function told(more)
    return home.json(("%s --json hub_url=%s runner_token=@%s %s"):format(path, hub.url, hub.token_file, more or ""))
  end
  local function send(more) return home.json(("outbox send --json runner_token=@%s %s"):format(hub.token_file, more or "")) end

  it("let a thousand reports wait: a silent Hub is asked once, a run sends twenty of them, and `send` all, in their order", function()
    hub.stop()
    assert.equal(3, told().exit)
    local j = assert(journal.open(home.dir .. "/state/lbrun/journal.db"))
    local first = j:outbox { status = "open" }[1]
    for i = 2, 1000 do
      assert(j:outbox_add { id = ("%032x"):format(i), run = first.run, step = first.step, call = "job", method = "PATCH", url = first.url,
        path = "/api/v1/jobs/long", body = ('{"progress":%d,"status":"RUNNING"}'):format(i), token = first.token,
        fingerprint = first.fingerprint })
    end
    local silent = send()
    assert.equal(3, silent.exit)
    assert.equal(1000, silent.last.waiting)
    local _, lines = silent.err:gsub("\n", "")
    assert.is_true(lines <= 11, silent.err)
    assert.matches("and 990 more", silent.err)
    local attempts = 0
    for _, row in ipairs(j:outbox { status = "open" }) do attempts = attempts + row.attempts end
    assert.equal(2, attempts)
    j:close()
    hub.start()
    -- A report of its own first, then a share of what waits: a run does not work off the past of others.
    local r = told "n=2"
    assert.equal(0, r.exit, r.err)
    local requests = #hub.requests()
    assert.is_true(requests <= 23, requests .. " requests")
    assert.equal(0, send().exit)
    local order, count = 0, 0
    for _, one in ipairs(hub.requests()) do
      assert.is_true(one.effective)
      if one.path == "/api/v1/jobs/long" then
        assert.is_true(one.body.progress > order)
        order, count = one.body.progress, count + 1
      end
    end
    assert.equal(999, count)
  end)

  it("keep a report of five million bytes whole; one that the Hub finds too large is a warning, once (3)", function()
    assert.equal(0, told("bytes=5000000").exit)
    assert.equal(5000000, #hub.requests()[1].body.message)
    hub.fault { kind = "status", status = 413 }
    local r = told "bytes=5000000"
    assert.equal(3, r.exit)
    assert.equal(1, #r.last.warnings)
    assert.matches("did not take 'job' .-answered 413.-not sent again", r.last.warnings[1])
    assert.is_true(#r.last.warnings[1] < 2000)
    assert.equal(2, #hub.requests())
    assert.equal(0, send().last.sent)
    assert.equal(2, #hub.requests())
  end)

  it("cut what a failed command printed, and what the Hub said, after its secrets were masked", function()
    local canary = require "support.canary"
    local file = home.runbook("loud", [[return runbook { name = "loud", summary = "x", params = { hub_url = param.string {},
      runner_token = param.secret {}, bytes = param.integer {} },
      steps = function(p) return { step { name = "r", class = "pure", apply = function(ctx)
        ctx.target:run { "sh", "-c", "head -c " .. p.bytes .. " /dev/zero | tr '\\0' x >&2; cat >&2; exit 1", stdin = ctx.secret "runner_token" }
      end } } end,
      on_failure = function(ctx, why) hub.report(ctx, { call = "job", args = { job_id = "j" }, fields = { status = "FAILED",
        message = why.message } }) end }]])
    for _, bytes in ipairs { 985, 5000000 } do
      local r = home.run(("%s -t local: --allow-local-root hub_url=%s runner_token=@%s bytes=%d"):format(file, hub.url, hub.token_file, bytes))
      assert.is_true(r.exit == 5 or r.exit == 6, r.err)
      assert.is_true(#r.err < 3000, #r.err .. " bytes of stderr")
      assert.is_nil((r.err .. support.slurp(hub.dir .. "/requests.jsonl")):find("token-of", 1, true))
    end
    assert.is_true(#hub.requests()[2].body.message < 1300)
    assert.same({}, canary.find(support.sh(("cat %s/state/lbrun/journal.db*"):format(home.dir)), { token = "token-of-this-spec-12345" }))
  end)

  it("take a reason of any length and script", function()
    hub.stop()
    assert.equal(3, told().exit)
    local id = home.run("outbox").out:match "^(%x+)"
    local r = home.run { "outbox", "drop", id, "--reason", ("𝄞\"\\"):rep(3000) }
    assert.equal(0, r.exit, r.err)
    assert.equal(0, home.run("verify-journal").exit)
  end)

  it("are those of the disk: with a full one nothing is sent (13), and with room again each report once", function()
    if not support.root then return pending "a mount of its own needs root" end
    local state = home.dir .. "/tmpfs"
    support.sh("mkdir " .. state)
    hub.fault { kind = "status", status = 503, times = 2 }
    support.spit(home.dir .. "/inside.sh", ([[
mount -t tmpfs -o size=4m tmpfs %s
lb="%s --journal %s/journal.db"
$lb %s n=2 hub_url=%s runner_token=@%s >%s/1.out 2>%s/1.err; echo "run $?"
wc -l <%s/requests.jsonl
dd if=/dev/zero of=%s/filler bs=4k 2>/dev/null
$lb outbox send runner_token=@%s 2>%s/2.err; echo "full $?"
wc -l <%s/requests.jsonl
rm %s/filler
$lb outbox send runner_token=@%s; echo "room $?"
$lb verify-journal >/dev/null; echo "verify $?"
]]):format(state, support.binary, state, path, hub.url, hub.token_file, home.dir, home.dir, hub.dir, state, hub.token_file, home.dir,
      hub.dir, state, hub.token_file))
    local text = support.sh(("unshare -m env HOME=%s XDG_STATE_HOME=%s/state sh %s/inside.sh"):format(home.dir, home.dir, home.dir))
    assert.equal("run 3\n2\nfull 13\n2\n2 sent, 0 refused, 0 wait\nroom 0\nverify 0\n", text)
    assert.matches("no space left", support.slurp(home.dir .. "/2.err"))
    local taken = 0
    for _, one in ipairs(hub.requests()) do taken = taken + (one.effective and 1 or 0) end
    assert.equal(2, taken)
  end)
end)
