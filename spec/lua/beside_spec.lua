-- beside_spec.lua: the containers that stand beside production, as data, and what is told of
-- tests. Real ones are in spec/runbooks/backup_spec.lua.
local script = require "lb.script"
local sources = require "lb.sources"

local env = script.environment(sources.collect "runbooks/restore-test.lua")
local backup, beside, evidence, stack = env.backup, env.beside, env.evidence, env.stack

-- A part as the manifest would have it, with an archive of each volume.
local function part_of(s)
  local part = { images = {}, databases = {}, files = {} }
  for _, word in ipairs(backup.parts(s)) do
    local volume, path = word:match "^volume:%a+:([^:]+):(.+)$"
    if volume then part.files[#part.files + 1] = { path = path, volume = volume, kind = "tar", entries = 1, sha256 = ("a"):rep(64), size = 1 } end
  end
  return part
end

describe("a tool's twin beside production #unit", function()
  it("has no network, no port, no name, no volume and no folder of production that it could write to", function()
    for _, id in ipairs(backup.tools()) do
      local s = stack.get(id)
      local part = part_of(s)
      local twin = beside.twin(s, "test", part)
      assert.equal(1, #twin.compose.services, id)
      local one = twin.compose.services[1]
      assert.equal("none", one.network_mode, id)
      assert.is_false(one.ports, id)
      assert.equal("no", one.restart, id)
      assert.equal(1, (one.container:find(id .. "-test", 1, true)), one.container)
      local has = {}
      for _, m in ipairs(one.mounts) do
        if m.type == "volume" then
          assert.equal(1, (m.source:find(id .. "-test-", 1, true)), m.source)
          has[m.source] = true
        else
          assert.is_true(m.read_only, m.source)
          assert.is_truthy(m.source:sub(1, 2) == "./" or m.source:find("/opt/letsbe/stacks/" .. id .. "/", 1, true), m.source)
        end
      end
      for _, f in ipairs(part.files) do assert.is_true(has[id .. "-test-" .. f.volume], f.volume) end
    end
  end)

  it("is of the image that the backup names", function()
    local s = stack.get "ghost"
    local part = part_of(s)
    part.images[1] = { container = "ghost-db", image = "mysql:8.0.1", digest = "sha256:1" }
    local twin = beside.twin(s, "temp", part)
    assert.equal("mysql:8.0.1", twin.compose.services[1].image)
    assert.equal("sha256:1", twin.digest)
    assert.equal("ghost-temp-db", twin.container)
  end)

  it("is told what to restore by its own names, as the tool is by the tool's", function()
    local s = stack.get "ghost"
    local part = part_of(s)
    part.files[2] = { path = "ghost.sql.gz", kind = "mysql", entries = 0, sha256 = ("b"):rep(64), size = 9 }
    part.databases[1] = { engine = "mysql", name = "ghost", owner = "ghost", file = "ghost.sql.gz", tables = { { name = "posts", rows = 3 } } }
    local words, rows = backup.words(part, s, "ghost-test")
    assert.equal("posts\t3\n", rows)
    assert.same({ "tar:ghost-test-ghost-content:volumes/ghost-content.tar.gz:1", "mysql:ghost-test-db:ghost:ghost.sql.gz" },
      { words[3], words[4] })
    words = backup.words(part, s, "ghost")
    assert.same({ "tar:ghost-content:volumes/ghost-content.tar.gz:1", "mysql:ghost-db:ghost:ghost.sql.gz" }, { words[3], words[4] })
  end)
end)

describe("the evidence of tests #unit", function()
  it("names a tool whose last result was a failure, until a test of it is well; unverified is no result", function()
    local function one(tool, result) return { tool = tool, result = result, backup = "2026-02-25", finished = "2026-03-01T03:00:00Z", why = "why" } end
    local tests = { one("ghost", "failed"), one("odoo", "ok") }
    assert.same({ "restore-test: the backup 2026-02-25 of ghost failed on 2026-03-01T03:00:00Z: why" }, evidence.failures { tests = tests })
    tests[3] = one("ghost", "unverified")
    assert.equal(1, #evidence.failures { tests = tests })
    tests[4] = one("ghost", "ok")
    assert.same({}, evidence.failures { tests = tests })
  end)

  it("counts what was compared", function()
    assert.same({ databases = 1, tables = 2, rows = 5, files = 4, bytes = 30 }, evidence.counts {
      databases = { { tables = { { name = "a", rows = 2 }, { name = "b", rows = 3 } } } },
      files = { { size = 10, entries = 0 }, { size = 20, entries = 4 } },
    })
  end)

  it("holds a drill against the hours of its row in 9.1, up to the last second", function()
    local began = 1772072100 -- 2026-02-26T02:15:00Z
    local function times(scenario, made, took) return evidence.times(scenario, made, began, began + took) end
    local well = times("total-loss", "2026-02-25T02:15:00Z", 86400)
    assert.same({ "ok", 86400, 86400, 86400, 86400 }, { well.result, well.seconds, well.rto_seconds, well.age_seconds, well.rpo_seconds })
    assert.is_nil(well.why)
    assert.equal("the newest backup was 24 h 00 min old, and the RPO is 24 h", times("total-loss", "2026-02-25T02:14:59Z", 60).why)
    local both = times("disk-corruption", "2026-02-24T02:15:00Z", 90061)
    assert.equal("failed", both.result)
    assert.equal("it took 25 h 01 min, and the RTO is 24 h; the newest backup was 48 h 00 min old, and the RPO is 24 h", both.why)
    assert.equal("ok", times("data-center", "2026-02-26T02:00:00Z", 48 * 3600).result)
    -- A clock that was behind made the backup in the future.
    assert.equal(0, times("data-center", "2026-02-26T03:00:00Z", 1).age_seconds)
    assert.has_error(function() times("data-center", "yesterday", 1) end)
  end)
end)
