-- lint.lua: the layer rules of the tree, as checks on its text and on its objects.
--	lua5.4 spec/support/lint.lua BUILD_DIR
-- Prints one line a finding and fails if there is one. What compilers and the common
-- linters find is their business.
local build = assert(arg[1], "usage: lint.lua BUILD_DIR")

local findings = 0
local function finding(path, line, text, ...)
  findings = findings + 1
  print(("%s:%s: %s"):format(path, line or 1, text:format(...)))
end

local function lines_of(command)
  local list = {}
  local p = assert(io.popen(command))
  for line in p:lines() do list[#list + 1] = line end
  p:close()
  return list
end

local function slurp(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "a"
  f:close()
  return text
end

local function each_line(text)
  local n = 0
  local next_line = text:gmatch("([^\n]*)\n?")
  return function()
    local line = next_line()
    n = n + 1
    if line then return n, line end
  end
end

-- Layers of the host, bottom first. A file may include headers of its own layer and of
-- those below. The longest name that a file's own begins with counts.
local layers = {
  { "digest", "version", "prelude", "modules", "mask", "journal" },
  { "lb", "secret", "curl" },
  { "loop", "sandbox", "state", "cli", "process", "mask_lua", "journal_lua", "journal_args_lua",
    "journal_outbox_lua", "hostlib" },
  { "runtime" },
  { "main" },
}
local layer_of_name = {}
for i, names in ipairs(layers) do
  for _, name in ipairs(names) do layer_of_name[name] = i end
end
local function stem_of(path)
  return path:match("([^/]+)%.[ch]$")
end
local function layer_of(stem)
  while stem do
    if layer_of_name[stem] then return layer_of_name[stem], stem end
    stem = stem:match("^(.*)_[^_]*$")
  end
end

-- One third-party library, one file (or the files of one module).
local libraries = {
  { "^libssh2", "modules/ssh" },
  { "^openssl/", "modules/crypto", "host/digest" },
  { "^cjson/", "modules/json", "modules/netcup" },
  { "^sqlite3%.h", "host/journal_db", "modules/db" },
  { "^uv%.h", "host/loop", "host/process" },
  { "^curl/", "host/curl" },
  { "^crypt%.h", "modules/crypto" },
  { "^argon2%.h", "modules/crypto" },
}
local lua_headers = { ["lua.h"] = true, ["lauxlib.h"] = true, ["lualib.h"] = true }
local system = "^[%w_]+%.h$"
local system_folders = { sys = true, netinet = true, arpa = true, linux = true, net = true }

-- These hold whatever happens to Lua, so they may not know it.
local function knows_no_lua(path)
  return (path:match("^host/mask") or path:match("^host/journal") or path:match("^host/digest"))
    and not path:match("_lua%.[ch]$")
end

local function check_include(path, n, name, quoted)
  if lua_headers[name] then
    if knows_no_lua(path) then finding(path, n, "%s may not know Lua", path) end
    return
  end
  if not quoted then
    for _, rule in ipairs(libraries) do
      if name:match(rule[1]) then
        for i = 2, #rule do
          local stem = path:gsub("%.[ch]$", "")
          if stem == rule[i] or stem:sub(1, #rule[i] + 1) == rule[i] .. "_" then
            if path:match("%.h$") then finding(path, n, "a header includes no third-party library: <%s>", name) end
            return
          end
        end
        finding(path, n, "<%s> belongs to %s", name, table.concat(rule, " and ", 2))
        return
      end
    end
    local folder = name:match("^([^/]+)/")
    if not (folder and system_folders[folder]) and not name:match(system) then
      finding(path, n, "<%s> is a library that lint.lua's table does not know", name)
    end
    return
  end
  local own = stem_of(path)
  local other = stem_of(name)
  if path:match("^modules/") then
    local module = own:match("^[^_]+")
    if name ~= "lb.h" and other:match("^[^_]+") ~= module then
      finding(path, n, "a module includes lb.h and its own headers, not %s", name)
    end
    return
  end
  if path:match("^spec/") then return end
  local mine, theirs = layer_of(own), layer_of(other)
  if not theirs then return finding(path, n, "%s has no layer in lint.lua", name) end
  if mine and theirs > mine then
    finding(path, n, "%s is above %s: includes point down", name, path)
  end
  if knows_no_lua(path) and (other == "lb" or other == "secret" or other:match("_lua$")) then
    finding(path, n, "%s knows Lua, %s may not", name, path)
  end
end

local function width(line)
  local column = 0
  for _, c in utf8.codes(line, true) do
    column = c == 9 and column - column % 8 + 8 or column + 1
  end
  return column
end

-- Is a struct ever on the heap, rather than on the stack of one call?
local function kept(text, struct)
  for name, call in text:gmatch("struct " .. struct .. " %*([%w_]+) = ([%w_]+)%(") do
    if name and (call:match("alloc$") or call:match("^lua_newuserdata")) then return true end
  end
  return text:match("alloc%([^;]*sizeof%(?struct " .. struct .. "%f[%W]") ~= nil
end

local function check_c(path, text)
  local count, previous, struct = 0, "", nil
  for n, line in each_line(text) do
    if line ~= "" or n == 1 then count = n end
    if width(line) > 90 then finding(path, n, "%d columns, more than 90", width(line)) end
    local quote, name = line:match('^%s*#%s*include%s*([<"])([^>"]+)[>"]')
    if name then check_include(path, n, name, quote == '"') end
    if line:match("^typedef struct") then finding(path, n, "structs go without typedef") end
    -- A library's macro for a callback's head (in capitals) says the type itself.
    if line == "{" and previous:match("^[%a_][%w_%s%*]*[%s%*][%a_][%w_]*%(.*%)$") and not previous:match("[%u_]+%(") then
      finding(path, n - 1, "the return type stands on its own line")
    end
    struct = line:match("^struct ([%w_]+) {$") or not line:match("^}") and struct or nil
    if struct and path:match("^modules/") and line:match("^%s+lua_State%s*%*") and kept(text, struct) then
      finding(path, n, "struct %s outlives a call: it keeps no lua_State", struct)
    end
    previous = line
  end
  local limit = path:match("%.h$") and 100 or 900
  if count > limit then finding(path, limit + 1, "%d lines, more than %d", count, limit) end
end

-- What may stand in no file of the tree; the needles are put together here so that this
-- file does not find itself.
local needles = {
  { "%f[%w]TO" .. "DO%f[%W]", "unfinished: %s" }, { "FIX" .. "ME", "unfinished: %s" },
  { "XX" .. "X", "unfinished: %s" }, { "/wo" .. "rk/", "a path of one machine: %s" },
  { "de" .. "b%.debian%.org", "a package host: %s" }, { "security%.de" .. "bian%.org", "a package host: %s" },
  { "archive%.ub" .. "untu%.com", "a package host: %s" }, { "ports%.ub" .. "untu%.com", "a package host: %s" },
  { "snapshot%.de" .. "bian%.org", "a package host: %s" }, { "py" .. "pi%.org", "a package host: %s" },
  { "npm" .. "js%.org", "a package host: %s" },
}

local function check_any(path, text)
  for n, line in each_line(text) do
    for _, needle in ipairs(needles) do
      local found = line:match(needle[1])
      -- What mktemp replaces.
      if found and not (found:match("^XX") and line:match("XX" .. "XX" .. "XX")) then
        finding(path, n, needle[2], found)
      end
    end
    if line:match("[ \t]+$") then finding(path, n, "blanks at the end of the line") end
    if line:match("\r") then finding(path, n, "a carriage return") end
  end
  if text ~= "" and text:sub(-1) ~= "\n" then finding(path, nil, "no newline at the end") end
end

local function check_head(path, text)
  local name = path:match("[^/]+$")
  local first = text:match("^#![^\n]*\n([^\n]*)") or text:match("^([^\n]*)")
  local head = first:match("^/%*%s*(%S+)%s") or first:match("^%-%-%s*(%S+)%s") or first:match("^#%s*(%S+)%s")
  if not head or head:gsub(":$", "") ~= name then
    finding(path, 1, "the file does not begin with its name and purpose (%s: ...)", name)
  end
end

-- Lua and what is put on servers depend on nothing above them.
local function check_direction(path, text)
  if path:match("^host/") or path:match("^modules/") or path:match("^runbooks/") or path:match("^templates/") then
    local n = 0
    for line in text:gmatch("[^\n]*") do
      n = n + 1
      if line:match("%f[%w]spec/[%w]") then finding(path, n, "nothing depends on spec/") end
      if path:match("^modules/") and line:match("%f[%w]runbooks/%w") then finding(path, n, "modules know no runbook") end
    end
  end
  if path:match("^templates/") then
    for tag in text:gmatch("{%%%-?%s*(%a+)") do
      if not ({ ["if"] = 1, ["elif"] = 1, ["elseif"] = 1, ["else"] = 1, ["end"] = 1, ["endif"] = 1, ["for"] = 1, ["endfor"] = 1,
          raw = 1, endraw = 1 })[tag] then
        finding(path, nil, "templates hold no logic beyond if and for: %s", tag)
      end
    end
  end
end

-- A module's object exports its opener alone and holds nothing that can change.
local function check_objects()
  local objects = lines_of("ls " .. build .. "/native/*.o 2>/dev/null")
  if #objects == 0 then finding(build, nil, "no objects of native modules: build first") end
  for _, object in ipairs(objects) do
    local module = object:match("([^/]+)%.o$")
    local sources = #lines_of(("ls modules/%s.c modules/%s_*.c 2>/dev/null"):format(module, module))
    local examined = sources == 1 and ("%s/modules/%s.o"):format(build, module) or object
    for _, line in ipairs(lines_of("nm -g --defined-only " .. examined)) do
      local name = line:match("%S+$")
      if name ~= "luaopen_" .. module then finding(object, nil, "exports %s", name) end
    end
    for _, line in ipairs(lines_of("objdump -t " .. object)) do
      local section, size, name = line:match("O%s+(%.t?%l+[%w._]*)%s+(%x+)%s+(%S+)$")
      if section and tonumber(size, 16) > 0 and (section:match("^%.t?bss") or section:match("^%.t?data")
          and not section:match("^%.data%.rel%.ro")) then
        finding(object, nil, "%s is file-scope data that can change (%s)", name, section)
      end
    end
  end
end

local heads = { c = true, h = true, lua = true, sh = true }
for _, path in ipairs(lines_of("find * .[a-z]* -path .git -prune -o -path .tmp -prune -o -path build -prune -o -type f -print | LC_ALL=C sort")) do
  local f = io.open(path, "rb")
  if f then
    f:close()
    local text = slurp(path)
    if not text:find("\0", 1, true) then
      local extension = path:match("%.(%w+)$")
      check_any(path, text)
      check_direction(path, text)
      if (heads[extension] or text:match("^#!")) and not path:match("^templates/") then
        check_head(path, text)
      end
      if (extension == "c" or extension == "h") then
        check_c(path, text)
        if path:match("^host/") and not layer_of(stem_of(path)) then
          finding(path, 1, "say in lint.lua which layer %s belongs to", path)
        end
      elseif extension == "lua" or extension == "sh" then
        local _, count = text:gsub("\n", "")
        if count > 900 then finding(path, 901, "%d lines, more than 900", count) end
      end
    end
  end
end
check_objects()
print(findings == 0 and "layers: nothing found" or ("layers: %d found"):format(findings))
os.exit(findings == 0)
