-- fail2ban.lua: jails as drop-ins that read systemd's journal, for there need be no rsyslog.
-- It installs no package and bans nobody itself.

local fail2ban = {}

local function path_of(self)
  return ("/etc/fail2ban/jail.d/lbrun-%s.local"):format(self.name)
end

local function text_of(self, ctx)
  return ctx.render("fail2ban/jail.local", {
    name = self.name, port = tostring(self.port), filter = self.filter or self.name,
    journalmatch = self.journalmatch or "", maxretry = self.maxretry or 5,
    findtime = self.findtime or "10m", bantime = self.bantime or "1h",
    ignoreip = table.concat(self.ignoreip or {}, " "),
  })
end

-- fail2ban.jail { name, port, filter?, journalmatch?, maxretry?, findtime?, bantime?,
-- ignoreip?, ahead? }: the jail is written, loaded and watching: fail2ban-client status NAME
-- says so. With ahead = true it is only written, before the package comes, whose first start
-- then reads it.
fail2ban.jail = resource("fail2ban.jail", {
  args = { name = "string", port = "integer|string", filter = "string?", journalmatch = "string?",
    maxretry = "integer?", findtime = "string?", bantime = "string?", ignoreip = "table?", ahead = "boolean?" },
  check = function(self)
    if not self.name:match("^[%w-]+$") then error("fail2ban.jail: name is of letters, digits and '-'", 3) end
  end,
  id = function(self) return ("%s on port %s%s"):format(self.name, self.port, self.ahead and ", ahead of fail2ban" or "") end,
  probe = function(self, ctx)
    local path, text = path_of(self), text_of(self, ctx)
    if self.ahead then
      local change = file.difference(path, file.snapshot(ctx.target, { path })[1], text, { mode = "0644" })
      return change and pending(change) or done()
    end
    local out = ctx.target:run(file.snapshot_script { path } .. ([[
if [ -x /usr/bin/fail2ban-client ]; then
  if timeout 20 fail2ban-client status %s >/dev/null 2>&1; then echo jail=watching; else echo jail=down; fi
  start=$(systemctl show -p ActiveEnterTimestampMonotonic --value fail2ban.service)
  [ ! -e %s ] || awk -v f="$(stat -c %%.3Y %s)" -v m="$start" -v n="$(date +%%s.%%N)" \
    '{ if (f > n - $1 + m / 1000000 + 0.02) print "jail=older" }' /proc/uptime
else echo jail=absent; fi]]):format(quote(self.name), quote(path), quote(path))).stdout
    local states, at = file.parse_snapshot(out, 1)
    local list = { file.difference(path, states[1], text, { mode = "0644" }) }
    local rest = out:sub(at)
    if rest:find("jail=down", 1, true) then list[#list + 1] = ("fail2ban does not watch the jail %s"):format(self.name)
    elseif rest:find("jail=absent", 1, true) then list[#list + 1] = "fail2ban is not installed"
    elseif rest:find("jail=older", 1, true) then list[#list + 1] = "fail2ban was started before the jail was written: restart" end
    return #list == 0 and done() or pending(table.concat(list, "\n"))
  end,
  intent = function(self, ctx) return diff(nil, text_of(self, ctx), { path = path_of(self), absent = true }) end,
  before = function(self, ctx)
    local s = file.snapshot(ctx.target, { { path_of(self), sum = true } })[1]
    return { ref = s.type ~= "absent" and ctx.stash(path_of(self)) or nil }
  end,
  apply = function(self, ctx)
    local t = ctx.target
    if self.ahead then t:run("umask 022; mkdir -p /etc/fail2ban/jail.d") end
    t:put(path_of(self), text_of(self, ctx), { mode = "0644", owner = "root", group = "root" })
    if self.ahead then return end
    local result = t:try(([[
fail2ban-client -t >/dev/null || exit 1
systemctl enable --quiet fail2ban.service; systemctl restart fail2ban.service || exit 1
i=0
while [ $i -lt 60 ]; do
  timeout 10 fail2ban-client status %s 2>/dev/null && exit 0
  i=$((i + 1)); sleep 0.25
done
journalctl -u fail2ban.service -n 5 --no-pager -o cat >&2; exit 2]]):format(quote(self.name)), { timeout = 120 })
    if not result.ok then
      fail("fail2ban", ("the jail %s does not come up: %s"):format(self.name, last_lines(result.stderr, 3)))
    end
  end,
  undo = function(self, ctx, old)
    if old.ref then ctx.unstash(old.ref, path_of(self)) else ctx.target:run { "rm", "-f", path_of(self) } end
    if self.ahead then ctx.target:run("rmdir /etc/fail2ban/jail.d /etc/fail2ban 2>/dev/null; true")
    else ctx.target:try("systemctl try-restart fail2ban.service", { timeout = 60 }) end
  end,
})

-- fail2ban.sshd { port, ahead? }: the jail of sshd. The unit is ssh.service here, and since OpenSSH
-- 9.8 the process that logs is sshd-session; matching the unit keeps forged lines out.
function fail2ban.sshd(given)
  return fail2ban.jail {
    name = "sshd", port = given.port, maxretry = given.maxretry, findtime = given.findtime, bantime = given.bantime,
    ignoreip = given.ignoreip, ahead = given.ahead,
    journalmatch = "_SYSTEMD_UNIT=ssh.service + _COMM=sshd + _COMM=sshd-session",
  }
end

return fail2ban
