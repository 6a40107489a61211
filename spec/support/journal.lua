-- journal.lua: what the specs of the journal share: a folder of their own, checks of a
-- refusal, other processes that write or are killed. It asserts what each helper needs.
local host = require "host"
local journal = require "journal"
local support = require "support.lbrun"
local sh, spit, quote = support.sh, support.spit, support.quote

local helper = {}

local self = sh("readlink /proc/$PPID/exe"):gsub("%s+$", "")
local killat = self:gsub("[^/]*$", "") .. "killat.so"
helper.self = self

-- Each spec has a fresh folder; what was opened in it is closed.
local opened
function helper.begin()
  helper.dir, opened = support.temp(), {}
  helper.path = helper.dir .. "/journal.db"
end

function helper.finish()
  for _, j in ipairs(opened) do j:close() end
  sh("rm -rf " .. quote(helper.dir))
end

function helper.open(opts, where)
  local j = assert(journal.open(where or helper.path, opts))
  opened[#opened + 1] = j
  return j
end

-- refused(code, nil, err) -> err
function helper.refused(code, value, err)
  assert(value == nil, "expected nil and an error with code " .. code)
  assert(type(err) == "table" and err.code == code and err.module == "journal",
    ("expected code %s, got %s: %s"):format(code, err and err.code, err and err.message))
  return err
end

function helper.new_run(j, id, fields)
  local r = { id = id, name = "provision", params = "{}", params_digest = "d-" .. id, interface = 1 }
  for k, v in pairs(fields or {}) do r[k] = v end
  local row, existing = j:run_create(r)
  assert(row, existing)
  return row, existing
end

-- Write a busted file with the given body as its one spec, which another lbrun-spec runs.
-- Its locals: host, journal, path. -> its path
function helper.script(body, path)
  local file = helper.dir .. "/child.lua"
  spit(file, ("local host, journal = require 'host', require 'journal'\nlocal path = %q\n" ..
    "it('is done', function()\n%s\nend)\n"):format(path or helper.path, body))
  return file
end

-- child(body, { env, path, wrap }) -> output, exit status (137: killed)
function helper.child(body, opts)
  opts = opts or {}
  local env = ""
  for k, v in pairs(opts.env or {}) do env = ("%s %s=%s"):format(env, k, quote(v)) end
  return sh(("%s env %s %s %s"):format(opts.wrap or "", env, quote(self), quote(helper.script(body, opts.path))))
end

-- The child is killed at its nth commit (see killat.c).
function helper.killed(n, when, body)
  return helper.child(body, { env = { LD_PRELOAD = killat, KILLAT = tostring(n), KILLAT_WHEN = when,
    ASAN_OPTIONS = "verify_asan_link_order=0:detect_leaks=0" } })
end

-- This process as the owner of a lease, and another one that lives until it is killed.
function helper.me()
  return { pid = host.pid(), start_time = host.start_time(), boot_id = host.boot_id(), host = host.hostname() }
end

function helper.living()
  local p = io.popen("sleep 60 >/dev/null & echo $!", "r")
  local pid = math.tointeger(p:read "n")
  p:close()
  local owner, fields = helper.me(), {}
  for word in support.slurp(("/proc/%d/stat"):format(pid)):match("%) (.*)"):gmatch "%S+" do fields[#fields + 1] = word end
  owner.pid, owner.start_time = pid, math.tointeger(fields[20])
  return owner, function()
    sh(("kill -9 %d; until ! test -e /proc/%d || grep -q ') Z' /proc/%d/stat; do sleep 0.01; done"):format(pid, pid, pid))
  end
end

return helper
