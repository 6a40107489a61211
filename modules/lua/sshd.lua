-- sshd.lua: the SSH daemon's port and hardening as one drop-in, moved in two stages so that
-- an old door is shut only after the new one was walked through. It makes no users.

local sshd = {}

local main = "/etc/ssh/sshd_config"
local drop_in = "/etc/ssh/sshd_config.d/00-lbrun.conf"

-- Strongest first. aes-ctr and hmac-sha2 stay because libssh2 1.10, which Debian 12 has,
-- speaks nothing else; ECDSA host keys stay because a controller may have pinned one.
local strong = {
  kex = { "mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256", "curve25519-sha256@libssh.org", "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512", "diffie-hellman-group-exchange-sha256" },
  ciphers = { "chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com",
    "aes256-ctr", "aes192-ctr", "aes128-ctr" },
  macs = { "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "umac-128-etm@openssh.com",
    "hmac-sha2-512", "hmac-sha2-256" },
  hostkeys = { "ssh-ed25519", "sk-ssh-ed25519@openssh.com", "rsa-sha2-512", "rsa-sha2-256",
    "ecdsa-sha2-nistp521", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp256" },
}

-- Never offered, whatever a controller speaks.
local function is_weak(name)
  return name:find("sha1", 1, true) or name:find("cbc", 1, true) or name:find("md5", 1, true)
    or name:find("arcfour", 1, true) or name:find("3des", 1, true) or name:find("dss", 1, true)
    or name == "ssh-rsa" or name:find("ripemd", 1, true) or name:find("umac-64", 1, true)
end

-- sshd.algorithms(server, controller) -> { kex, ciphers, macs, hostkeys } as comma lists:
-- the strong ones that this server knows, and something the controller speaks in each.
function sshd.algorithms(server, controller)
  local result = {}
  for kind, names in pairs(strong) do
    local list, known, spoken = {}, {}, {}
    for _, name in ipairs(server[kind]) do known[name] = true end
    for _, name in ipairs(controller and controller[kind] or names) do spoken[name] = true end
    local common = false
    for _, name in ipairs(names) do
      if known[name] then
        list[#list + 1] = name
        common = common or spoken[name]
      end
    end
    for _, name in ipairs(not common and controller and controller[kind] or {}) do
      if known[name] and not is_weak(name) then
        list[#list + 1] = name
        common = true
      end
    end
    if not common then
      fail("algorithms", ("this lbrun and the server have no safe %s in common: hardening sshd would lock lbrun out"):format(
        ({ kex = "key exchange", ciphers = "cipher", macs = "MAC", hostkeys = "host key type" })[kind]))
    end
    result[kind] = table.concat(list, ",")
  end
  return result
end

-- sshd -T wants a folder that is there only while ssh.service runs, and not where systemd's
-- socket listens. A plan writes nothing: there sshd is given a /run that nobody else sees.
local settings_script = {
  [false] = "[ -d /run/sshd ] || mkdir -p -m 0755 /run/sshd\nlb_settings() { sshd \"$@\"; }\n",
  [true] = [[
lb_settings() {
  if [ -d /run/sshd ]; then sshd "$@"; return; fi
  unshare -m sh -c 'mount -t tmpfs -o mode=0755 lbrun /run && mkdir -m 0755 /run/sshd && exec sshd "$@"' sh "$@"
}
]],
}

-- One round trip: guard, socket, what sshd listens on, what algorithms it has where that is
-- asked, its settings as a client from outside would meet them, and the drop-in.
-- (On the loopback an sshd listens for forwardings of its sessions: those are no doors.)
local function look(ctx, user, with_algorithms)
  local script = guard.state_script("ssh") .. ([[
PATH=$PATH:/usr/sbin
command -v sshd >/dev/null || { echo sshd=absent; exit 0; }
%s
systemctl show -p Id,ActiveState,UnitFileState ssh.socket ssh.service
ss -Hltnp | awk '/"sshd"/ && $4 !~ /^(127\.|\[::1\])/ { n = split($4, a, ":"); print "listen=" a[n] }' | sort -u
for q in %s; do ssh -Q $q | sed "s/^/can $q /"; done
echo settings
lb_settings -T -C user=%s,host=outside.invalid,addr=192.0.2.1 2>&1 || echo failed
echo files
]]):format(settings_script[ctx.planning], with_algorithms and "kex cipher mac HostKeyAlgorithms" or "", quote(user))
    .. file.snapshot_script { drop_in }
  local out = ctx.root:run(script).stdout
  local seen = { guard = out:match("guard=(%a+)"), listen = {}, set = {}, ports = {}, users = {},
    can = { kex = {}, ciphers = {}, macs = {}, hostkeys = {} } }
  if out:find("sshd=absent", 1, true) then
    seen.absent = true
    return seen
  end
  local function unit(name, property)
    return out:match("\nId=ssh%." .. name .. "\n[^\n]*\n?" .. property .. "=(%a*)")
  end
  seen.socket_active = unit("socket", "ActiveState") == "active"
  seen.socket_enabled = unit("socket", "UnitFileState") == "enabled"
  seen.service_enabled = unit("service", "UnitFileState") == "enabled"
  for p in out:gmatch("listen=(%d+)") do seen.listen[tonumber(p)] = true end
  local kinds = { kex = "kex", cipher = "ciphers", mac = "macs", HostKeyAlgorithms = "hostkeys" }
  for q, name in out:gmatch("can (%a+) (%S+)") do table.insert(seen.can[kinds[q]], name) end
  local settings, at = out:match("\nsettings\n(.-)\nfiles\n()")
  if not settings then fail("target", "sshd's settings cannot be read: " .. last_lines(out, 3)) end
  if settings:match("failed$") then seen.broken = last_lines(settings:gsub("\n?failed$", ""), 3) end
  for key, value in settings:gmatch("([%l%d]+) ([^\n]*)") do
    if key == "port" then seen.ports[#seen.ports + 1] = tonumber(value)
    elseif key == "allowusers" then seen.users[#seen.users + 1] = value
    else seen.set[key] = value end
  end
  seen.file = file.parse_snapshot(out, 1, at)[1]
  return seen
end

local function only(list, value)
  return #list == 1 and list[1] == value
end

-- Who may log in: the user, and those beside it.
local function allowed(self)
  return table.move(self.also or {}, 1, #(self.also or {}), 2, { self.user })
end

local function same(a, b)
  local x, y = table.move(a, 1, #a, 1, {}), table.move(b, 1, #b, 1, {})
  table.sort(x)
  table.sort(y)
  return table.concat(x, " ") == table.concat(y, " ")
end

local function has(list, value)
  for _, v in ipairs(list) do
    if v == value then return true end
  end
  return false
end

-- Port, ListenAddress with a port and AllowUsers add up over all files, so those of others
-- are commented out; what stands in a Match block is left alone.
local function without_foreign(text)
  local out, matched = {}, false
  for _, line in ipairs(file.lines(text)) do
    local key = (line:match("^%s*(%a+)[%s=]") or ""):lower()
    if key == "match" then matched = true end
    local address = key == "listenaddress" and line:match("[%s=](%S+)%s*$")
    local foreign = key == "port" or key == "allowusers"
      or (address and (address:match("^%[.*%]:%d+$") or address:match("^[^:]+:%d+$")))
    out[#out + 1] = foreign and not matched and "#lbrun: " .. line or line
  end
  return table.concat(out, "\n") .. "\n"
end

-- The other files of sshd's configuration as { path = new text } where they must change.
local function foreign_changes(t)
  local names = t:run("ls -1 /etc/ssh/sshd_config.d/*.conf 2>/dev/null; true").stdout
  local paths = { main }
  for name in names:gmatch("[^\n]+") do
    if name ~= drop_in then paths[#paths + 1] = name end
  end
  local changes = {}
  for i, s in ipairs(file.snapshot(t, paths)) do
    if s.content then
      local text = without_foreign(s.content)
      if paths[i] == main and not text:lower():find("\n%s*include%s+/etc/ssh/sshd_config%.d/%*%.conf") and
        not text:lower():find("^%s*include%s+/etc/ssh/sshd_config%.d/%*%.conf") then
        text = "Include /etc/ssh/sshd_config.d/*.conf\n" .. text
      end
      if text ~= s.content then changes[#changes + 1] = { path = paths[i], text = text, old = s } end
    end
  end
  return changes
end

local function before(ctx)
  local refs = {}
  for _, c in ipairs(foreign_changes(ctx.root)) do refs[#refs + 1] = { path = c.path, ref = ctx.stash(c.path) } end
  local s = file.snapshot(ctx.root, { { drop_in, sum = true } })[1]
  local seen = look(ctx, "root")
  return { url = ctx.target.url, files = json.array(refs), drop_in = s.type ~= "absent" and ctx.stash(drop_in) or nil,
    socket = seen.socket_active or seen.socket_enabled or false, service = seen.service_enabled }
end

-- Checks the whole configuration, lets sshd read it, and waits until it listens.
local function reload(t, ports)
  t:run("PATH=$PATH:/usr/sbin; mkdir -p -m 0755 /run/sshd; sshd -t")
  local sorted = table.move(ports, 1, #ports, 1, {})
  table.sort(sorted)
  local result = t:try(([[
if systemctl is-active --quiet ssh.socket || systemctl is-enabled --quiet ssh.socket 2>/dev/null ||
  ! systemctl is-enabled --quiet ssh.service; then
  # systemd's socket decides the port, not sshd_config: sshd listens by itself from now on.
  # Enabling gives ssh.service a second name, over which systemd may lose sight of a running
  # daemon (tried): it is stopped before, and whatever listens still is ended. Sessions live on.
  systemctl daemon-reload
  systemctl stop ssh.socket ssh.service
  for p in $(ss -Hltnp | grep -Ev ' (127\.|\[::1\])' | sed -n 's/.*("sshd",pid=\([0-9]*\).*/\1/p' | sort -u); do
    kill "$p"
  done
  systemctl disable --quiet ssh.socket
  systemctl enable --quiet ssh.service; systemctl start ssh.service || exit 1
else
  systemctl reload-or-restart ssh.service || exit 1
fi
i=0
while [ $i -lt 100 ]; do
  now=$(ss -Hltnp | awk '/"sshd"/ && $4 !~ /^(127\.|\[::1\])/ { n = split($4, a, ":"); print a[n] }' | sort -un | tr '\n' ' ')
  [ "$now" = "%s " ] && exit 0
  i=$((i + 1)); sleep 0.1
done
journalctl -u ssh.service -n 5 --no-pager -o cat >&2; echo "it listens on: $now" >&2; exit 2]]):format(
    table.concat(sorted, " ")), { timeout = 60 })
  if not result.ok then
    fail("sshd", ("sshd does not listen on port %s alone: %s"):format(table.concat(sorted, " and "), last_lines(result.stderr, 3)))
  end
end

local function write(ctx, text, ports)
  for _, c in ipairs(foreign_changes(ctx.root)) do
    ctx.root:put(c.path, c.text, { mode = c.old.mode, owner = c.old.owner, group = c.old.group })
  end
  ctx.root:run("mkdir -p -m 0755 /etc/ssh/sshd_config.d")
  ctx.root:put(drop_in, text, { mode = "0644", owner = "root", group = "root" })
  reload(ctx.root, ports)
end

local function undo(ctx, old)
  guard.protect(ctx, {
    name = "ssh", saves = { "sshd", "ufw" }, path = old.url ~= "local:" and old.url or nil,
    change = function()
      for _, f in ipairs(old.files) do ctx.unstash(f.ref, f.path) end
      if old.drop_in then ctx.unstash(old.drop_in, drop_in) else ctx.root:run { "rm", "-f", drop_in } end
      ctx.root:run("PATH=$PATH:/usr/sbin; sshd -t")
      if old.socket then
        ctx.root:run("systemctl stop ssh.service; " .. (old.service and "" or "systemctl disable --quiet ssh.service; ") ..
          "systemctl enable --quiet ssh.socket; systemctl start ssh.socket")
      else
        ctx.root:run("systemctl reload-or-restart ssh.service")
      end
    end,
  })
end

local args = { port = "integer", user = "string" }

local function also_on_text(self, ctx, seen)
  local ports = {}
  for _, p in ipairs(seen.ports) do
    if p ~= self.port then ports[#ports + 1] = p end
  end
  if seen.socket_active then
    -- Where the socket listens, whatever sshd_config says.
    for p in ctx.root:run("systemctl show -p Listen --value ssh.socket").stdout:gmatch(":(%d+) %(Stream%)") do
      p = tonumber(p)
      if p ~= self.port and not has(ports, p) then ports[#ports + 1] = p end
    end
  end
  ports[#ports + 1] = self.port
  local allow
  if #seen.users > 0 then
    local users = {}
    for _, u in ipairs(seen.users) do users[#users + 1] = u end
    if not has(users, self.user) then users[#users + 1] = self.user end
    allow = table.concat(users, " ")
  end
  return ctx.render("sshd/also-on.conf", { ports = ports, allow = allow or "" }), ports
end

-- sshd.also_on { port, user }: sshd listens on the port beside those it has, and the user
-- was seen to log in there and to reach root. The run continues by that way.
sshd.also_on = resource("sshd.also_on", {
  args = args,
  id = function(self) return tostring(self.port) end,
  probe = function(self, ctx)
    local seen = look(ctx, self.user)
    if seen.absent then return pending("sshd is not installed") end
    if seen.guard == "armed" then return pending("a guard is armed: the new SSH port is not proved") end
    if seen.broken then return pending("sshd's configuration is broken: " .. seen.broken) end
    local closed = #seen.users > 0 and not has(seen.users, self.user)
    if has(seen.ports, self.port) and seen.listen[self.port] and not seen.socket_active and not closed then return done() end
    return pending(diff(seen.file.content, (also_on_text(self, ctx, seen)), { path = drop_in,
      absent = seen.file.type == "absent" }) .. (seen.socket_active and "ssh.socket -> ssh.service\n" or ""))
  end,
  before = function(_, ctx) return before(ctx) end,
  apply = function(self, ctx)
    guard.protect(ctx, {
      name = "ssh", saves = { "sshd", "ufw" }, path = ("%s@:%d"):format(self.user, self.port),
      change = function()
        local seen = look(ctx, self.user)
        if seen.broken then fail("sshd", "sshd's configuration is broken already: " .. seen.broken) end
        local text, ports = also_on_text(self, ctx, seen)
        write(ctx, text, ports)
      end,
    })
  end,
  undo = function(_, ctx, old) undo(ctx, old) end,
})

local function hardened_text(self, ctx, seen)
  local names = sshd.algorithms(seen.can, ctx.ssh_algorithms())
  return ctx.render("sshd/hardened.conf", { port = self.port, allow = table.concat(allowed(self), " "), kex = names.kex,
    ciphers = names.ciphers, macs = names.macs, hostkeys = names.hostkeys }), names
end

-- What sshd -T says against what is wanted: nil, or a text.
local function wrong(self, seen, names)
  local list = {}
  local want = {
    permitrootlogin = "no", passwordauthentication = "no", kbdinteractiveauthentication = "no",
    pubkeyauthentication = "yes", permitemptypasswords = "no", maxauthtries = "3", logingracetime = "30",
    allowtcpforwarding = "local", maxsessions = "10", kexalgorithms = names.kex, ciphers = names.ciphers,
    macs = names.macs, hostkeyalgorithms = names.hostkeys,
  }
  for _, key in ipairs(sorted_keys(want)) do
    if seen.set[key] ~= want[key] then
      list[#list + 1] = ("%s is %s, not %s"):format(key, tostring(seen.set[key]), want[key])
    end
  end
  if not only(seen.ports, self.port) then
    list[#list + 1] = ("port is %s, not %d"):format(table.concat(seen.ports, " and "), self.port)
  end
  for port in pairs(seen.listen) do
    if port ~= self.port then list[#list + 1] = ("a running sshd listens on port %d"):format(port) end
  end
  if not same(seen.users, allowed(self)) then
    list[#list + 1] = ("allowusers is '%s', not %s"):format(table.concat(seen.users, " "), table.concat(allowed(self), " "))
  end
  return #list > 0 and table.concat(list, "\n") or nil
end

-- sshd.hardened { port, user, also? }: one drop-in, by which sshd listens on the port alone, lets
-- in the user alone (and those of the list `also`), by key alone. Proved by a new connection before the guard lets it stay.
sshd.hardened = resource("sshd.hardened", {
  args = { port = "integer", user = "string", also = "table?" },
  check = function(self)
    for _, name in ipairs(self.also or {}) do
      if type(name) ~= "string" or not name:match("^[a-z_][a-z0-9_-]*$") then error("sshd.hardened: also lists names of users", 3) end
    end
  end,
  id = function(self) return ("%s@%d"):format(self.user, self.port) end,
  probe = function(self, ctx)
    local seen = look(ctx, self.user, true)
    if seen.absent then return pending("sshd is not installed") end
    if seen.guard == "armed" then return pending("a guard is armed: the hardened sshd is not proved") end
    if seen.broken then return pending("sshd's configuration is broken: " .. seen.broken) end
    local text, names = hardened_text(self, ctx, seen)
    local change = file.difference(drop_in, seen.file, text, { mode = "0644" })
    local settings = wrong(self, seen, names)
    if not change and not settings and seen.listen[self.port] and not seen.socket_active then return done() end
    return pending(table.concat({ change or "", settings or "" }, "\n"))
  end,
  before = function(_, ctx) return before(ctx) end,
  apply = function(self, ctx)
    guard.protect(ctx, {
      name = "ssh", saves = { "sshd", "ufw" }, path = ("%s@:%d"):format(self.user, self.port),
      change = function()
        local seen = look(ctx, self.user, true)
        if seen.broken then fail("sshd", "sshd's configuration is broken already: " .. seen.broken) end
        local text, names = hardened_text(self, ctx, seen)
        write(ctx, text, { self.port })
        local why = wrong(self, look(ctx, self.user), names)
        if why then
          fail("sshd", "another file overrides " .. drop_in .. ": " .. why:gsub("\n", "; "))
        end
      end,
    })
  end,
  undo = function(_, ctx, old) undo(ctx, old) end,
})

return sshd
