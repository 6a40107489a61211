-- ssh_config.lua: what ~/.ssh/config says of a host, as options for ssh.connect. It knows
-- Host, HostName, Port, User, IdentityFile, IdentitiesOnly, IdentityAgent, HostKeyAlias,
-- UserKnownHostsFile, ConnectTimeout, ServerAliveInterval and Include; Match blocks are left
-- out. As with OpenSSH the first value of a keyword counts. It connects to nothing.
local host = require "host"
local util = require "lb.util"

local config = {}

local include_depth = 8

-- A pattern of a Host line (* and ?) as a Lua pattern.
local function glob(pattern)
  return "^" .. pattern:lower():gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".") .. "$"
end

-- Whether a Host line names it: one pattern does, and none with ! before it.
local function host_line(words, name)
  local found = false
  for _, word in ipairs(words) do
    local negated, pattern = word:match("^(!?)(.*)$")
    if name:lower():find(glob(pattern)) then
      if negated == "!" then return false end
      found = true
    end
  end
  return found
end

-- "Keyword value", "Keyword=value", values in quotes -> keyword, words
local function split(line)
  local keyword, rest = line:match("^%s*([%w]+)%s*=?%s*(.-)%s*$")
  if not keyword or line:match("^%s*#") then return nil end
  local words, at = {}, 1
  while at <= #rest do
    local quoted, next_quoted = rest:match('^"([^"]*)"%s*()', at)
    local bare, next_bare = rest:match("^(%S+)%s*()", at)
    if not quoted and bare:sub(1, 1) == "#" and #words > 0 then break end
    words[#words + 1] = quoted or bare
    at = next_quoted or next_bare
  end
  return keyword:lower(), words
end

local function expand_home(path)
  if path:sub(1, 2) ~= "~/" then return path end
  return host.home() .. path:sub(2)
end

-- The files that an Include names; * and ? may stand in the last part.
local function included(pattern)
  local path = expand_home(pattern)
  if path:sub(1, 1) ~= "/" then path = host.home() .. "/.ssh/" .. path end
  local dir, name = path:match("^(.*)/([^/]*)$")
  if not name:find("[*?]") then return { path } end
  local list, wanted = {}, glob(name)
  for _, entry in ipairs(host.list(dir) or {}) do
    if entry.name:lower():find(wanted) then list[#list + 1] = dir .. "/" .. entry.name end
  end
  return list
end

local function read(path, name, found, active, depth)
  local text, err = host.read_file(path, { max = 1 << 20 })
  if not text then
    if err.code ~= "not_found" then
      found.notes[#found.notes + 1] = ("%s cannot be read: %s"):format(path, err.message)
    end
    return
  end
  local began_active = active
  for line in text:gmatch("[^\n]+") do
    local keyword, words = split(line)
    if keyword == "host" then
      active = began_active and host_line(words, name)
    elseif keyword == "match" then
      active = began_active and #words == 1 and words[1]:lower() == "all"
      if began_active and not active then
        found.notes[#found.notes + 1] = path .. ": a Match block is left out"
      end
    elseif keyword == "include" and active then
      if depth == 0 then util.raise("usage", path .. ": Include is nested too deep") end
      for _, pattern in ipairs(words) do
        for _, file in ipairs(included(pattern)) do read(file, name, found, true, depth - 1) end
      end
    elseif keyword == "identityfile" and active and words[1] then
      table.insert(found.identityfile, words[1])
    elseif keyword and active and words[1] and not found[keyword] then
      found[keyword] = words
    end
  end
end

local function yes(words)
  return words ~= nil and words[1]:lower() == "yes"
end

-- config.resolve(name, options, path) -> host, options, notes
--                                      | nil, err   (unsupported)
-- options are those of ssh.connect and stand above the file; the result is a new table.
-- path: the file (else ~/.ssh/config, then /etc/ssh/ssh_config), or false for none.
function config.resolve(name, options, path)
  local o = {}
  for k, v in pairs(options or {}) do o[k] = v end
  local found = { identityfile = {}, notes = {} }
  if path then
    read(expand_home(path), name, found, true, include_depth)
  elseif path == nil then
    read(expand_home("~/.ssh/config"), name, found, true, include_depth)
    read("/etc/ssh/ssh_config", name, found, true, include_depth)
  end
  for _, keyword in ipairs { "proxyjump", "proxycommand" } do
    local words = found[keyword]
    if words and words[1]:lower() ~= "none" then
      local shown = keyword == "proxyjump" and "ProxyJump" or "ProxyCommand"
      return nil, util.error("unsupported",
        ("%s of the ssh configuration needs %s %s, which is not supported"):format(name, shown, table.concat(words, " ")))
    end
  end

  local address = name
  if found.hostname then
    address = found.hostname[1]:gsub("%%(.)", { h = name, ["%"] = "%" })
  end
  o.user = o.user or (found.user and found.user[1])
  if not o.port and found.port then
    o.port = tonumber(found.port[1])
    if not o.port or o.port % 1 ~= 0 or o.port < 1 or o.port > 65535 then
      util.raise("usage", ("the ssh configuration of %s has the port '%s'"):format(name, found.port[1]))
    end
  end
  local tokens = {
    ["%"] = "%", h = address, n = name, p = tostring(o.port or 22), r = o.user or host.user(),
    u = host.user(), d = host.home(),
  }
  local function expand(text)
    return expand_home((text:gsub("%%(.)", tokens)))
  end
  if not o.identities and #found.identityfile > 0 then
    local list = {}
    for _, file in ipairs(found.identityfile) do
      local full = expand(file)
      -- OpenSSH passes over those that are not there
      if file:lower() ~= "none" and host.stat(full) then list[#list + 1] = full end
    end
    if #list > 0 then o.identities = list end
  end
  if o.identities_only == nil and found.identitiesonly then o.identities_only = yes(found.identitiesonly) end
  if o.agent == nil and found.identityagent then
    local where = found.identityagent[1]
    if where == "none" then o.agent = false
    elseif where ~= "SSH_AUTH_SOCK" then
      o.agent = where:match("^%$") and host.getenv(where:match("^%${?([%w_]+)")) or expand(where)
    end
  end
  if not o.host_key_alias and found.hostkeyalias then o.host_key_alias = found.hostkeyalias[1] end
  if o.known_hosts == nil and found.userknownhostsfile then
    local list = {}
    for _, file in ipairs(found.userknownhostsfile) do
      if file ~= "none" then list[#list + 1] = expand(file) end
    end
    o.known_hosts = list
  end
  local timeout = found.connecttimeout and tonumber(found.connecttimeout[1])
  if not o.timeout and timeout then o.timeout = timeout end
  local alive = found.serveraliveinterval and tonumber(found.serveraliveinterval[1])
  if not o.keepalive and alive and alive > 0 then o.keepalive = alive end
  return address, o, found.notes
end

return config
