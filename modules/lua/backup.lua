-- backup.lua: what is known of backups without a server: what belongs to a tool's, what a
-- manifest and a status file say, and which days are kept. It reads and removes nothing.

local backup = {}

backup.dir = "/opt/letsbe/backups"
-- In a directory of its own, for those who may see the status and no backup; a link among these.
backup.status_dir = "/opt/letsbe/status"
backup.status_path = backup.status_dir .. "/backup-status.json"
backup.keep = { daily = 7, weekly = 4 }

-- backup.tools() -> ids of everything that has a stack, in the catalog's order
function backup.tools()
  local list, seen = {}, {}
  local function add(id)
    if not seen[id] and stack.get(id) then list[#list + 1] = id end
    seen[id] = true
  end
  for _, id in ipairs(catalog.names()) do add(id) end
  for _, id in ipairs { "openclaw", "secrets-proxy" } do add(id) end
  return list
end

-- backup.database(s) -> { engine, container, name, user } | nil
function backup.database(s)
  if not s.database then return nil end
  return { engine = s.database.engine, container = s.id .. "-db", name = s.database.name or s.id, user = s.id }
end

-- backup.base(p) -> where a run's backups lie: the server's days, or those of one tool
function backup.base(p)
  return backup.dir .. (p.tool and "/tool/" .. p.tool or "/daily")
end

-- backup.parts(s) -> the words that templates/backup/part.sh is given for a tool
function backup.parts(s)
  local list, seen, ways = {}, {}, data("backup/volumes.lua")
  local db = backup.database(s)
  if db and db.engine == "postgres" then
    list[1] = ("postgres:%s:%s:%s"):format(db.container, db.name, db.user)
  elseif db and db.engine == "mysql" then
    list[1] = ("mysql:%s:%s"):format(db.container, db.name)
  elseif db then
    list[1] = ("mongo:%s:%s:%s"):format(db.container, db.name, db.container)
  end
  for _, service in ipairs(s.services) do
    for _, volume in ipairs(not service.like and service.volumes or {}) do
      local way = ways.methods[volume.name] or "stop"
      if way ~= "none" and not seen[volume.name] then
        local to = (ways.places[s.id] or "volumes") .. "/" .. volume.name .. (way == "snapshot" and "" or ".tar.gz")
        list[#list + 1] = ("volume:%s:%s:%s"):format(way, volume.name, to)
      end
      seen[volume.name] = true
    end
  end
  return list
end

-- backup.read_part(text) -> one tool's entry of the manifest, from the list of part.sh
function backup.read_part(text)
  local part = { images = {}, databases = {}, files = {} }
  for line in text:gmatch("[^\n]+") do
    local words = {}
    for word in (line .. "\t"):gmatch("([^\t]*)\t") do words[#words + 1] = word end
    if words[1] == "image" then
      part.images[#part.images + 1] = { container = words[2], image = words[3], digest = words[4] }
    elseif words[1] == "database" then
      part.databases[#part.databases + 1] = { engine = words[2], name = words[3], owner = words[4], file = words[5], tables = {} }
    elseif words[1] == "table" then
      local tables = part.databases[#part.databases].tables
      tables[#tables + 1] = { name = words[2], rows = math.tointeger(tonumber(words[3])) }
    elseif words[1] == "file" then
      part.files[#part.files + 1] = { path = words[2], size = math.tointeger(tonumber(words[3])), sha256 = words[4],
        kind = words[5], entries = math.tointeger(tonumber(words[6])), volume = words[7] ~= "-" and words[7] or nil }
    else
      fail("backup", ("a list of a part has a line of no known kind: %s"):format(line:sub(1, 80)))
    end
  end
  return part
end

-- backup.words(part, s, project) -> the words of templates/backup/restore.sh for what the manifest
-- lists of a tool, and the rows that it counted, as text. The project is the tool, or its
-- twin, whose container and volumes have its name before theirs.
function backup.words(part, s, project)
  local checks, list, rows = {}, {}, {}
  local before = project == s.id and "" or project .. "-"
  for _, f in ipairs(part.files) do
    checks[#checks + 1] = ("file:%s:%s"):format(f.path, f.sha256)
    if f.kind == "tar" or f.kind == "snapshot" then
      list[#list + 1] = ("%s:%s%s:%s:%d"):format(f.kind, before, f.volume, f.path, f.entries)
    end
  end
  local db = backup.database(s)
  for _, was in ipairs(part.databases) do
    if not db or db.engine ~= was.engine or db.name ~= was.name then
      fail("backup", ("the backup has a %s database %s, the tool as it is now has another; nothing was changed")
        :format(was.engine, was.name))
    end
    local container = project .. "-db"
    if was.engine == "postgres" then
      list[#list + 1] = ("postgres:%s:%s:%s:%s:%s"):format(container, db.name, db.user, was.owner, was.file)
    elseif was.engine == "mongo" then
      list[#list + 1] = ("mongo:%s:%s:%s%s:%s"):format(container, db.name, before, db.container, was.file)
    else
      list[#list + 1] = ("mysql:%s:%s:%s"):format(container, db.name, was.file)
    end
    for _, t in ipairs(was.tables) do rows[#rows + 1] = ("%s\t%d\n"):format(t.name, t.rows) end
  end
  table.move(list, 1, #list, #checks + 1, checks)
  return checks, table.concat(rows)
end

local function is_count(n) return math.type(n) == "integer" and n >= 0 end

local function check_part(part, where)
  if type(part) ~= "table" then return where .. " is no table" end
  for _, field in ipairs { "images", "databases", "files" } do
    if type(part[field]) ~= "table" then return ("%s.%s is missing"):format(where, field) end
  end
  local paths = {}
  for i, f in ipairs(part.files) do
    local at = ("%s.files[%d]"):format(where, i)
    if type(f) ~= "table" or type(f.path) ~= "string" or f.path == "" then return at .. " has no path" end
    if f.path:sub(1, 1) == "/" or ("/" .. f.path .. "/"):find("/../", 1, true) then return at .. ": its path leads outside" end
    if not is_count(f.size) or f.size == 0 and f.kind ~= "snapshot" then return ("%s: '%s' has no size"):format(at, f.path) end
    if type(f.sha256) ~= "string" or not f.sha256:match("^%x+$") or #f.sha256 ~= 64 then return at .. " has no sha256" end
    if not is_count(f.entries) then return at .. " has no count" end
    paths[f.path] = true
  end
  for i, db in ipairs(part.databases) do
    local at = ("%s.databases[%d]"):format(where, i)
    if type(db) ~= "table" or not paths[db.file] then return at .. ": its dump is no file of the backup" end
    if type(db.tables) ~= "table" then return at .. " counts no tables" end
    for _, t in ipairs(db.tables) do
      if type(t.name) ~= "string" or not is_count(t.rows) then return at .. ": a table has no count of rows" end
    end
  end
  return nil
end

-- backup.check(manifest, day) -> nil, or what is wrong with it
function backup.check(m, day)
  if type(m) ~= "table" then return "it is no manifest" end
  if m.schema ~= 1 then return ("its schema is %s, this lbrun knows 1"):format(tostring(m.schema)) end
  if m.complete ~= true then return "it does not say that it is complete" end
  if day and m.date ~= day then return ("it is of %s, not of %s"):format(tostring(m.date), day) end
  if not is_count(m.sequence) then return "it has no sequence number" end
  if type(m.parts) ~= "table" or not next(m.parts) then return "it lists nothing" end
  for _, name in ipairs(sorted_keys(m.parts)) do
    local why = check_part(m.parts[name], name)
    if why then return why end
  end
  return nil
end

-- backup.status(o) -> what backup-status.json says; o has ended, began (seconds since
-- 1970), failed?, databases, bytes, remote?, errors. A clock set back makes no duration
-- below 0.
function backup.status(o)
  return {
    timestamp = calendar.utc(o.ended), status = o.failed and "failed" or "success",
    duration_seconds = math.max(0, o.ended - o.began), databases_backed_up = o.databases,
    files_backed_up = not o.failed, remote_sync = o.remote or "disabled",
    total_size_gb = math.floor(o.bytes / 1e6 + 0.5) / 1000, errors = json.array(o.errors or {}),
  }
end

local function order(a, b)
  if a.sequence ~= b.sequence then return a.sequence > b.sequence end
  return a.name > b.name
end

local function complete(list)
  local all = {}
  for _, item in ipairs(list) do
    if calendar.is_day(item.name) and item.complete then all[#all + 1] = { name = item.name, sequence = item.sequence } end
  end
  table.sort(all, order)
  return all
end

-- backup.newest(list) -> name of the complete backup that was made last, nil without one.
-- The sequence in the manifests decides: a clock that was set back makes no backup older.
function backup.newest(list)
  local first = complete(list)[1]
  return first and first.name
end

-- backup.remote_name(name) -> date, number of a backup on the remote ("2026-02-26.41"), nil
-- for what is none. The numbers count what was sent: they order, whatever the clocks said.
function backup.remote_name(name)
  local date, number = name:match("^(%d%d%d%d%-%d%d%-%d%d)%.(%d+)$")
  if not date or not calendar.is_day(date) then return nil end
  return date, math.tointeger(tonumber(number))
end

-- Those of { name, complete } that are backups, the last sent first.
local function sent(list)
  local all = {}
  for _, item in ipairs(list) do
    local date, number = backup.remote_name(item.name)
    if date then all[#all + 1] = { name = item.name, date = date, number = number, complete = item.complete } end
  end
  table.sort(all, function(a, b) return a.number > b.number end)
  return all
end

-- backup.next_name(list, day) -> the name that the next backup gets on the remote
function backup.next_name(list, day)
  local last = sent(list)[1]
  return ("%s.%d"):format(day, last and last.number + 1 or 1)
end

-- backup.newest_sent(list, day?) -> the whole backup that was sent last, of a day or at all; nil
function backup.newest_sent(list, day)
  for _, item in ipairs(sent(list)) do
    if item.complete and (not day or item.date == day) then return item.name end
  end
end

-- backup.remote_rotation(list) -> names to remove from the remote: of whole backups all but
-- the newest of each of seven days and of four Sundays; of others what a later whole one
-- has overtaken. What is no dated backup is not touched.
function backup.remote_rotation(list)
  local drop, days, weeks, seen, whole = {}, 0, 0, {}, false
  for _, item in ipairs(sent(list)) do
    local keep = not item.complete and not whole
    if item.complete and not seen[item.date] then
      seen[item.date], whole, days = true, true, days + 1
      keep = days <= backup.keep.daily
      if calendar.is_sunday(item.date) then
        weeks = weeks + 1
        keep = keep or weeks <= backup.keep.weekly
      end
    end
    if not keep then drop[#drop + 1] = item.name end
  end
  table.sort(drop)
  return drop
end

-- backup.rotation(daily, weekly) -> { weekly = names to link from daily, drop_daily, drop_weekly }
-- Each item is { name, sequence, complete }. Seven days and four Sundays are kept, counted
-- and not by their age; what is not a whole dated backup is not counted and not touched.
function backup.rotation(daily, weekly)
  local plan = { weekly = {}, drop_daily = {}, drop_weekly = {} }
  local days, weeks, have = complete(daily), complete(weekly), {}
  for _, item in ipairs(weeks) do have[item.name] = item.sequence end
  for _, item in ipairs(days) do
    if calendar.is_sunday(item.name) and have[item.name] ~= item.sequence then
      if not have[item.name] then weeks[#weeks + 1] = item end
      for _, week in ipairs(weeks) do
        if week.name == item.name then week.sequence = item.sequence end
      end
      plan.weekly[#plan.weekly + 1] = item.name
    end
  end
  table.sort(weeks, order)
  local drop = {}
  for i = backup.keep.weekly + 1, #weeks do drop[weeks[i].name] = true end
  for i = #plan.weekly, 1, -1 do
    -- Not linked at all if it would go at once.
    if drop[plan.weekly[i]] and not have[plan.weekly[i]] then
      drop[plan.weekly[i]] = nil
      table.remove(plan.weekly, i)
    end
  end
  plan.drop_weekly = sorted_keys(drop)
  for i = backup.keep.daily + 1, #days do plan.drop_daily[#plan.drop_daily + 1] = days[i].name end
  table.sort(plan.drop_daily)
  table.sort(plan.weekly)
  return plan
end

return backup
