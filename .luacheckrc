-- .luacheckrc: which globals each part of the tree may use. Runbooks and the Lua library
-- see the allow-listed environment of host/prelude/script.lua and nothing else.
codes = true
max_line_length = 140
unused_args = false

stds.runbook = {
  read_globals = {
    "assert", "collectgarbage", "error", "getmetatable", "ipairs", "math", "next", "pairs", "pcall",
    "print", "rawequal", "rawget", "rawlen", "rawset", "select", "setmetatable", "string", "table",
    "tonumber", "tostring", "type", "utf8", "xpcall", "_VERSION",
    "runbook", "step", "param", "resource", "done", "pending", "unknown", "after", "include", "json",
    "template", "crypto", "http", "quote", "argv", "diff", "duration", "fail", "last_lines", "did_you_mean",
    "sorted_keys", "parallel", "data", "sleep", "scp",
  },
}

-- Each file of the Lua library is a global there.
local library = io.popen("ls modules/lua")
for name in library:lines() do
  stds.runbook.read_globals[#stds.runbook.read_globals + 1] = name:match("^(.*)%.lua$")
end
library:close()

std = "lua54"
files["modules/lua"].std = "runbook"
files["runbooks"].std = "runbook"
files["templates"].std = "runbook"
files["spec"].std = "lua54+busted"
files["spec/bench"].std = "runbook"
files["spec"].max_line_length = false
files[".luacheckrc"].std = "lua54+luacheckrc"
