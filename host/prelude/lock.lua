-- lock.lua: one run a target: a lease in the journal and one on the target, by the
-- target's own clock. A dead holder's lease is taken over by its own run only.
local host = require "host"
local json = require "json"
local util = require "lb.util"
local job = require "lb.job"

local lock = {}

local ttl = 120

local function owner_of(run)
  return {
    run = run.root_id, pid = host.pid(), start_time = host.start_time(), boot_id = host.boot_id(),
    host = host.hostname(), user = host.user(), runbook = run.book.name,
  }
end

local function refuse(run, holder, where)
  local id = holder.run or "?"
  local here = holder.host == host.hostname()
  local alive = here and host.process_alive(holder.pid, holder.start_time, holder.boot_id)
  util.raise("locked", ("%s is locked by run %s%s (%s); %s"):format(run.spec.url, id,
    holder.runbook and " of " .. holder.runbook or "",
    alive and ("running, process %d"):format(holder.pid) or where,
    alive and "wait for it, or see: lbrun show " .. id
      or ("go on with it: lbrun resume %s, or give it up: lbrun abandon %s --reason TEXT"):format(id, id)))
end

-- lock.alive(journal, row) -> pid of the process that runs it, or nil.
function lock.alive(journal, row)
  for _, place in ipairs { lock.place(row.id), row.target } do
    local owner = journal:lease(place)
    if owner and owner.run == row.id and host.process_alive(owner.pid, owner.start_time, owner.boot_id) then
      return owner.pid
    end
  end
end

-- A run that is carried on is one process's: two that go on with it at the same moment are
-- told apart here, before anything of it is changed. -> true, or nil and why
function lock.place(id) return "@run/" .. id end
function lock.carry(journal, id)
  return journal:lease_take(lock.place(id), id, { pid = host.pid(), start_time = host.start_time(),
    boot_id = host.boot_id(), host = host.hostname() }, ttl)
end
function lock.put_down(journal, id) journal:lease_drop(lock.place(id), id) end

local take_script = [[
umask 077; d=%s; run=%s; ended=%s
t=
for i in 1 2 3; do # another run may take its empty folder away
  mkdir -p "$d" && chmod 700 "$d" && t=$(mktemp -d "$d/.lock.XXXXXX") && break
done
[ -n "$t" ] || exit 90
printf '%%s\n' %s >"$t/owner" || { rm -rf "$t"; exit 92; }
printf '%%s\n' "$run" >"$t/run"
i=0
while ! mv -T "$t" "$d/lock" 2>/dev/null; do
  held=$(cat "$d/lock/run" 2>/dev/null)
  # A lock appears whole and is moved away whole: without its run it is what is left of one.
  if [ $i -lt 3 ] && case $held in "$run" | "" | "$ended") : ;; *) false ;; esac; then
    i=$((i + 1))
    [ -n "$held" ] || sleep 0.2
    mv -T "$d/lock" "$t.gone" 2>/dev/null || continue
    # Another run may have taken it since it was read: that one gets it back.
    [ "$(cat "$t.gone/run" 2>/dev/null)" = "$held" ] || { mv -T "$t.gone" "$d/lock" 2>/dev/null && continue; }
    rm -rf "$t.gone"; continue
  fi
  [ -n "$held" ] || { rm -rf "$t"; exit 93; }
  echo "$(($(date +%%s) - $(stat -c %%Y "$d/lock/owner" 2>/dev/null || date +%%s)))"
  printf '%%s\n' "$held"; cat "$d/lock/owner" 2>/dev/null; rm -rf "$t"; exit 75
done
]]

-- lock.check_journal(run): refuse early, before anything is asked of the server.
function lock.check_journal(run)
  local row = run.journal:lease(run.spec.url)
  if row and row.run ~= run.root_id then refuse(run, row, "its process is gone") end
end

