-- lbrun.lua: runs the lbrun that was built beside the spec runner, in a home of its own.
-- It asserts nothing.
local json = require "json"

local lbrun = {}

local mode = os.getenv "LBRUN_SPEC_MODE" or "release"
lbrun.binary = ("build/%s/lbrun"):format(mode)
lbrun.killat = ("build/%s/killat.so"):format(mode)
lbrun.clockat = ("build/%s/clockat.so"):format(mode)

local function quote(s)
  return "'" .. tostring(s):gsub("'", [['\'']]) .. "'"
end
lbrun.quote = quote

local function slurp(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "a"
  f:close()
  return text
end
lbrun.slurp = slurp

function lbrun.spit(path, text)
  local f = assert(io.open(path, "wb"))
  assert(f:write(text))
  f:close()
end

function lbrun.temp()
  local p = io.popen "mktemp -d"
  local dir = p:read "l"
  p:close()
  return dir
end

function lbrun.sh(command)
  local p = io.popen(command .. " 2>&1")
  local text = p:read "a"
  local _, _, status = p:close()
  return text, status
end

lbrun.root = lbrun.sh "id -u" == "0\n"

-- A home: journal, runbooks and files of one spec. home:run("args...", { env, stdin,
-- before }) -> { exit, out, err, signal }
function lbrun.home()
  local home = { dir = lbrun.temp() }
  lbrun.sh(("mkdir -p %s/work %s/var"):format(home.dir, home.dir))
  home.work = home.dir .. "/work"

  function home.runbook(name, text)
    local path = home.dir .. "/" .. name .. ".lua"
    lbrun.spit(path, text)
    return path
  end

  function home.run(args, options)
    options = options or {}
    if type(args) == "table" then
      local words = {}
      for i, a in ipairs(args) do words[i] = quote(a) end
      args = table.concat(words, " ")
    end
    local env = { HOME = home.dir, XDG_STATE_HOME = home.dir .. "/state", XDG_CONFIG_HOME = home.dir .. "/config" }
    for k, v in pairs(options.env or {}) do env[k] = v end
    local words = {}
    for k, v in pairs(env) do words[#words + 1] = k .. "=" .. quote(v) end
    local stdin = "/dev/null"
    if options.stdin then
      stdin = home.dir .. "/stdin"
      lbrun.spit(stdin, options.stdin)
    end
    local out, err = home.dir .. "/out.txt", home.dir .. "/err.txt"
    local command = ("env -u SSH_AUTH_SOCK %s %s %s %s"):format(table.concat(words, " "), options.before or "",
      lbrun.binary, args)
    if lbrun.root then
      -- What a run keeps on its target is this home's own, also for local: as root.
      command = ("unshare -m sh -c 'mkdir -p /var/lib/lbrun && mount --bind %s/var /var/lib/lbrun && exec \"$@\"' sh %s"):format(
        home.dir, command)
    end
    local _, how, status = os.execute(("%s <%s >%s 2>%s"):format(command, quote(stdin), quote(out), quote(err)))
    local r = { out = slurp(out), err = slurp(err) }
    if how == "signal" or status > 128 and status ~= 130 and status ~= 143 then
      r.signal = how == "signal" and status or status - 128
    end
    r.exit = status
    r.id = r.out:match "([%w-]+%-%w%w%w%w%w%w): " or r.err:match "^([%w-]+%-%w%w%w%w%w%w) "
    return r
  end

  -- The lines of --json as tables.
  function home.json(args, options)
    local r = home.run(args, options)
    r.lines = {}
    for line in r.out:gmatch "[^\n]+" do
      r.lines[#r.lines + 1] = assert(json.decode(line))
    end
    r.last = r.lines[#r.lines]
    return r
  end

  function home.remove()
    lbrun.sh("rm -rf " .. quote(home.dir))
  end
  return home
end

return lbrun
