-- backup_spec.lua: which days are kept, what a manifest and a status file must say, and what
-- of a tool is backed up. It dumps and restores nothing.
local json = require "json"
local script = require "lb.script"
local sources = require "lb.sources"
local support = require "support.lbrun"

local env = script.environment(sources.collect "runbooks/backup.lua")
local backup, calendar, stack = env.backup, env.calendar, env.stack

local function item(name, sequence, complete)
  return { name = name, sequence = sequence, complete = complete ~= false }
end

local function names(list)
  local all = {}
  for i, one in ipairs(list) do all[i] = one.name end
  table.sort(all)
  return all
end

-- Carries a plan out on the lists, as the server would.
local function rotate(daily, weekly)
  local plan = backup.rotation(daily, weekly)
  local by_name, drop = {}, { daily = {}, weekly = {} }
  for _, one in ipairs(daily) do by_name[one.name] = one end
  for _, name in ipairs(plan.drop_daily) do drop.daily[name] = true end
  for _, name in ipairs(plan.drop_weekly) do drop.weekly[name] = true end
  local function left(list, gone, also)
    local all, seen = {}, {}
    for _, name in ipairs(also) do
      all[#all + 1], seen[name] = by_name[name], true
    end
    for _, one in ipairs(list) do
      if not gone[one.name] and not seen[one.name] then all[#all + 1] = one end
    end
    return all
  end
  return left(daily, drop.daily, {}), left(weekly, drop.weekly, plan.weekly), plan
end

describe("the rotation of backups #unit", function()
  it("keeps, over a year with gaps, the last seven and four Sundays, and the newest always", function()
    local daily, weekly, first, made = {}, {}, 20454, 0
    assert.equal("2026-01-01", calendar.date(first))
    local seed = 7
    for n = 0, 364 do
      seed = (seed * 1103515245 + 12345) % 2147483648
      -- Single days are missing, and three weeks in summer.
      local gap = (seed >> 16) % 5 == 0 or (n > 190 and n < 212)
      if not gap then
        made = made + 1
        local name = calendar.date(first + n)
        daily[#daily + 1] = item(name, made)
        local before = #daily
        daily, weekly = rotate(daily, weekly)
        assert(#daily == math.min(7, before), name .. ": " .. #daily)
        assert(#weekly <= 4, name)
        assert.equal(name, backup.newest(daily))
        for _, one in ipairs(weekly) do assert.is_true(calendar.is_sunday(one.name), one.name) end
        if calendar.is_sunday(name) then assert.equal(name, backup.newest(weekly)) end
      end
    end
    assert.equal(7, #daily)
    assert.equal(4, #weekly)
  end)

  it("has nothing to do a second time", function()
    local daily, weekly = {}, {}
    for n = 1, 40 do daily[n] = item(calendar.date(20454 + n), n) end
    daily, weekly = rotate(daily, weekly)
    local _, _, plan = rotate(daily, weekly)
    assert.same({ weekly = {}, drop_daily = {}, drop_weekly = {} }, plan)
  end)

  it("removes nothing by age: backups of years ago stay when there are no newer ones", function()
    local plan = backup.rotation({ item("2019-01-01", 1), item("2019-01-02", 2) }, { item("2018-12-30", 1) })
    assert.same({}, plan.drop_daily)
    assert.same({}, plan.drop_weekly)
  end)

  it("keeps what was just made when the clock was set back", function()
    local daily = {}
    for n = 1, 7 do daily[n] = item(("2026-05-%02d"):format(n), n) end
    daily[8] = item("2026-01-10", 8)
    assert.equal("2026-01-10", backup.newest(daily))
    assert.same({ "2026-05-01" }, backup.rotation(daily, {}).drop_daily)
  end)

  it("counts and removes whole dated directories alone", function()
    local daily = { item("daily", 99), item(".2026-05-09.partial-x", 98), item("2026-05-30", 97, false), item("2026-02-31", 96) }
    for n = 1, 8 do daily[#daily + 1] = item(("2026-05-%02d"):format(n), n) end
    local plan = backup.rotation(daily, {})
    assert.same({ "2026-05-01" }, plan.drop_daily)
    assert.equal("2026-05-08", backup.newest(daily))
    assert.is_nil(backup.newest { item("daily", 3), item("2026-05-30", 2, false) })
  end)

  it("links a Sunday again when a second backup of that Sunday replaced the first", function()
    local plan = backup.rotation({ item("2026-03-01", 5) }, { item("2026-03-01", 4) })
    assert.same({ "2026-03-01" }, plan.weekly)
    assert.same({}, plan.drop_weekly)
    local _, weekly = rotate({ item("2026-03-01", 5) }, { item("2026-03-01", 4) })
    assert.same({ "2026-03-01" }, names(weekly))
  end)

  it("changes none of what it is given", function()
    local daily, weekly = { item("2026-03-01", 5) }, { item("2026-03-01", 4) }
    backup.rotation(daily, weekly)
    assert.same({ item("2026-03-01", 4) }, weekly)
  end)
end)

local function manifest(change)
  local m = {
    schema = 1, complete = true, date = "2026-03-01", sequence = 3, run = "r",
    parts = { ghost = {
      images = {}, databases = { { engine = "mysql", name = "ghost", file = "ghost.sql.gz", tables = { { name = "entries", rows = 2 } } } },
      files = { { path = "ghost.sql.gz", size = 10, sha256 = ("a"):rep(64), kind = "mysql", entries = 0 } },
    } },
  }
  if change then change(m, m.parts.ghost) end
  return m
end

describe("a manifest #unit", function()
  it("is taken when it is whole, also after a trip through JSON", function()
    assert.is_nil(backup.check(manifest(), "2026-03-01"))
    assert.is_nil(backup.check(json.decode(json.encode(manifest())), "2026-03-01"))
  end)

  for what, case in pairs {
    ["of another day"] = { "not of", function(m) m.date = "2026-03-02" end },
    ["of an unknown schema"] = { "schema is 2", function(m) m.schema = 2 end },
    ["that does not say it is complete"] = { "complete", function(m) m.complete = nil end },
    ["without a sequence"] = { "sequence", function(m) m.sequence = -1 end },
    ["of nothing"] = { "lists nothing", function(m) m.parts = {} end },
    ["with an empty file"] = { "no size", function(_, g) g.files[1].size = 0 end },
    ["without a checksum"] = { "sha256", function(_, g) g.files[1].sha256 = "abc" end },
    ["whose path leads out"] = { "outside", function(_, g) g.files[1].path = "../../etc/shadow" end },
    ["with an absolute path"] = { "outside", function(_, g) g.files[1].path = "/etc/shadow" end },
    ["whose dump is not listed"] = { "no file of the backup", function(_, g) g.databases[1].file = "other" end },
    ["without counted rows"] = { "count of rows", function(_, g) g.databases[1].tables[1].rows = nil end },
  } do
    it("is refused " .. what, function()
      assert.matches(case[1], backup.check(manifest(case[2]), "2026-03-01"), 1, true)
    end)
  end

  it("is made of the lists that the server wrote", function()
    local part = backup.read_part("image\tghost-db\tmysql:8.4.11\tsha256:1\ndatabase\tmysql\tghost\tghost\tghost.sql.gz\n"
      .. "table\tentries\t2\ntable\tan odd name\t0\nfile\tghost.sql.gz\t10\t" .. ("a"):rep(64) .. "\tmysql\t0\t-\n")
    assert.same({ { name = "entries", rows = 2 }, { name = "an odd name", rows = 0 } }, part.databases[1].tables)
    assert.same({ path = "ghost.sql.gz", size = 10, sha256 = ("a"):rep(64), kind = "mysql", entries = 0 }, part.files[1])
    assert.has_error(function() backup.read_part("nonsense\t1\n") end)
  end)
end)

describe("backup-status.json #unit", function()
  local fields = { timestamp = "string", status = "string", duration_seconds = "number", databases_backed_up = "number",
    files_backed_up = "boolean", remote_sync = "string", total_size_gb = "number", errors = "table" }

  it("has the fields of 4.4 and no other, on success and on failure", function()
    for _, failed in ipairs { false, true } do
      local text = json.encode(backup.status { began = 1772071253, ended = 1772072100, databases = 21, bytes = 4.2e9,
        failed = failed, errors = failed and { "tools/ghost: no" } or {} })
      local status, count = json.decode(text), 0
      for name, value in pairs(status) do
        assert.equal(fields[name], type(value), name)
        count = count + 1
      end
      assert.equal(8, count)
      assert.matches('"errors":%[', text)
      assert.equal(failed and "failed" or "success", status.status)
      assert.equal(not failed, status.files_backed_up)
    end
    local status = backup.status { began = 1772071253, ended = 1772072100, databases = 21, bytes = 4.2e9 }
    assert.equal("2026-02-26T02:15:00Z", status.timestamp)
    assert.equal(847, status.duration_seconds)
    assert.equal(4.2, status.total_size_gb)
  end)

  it("has no duration below nothing when the clock was set back", function()
    assert.equal(0, backup.status({ began = 100, ended = 50, databases = 0, bytes = 0 }).duration_seconds)
  end)
end)

describe("what is backed up of a tool #unit", function()
  it("is its database first, then each volume once by its method", function()
    assert.same({ "postgres:nextcloud-db:nextcloud:nextcloud", "volume:snapshot:nextcloud-html:nextcloud/nextcloud-html" },
      backup.parts(stack.get "nextcloud"))
    assert.same({ "mysql:ghost-db:ghost", "volume:tar:ghost-content:volumes/ghost-content.tar.gz" }, backup.parts(stack.get "ghost"))
    assert.equal("mongo:librechat-db:LibreChat:librechat-db", backup.parts(stack.get "librechat")[1])
    assert.same({ "volume:sqlite:uptime-kuma-data:volumes/uptime-kuma-data.tar.gz" }, backup.parts(stack.get "uptime-kuma"))
  end)

  it("names only volumes that some tool has in its table of methods", function()
    local known = {}
    for _, id in ipairs(backup.tools()) do
      for _, service in ipairs(stack.get(id).services) do
        for _, volume in ipairs(service.volumes or {}) do known[volume.name] = true end
      end
    end
    for name in pairs(env.data("backup/volumes.lua").methods) do
      if not name:find "^openclaw" then assert.is_true(known[name], name) end
    end
  end)

  it("leaves out no tool that has a stack", function()
    local listed = {}
    for _, id in ipairs(backup.tools()) do listed[id] = true end
    for _, id in ipairs(env.catalog.names()) do
      if stack.get(id) then assert.is_true(listed[id], id) end
    end
  end)
end)

describe("what is done several at once #unit", function()
  local dir = support.temp()
  teardown(function() support.sh("rm -rf " .. dir) end)
  -- Each run notes how many there are while it is one of them.
  local one = ([[cd %s && touch "on-$1" && sleep 0.2 && ls on-* | wc -l >>many && rm "on-$1" && printf '%%s|' "$@" >>words && [ "$1" != bad ] ]]):format(dir)

  local function together(before)
    support.sh(("rm -f %s/*"):format(dir))
    local out, status = support.sh(("%s bash templates/backup/together.sh %s 2 1 a 3 bad 'x  y' '' 1 c 1 d 1 e"):format(before or "", support.quote(one)))
    local most = 0
    for n in support.slurp(dir .. "/many"):gmatch "%d+" do most = math.max(most, tonumber(n)) end
    return status, most, support.slurp(dir .. "/words"), out
  end

  it("is done by each once, by no more than the limit, and one that fails fails alone", function()
    local status, most, words, out = together()
    assert.equal(0, status, out)
    assert.is_true(most <= 2, tostring(most))
    for _, text in ipairs { "a|", "bad|x  y||", "c|", "d|", "e|" } do assert.is_truthy(words:find(text, 1, true), text) end
    assert.equal(#"a|bad|x  y||c|d|e|", #words)
  end)

  it("is done one by one where memory is short", function()
    support.sh(("mkdir -p %s.bin && printf '#!/bin/sh\\ncase $* in *MemAvailable*) exit 1 ;; esac; exec /usr/bin/awk \"$@\"\\n' >%s.bin/awk && chmod 755 %s.bin/awk")
      :format(dir, dir, dir))
    local status, most, words = together(("PATH=%s.bin:$PATH"):format(dir))
    support.sh(("rm -rf %s.bin"):format(dir))
    assert.equal(0, status)
    assert.equal(1, most)
    assert.equal("a|bad|x  y||c|d|e|", words)
  end)
end)
