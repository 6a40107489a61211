-- unattended.lua: unattended upgrades from the security origins alone. It upgrades nothing
-- itself.

local unattended = {}

local auto = "/etc/apt/apt.conf.d/20auto-upgrades"
local origins = "/etc/apt/apt.conf.d/50unattended-upgrades"

local function texts(ctx)
  local id = ctx.facts.os_id
  if id ~= "debian" and id ~= "ubuntu" then fail("unsupported", "no security origin is known for " .. ctx.facts.pretty) end
  return ctx.source("apt/20auto-upgrades"), ctx.render("apt/50unattended-upgrades", { ubuntu = id == "ubuntu" })
end

-- What apt makes of all its files together: another file may add an origin of its own.
local function wanted_origins(ctx)
  local text = select(2, texts(ctx))
  local list = {}
  for value in text:gmatch('\n%s+"([^"]+)";') do list[value] = true end
  return list
end

local dump = "apt-config dump Unattended-Upgrade; apt-config dump APT::Periodic\n" ..
  "systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer 2>&1 | tr '\\n' ' '; echo timers\n"

-- unattended.security {}: security updates are installed by themselves, daily, and nothing else.
unattended.security = resource("unattended.security", {
  args = {},
  id = function() return "only" end,
  probe = function(_, ctx)
    local one, two = texts(ctx)
    local out = ctx.target:run(file.snapshot_script { auto, origins } .. dump).stdout
    local states, at = file.parse_snapshot(out, 2)
    local list = {}
    list[#list + 1] = file.difference(auto, states[1], one, { mode = "0644" })
    list[#list + 1] = file.difference(origins, states[2], two, { mode = "0644" })
    local rest = out:sub(at)
    if #list == 0 then
      local want = wanted_origins(ctx)
      for kind, value in rest:gmatch('Unattended%-Upgrade::([%a-]+):: "([^"]+)"') do
        if (kind == "Origins-Pattern" or kind == "Allowed-Origins") and not want[value] then
          list[#list + 1] = ("another file in /etc/apt/apt.conf.d allows the origin '%s'"):format(value)
        end
      end
      if not rest:find('APT::Periodic::Unattended-Upgrade "1"', 1, true) then
        list[#list + 1] = "another file in /etc/apt/apt.conf.d switches APT::Periodic::Unattended-Upgrade off"
      end
    end
    if not rest:find("enabled enabled timers", 1, true) then list[#list + 1] = "enable apt-daily.timer and apt-daily-upgrade.timer" end
    return #list == 0 and done() or pending(table.concat(list, "\n"))
  end,
  intent = function(_, ctx)
    local one, two = texts(ctx)
    return diff(nil, one, { path = auto, absent = true }) .. diff(nil, two, { path = origins, absent = true })
  end,
  before = function(_, ctx)
    local states = file.snapshot(ctx.target, { { auto, sum = true }, { origins, sum = true } })
    return { auto = states[1].type ~= "absent" and ctx.stash(auto) or nil,
      origins = states[2].type ~= "absent" and ctx.stash(origins) or nil }
  end,
  apply = function(_, ctx)
    local t = ctx.target
    local one, two = texts(ctx)
    t:put(auto, one, { mode = "0644", owner = "root", group = "root" })
    t:put(origins, two, { mode = "0644", owner = "root", group = "root" })
    t:run("systemctl enable --quiet --now apt-daily.timer apt-daily-upgrade.timer")
    -- The program itself says which origins it would take from, before it looks at any:
    -- then it has said enough. It wants dpkg's lock for that.
    local result = t:try([[
d=$(mktemp -d) || exit; trap 'rm -rf "$d"' EXIT
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
  unattended-upgrade --dry-run --verbose >"$d/said" 2>&1 &
  while ! grep -m 1 '^Allowed origins are: .' "$d/said" && kill -0 $! 2>/dev/null; do sleep 0.05; done
  kill -9 $! 2>/dev/null && wait $! 2>/dev/null
  grep -q 'Lock could not be acquired' "$d/said" || break
  sleep 5
done
cat "$d/said" >&2]], { timeout = 180 })
    local said = result.stdout:match("Allowed origins are: ([^\n]*)")
    if not said or not said:find("ecurity", 1, true) then
      fail("verify", "unattended-upgrade --dry-run does not name the security origin: " ..
        last_lines(result.stderr, 3))
    end
    ctx.log("unattended-upgrade --dry-run: allowed origins are " .. said)
  end,
  undo = function(_, ctx, old)
    for key, path in pairs { auto = auto, origins = origins } do
      if old[key] then ctx.unstash(old[key], path) else ctx.target:run { "rm", "-f", path } end
    end
  end,
})

return unattended
