-- program.lua: runs the lbrun that was built with this spec runner, and scripts inside the
-- runner itself, and keeps what they wrote. It asserts nothing.

local host = require "host"

local program = {}

-- A runner that is built anew while it runs still finds its place.
local link = io.popen(("readlink /proc/%d/exe"):format(host.pid()))
program.spec = link:read "l":gsub(" %(deleted%)$", "")
link:close()
program.lbrun = program.spec:gsub("%-spec$", "")

function program.quote(text)
  return "'" .. text:gsub("'", [['\'']]) .. "'"
end

function program.temp()
  local pipe = io.popen "mktemp -d"
  local dir = pipe:read "l"
  pipe:close()
  return dir
end

-- sh(script [, words...]) -> { status =, out =, err = }; the words are "$@" of the script.
-- A death by signal N has status 128 + N; after a minute it is over with 124.
function program.sh(script, ...)
  local dir = program.temp()
  local words = {}
  for i, word in ipairs { script, "sh", ... } do words[i] = program.quote(word) end
  local _, how, status = os.execute(("timeout --foreground -k 1 60 sh -c %s >%s/out 2>%s/err"):format(
    table.concat(words, " "), dir, dir))
  local result = { status = how == "signal" and 128 + status or status }
  for _, name in ipairs { "out", "err" } do
    local file = io.open(dir .. "/" .. name, "rb")
    result[name] = file:read "a"
    file:close()
  end
  os.execute("rm -rf " .. dir)
  return result
end

-- run(words...) -> result of lbrun with these arguments.
function program.run(...)
  return program.sh('"$@"', program.lbrun, ...)
end

-- script(text [, shell]) -> result of the Lua text as main task. `shell` is the command
-- line, in which "$@" stands for the program and its arguments.
function program.script(text, shell)
  local dir = program.temp()
  local path = dir .. "/script.lua"
  local file = io.open(path, "w")
  file:write(text)
  file:close()
  local result = program.sh(shell or '"$@"', program.spec, "--script", path)
  os.execute("rm -rf " .. dir)
  return result
end

return program
