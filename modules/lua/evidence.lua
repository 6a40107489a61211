-- evidence.lua: restore-evidence.json: which backups were proved by restoring them, what was
-- compared, what could not be tested. Every test stays in it. And the times of section 9.1 that a
-- drill is held against. It tests nothing.

local evidence = {}

evidence.path = backup.dir .. "/restore-evidence.json"

-- Hours until a server runs again, and hours of work that may be lost by then.
evidence.objectives = {
  ["disk-corruption"] = { rto = 24, rpo = 24 },
  ["total-loss"] = { rto = 24, rpo = 24 },
  ["data-center"] = { rto = 48, rpo = 24 },
}

local function seconds_of(utc)
  return calendar.epoch(utc) or fail("backup", ("'%s' is no time of a backup"):format(utc))
end

-- evidence.times(scenario, made, began, ended) -> { scenario, seconds, rto_seconds, age_seconds, rpo_seconds,
-- result, why? } of a drill with a backup that was begun at `made` (UTC, as the manifest says); the
-- others are seconds since 1970
function evidence.times(scenario, made, began, ended)
  local goal, over = evidence.objectives[scenario], {}
  local one = { scenario = scenario, seconds = ended - began, age_seconds = math.max(0, began - seconds_of(made)),
    rto_seconds = goal.rto * 3600, rpo_seconds = goal.rpo * 3600 }
  local function hold(have, want, text, name)
    if have > want then over[#over + 1] = text:format(("%d h %02d min"):format(have // 3600, have % 3600 // 60), name, want // 3600) end
  end
  hold(one.seconds, one.rto_seconds, "it took %s, and the %s is %d h", "RTO")
  hold(one.age_seconds, one.rpo_seconds, "the newest backup was %s old, and the %s is %d h", "RPO")
  one.result, one.why = #over == 0 and "ok" or "failed", #over > 0 and table.concat(over, "; ") or nil
  return one
end

-- evidence.counts(part) -> { databases, tables, rows, files, bytes } of what the manifest lists
function evidence.counts(part)
  local n = { databases = #part.databases, tables = 0, rows = 0, files = 0, bytes = 0 }
  for _, db in ipairs(part.databases) do
    n.tables = n.tables + #db.tables
    for _, t in ipairs(db.tables) do n.rows = n.rows + t.rows end
  end
  for _, f in ipairs(part.files) do
    n.bytes, n.files = n.bytes + f.size, n.files + f.entries
  end
  return n
end

-- evidence.read(ctx) -> { schema, tests = { ... } }, empty where there is none; nil and why
-- where the file is none
function evidence.read(ctx)
  if not ctx.target:exists(evidence.path) then return { schema = 1, tests = {} } end
  local fine, all = pcall(json.decode, ctx.target:get(evidence.path))
  if not fine or type(all) ~= "table" or type(all.tests) ~= "table" then return nil, "it is no JSON of ours" end
  if all.schema ~= 1 then return nil, ("its schema is %s, this lbrun knows 1"):format(tostring(all.schema)) end
  return all
end

-- evidence.add(ctx, test): the test stands at its end. A file that cannot be read is kept beside it.
function evidence.add(ctx, test)
  local all, why = evidence.read(ctx)
  if not all then
    ctx.warn(("%s was put aside as %s.unread: %s"):format(evidence.path, evidence.path, why))
    ctx.target:run { "mv", "-T", evidence.path, evidence.path .. ".unread" }
    all = { schema = 1, tests = {} }
  end
  -- Once, also when the run was killed between the file and the journal.
  local tests = {}
  for _, one in ipairs(all.tests) do
    if one.run ~= test.run or one.tool ~= test.tool then tests[#tests + 1] = one end
  end
  tests[#tests + 1] = test
  ctx.target:run { "mkdir", "-p", "-m", "0700", backup.dir }
  ctx.target:put(evidence.path, json.encode({ schema = 1, tests = json.array(tests) }, { sort = true }) .. "\n",
    { mode = "0644", owner = "root", group = "root" })
end

-- evidence.failures(all) -> lines for those tools whose last test that came to a result failed
function evidence.failures(all)
  local last, lines = {}, {}
  for _, one in ipairs(all.tests) do
    if one.result ~= "unverified" then last[one.tool] = one end
  end
  for _, tool in ipairs(sorted_keys(last)) do
    local one = last[tool]
    if one.result == "failed" then
      lines[#lines + 1] = ("restore-test: the backup %s of %s failed on %s: %s"):format(one.backup, tool, one.finished, one.why)
    end
  end
  return lines
end

return evidence
