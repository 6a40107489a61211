-- job.lua: commands that outlive the connection. A job is a directory on the target that
-- is made atomically and holds the command, its output, and its exit status; the process
-- that runs it is a session of its own. It decides nothing about steps.
local host = require "host"
local crypto = require "crypto"
local util = require "lb.util"

local job = {}

local chunk, half = 262144, 65536

-- Where a view keeps its files on the target.
function job.state_dir(view)
  if view.as_root or view.conn:is_root() then return "/var/lib/lbrun" end
  return view.conn:facts().home .. "/.local/state/lbrun"
end

-- One part of a directory's name: without the dot that stands between parts, and short
-- enough that four of them are a file name.
local function clean(text)
  local word = text:gsub("[^%w_-]", function(c) return ("%%%02X"):format(c:byte()) end)
  return #word <= 56 and word or word:sub(1, 31) .. "~" .. crypto.sha256(text):sub(1, 24)
end

-- job.prefix(run [, step]): what the ids of its jobs begin with.
function job.prefix(run, step)
  return clean(run) .. "." .. (step and clean(step) .. "." or "")
end

function job.id(run, step, effect, attempt, name)
  return job.prefix(run, step) .. clean(effect) .. "." .. attempt .. (name and "." .. clean(name) or "")
end

-- `meta` is linked into place once: by the process of the job, or by who gives it up. So
-- a job that was seen as not started never starts later.
local void_script = [[
[ -e meta ] || { echo void >void; ln void meta 2>/dev/null; }
boot=
read -r boot pid start <meta 2>/dev/null
[ "${boot:-void}" = void ] && ]]

local start_script = [[
umask 077
base=%s; id=%s
mkdir -p "$base/jobs" && chmod 700 "$base" "$base/jobs" || exit 90
cd "$base/jobs" || exit 90
if mkdir "$id" 2>/dev/null; then
  printf '%%s\n' %s >"$id/command" || { rm -rf "$id"; exit 92; }
  setsid sh -c '
    cd "$1" || exit 1
    # Its block is taken now: the status can be written when the disk is full.
    printf "%%-4s\n" "" >status.tmp; sync status.tmp
    echo "$(cat /proc/sys/kernel/random/boot_id) $$ $(sed "s/.*) //" /proc/$$/stat | cut -d" " -f20)" >meta.tmp
    sync meta.tmp; ln meta.tmp meta || exit 1
    (umask 022; LC_ALL=C DEBIAN_FRONTEND=noninteractive exec sh ./command) >out 2>err </dev/null
    printf "%%-4s\n" $? 1<>status.tmp; sync out err status.tmp; mv status.tmp status; sync .
  ' sh "$id" >/dev/null 2>&1 </dev/null &
fi
i=0
while [ ! -e "$id/meta" ] && [ $i -lt 100 ]; do sleep 0.05; i=$((i + 1)); done
cd "$id" || exit 91
]] .. void_script .. "exit 91\ntrue\n"

