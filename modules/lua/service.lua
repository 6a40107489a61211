-- service.lua: systemd units: running, stopped, restarted after a change. It writes no
-- unit files (see timer, file).

local service = {}

-- One line a unit: name, load state, active state, unit file state.
local function states(t, names)
  local out = t:run("for u in " .. argv(names) .. [[; do
  set -- $(systemctl show -p LoadState -p ActiveState -p UnitFileState --value -- "$u" | sed 's/^$/-/')
  echo "$u $1 $2 ${3:--}"
done]]).stdout
  local list = {}
  for name, load, active, enabled in out:gmatch("(%S+) (%S+) (%S+) (%S+)\n") do
    list[#list + 1] = { name = name, loaded = load, active = active, enabled = enabled,
      absent = load == "not-found" }
  end
  if #list ~= #names then
    fail("target", "systemctl does not describe the units: " .. last_lines(out, 2))
  end
  return list
end

local function check_names(self)
  if #self == 0 then error("name at least one unit", 3) end
  for _, name in ipairs(self) do
    if type(name) ~= "string" or not name:match("^[%w@._:\\-]+$") then
      error(("'%s' is not the name of a unit"):format(tostring(name)), 3)
    end
  end
end

local function id(self)
  return table.concat(self, ", ")
end

local function record(self, ctx)
  local list = {}
  for _, s in ipairs(states(ctx.target, self)) do
    list[#list + 1] = { name = s.name, active = s.active, enabled = s.enabled, absent = s.absent }
  end
  return { units = list }
end

local function restore(ctx, before)
  local lines = {}
  for _, s in ipairs(before.units) do
    local name = quote(s.name)
    if not s.absent then
      if s.enabled == "enabled" then lines[#lines + 1] = "systemctl enable --quiet " .. name
      elseif s.enabled == "disabled" then lines[#lines + 1] = "systemctl disable --quiet " .. name end
      lines[#lines + 1] = (s.active == "active" and "systemctl start " or "systemctl stop ") .. name
    end
  end
  -- A unit whose package is gone by now needs no restoring.
  for _, line in ipairs(lines) do ctx.target:try(line, { timeout = 120 }) end
end

local enabled_states = { enabled = true, static = true, indirect = true, alias = true, generated = true,
  ["enabled-runtime"] = true }

-- service.running { NAME... }: started now and at boot.
service.running = resource("service.running", {
  args = {},
  list = true,
  check = check_names,
  id = id,
  probe = function(self, ctx)
    local text = {}
    for _, s in ipairs(states(ctx.target, self)) do
      if s.absent then
        text[#text + 1] = ("%s: no such unit yet"):format(s.name)
      else
        if s.active ~= "active" then text[#text + 1] = ("%s: %s -> active"):format(s.name, s.active) end
        if not enabled_states[s.enabled] then text[#text + 1] = ("%s: %s -> enabled"):format(s.name, s.enabled) end
      end
    end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  before = record,
  apply = function(self, ctx)
    ctx.target:run("systemctl enable --quiet " .. argv(self) .. " && systemctl start " .. argv(self), { timeout = 180 })
  end,
  undo = function(_, ctx, before) restore(ctx, before) end,
})

-- service.disabled_stopped { NAME..., brought_by? }: neither running nor started at boot; a
-- unit that does not exist is as good. brought_by names the package that an earlier step
-- installs and that brings the unit, for a plan to say so.
service.disabled_stopped = resource("service.disabled_stopped", {
  args = { brought_by = "string?" },
  list = true,
  check = check_names,
  id = id,
  probe = function(self, ctx)
    local text = {}
    for _, s in ipairs(states(ctx.target, self)) do
      if not s.absent then
        if s.active ~= "inactive" and s.active ~= "failed" then
          text[#text + 1] = ("%s: %s -> stopped"):format(s.name, s.active)
        end
        if s.enabled == "enabled" or s.enabled == "enabled-runtime" then
          text[#text + 1] = ("%s: enabled -> disabled"):format(s.name)
        end
      elseif ctx.planning and self.brought_by and #apt.missing(ctx, { self.brought_by }) > 0 then
        text[#text + 1] = ("%s: stopped and disabled, when %s has brought it"):format(s.name, self.brought_by)
      end
    end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  before = record,
  apply = function(self, ctx)
    local present = {}
    for _, s in ipairs(states(ctx.target, self)) do
      if not s.absent then present[#present + 1] = s.name end
    end
    ctx.target:run("systemctl stop " .. argv(present) .. " && systemctl disable --quiet " .. argv(present),
      { timeout = 180 })
  end,
  undo = function(_, ctx, before) restore(ctx, before) end,
})

-- service.fresh { name, files, reload? }: the unit was started (or reloaded by us) after
-- the last change of the files it reads. It needs no handler that a crash could lose.
service.fresh = resource("service.fresh", {
  args = { name = "string", files = "table", reload = "boolean?" },
  id = function(self) return self.name end,
  probe = function(self, ctx)
    local mark = "/run/lbrun-fresh/" .. self.name
    local out = ctx.target:run(([[
unit=%s; set -- %s
[ "$(systemctl is-active "$unit")" = active ] || { echo down; exit 0; }
mono=$(systemctl show -p ActiveEnterTimestampMonotonic --value "$unit")
start=$(awk -v m="$mono" -v n="$(date +%%s.%%N)" '{ printf "%%.3f", n - $1 + m / 1000000 }' /proc/uptime)
[ -e %s ] && start="$start $(stat -c %%.3Y %s)"
for f; do [ -e "$f" ] && echo "$(stat -c %%.3Y "$f") $start $f"; done
true]]):format(quote(self.name), argv(self.files), quote(mark), quote(mark))).stdout
    if out == "down\n" then return pending(self.name .. " is not running: start it") end
    for line in out:gmatch("[^\n]+") do
      local changed, started, rest = line:match("^([%d.]+) ([%d.]+) (.*)$")
      local marked, path = rest:match("^(%d+%.%d+) (.*)$")
      local since = math.max(tonumber(started), tonumber(marked) or 0)
      if tonumber(changed) > since + 0.02 then
        return pending(("%s: %s, since %s changed after it had been read"):format(self.name,
          self.reload and "reload" or "restart", path or rest))
      end
    end
    return done()
  end,
  apply = function(self, ctx)
    -- A reload does not move systemd's own time stamp: ours lives until the next boot.
    ctx.target:run(("systemctl %s %s && mkdir -p /run/lbrun-fresh && touch %s"):format(
      self.reload and "reload-or-restart" or "restart", quote(self.name),
      quote("/run/lbrun-fresh/" .. self.name)), { timeout = 180 })
  end,
})

return service
