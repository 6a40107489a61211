-- timer.lua: a systemd service and the timer that starts it, as one pair. It does not run
-- the service itself.

local timer = {}

local function paths(self)
  return { ("/etc/systemd/system/%s.service"):format(self.name), ("/etc/systemd/system/%s.timer"):format(self.name) }
end

local function one_line(text, what)
  if text:find("\n", 1, true) then error(("timer: %s is one line"):format(what), 4) end
  return text
end

local function calendar(self)
  return type(self.on_calendar) == "table" and self.on_calendar or { self.on_calendar }
end

-- The system is read-only to a service that says what it writes to, and it may do nothing that
-- a program with data to read and write has no need of.
local hardened = {
  "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "ProtectKernelTunables=yes",
  "ProtectKernelModules=yes", "ProtectKernelLogs=yes", "ProtectControlGroups=yes", "ProtectClock=yes", "ProtectHostname=yes",
  "RestrictRealtime=yes", "RestrictNamespaces=yes", "LockPersonality=yes", "MemoryDenyWriteExecute=yes", "SystemCallArchitectures=native",
  "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", "UMask=0077", "Nice=10", "IOSchedulingPriority=7",
}

local function texts(self)
  local service = { "[Unit]", "Description=" .. self.description }
  if self.after then service[#service + 1] = "After=" .. self.after end
  table.move({ "", "[Service]", "Type=oneshot", "ExecStart=" .. self.exec }, 1, 4, #service + 1, service)
  if self.user then service[#service + 1] = "User=" .. self.user end
  if self.timeout then service[#service + 1] = "TimeoutStartSec=" .. self.timeout end
  if self.well then service[#service + 1] = "SuccessExitStatus=" .. self.well end
  if self.writes then
    service[#service + 1] = "ReadWritePaths=" .. table.concat(self.writes, " ")
    table.move(hardened, 1, #hardened, #service + 1, service)
  end
  local unit = { "[Unit]", "Description=" .. self.description, "", "[Timer]" }
  for _, when in ipairs(calendar(self)) do unit[#unit + 1] = "OnCalendar=" .. when end
  if self.every then
    unit[#unit + 1] = "OnBootSec=" .. self.every
    unit[#unit + 1] = "OnUnitActiveSec=" .. self.every
  end
  if self.persistent ~= false and self.on_calendar then unit[#unit + 1] = "Persistent=true" end
  table.move({ "AccuracySec=1s", "", "[Install]", "WantedBy=timers.target" }, 1, 4, #unit + 1, unit)
  return { table.concat(service, "\n") .. "\n", table.concat(unit, "\n") .. "\n" }
end

-- timer.present { name, description, exec, on_calendar or every, user?, after?, timeout?,
-- persistent?, writes?, well? }: both units stand, the timer is enabled and waits. What was missed
-- while the server was off is made up for unless persistent = false. on_calendar is a text
-- or a list of them. `writes` is a list of
-- paths, without spaces, that the service alone may write to (one that begins with "-" need
-- not be there), `well` what exit statuses beside 0 are no failure.
timer.present = resource("timer.present", {
  args = { name = "string", description = "string", exec = "string", on_calendar = "string|table|nil", every = "string?",
    user = "string?", after = "string?", timeout = "string?", persistent = "boolean?", writes = "table?", well = "string?" },
  check = function(self)
    if not self.name:match("^[%w_.-]+$") then error("timer.present: name is that of a unit, without its suffix", 3) end
    if (self.on_calendar == nil) == (self.every == nil) then error("timer.present: give on_calendar or every", 3) end
    for _, key in ipairs { "description", "exec", "every", "user", "after", "timeout", "well" } do
      if self[key] then one_line(self[key], key) end
    end
    for _, when in ipairs(calendar(self)) do one_line(when, "on_calendar") end
    for _, path in ipairs(self.writes or {}) do
      if not path:match("^%-?/[%w/._-]+$") then error(("timer.present: writes: '%s' is no plain path"):format(path), 3) end
    end
  end,
  id = function(self) return self.name end,
  probe = function(self, ctx)
    local p, want = paths(self), texts(self)
    local out = ctx.target:run(file.snapshot_script(p) ..
      ("echo \"$(systemctl is-active %s.timer) $(systemctl is-enabled %s.timer 2>/dev/null)\""):format(self.name, self.name)).stdout
    local states, at = file.parse_snapshot(out, 2)
    local text = {}
    for i = 1, 2 do text[#text + 1] = file.difference(p[i], states[i], want[i], { mode = "0644" }) end
    local state = out:sub(at):gsub("\n", "")
    if state ~= "active enabled" then text[#text + 1] = ("%s.timer: %s -> active enabled"):format(self.name, state) end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  intent = function(self)
    local p, want = paths(self), texts(self)
    return diff(nil, want[1], { path = p[1], absent = true }) .. diff(nil, want[2], { path = p[2], absent = true })
  end,
  before = function(self, ctx)
    local p = paths(self)
    local states = file.snapshot(ctx.target, { { p[1], sum = true }, { p[2], sum = true } })
    return { service = states[1].type ~= "absent" and ctx.stash(p[1]) or nil,
      timer = states[2].type ~= "absent" and ctx.stash(p[2]) or nil }
  end,
  apply = function(self, ctx)
    local p, want = paths(self), texts(self)
    for i = 1, 2 do ctx.target:put(p[i], want[i], { mode = "0644", owner = "root", group = "root" }) end
    ctx.target:run(("systemctl daemon-reload && systemctl enable --quiet %s.timer && systemctl restart %s.timer")
      :format(self.name, self.name))
  end,
  undo = function(self, ctx, old)
    local p = paths(self)
    if not old.timer then ctx.target:try(("systemctl disable --quiet --now %s.timer"):format(self.name)) end
    for i, key in ipairs { "service", "timer" } do
      if old[key] then ctx.unstash(old[key], p[i]) else ctx.target:run { "rm", "-f", p[i] } end
    end
    ctx.target:run("systemctl daemon-reload" .. (old.timer and (" && systemctl restart %s.timer"):format(self.name) or ""))
  end,
})

-- timer.absent { name }: neither unit is there.
timer.absent = resource("timer.absent", {
  args = { name = "string" },
  id = function(self) return self.name end,
  probe = function(self, ctx)
    local states = file.snapshot(ctx.target, { { paths(self)[1], sum = true }, { paths(self)[2], sum = true } })
    if states[1].type == "absent" and states[2].type == "absent" then return done() end
    return pending(("remove %s.timer and %s.service"):format(self.name, self.name))
  end,
  before = function(self, ctx)
    local p = paths(self)
    local states = file.snapshot(ctx.target, { { p[1], sum = true }, { p[2], sum = true } })
    return { service = states[1].type ~= "absent" and ctx.stash(p[1]) or nil,
      timer = states[2].type ~= "absent" and ctx.stash(p[2]) or nil }
  end,
  apply = function(self, ctx)
    ctx.target:run(("systemctl disable --quiet --now %s.timer 2>/dev/null; rm -f %s; systemctl daemon-reload"):format(
      self.name, argv(paths(self))))
  end,
  undo = function(self, ctx, old)
    local p = paths(self)
    if old.service then ctx.unstash(old.service, p[1]) end
    if old.timer then ctx.unstash(old.timer, p[2]) end
    ctx.target:run("systemctl daemon-reload" .. (old.timer and (" && systemctl enable --quiet --now %s.timer"):format(self.name) or ""))
  end,
})

return timer