-- lock.take(run): raises locked. The journal's lease first: it is cheap and local.
function lock.take(run)
  local owner = owner_of(run)
  local ok, err = run.journal:lease_take(run.spec.url, run.root_id, {
    pid = owner.pid, start_time = owner.start_time, boot_id = owner.boot_id, host = owner.host }, ttl)
  if not ok then
    if err.code ~= "locked" then util.check(nil, err) end
    local holder = err.holder or {}
    refuse(run, holder, "its process is gone")
  end
  run.leased = true
  if not run.conn then return end
  lock.take_target(run, owner)
  run.heart = host.task(lock.beat, run)
end

-- A run that has ended, by this journal, but could not reach its server to say so.
local function has_ended(run, id)
  local row = id and run.journal:run(id)
  local status = row and row.id == id and row.status
  return status == "done" or status == "undone" or status == "abandoned" or status == "refused"
end

function lock.take_target(run, owner, ended)
  owner = owner or owner_of(run)
  local view = run:view()
  local result = view:try(take_script:format(util.quote(job.state_dir(view)), util.quote(run.root_id),
    util.quote(ended or run.root_id), util.quote(json.encode(owner))), { ok = { 0, 75 } })
  if result.status == 75 then
    local age, id, text = result.stdout:match("^(%-?%d+)\n([^\n]*)\n(.*)$")
    local fine, holder = pcall(json.decode, text or "")
    holder = fine and type(holder) == "table" and holder or {}
    holder.run = id
    if not ended and has_ended(run, holder.run) then return lock.take_target(run, owner, holder.run) end
    refuse(run, holder, ("last sign of life %s ago by the server's clock, from %s"):format(
      util.show_seconds(math.max(0, tonumber(age) or 0)), holder.host or "an unknown machine"))
  elseif result.status ~= 0 then
    util.raise("lock", ("no lock can be made in %s on %s: %s"):format(job.state_dir(view), run.spec.url,
      util.last_lines(result.stderr, 1)))
  end
end

-- lock.turn(run, name, fn): fn when no other run of this journal is in a turn of that name;
-- a turn whose process has died is over.
function lock.turn(run, name, fn)
  local me = owner_of(run)
  local owner = { pid = me.pid, start_time = me.start_time, boot_id = me.boot_id, host = me.host }
  local place, stop = "@" .. name, host.monotonic() + 600
  while true do
    local ok, err = run.journal:lease_take(place, run.id, owner, ttl)
    if ok then break end
    if err.code ~= "locked" then util.check(nil, err) end
    if host.monotonic() > stop then util.raise("locked", ("%s is taken by another run for ten minutes: %s"):format(name, tostring(err))) end
    if not host.sleep(0.2) and host.interrupted() > 0 then
      util.raise("interrupted", "interrupted while another run had its turn", { exit = 130 })
    end
  end
  local result = table.pack(pcall(fn))
  run.journal:lease_drop(place, run.id)
  if not result[1] then error(result[2], 0) end
  return table.unpack(result, 2, result.n)
end

-- The heartbeat of both leases, in a task of its own.
function lock.beat(run)
  while true do
    local ok = host.sleep(30)
    if not ok or run.finished then return end
    run.journal:lease_beat(run.spec.url, run.root_id)
    local conn = run.conn
    if conn and not conn.closed then
      pcall(function()
        local view = run:view()
        view:try(("touch %s/lock/owner"):format(util.quote(job.state_dir(view))), { timeout = 20, discard = true })
      end)
    end
  end
end

-- lock.drop(run, keep): both leases go, unless something of the run is still open.
function lock.drop(run, keep)
  if run.heart then run.heart:cancel() end
  if not run.leased or keep then return end
  if run.conn and not run.conn.closed then
    pcall(function()
      local view = run:view()
      local base = job.state_dir(view)
      local dir = util.quote(base .. "/lock")
      -- A run that was refused leaves nothing, not even the folder.
      view:try(("[ \"$(cat %s/run 2>/dev/null)\" = %s ] && mv -T %s %s.gone && rm -rf %s.gone && rmdir %s 2>/dev/null; true"):format(
        dir, util.quote(run.root_id), dir, dir, dir, util.quote(base)), { timeout = 20 })
    end)
  end
  run.journal:lease_drop(run.spec.url, run.root_id)
end

return lock
