-- shell.lua: files and commands for specs that ask another program. No secrets in argv.
local shell = {}

-- A path in a directory of its own, which shell.clean() removes.
local dir
function shell.path(name)
  if not dir then
    local p = assert(io.popen "mktemp -d")
    dir = p:read "l"
    p:close()
  end
  return dir .. "/" .. name
end

function shell.clean()
  if dir then
    os.execute("rm -rf '" .. dir .. "'")
    dir = nil
  end
end

function shell.write(name, bytes, mode)
  local path = shell.path(name)
  os.remove(path)
  local f = assert(io.open(path, "wb"))
  f:write(bytes)
  f:close()
  os.execute(("chmod %s '%s'"):format(mode or "600", path))
  return path
end

function shell.read(name)
  local path = name:sub(1, 1) == "/" and name or shell.path(name)
  local f = io.open(path, "rb")
  if not f then return nil end
  local bytes = f:read "a"
  f:close()
  return bytes
end

-- The output of a command and whether it succeeded; stderr goes along.
function shell.run(command)
  local p = assert(io.popen(command .. " 2>&1", "r"))
  local out = p:read "a"
  local ok = p:close()
  return out, ok == true
end

-- Bytes of hexadecimal digits; blanks between them do not count.
function shell.bytes(hex)
  return (hex:gsub("%s", ""):gsub("%x%x", function(d) return string.char(tonumber(d, 16)) end))
end

function shell.hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

return shell
