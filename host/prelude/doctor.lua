-- doctor.lua: what this machine has and lacks for lbrun. It changes nothing.
local host = require "host"
local json = require "json"
local journal = require "journal"
local ssh = require "ssh"
local process = require "process"

local doctor = {}

local function command_works(name)
  local stream = process.spawn({ "/bin/sh", "-c", "command -v " .. name }, {})
  if not stream then return false end
  stream:shut()
  repeat until stream:read(5) ~= "out"
  local ended = stream:wait(5)
  stream:close()
  return ended and ended.status == 0
end

-- Each check: name, state (ok, warn, fail), what was found, what to do.
local function checks(path)
  local list = {}
  local function add(name, state, found, advice)
    list[#list + 1] = { check = name, state = state, found = found, advice = state ~= "ok" and advice or nil }
  end
  add("version", "ok", ("lbrun %s, interface %d"):format(host.version(), host.interface()))
  add("libssh2", "ok", ssh.library_version())
  local data = host.data_dirs()
  for _, name in ipairs { "runbooks", "lua", "templates" } do
    add(name, host.stat(data[name]) and "ok" or "fail", data[name], "install lbrun with its data, or set LBRUN_DATA")
  end
  local seen = host.stat(path)
  if not seen then
    add("journal", "ok", path .. " (made by the first run)")
  else
    local j, err = journal.open(path, { readonly = true })
    if not j then add("journal", "fail", err.message or tostring(err), "see the message; lbrun needs its journal to resume")
    else
      local ok, why = j:verify()
      add("journal", ok and "ok" or "fail", ok and ("%s, %d events, chain whole"):format(path, why) or why.message,
        "keep the file for inspection and use another --journal")
      j:close()
    end
  end
  local keys = {}
  for _, name in ipairs { "id_ed25519", "id_ecdsa" } do
    local file = (host.home() or "") .. "/.ssh/" .. name
    if host.stat(file) then keys[#keys + 1] = file end
  end
  local agent = ssh.agent_keys() or {}
  add("identities", (#keys + #agent > 0) and "ok" or "warn",
    ("%d key file%s, %d agent key%s"):format(#keys, #keys == 1 and "" or "s", #agent, #agent == 1 and "" or "s"),
    "make one with: ssh-keygen -t ed25519")
  if host.home() and host.stat(host.home() .. "/.ssh/id_rsa") and #keys == 0 then
    add("rsa", "warn", "only an RSA key: this libssh2 may sign with SHA-1, which sshd refuses", "use an Ed25519 key")
  end
  add("sh", command_works("sh") and "ok" or "fail", "for local: targets", "install a POSIX shell")
  if host.uid() == 0 then
    add("user", "warn", "running as root", "lbrun needs no root on this machine; local: asks for --allow-local-root")
  end
  return list
end

function doctor.examine(path, options)
  local exit = 0
  for _, c in ipairs(checks(path)) do
    if c.state == "fail" then exit = 5 elseif c.state == "warn" and exit == 0 then exit = 3 end
    if options.json then host.write("out", json.encode(c) .. "\n")
    else
      host.write("out", ("%-5s %-11s %s\n"):format(c.state, c.check, c.found))
      if c.advice then host.write("out", (" "):rep(18) .. c.advice .. "\n") end
    end
  end
  return exit
end

return doctor
