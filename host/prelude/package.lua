-- package.lua: the lbrun that runs, as one archive: its program, runbooks, library and
-- templates, laid out as `make install` does it. It installs nothing. LBRUN_SERVER_PROGRAM
-- names another program for servers, where the one that runs is of no use there.
local host = require "host"
local crypto = require "crypto"
local util = require "lb.util"

local package_ = {}

local function octal(n, width) return ("%0" .. width - 1 .. "o\0"):format(n) end

-- One file of a ustar archive, of root's, without a time: the same files are the same bytes.
local function entry(name, mode, body)
  local prefix = ""
  if #name > 100 then
    local at = name:sub(1, 155):match(".*()/")
    prefix, name = name:sub(1, at - 1), name:sub(at + 1)
  end
  local function header(sum)
    local h = table.concat { name, ("\0"):rep(100 - #name), octal(mode, 8), octal(0, 8), octal(0, 8), octal(#body, 12), octal(0, 12),
      sum, "0", ("\0"):rep(100), "ustar\00000", ("\0"):rep(64), octal(0, 8), octal(0, 8), prefix, ("\0"):rep(155 - #prefix) }
    return h .. ("\0"):rep(512 - #h)
  end
  local text, total = header((" "):rep(8)), 0
  for i = 1, #text do total = total + text:byte(i) end
  return header(octal(total, 7) .. " ") .. body .. ("\0"):rep(-#body % 512)
end

local function read(path)
  local body, err = host.read_file(path, { max = 64 * 1024 * 1024 })
  if not body then util.raise("source", ("cannot read %s: %s"):format(path, tostring(err))) end
  return body
end

local function tree(list, name, path)
  local entries, err = host.list(path)
  if not entries then util.raise("source", ("cannot list %s: %s"):format(path, tostring(err))) end
  table.sort(entries, function(a, b) return a.name < b.name end)
  for _, one in ipairs(entries) do
    if one.name:sub(1, 1) ~= "." and not one.name:match("~$") then
      local to, from = name .. "/" .. one.name, path .. "/" .. one.name
      if one.type == "directory" then tree(list, to, from)
      elseif one.type == "file" then list[#list + 1] = entry(to, 420, read(from)) end
    end
  end
end

-- package.archive() -> { bytes, sha256, version }
function package_.archive()
  local dirs = host.data_dirs()
  local program = host.getenv "LBRUN_SERVER_PROGRAM"
  local list = { entry("bin/lbrun", 493, read(program and program ~= "" and program or "/proc/self/exe")) }
  for _, one in ipairs { { "modules/lua", dirs.lua }, { "runbooks", dirs.runbooks }, { "templates", dirs.templates } } do
    tree(list, "share/lbrun/" .. one[1], one[2])
  end
  list[#list + 1] = ("\0"):rep(1024)
  local bytes = table.concat(list)
  return { bytes = bytes, sha256 = crypto.sha256(bytes), version = host.version() }
end

return package_
