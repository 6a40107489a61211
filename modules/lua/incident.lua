-- incident.lua: the checklist of an incident: its items, who did each and when, the 72 hours,
-- and the post-mortem that is written of it. Each entry is journaled by the run that makes it;
-- the working copy lies on the server. It isolates nothing.

local incident = {}

incident.dir = "/var/lib/lbrun/isolation"
local file_of = incident.dir .. "/incident.json"

-- The nine items; the fourth has a notice to each.
incident.items = {
  { "contain", "1. Contain: isolate the server" },
  { "assess", "2. Assess: which data, which users" },
  { "preserve", "3. Preserve: evidence and a forensic snapshot" },
  { "notify-hub", "4. Notify: the Hub" },
  { "notify-founder", "4. Notify: the founder" },
  { "notify-customer", "4. Notify: the customer (Art. 33 and 34 GDPR)" },
  { "remediate", "5. Remediate: the vulnerability, the credentials" },
  { "restore", "6. Restore: from a clean backup" },
  { "verify", "7. Verify: the health of all services" },
  { "document", "8. Document: the post-mortem" },
  { "improve", "9. Improve: runbook and monitoring" },
}

-- incident.names() -> those that can be entered
function incident.names()
  local list = {}
  for i, item in ipairs(incident.items) do list[i] = item[1] end
  return list
end

-- incident.read(ctx) -> { incident, aware, items = { [name] = { at, by, note } } }, or nil
function incident.read(ctx)
  if not ctx.root:exists(file_of) then return nil end
  return json.decode(ctx.root:get(file_of))
end

function incident.write(ctx, record)
  record.items = record.items or {}
  local items = {}
  for name, item in pairs(record.items) do items[name] = item end
  -- An object also when it is empty.
  local text = json.encode({ incident = record.incident, aware = record.aware, evidence = record.evidence, released = record.released,
    items = next(items) and items or nil }, { sort = true })
  ctx.root:put(file_of, text .. "\n", { mode = "0600", owner = "root", group = "root" })
end

-- incident.released(ctx): the isolation has ended; the checklist goes on.
function incident.released(ctx)
  local record = incident.read(ctx)
  if not record or record.released then return end
  record.released = ctx.now()
  incident.write(ctx, record)
end

-- incident.put_aside(ctx): a server that is isolated once more has another incident: what was
-- taken and written in one that was released goes into a folder of its own, and nothing is lost.
function incident.put_aside(ctx)
  local record = incident.read(ctx)
  if not record or not record.released then return end
  local dir = ("%s/closed-%s"):format(incident.dir, record.incident)
  ctx.root:run(([[mkdir -p -m 0700 %s && cd %s && for f in evidence evidence.tar.gz evidence.tar.gz.sha256 post-mortem.md incident.json; do
[ ! -e "$f" ] || mv -f "$f" %s/; done; sync]]):format(quote(dir), incident.dir, quote(dir)))
  ctx.log("the incident before this one is kept in " .. dir)
end

-- incident.enter(ctx, name, by, note): an entry stands once; a later one of the same name
-- replaces it, and the journal has both.
function incident.enter(ctx, name, by, note)
  local record = incident.read(ctx) or fail("incident", "no incident is open on this server")
  record.items = record.items or {}
  record.items[name] = { at = ctx.now(), by = by, note = note, run = ctx.run }
  incident.write(ctx, record)
  ctx.log(("checklist: %s by %s at %s%s"):format(name, by, calendar.utc(ctx.now()), note and ": " .. note or ""))
end

-- incident.deadline(record, now) -> epoch of the 72 hours' end, and a text about it
function incident.deadline(record, now)
  local due = record.aware + 72 * 3600
  local left = due - now
  return due, left >= 0 and ("%d h %02d min are left"):format(left // 3600, left % 3600 // 60)
    or ("they are over since %d h"):format(-left // 3600)
end

local function cell(text)
  return (tostring(text or ""):gsub("[|\n\r]", " "))
end

-- incident.document(ctx, record) -> the post-mortem
function incident.document(ctx, record)
  local rows = {}
  for i, item in ipairs(incident.items) do
    local done_ = (record.items or {})[item[1]]
    rows[i] = { mark = done_ and "x" or " ", title = item[2], at = done_ and calendar.utc(done_.at) or "",
      by = cell(done_ and done_.by), note = cell(done_ and done_.note) }
  end
  return ctx.render("isolate/post-mortem.md", {
    tenant = ctx.params.tenant, incident = record.incident, aware = calendar.utc(record.aware),
    due = calendar.utc((incident.deadline(record, 0))), items = rows, evidence = record.evidence or "none was taken",
  })
end

-- incident.missing(record) -> names of what is still to do
function incident.missing(record)
  local list = {}
  for _, item in ipairs(incident.items) do
    if not (record.items or {})[item[1]] then list[#list + 1] = item[1] end
  end
  return list
end

return incident
