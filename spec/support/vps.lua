-- vps.lua: the sandbox VPSs of spec/sandbox/vps for specs.
-- It judges nothing: a command's output and status go back to the spec as they are.
local vps = {}
vps.__index = vps

local here = debug.getinfo(1, "S").source:match("^@(.*)support/vps%.lua$") or "spec/"
local command = here .. "sandbox/vps"

local function quote(s)
  return "'" .. tostring(s):gsub("'", "'\\''") .. "'"
end

local function read_all(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read("a")
  f:close()
  return text
end

-- vps.call({word...}, {home=, stdin=}) -> stdout, status, stderr
function vps.call(words, opts)
  opts = opts or {}
  local line = {}
  for i, word in ipairs(words) do
    line[i] = quote(word)
  end
  local err, input = os.tmpname(), nil
  local text = quote(command) .. " " .. table.concat(line, " ") .. " 2>" .. quote(err)
  if opts.home then
    text = "LBRUN_SANDBOX=" .. quote(opts.home) .. " " .. text
  end
  if opts.stdin then
    input = os.tmpname()
    local f = assert(io.open(input, "wb"))
    f:write(opts.stdin)
    f:close()
    text = text .. " <" .. quote(input)
  else
    text = text .. " </dev/null"
  end
  local pipe = assert(io.popen(text, "r"))
  local out = pipe:read("a")
  local _, _, status = pipe:close()
  local errors = read_all(err)
  os.remove(err)
  if input then
    os.remove(input)
  end
  return out, status, errors
end

local function must(words, opts)
  local out, status, err = vps.call(words, opts)
  if status ~= 0 then
    error("vps " .. table.concat(words, " ") .. ": status " .. status .. "\n" .. err, 3)
  end
  return out
end

-- vps.available() -> true | false, why      (for a spec that is pending without root)
function vps.available()
  local pipe = io.popen("id -u")
  local uid = pipe:read("l")
  pipe:close()
  if uid ~= "0" then
    return false, "a sandbox VPS needs root"
  end
  return true
end

-- The image of nginx that runbooks want: the catalog's word, said nowhere else.
vps.nginx = read_all(here .. "../modules/lua/catalog.lua"):match 'nginx = { image = "([^"]+)"'

-- vps.up(name, {release=, disk=, docker=bool, images={...}, home=}) -> VPS
-- A VPS has name, address, hostname, key, known_hosts, and url (root at port 22).
function vps.up(name, opts)
  opts = opts or {}
  local words = { "up", name }
  for _, option in ipairs { "release", "disk" } do
    if opts[option] then
      words[#words + 1] = "--" .. option
      words[#words + 1] = opts[option]
    end
  end
  if opts.docker then
    words[#words + 1] = "--docker"
  end
  if opts.images then
    words[#words + 1] = "--images"
    words[#words + 1] = table.concat(opts.images, ",")
  end
  must(words, opts)
  return vps.get(name, opts)
end

-- vps.get(name, {home=}) -> VPS      (one that is up already)
function vps.get(name, opts)
  local self = setmetatable({ name = name, home = opts and opts.home }, vps)
  for field, word in pairs { address = "address", hostname = "hostname",
                             key = "key", known_hosts = "known-hosts" } do
    self[field] = must({ word, name }, self):gsub("\n$", "")
  end
  self.url = "ssh://root@" .. self.address .. ":22"
  return self
end

local function words_of(name, self, command_, options)
  local words = { name, self.name }
  for _, word in ipairs(options or {}) do
    words[#words + 1] = word
  end
  words[#words + 1] = "--"
  if type(command_) == "string" then
    if name == "exec" then
      words[#words + 1] = "sh"
      words[#words + 1] = "-c"
    end
    words[#words + 1] = command_
  else
    for _, word in ipairs(command_) do
      words[#words + 1] = word
    end
  end
  return words
end

-- v:exec(shell line or {word...}, {stdin=}) -> stdout, status, stderr      (without ssh)
function vps:exec(command_, opts)
  return vps.call(words_of("exec", self, command_),
    { home = self.home, stdin = opts and opts.stdin })
end

-- v:ssh(shell line or {word...}, {user=, port=, stdin=}) -> stdout, status, stderr
function vps:ssh(command_, opts)
  opts = opts or {}
  local options = {}
  if opts.user then
    options = { "--user", opts.user }
  end
  if opts.port then
    options[#options + 1] = "--port"
    options[#options + 1] = opts.port
  end
  return vps.call(words_of("ssh", self, command_, options),
    { home = self.home, stdin = opts.stdin })
end

-- v:scan("22,80,1-1024") -> { [22] = "open", ... }      as seen from another host;
-- of a range, ports of one state in great number are left out and counted in `others`.
function vps:scan(ports)
  local result = { others = {} }
  for line in must({ "scan", self.name, ports }, self):gmatch("[^\n]+") do
    local state, count = line:match("^others (%S+) (%d+)$")
    if state then
      result.others[state] = tonumber(count)
    else
      local port, is = line:match("^(%d+) (%S+)$")
      result[tonumber(port)] = is
    end
  end
  return result
end

-- v:outside(shell line) -> stdout, status, stderr      on another host of the same network
function vps:outside(line)
  return vps.call({ "outside", "--", "sh", "-c", line }, self)
end

-- v:reboot(), v:kill(), v:stop(), v:start(), v:reimage(), v:rekey(), v:down()
for _, word in ipairs { "reboot", "kill", "stop", "start", "reimage", "rekey", "down" } do
  vps[word] = function(self)
    must({ word, self.name }, self)
  end
end

return vps
