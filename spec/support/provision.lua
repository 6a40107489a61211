-- provision.lua: what the specs of runbooks/provision.lua share: its command line for a
-- VPS, and what a server is like, as text that can be compared. It asserts nothing.
local support = require "support.lbrun"
local vps = require "support.vps"
local quote = support.quote

local provision = {}

-- The image that step 4 wants, which each VPS finds as if a registry had it.
provision.images = { vps.nginx }

-- provision.images_of(ids) -> that, and what these tools want
function provision.images_of(ids)
  local stack = require "lb.script".environment(require "lb.sources".collect "runbooks/provision.lua").stack
  local list = require "support.standins".images(stack, ids)
  table.insert(list, 1, vps.nginx)
  return list
end

-- Whom the credentials of a tenant are sealed to. The identity is nobody's: it is made here
-- anew each time, and specs that open something use it.
provision.recovery = require "crypto".age_identity { name = "recovery" }
provision.recipient = provision.recovery.recipient

provision.steps = { "packages", "docker", "services", "nginx", "firewall", "admin", "ssh", "updates" }

function provision.public_key(server)
  return (support.slurp(server.key .. ".pub"):gsub("\n$", ""))
end

-- provision.args(server, { url=, key=, more= }) -> words after `lbrun` or `lbrun plan`
function provision.args(server, opts)
  opts = opts or {}
  local more = opts.more or ""
  if more:find("tools=", 1, true) and not more:find("recipients=", 1, true) then
    more = more .. " recipients=" .. provision.recipient
  end
  return ("runbooks/provision.lua tenant=acme domain=acme.example docker_source=%s acme=self-signed alert_url=https://alerts.example/hook admin_ssh_public_key=%s "
    .. "-t %s -i %s -y --no-input %s"):format(opts.docker or "distro", quote(opts.key or provision.public_key(server)),
    quote(opts.url or server.url), server.key, more)
end

-- Warnings of a machine that is smaller than the tier; with them the exit is 3.
function provision.fine(result)
  local warnings = result.last and result.last.warnings or {}
  for _, text in ipairs(warnings) do
    if not text:find("smaller than its tier", 1, true) then return false, text end
  end
  return result.exit == (#warnings > 0 and 3 or 0) and result.last.status == "done",
    ("exit %d with %d warnings\n%s\n%s"):format(result.exit, #warnings, result.last and result.last.message or "", result.err)
end

-- What a plan must not touch: files with owner and mode, packages, what runs. A process
-- is its command line, without those of this look and of logins that are about to end.
local untouched = [[
find /etc /opt /home /root /usr/local /var/lib /var/spool -path /var/lib/systemd -prune -o \
  -printf '%p %y %m %u %g %l\n' | sort
find /etc /opt /home /root /var/lib/dpkg /var/lib/apt -type f -print0 | sort -z | xargs -0 sha256sum
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'
iptables-save 2>/dev/null | grep -v '^#' | sed 's/\[.*//'
systemctl list-unit-files --plain --no-legend
ps -eo args= | grep -Ev '^(\[|ps |sh -c|sort|grep|/bin/sh -c|sshd: [^/]|(/usr)?/lib/systemd/systemd --user|\(sd-pam\)|.*systemd-(tmpfiles|userwork))' | sort -u
]]
function provision.untouched(server)
  return (server:exec(untouched))
end

-- What two provisioned servers have in common: our files by hash, packages, ufw, sshd,
-- accounts, units. Host keys, identifiers and times differ by nature and are left out.
local provisioned = [[
cd /
find /etc/ssh/sshd_config* /etc/sudoers.d /etc/fail2ban /etc/ufw /etc/default/ufw /etc/apt /etc/docker /opt/letsbe \
  /home/letsbe-admin /etc/systemd/system -printf '%p %y %m %u %g %l\n' 2>/dev/null | sort
find /etc/ssh/sshd_config* /etc/sudoers.d /etc/fail2ban /etc/ufw /etc/default/ufw /etc/apt /opt/letsbe /home/letsbe-admin \
  /etc/systemd/system -type f -print0 2>/dev/null | sort -z | xargs -0 sha256sum
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'
ufw status verbose
sshd -T | sort
fail2ban-client get sshd logpath; fail2ban-client get sshd actions; fail2ban-client get sshd journalmatch
getent passwd letsbe-admin | cut -d: -f1,6,7; id -Gn letsbe-admin
systemctl is-enabled ufw; ufw status | head -1
for u in docker fail2ban ssh unattended-upgrades apt-daily.timer apt-daily-upgrade.timer nginx apache2 postfix lbrun-guard.timer
do echo "$u $(systemctl is-enabled $u 2>&1 | tail -1) $(systemctl is-active $u)"; done
docker ps --format '{{.Names}} {{.Image}} {{.State}}'
ls /var/lib/lbrun/jobs /var/lib/lbrun/check; ls -d /var/lib/lbrun/lock /var/lib/lbrun/guard/*/* 2>&1
]]
function provision.state(server)
  local text = server:exec(provisioned)
  -- The mark of nginx's start holds the moment of it.
  text = text:gsub("%x+  /opt/letsbe/nginx/%.lbrun%-up\n", "")
  -- python3-apt makes this empty file when it is asked at all, by a dry run for example.
  return (text:gsub("%x+  /etc/apt/sources%.list\n", ""):gsub("/etc/apt/sources%.list f 644 root root \n", ""))
end

-- provision.difference(a, b) -> the lines that only one of them has
function provision.difference(a, b)
  local dir = support.temp()
  support.spit(dir .. "/a", a)
  support.spit(dir .. "/b", b)
  local text = support.sh(("diff %s/a %s/b; rm -rf %s"):format(dir, dir, dir))
  return text
end

return provision