-- One look at a job, which waits on the target for up to two seconds for it to end. It
-- starts no process but sleep: the job has better use for the processor.
-- Prints: state, status, sizes, then the next part of its output.
local poll_script = [[
cd %s/jobs/%s 2>/dev/null || { echo gone; exit 0; }
]] .. void_script .. [[{ echo empty; exit 0; }
read -r now </proc/sys/kernel/random/boot_id
alive() {
  [ "$boot" = "$now" ] && read -r stat 2>/dev/null </proc/$pid/stat || return 1
  set -- ${stat##*) }
  [ "$start" = "${20}" ]
}
for nap in %s; do
  [ ! -e status ] && alive || break
  sleep $nap
done
if [ -e status ]; then state=done
elif alive; then state=running
elif [ -e status ]; then state=done
elif [ "$boot" = "$now" ]; then state=died
else state=rebooted; fi
echo "$state $(cut -d" " -f1 status 2>/dev/null || echo -) $(wc -c <out 2>/dev/null || echo 0) $(wc -c <err 2>/dev/null || echo 0)"
tail -c +%d out 2>/dev/null | head -c %d
]]

-- A short job is not kept waiting, a long one is not asked all the time.
local naps = {
  none = "", first = ("0.05 "):rep(10) .. ("0.1 "):rep(15), later = ("0.25 "):rep(8),
}

local function poll(view, id, offset, nap)
  local base = job.state_dir(view)
  local result = view:try(poll_script:format(util.quote(base), util.quote(id), naps[nap], offset + 1, chunk),
    { timeout = 60 })
  local line, rest = result.stdout:match("^([^\n]*)\n(.*)$")
  local state, status, out, err = (line or ""):match("^(%a+) ?(%S*) ?(%d*) ?(%d*)")
  if not state then
    util.raise("job", "the job's state cannot be read: " .. util.last_lines(result.stderr, 2))
  end
  return { state = state, status = tonumber(status), out = tonumber(out), err = tonumber(err) }, rest or ""
end

-- job.wait(view, id, { timeout, progress, whole, on_interrupt }) -> { status, stdout,
-- stderr } with the first and last 64 KiB of each; raises job_lost when it died or the
-- server rebooted. `whole`: progress sees every line, however many.
function job.wait(view, id, options)
  options = options or {}
  local stop = options.timeout and host.monotonic() + util.duration(options.timeout)
  local window, offset, partial = util.window(half), 0, ""
  local told, behind
  local nap, broken = "first", false -- broken: the next line begins in its middle
  while true do
    local seen, text = poll(view, id, offset, behind and "none" or nap)
    nap = "later"
    if host.interrupted() > 0 and not told then
      told = true
      if options.on_interrupt then options.on_interrupt() end
    end
    offset = offset + #text
    window.add(text)
    behind = #text == chunk
    -- What nobody will see is not fetched: only the first and the last of it is kept.
    local skipped = behind and not options.whole and seen.out - offset > chunk
    if skipped then
      window.skip(seen.out - offset - window.keep)
      offset = seen.out - window.keep
    end
    if options.progress and text ~= "" then
      partial = partial .. text
      local whole, rest = partial:match("^(.*\n)([^\n]*)$")
      if whole then
        partial = rest
        if broken then whole = whole:match("\n(.*)$") end
        broken = false
        for line in whole:gmatch("([^\n]+)\n") do options.progress(line) end
      end
      if skipped then partial, broken = "", true end
    end
    if seen.state == "done" and (seen.out or 0) <= offset then
      local q = util.quote(job.state_dir(view) .. "/jobs/" .. id)
      local errors = util.window(half)
      local short = seen.err <= 2 * errors.keep
      local look = (short and "head -c %d %s/err" or "head -c %d %s/err; tail -c %d %s/err"):format(
        short and seen.err or errors.keep, q, errors.keep, q)
      -- On a full disk the command's own complaint may have found no room.
      if seen.status ~= 0 then look = look .. ("; df -Pk %s | awk 'NR == 2 && $4 < 64 { print %s }'"):format(q,
        '"No space left on device: " $4 " KiB are free"') end
      local printed = view:try(look .. "; true", { timeout = 60, quiet = true }).stdout
      local size = short and seen.err or 2 * errors.keep
      errors.add(printed:sub(1, short and size or errors.keep))
      if not short then
        errors.skip(seen.err - size)
        errors.add(printed:sub(errors.keep + 1, size))
      end
      return { status = seen.status, stdout = window.text(), stderr = errors.text() .. printed:sub(size + 1), id = id }
    end
    if seen.state ~= "running" and seen.state ~= "done" then
      local why = ({ died = "its process ended without leaving a status", rebooted =
        "the server was rebooted while it ran", gone = "its directory is gone",
        empty = "it was never started" })[seen.state] or seen.state
      util.raise("job_lost", ("the job %s has no result: %s"):format(id, why),
        { state = seen.state, stdout = window.text(), id = id })
    end
    if stop and host.monotonic() > stop then
      util.raise("timeout", ("the job %s did not end within %s; it goes on, and resume waits for it")
        :format(id, util.show_seconds(util.duration(options.timeout))))
    end
  end
end

-- job.start(view, id, command): starts it, or finds it started. Never starts one twice.
function job.start(view, id, command)
  local result = view:try(start_script:format(util.quote(job.state_dir(view)), util.quote(id),
    util.quote(command)), { timeout = 60 })
  if result.status ~= 0 then
    local why = ({ [90] = "its directory cannot be made", [91] = "it did not start (is the disk full?)",
      [92] = "its command cannot be written (is the disk full?)" })[result.status]
      or "status " .. result.status
    util.raise("job", ("the job %s was not started: %s %s"):format(id, why,
      util.last_lines(result.stderr, 2)))
  end
end

-- The jobs of a run's step that have left a directory, as a list of ids.
function job.list(view, prefix)
  local base = job.state_dir(view) .. "/jobs"
  local result = view:try(("cd %s 2>/dev/null && ls -1 || true"):format(util.quote(base)))
  local list = {}
  for name in result.stdout:gmatch("[^\n]+") do
    if name:sub(1, #prefix) == prefix then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

function job.state(view, id)
  return poll(view, id, 0, "none").state
end

function job.remove(view, ids)
  if #ids == 0 then return end
  local words = {}
  for i, id in ipairs(ids) do words[i] = util.quote(id) end
  view:try(("cd %s/jobs 2>/dev/null && rm -rf -- %s"):format(util.quote(job.state_dir(view)),
    table.concat(words, " ")))
end

return job
