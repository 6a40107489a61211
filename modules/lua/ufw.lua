-- ufw.lua: the firewall by ufw's own commands and files. Whatever could shut out the one
-- who is connected runs under a guard. It never writes iptables rules but through ufw.

local ufw = {}

local look_script = [[
if [ -x /usr/sbin/ufw ]; then echo ufw=here; else echo ufw=absent; exit 0; fi
sed -n 's/^\(ENABLED\)=/\1=/p' /etc/ufw/ufw.conf
sed -n 's/^\(DEFAULT_[A-Z]*_POLICY\|IPV6\)="\{0,1\}\([A-Za-z]*\)"\{0,1\}/\1=\2/p' /etc/default/ufw
iptables -S INPUT 2>/dev/null | grep -q -- '-j ufw-before-input' && echo live=yes
sed -n 's/^### tuple ### /rule4 /p' /etc/ufw/user.rules
sed -n 's/^### tuple ### /rule6 /p' /etc/ufw/user6.rules
true
]]

local function unhex(text)
  return (text:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end))
end

-- "allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in comment=..." as a table.
local function parse_rule(text)
  local comment = text:match(" comment=(%x+)$")
  text = text:gsub(" comment=%x+$", "")
  local words = {}
  for w in text:gmatch("%S+") do words[#words + 1] = w end
  if #words < 7 then return nil end
  local rule = { action = words[1], proto = words[2], port = words[3], to = words[4], sport = words[5],
    from = words[6], direction = words[#words], comment = comment and unhex(comment) or nil }
  if #words >= 9 and words[7] ~= "-" then rule.app = words[7]:gsub("%%20", " ") end
  return rule
end

-- ufw.look(t, more) -> state { here, enabled, live, ipv6, policies, rules4, rules6 }, rest
-- of the output of `more`, a shell text that runs in the same round trip.
function ufw.look(t, more)
  local out = t:run("( " .. look_script .. ")\n" .. (more or "")).stdout
  local state = { here = out:find("ufw=here", 1, true) ~= nil, enabled = out:find("\nENABLED=yes", 1, true) ~= nil,
    live = out:find("\nlive=yes", 1, true) ~= nil, ipv6 = out:find("\nIPV6=yes", 1, true) ~= nil,
    policies = {}, rules4 = {}, rules6 = {} }
  for name, value in out:gmatch("DEFAULT_(%a+)_POLICY=(%a+)") do state.policies[name:lower()] = value end
  for kind, text in out:gmatch("rule([46]) ([^\n]+)") do
    local rule = parse_rule(text)
    if rule then table.insert(state["rules" .. kind], rule) end
  end
  return state, out
end

local function split(rule)
  local port, proto = rule:match("^([%d:,]+)/(%a+)$")
  if not port then port, proto = rule:match("^([%d:,]+)$"), "any" end
  if not port or (proto ~= "tcp" and proto ~= "udp" and proto ~= "any") then
    error(("'%s' is not a port such as 80/tcp"):format(tostring(rule)), 4)
  end
  return port, proto
end

local function check_rules(self)
  if #self == 0 then error("name at least one port such as 80/tcp", 3) end
  for _, rule in ipairs(self) do split(rule) end
end

-- The rule speaks of the port for everybody.
local function about(r, port, proto)
  return r.direction == "in" and r.port == port and (r.proto == proto or r.proto == "any")
    and (r.from == "0.0.0.0/0" or r.from == "::/0") and (r.to == "0.0.0.0/0" or r.to == "::/0") and r.sport == "any"
end

local function opens(r, port, proto, routed)
  return r.action == (routed and "route:allow" or "allow") and about(r, port, proto)
end

-- For a door of SSH `limit` is open too: it refuses only who comes six times in 30 s.
local function is_open(state, rule, routed, door)
  local port, proto = split(rule)
  local function found(list)
    for _, r in ipairs(list) do
      if opens(r, port, proto, routed) or (door and r.action == "limit" and about(r, port, proto)) then return true end
    end
    return false
  end
  return found(state.rules4) and (not state.ipv6 or found(state.rules6))
end

local function missing(state, rules, routed, door)
  local list = {}
  for _, rule in ipairs(rules) do
    if not is_open(state, rule, routed, door) then list[#list + 1] = rule end
  end
  return list
end

-- What ufw says of these ports otherwise ("limit", "deny", "reject"): its `allow` replaces
-- that, and the undo says it again.
local function replaced(state, rules)
  local said = {}
  for _, rule in ipairs(rules) do
    local port, proto = split(rule)
    for _, r in ipairs(state.rules4) do
      if about(r, port, proto) and r.proto == proto and not r.action:find(":", 1, true) and r.action ~= "allow" then
        said[rule] = r.action
      end
    end
  end
  return said
end

-- A change that could shut out who is connected: where the firewall is on, it stays only
-- when a new connection has proved it.
local function guarded(ctx, change)
  if not ufw.look(ctx.root).enabled and guard.state(ctx, "firewall") ~= "armed" then return change() end
  guard.protect(ctx, { name = "firewall", saves = { "ufw" }, change = change })
end

-- Where sshd listens now: by itself, and by systemd's socket.
local doors_script = [[
ss -Hltnp 2>/dev/null | awk '/"sshd"/ && $4 !~ /^(127\.|\[::1\])/ { n = split($4, a, ":"); print "door " a[n] }'
systemctl is-active --quiet ssh.socket &&
  systemctl show -p Listen --value ssh.socket | sed -n 's/.*:\([0-9]*\) (Stream).*/door \1/p'
true
]]

local function holds(ports, port)
  for from, to in ports:gmatch("(%d+):?(%d*)") do
    if port >= tonumber(from) and port <= tonumber(to ~= "" and to or from) then return true end
  end
  return false
end

-- The last rule that lets anybody in to where sshd listens now is not taken away, whatever
-- sshd was told to do meanwhile.
local function last_door(state, out, rule, said)
  local ports, proto = split(rule)
  if not state.enabled or proto == "udp" or said == "limit" then return false end
  for p in out:gmatch("door (%d+)") do
    if holds(ports, tonumber(p)) then
      local others = false
      for _, r in ipairs(state.rules4) do
        local opening = r.direction == "in" and (r.action == "allow" or r.action == "limit") and r.proto ~= "udp"
        if opening and holds(r.port, tonumber(p)) and not (r.port == ports and about(r, ports, proto)) then others = true end
      end
      if not others then return true end
    end
  end
  return false
end

-- Undoes `ufw allow` of these rules.
local function shut(ctx, rules, said)
  local state, out = ufw.look(ctx.root, doors_script)
  local list = {}
  for _, rule in ipairs(rules) do
    if last_door(state, out, rule, said[rule]) then
      ctx.warn(("ufw: %s stays open, for sshd listens there and no other rule lets anybody in"):format(rule))
    elseif said[rule] then list[#list + 1] = argv { "ufw", said[rule], rule }
    else list[#list + 1] = argv { "ufw", "--force", "delete", "allow", rule } end
  end
  if #list == 0 then return end
  guarded(ctx, function()
    for _, command in ipairs(list) do ctx.root:try(command) end
  end)
end

-- The command that makes or deletes a rule; a routed one has no short form.
local function allow_command(rule, routed, delete)
  local verb = delete and "ufw --force " or "ufw "
  if not routed then return verb .. (delete and "delete " or "") .. "allow " .. quote(rule) end
  local port, proto = split(rule)
  return ("%sroute %sallow %sfrom any to any port %s"):format(verb, delete and "delete " or "",
    proto ~= "any" and "proto " .. proto .. " " or "", quote(port))
end

-- ufw.allow { "80/tcp", ..., routed? }: open to everybody; with routed what is forwarded
-- to a container as well.
ufw.allow = resource("ufw.allow", {
  args = { routed = "boolean?" },
  list = true,
  check = check_rules,
  id = function(self) return table.concat(self, ", ") end,
  probe = function(self, ctx)
    local state = ufw.look(ctx.target)
    local list = {}
    for _, rule in ipairs(missing(state, self)) do list[#list + 1] = "ufw allow " .. rule end
    for _, rule in ipairs(self.routed and missing(state, self, true) or {}) do
      list[#list + 1] = "ufw route allow " .. rule
    end
    return #list == 0 and done() or pending(table.concat(list, "\n"))
  end,
  before = function(self, ctx)
    local state = ufw.look(ctx.target)
    local added = missing(state, self)
    return { added = json.array(added), replaced = replaced(state, added),
      routed = json.array(self.routed and missing(state, self, true) or {}) }
  end,
  apply = function(self, ctx)
    local state = ufw.look(ctx.target)
    local lines = {}
    for _, rule in ipairs(missing(state, self)) do lines[#lines + 1] = allow_command(rule, false) end
    for _, rule in ipairs(self.routed and missing(state, self, true) or {}) do
      lines[#lines + 1] = allow_command(rule, true)
    end
    ctx.target:run(#lines > 0 and table.concat(lines, " && ") or "true")
  end,
  undo = function(_, ctx, before)
    shut(ctx, before.added, before.replaced)
    for _, rule in ipairs(before.routed) do ctx.target:try(allow_command(rule, true, true)) end
  end,
})

local words = { deny = "DROP", allow = "ACCEPT", reject = "REJECT" }
local chains = { incoming = "input", outgoing = "output", routed = "forward" }

-- ufw.default { incoming?, outgoing?, routed? }: deny, allow or reject what no rule names.
ufw.default = resource("ufw.default", {
  args = { incoming = "string?", outgoing = "string?", routed = "string?" },
  check = function(self)
    for way in pairs(chains) do
      if self[way] and not words[self[way]] then
        error(("ufw.default: %s is deny, allow or reject, not '%s'"):format(way, self[way]), 3)
      end
    end
  end,
  id = function(self)
    local list = {}
    for _, way in ipairs { "incoming", "outgoing", "routed" } do
      if self[way] then list[#list + 1] = self[way] .. " " .. way end
    end
    return table.concat(list, ", ")
  end,
  probe = function(self, ctx)
    local state, out = ufw.look(ctx.target, guard.state_script("firewall"))
    local text = {}
    for _, way in ipairs { "incoming", "outgoing", "routed" } do
      local now = state.policies[chains[way]]
      if self[way] and now ~= words[self[way]] then
        text[#text + 1] = ("ufw default %s %s (now %s)"):format(self[way], way, now or "not installed")
      end
    end
    if out:find("guard=armed", 1, true) then text[#text + 1] = "a guard is armed: the change is not confirmed" end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  before = function(_, ctx) return { policies = ufw.look(ctx.target).policies } end,
  apply = function(self, ctx)
    local function change()
      for _, way in ipairs { "incoming", "outgoing", "routed" } do
        if self[way] then ctx.root:run { "ufw", "default", self[way], way } end
      end
    end
    guarded(ctx, change)
  end,
  undo = function(self, ctx, before)
    local now, list = ufw.look(ctx.root).policies, {}
    for _, way in ipairs { "incoming", "outgoing", "routed" } do
      for word, policy in pairs(words) do
        if self[way] and before.policies[chains[way]] == policy and now[chains[way]] ~= policy then
          list[#list + 1] = { "ufw", "default", word, way }
        end
      end
    end
    if #list == 0 then return end
    guarded(ctx, function()
      for _, command in ipairs(list) do ctx.root:run(command) end
    end)
  end,
})

-- ufw.enabled {}: the rules are in force now and at boot. Enabling is proved by a new
-- connection, else the guard switches it off again.
ufw.enabled = resource("ufw.enabled", {
  args = {},
  id = function() return "now and at boot" end,
  probe = function(_, ctx)
    local state, out = ufw.look(ctx.target, guard.state_script("firewall"))
    if out:find("guard=armed", 1, true) then return pending("ufw: a guard is armed: enabling it is not confirmed") end
    if state.enabled and state.live then return done() end
    return pending(not state.here and "ufw enable (not installed yet)"
      or state.enabled and "ufw: enabled, but its rules are not loaded" or "ufw enable")
  end,
  before = function(_, ctx) return { enabled = ufw.look(ctx.target).enabled } end,
  apply = function(_, ctx)
    guard.protect(ctx, {
      name = "firewall", saves = { "ufw" },
      -- Enabling a unit makes systemd read all of them anew: the package has done it already.
      change = function()
        ctx.root:run("ufw --force enable && { systemctl is-enabled --quiet ufw.service || systemctl enable --quiet ufw.service; }",
          { timeout = 120 })
      end,
    })
  end,
  -- Without a guard: what is switched off shuts nobody out.
  undo = function(_, ctx, before)
    if not before.enabled then ctx.root:try { "ufw", "--force", "disable" } end
  end,
})

local note = "lbrun: until the new SSH port is proved"

local function doors(ctx, port)
  local state, out = ufw.look(ctx.target, doors_script)
  local list, seen = { ("%d/tcp"):format(port) }, { [port] = true }
  for p in out:gmatch("door (%d+)") do
    p = tonumber(p)
    if not seen[p] then list[#list + 1] = ("%d/tcp"):format(p) end
    seen[p] = true
  end
  return state, list
end

-- ufw.ssh_doors { port }: the wanted SSH port is open, and until sshd has moved there, the
-- ports where it listens now are open too.
ufw.ssh_doors = resource("ufw.ssh_doors", {
  args = { port = "integer" },
  id = function(self) return ("%d/tcp and where sshd listens"):format(self.port) end,
  probe = function(self, ctx)
    local state, list = doors(ctx, self.port)
    list = missing(state, list, false, true)
    return #list == 0 and done() or pending("ufw allow " .. table.concat(list, ", "))
  end,
  before = function(self, ctx)
    local state, list = doors(ctx, self.port)
    local added = missing(state, list, false, true)
    return { added = json.array(added), replaced = replaced(state, added) }
  end,
  apply = function(self, ctx)
    local state, list = doors(ctx, self.port)
    for _, rule in ipairs(missing(state, list, false, true)) do
      if rule == ("%d/tcp"):format(self.port) then
        ctx.target:run { "ufw", "allow", rule, "comment", "SSH" }
      else
        ctx.target:run { "ufw", "allow", rule, "comment", note }
      end
    end
  end,
  undo = function(_, ctx, before) shut(ctx, before.added, before.replaced) end,
})

-- The command that deletes a rule as it was written down.
local function delete_command(r)
  local list = { "ufw", "--force", "delete", r.action }
  if r.app then
    list[#list + 1] = r.app
    return list
  end
  local anywhere = (r.from == "0.0.0.0/0" or r.from == "::/0") and (r.to == "0.0.0.0/0" or r.to == "::/0")
  if anywhere and r.sport == "any" then
    list[#list + 1] = r.proto == "any" and r.port or r.port .. "/" .. r.proto
    return list
  end
  for _, w in ipairs { "proto", r.proto, "from", r.from, "to", r.to, "port", r.port } do list[#list + 1] = w end
  if r.proto == "any" then table.remove(list, 5) table.remove(list, 5) end
  return list
end

local function old_doors(state, port)
  local list, seen = {}, {}
  for _, rules in ipairs { state.rules4, state.rules6 } do
    for _, r in ipairs(rules) do
      local old = r.direction == "in" and (r.action == "allow" or r.action == "limit") and r.port ~= tostring(port)
        and (r.comment == note or (r.port == "22" and r.proto ~= "udp"))
      local command = old and delete_command(r)
      local key = command and argv(command)
      if old and not seen[key] then
        seen[key] = true
        list[#list + 1] = { command = command, text = r.app or (r.port .. "/" .. r.proto), rule = r }
      end
    end
  end
  return list
end

-- ufw.only_ssh { port, user }: the doors of before the move are shut; proved by a new
-- connection on the port that stays.
ufw.only_ssh = resource("ufw.only_ssh", {
  args = { port = "integer", user = "string" },
  id = function(self) return ("%d/tcp"):format(self.port) end,
  probe = function(self, ctx)
    local state, out = ufw.look(ctx.target, guard.state_script("ssh") .. doors_script)
    local text = {}
    -- In a plan the rules may not be there yet that ufw.ssh_doors is going to make.
    for p in (ctx.planning and not state.enabled and out or ""):gmatch("door (%d+)") do
      if tonumber(p) ~= self.port then text[1] = ("ufw delete allow %s/tcp, when the new port is proved"):format(p) end
    end
    for _, d in ipairs(old_doors(state, self.port)) do text[#text + 1] = "ufw delete allow " .. d.text end
    if out:find("guard=armed", 1, true) then text[#text + 1] = "a guard is armed: the change is not confirmed" end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  intent = function() return "ufw delete allow 22/tcp, or wherever sshd listened before" end,
  before = function(self, ctx)
    local list = {}
    for _, d in ipairs(old_doors(ufw.look(ctx.target), self.port)) do
      -- Undo opens the port again to whom it was open; an address is kept, a name of a
      -- profile becomes its port.
      list[#list + 1] = { action = d.rule.action, port = d.rule.port, proto = d.rule.proto, from = d.rule.from,
        comment = d.rule.comment }
    end
    return { rules = json.array(list) }
  end,
  apply = function(self, ctx)
    guard.protect(ctx, {
      name = "ssh", saves = { "ufw" }, path = ("%s@:%d"):format(self.user, self.port),
      change = function()
        for _, d in ipairs(old_doors(ufw.look(ctx.root), self.port)) do ctx.root:run(d.command) end
      end,
    })
  end,
  -- Without a guard: it opens, and shuts nothing.
  undo = function(_, ctx, before)
    for _, r in ipairs(before.rules) do
      local anywhere = r.from == "0.0.0.0/0" or r.from == "::/0"
      local command = argv(anywhere and { "ufw", r.action, r.proto == "any" and r.port or r.port .. "/" .. r.proto }
        or { "ufw", r.action, "proto", r.proto == "any" and "tcp" or r.proto, "from", r.from, "to", "any", "port", r.port })
      ctx.root:run(command .. (r.comment and " comment " .. quote(r.comment) or ""))
    end
  end,
})

-- What stands open of these ports, each with the command that shuts it.
local function to_remove(self, state)
  local list = {}
  for _, rule in ipairs(self) do
    local port, proto = split(rule)
    for _, r in ipairs(state.rules4) do
      if opens(r, port, proto) then list[#list + 1] = { rule = rule, command = delete_command(r) } end
      if self.routed and opens(r, port, proto, true) then
        list[#list + 1] = { rule = "route " .. rule, command = allow_command(rule, true, true) }
      end
    end
  end
  return list
end

-- ufw.removed { "3000/tcp", ..., routed? }: no rule opens these ports to everybody; with routed
-- nothing is forwarded to them either.
ufw.removed = resource("ufw.removed", {
  args = { routed = "boolean?" },
  list = true,
  check = check_rules,
  id = function(self) return table.concat(self, ", ") end,
  probe = function(self, ctx)
    local list = {}
    local state = ufw.look(ctx.target)
    for _, item in ipairs(to_remove(self, state)) do list[#list + 1] = item.rule end
    return #list == 0 and done() or pending("ufw delete allow " .. table.concat(list, ", "))
  end,
  before = function() return {} end,
  apply = function(self, ctx)
    guard.protect(ctx, { name = "firewall", saves = { "ufw" }, change = function()
      for _, item in ipairs(to_remove(self, ufw.look(ctx.root))) do ctx.root:run(item.command) end
    end })
  end,
  -- Without a guard: it opens.
  undo = function(self, ctx)
    for _, rule in ipairs(self) do
      ctx.root:run(allow_command(rule, false))
      if self.routed then ctx.root:run(allow_command(rule, true)) end
    end
  end,
})

-- What Docker publishes is forwarded and never meets ufw's INPUT rules. Its own chain for
-- users does: new connections from outside to a container's bridge are dropped there,
-- unless `ufw route allow` lets them through.
local docker_block = [[
*filter
:ufw-user-forward - [0:0]
:DOCKER-USER - [0:0]
-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A DOCKER-USER -i docker0 -j RETURN
-A DOCKER-USER -i br-+ -j RETURN
-A DOCKER-USER -j ufw-user-forward
-A DOCKER-USER -o docker0 -m conntrack --ctstate NEW -j DROP
-A DOCKER-USER -o br-+ -m conntrack --ctstate NEW -j DROP
-A DOCKER-USER -j RETURN
COMMIT]]
local docker_files = { "/etc/ufw/after.rules", "/etc/ufw/after6.rules" }

local function docker_content(path)
  return path:match("6%.rules$") and docker_block:gsub("ufw%-user%-forward", "ufw6-user-forward") or docker_block
end

-- ufw.docker_closed {}: ports that Docker publishes are closed to the outside as well.
ufw.docker_closed = resource("ufw.docker_closed", {
  args = {},
  id = function() return "published ports" end,
  probe = function(_, ctx)
    local script = "iptables -S DOCKER-USER 2>/dev/null | grep -q -- '-o docker0 .*-j DROP' && echo live=docker\n"
    local state, out = ufw.look(ctx.target, script .. guard.state_script("firewall") ..
      "printf 'files\\n'\n" .. file.snapshot_script(docker_files))
    local text = {}
    if out:find("guard=armed", 1, true) then text[1] = "a guard is armed: the change is not confirmed" end
    local at = select(2, out:find("\nfiles\n", 1, true))
    for i, s in ipairs(file.parse_snapshot(out, 2, at + 1)) do
      local want = file.with_block(s.content or "", "docker", docker_content(docker_files[i]))
      if s.content ~= want then
        text[#text + 1] = s.content and diff(s.content, want, { path = docker_files[i] }) or
          docker_files[i] .. ": rules for Docker's published ports"
      end
    end
    if state.enabled and not out:find("live=docker", 1, true) then
      text[#text + 1] = "ufw reload: the rules for Docker's published ports are not loaded"
    end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  intent = function() return docker_block end,
  before = function(_, ctx)
    return { refs = { ctx.stash(docker_files[1]), ctx.stash(docker_files[2]) } }
  end,
  apply = function(_, ctx)
    local function change()
      for i, s in ipairs(file.snapshot(ctx.root, docker_files)) do
        local path = docker_files[i]
        ctx.root:put(path, file.with_block(s.content, "docker", docker_content(path)),
          { mode = s.mode, owner = s.owner, group = s.group })
      end
      ctx.root:run("! grep -q '^ENABLED=yes' /etc/ufw/ufw.conf || ufw reload", { timeout = 120 })
    end
    guarded(ctx, change)
  end,
  undo = function(_, ctx, before)
    guarded(ctx, function()
      for i, ref in ipairs(before.refs) do ctx.unstash(ref, docker_files[i]) end
      ctx.root:try([[
! grep -q '^ENABLED=yes' /etc/ufw/ufw.conf || ufw reload
for i in iptables ip6tables; do $i -F DOCKER-USER && $i -A DOCKER-USER -j RETURN; done 2>/dev/null]], { timeout = 120 })
    end)
  end,
})

return ufw
