-- docs.lua: documentation that cannot drift. It fails when a function that Lua sees lacks
-- its reference comment or a spec, when README.md lacks a word of what runbooks may say,
-- or when the manual page lacks an option.
--	lua5.4 spec/support/docs.lua REFERENCE.md
-- Writes the reference of the native modules to REFERENCE.md. It judges no wording.
local out = assert(arg[1], "usage: docs.lua REFERENCE.md")

local findings = 0
local function finding(text, ...)
  findings = findings + 1
  print(text:format(...))
end

local function slurp(path)
  local f = io.open(path, "rb")
  if not f then
    finding("there is no %s", path)
    return ""
  end
  local text = f:read "a"
  f:close()
  return text
end

local function files(command)
  local list = {}
  local p = assert(io.popen(command .. " | LC_ALL=C sort"))
  for path in p:lines() do list[#list + 1] = { path = path, text = slurp(path) } end
  p:close()
  return list
end

local sources = files "find host modules -name '*.c' -o -name '*.h' -path 'host/*'"
local specs = {}
for i, file in ipairs(files "find spec -name '*.lua' ! -name lint.lua ! -name docs.lua") do specs[i] = file.text end
specs = table.concat(specs, "\n")

-- The comment above the definition (or the declaration in a header) of a C function.
local function comment_of(name)
  local seen
  for _, file in ipairs(sources) do
    local at = file.text:find("\n" .. name .. "%(lua_State", 1) or file.text:find("\nint " .. name .. "%(lua_State", 1)
    if at then
      seen = true
      local before = file.text:sub(1, at)
      -- The last comment, if it ends just above the function's type.
      local last
      for start in before:gmatch("()/%*") do last = start end
      local comment = last and before:sub(last)
      local body, rest = (comment or ""):match("^/%*(.-)%*/(.*)$")
      if body and not rest:find("[;{}]") then return body, file.path end
    end
  end
  return nil, seen
end

local reference = {}
local function tidy(body)
  return (body:gsub("\n %* ?", "\n"):gsub("^%s+", ""):gsub("%s+$", ""))
end

local function check_native()
  for _, file in ipairs(sources) do
    for array, list in file.text:gmatch("luaL_Reg%s+([%w_]+)%[%]%s*=%s*(%b{})") do
      for name, fn in list:gmatch('{%s*"([%w_]+)"%s*,%s*([%w_]+)%s*}') do
        -- The guarded ones are Lua's own, by Lua's own manual.
        if not name:match("^__") and array ~= "guarded" then
          local body, seen = comment_of(fn)
          if not body then
            finding("%s: %s (%s) has no reference comment%s", file.path, name, fn, seen and "" or ": no definition was found")
          elseif not body:match("[%w_]+[.:]" .. name .. "%f[^%w_]") and not body:match("^%s*" .. name .. "%(") then
            finding("%s: the comment of %s does not show how it is called (module.%s(...) or object:%s(...))",
              file.path, fn, name, name)
          elseif not body:find("+->", 1, true) then
            finding("%s: the comment of %s does not say what comes out (+->)", file.path, name)
          else
            local module = file.path:match("([^/]+)%.c$"):gsub("_.*$", ""):gsub("^hostlib$", "host")
            reference[module] = reference[module] or {}
            table.insert(reference[module], tidy(body))
          end
          if not specs:find("[.:]" .. name .. "%f[^%w_]") and not specs:find('"' .. name .. '"', 1, true) then
            finding("%s: no spec says %s", file.path, name)
          end
        end
      end
    end
  end
end

local library = {}
local readme = slurp "README.md"
local function says(word)
  return readme:find(word .. "%f[^%w_]") ~= nil
end

local function check_readme()
  for _, file in ipairs(files "find modules/lua -name '*.lua'") do
    -- What takes a table is for runbooks; its comment is its reference.
    for comment in ("\n" .. file.text):gmatch("\n%-%- ([%w_]+%.[%w_]+ {.-)\n[^-]") do
      for name in ("\n" .. comment):gmatch("\n([%w_]+%.[%w_]+) {") do
        if not says(name:gsub("%.", "%%.")) then finding("%s: README.md does not name %s", file.path, name) end
      end
      library[#library + 1] = (comment:gsub("\n%-%- ?", "\n"))
    end
    for name in file.text:gmatch('\n(%l[%w_]*%.[%w_]+) = resource%("') do
      if not file.text:find("-- " .. name .. " {", 1, true) then
        finding("%s: %s has no comment `-- %s { ARGUMENTS }: ...`", file.path, name, name)
      end
    end
  end
  local script = slurp "host/prelude/script.lua"
  for line in script:gmatch("[^\n]+") do
    local left = line:match("^  (env%.[%w_, .]+) =") or line:match("^  env%.[%w_]+ = nil")
    for name in (left or ""):gmatch("env%.([%w_]+)") do
      if not line:match("= nil$") and not says("%f[%w]" .. name) then finding("README.md does not name the global %s", name) end
    end
  end
  local context = slurp "host/prelude/context.lua"
  for name in context:gmatch("function ctx%.([%w_]+)%(") do
    if not says("ctx%." .. name) then finding("README.md does not name ctx.%s", name) end
  end
  for name in (context:match("local lazy = (%b{})") or ""):gmatch("\n    ([%w_]+) = function") do
    if not says("ctx%." .. name) then finding("README.md does not name ctx.%s", name) end
  end
  local internal = { shell = true, exec = true, needs_sudo = true, require_root = true }
  for name in slurp("host/prelude/target.lua"):gmatch("\nfunction view:([%w_]+)%(") do
    if not internal[name] and not says("t:" .. name) then finding("README.md does not name t:%s", name) end
  end
  for name in slurp("host/prelude/params.lua"):gmatch("\nkinds%.([%w_]+)[ ,]") do
    if not says("param%." .. name) then finding("README.md does not name param.%s", name) end
  end
  for _, file in ipairs(files "find runbooks -maxdepth 1 -name '*.lua'") do
    if not readme:find(file.path:match("[^/]+$"), 1, true) then finding("README.md does not name %s", file.path) end
  end
end

-- Commands and options as cli.c has them, in the manual page and in the completions.
local function check_command_line()
  local cli = slurp "host/cli.c"
  local man = slurp("host/lbrun.1"):gsub("\\%-", "-")
  local bash, zsh = slurp "host/completion.bash", slurp "host/completion.zsh"
  for name in (cli:match("commands%[%] = (%b{})") or ""):gmatch('\n\t{ "([%w-]+)"') do
    if not man:find("\n.B lbrun " .. name, 1, true) then
      finding("host/lbrun.1 does not name the command %s", name)
    end
    for path, text in pairs { ["host/completion.bash"] = bash, ["host/completion.zsh"] = zsh } do
      if not text:find("%f[%w-]" .. name:gsub("%-", "%%-") .. "%f[^%w-]") then
        finding("%s does not name the command %s", path, name)
      end
    end
  end
  for name in (cli:match("rows%[%] = (%b{})") or ""):gmatch('\n\t{ "([%w-]+)"') do
    if not man:find("--" .. name, 1, true) then finding("host/lbrun.1 does not name --%s", name) end
    for path, text in pairs { ["host/completion.bash"] = bash, ["host/completion.zsh"] = zsh } do
      if not text:find("--" .. name, 1, true) then finding("%s does not name --%s", path, name) end
    end
  end
end

check_native()
check_readme()
check_command_line()

local names = {}
for name in pairs(reference) do names[#names + 1] = name end
table.sort(names)
local f = assert(io.open(out, "wb"))
f:write("# Native modules\n\nMade from the comments of the C sources by `make docs`.\n")
for _, name in ipairs(names) do
  f:write("\n## ", name, "\n\n```\n", table.concat(reference[name], "\n\n"), "\n```\n")
end
f:write("\n# The Lua library\n\n```\n", table.concat(library, "\n\n"), "\n```\n")
f:close()
print(findings == 0 and "docs: nothing missing, the reference is " .. out or ("docs: %d missing"):format(findings))
os.exit(findings == 0)
