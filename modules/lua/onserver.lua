-- onserver.lua: lbrun itself on a tenant's server, for what runs there without anybody: its
-- program and runbooks below /opt/letsbe/lbrun, Debian's packages of its libraries, and the
-- proof that it starts there. It runs no runbook.

local onserver = {}

onserver.dir = "/opt/letsbe/lbrun"
onserver.scripts = "/opt/letsbe/scripts"

local libraries = { "liblua5.4-0", "libssh2-1", "libcurl4", "libcjson1", "libssl3", "libargon2-1", "libsqlite3-0", "libuv1", "libcrypt1" }
-- Those that got another name with 64-bit time; they are the same on 64-bit machines.
local renamed = { ["libssh2-1"] = true, libcurl4 = true, libssl3 = true, libuv1 = true }
local t64 = { ["debian 13"] = true, ["ubuntu 24.04"] = true }

-- onserver.packages(facts) -> the packages of lbrun's libraries on that release
function onserver.packages(facts)
  local list = {}
  for i, name in ipairs(libraries) do
    list[i] = name .. (renamed[name] and t64[facts.os_id .. " " .. facts.os_version] and "t64" or "")
  end
  return list
end

-- Beside the version before, which what runs may still read; then by one rename of a link.
local install = [[
set -u; umask 022
cd %s || exit 1
rm -rf .new && mkdir .new && tar --no-same-owner -xf .package.tar -C .new || { echo "its archive cannot be unpacked" >&2; exit 1; }
rm -f .package.tar
lacks=$(ldd .new/bin/lbrun 2>&1 | awk '/not found/ { print $1, $NF == "found" ? "" : $NF }' | sort -u | tr '\n' ' ')
[ -z "$lacks" ] || { echo "it lacks libraries here: $lacks" >&2; exit 1; }
LBRUN_DATA=$PWD/.new/share/lbrun .new/bin/lbrun --version >/dev/null || {
  echo "its program does not start here: it was built for another machine ($(uname -m), $(ldd --version | head -n1))" >&2; exit 1; }
printf '%%s\n' %s >.new/.sum
to=%s; rm -rf "$to.old"; [ ! -e "$to" ] || mv -T "$to" "$to.old"
sync -f .new; mv -T .new "$to" && ln -sfn "$to" .current && mv -fT .current current && sync -f . || exit 1
for d in *; do [ "$d" = "$to" ] || [ "$d" = current ] || rm -rf -- "$d"; done
]]

-- onserver.lbrun {}: the lbrun that runs this is on the server too, as /opt/letsbe/lbrun/current.
onserver.lbrun = resource("onserver.lbrun", {
  args = {},
  id = function() return onserver.dir end,
  probe = function(_, ctx)
    local have = ctx.target:try(("cat %s/current/.sum"):format(onserver.dir)).stdout
    local want = ctx.package()
    return have == want.sha256 .. "\n" and done() or pending(("install lbrun %s below %s"):format(want.version, onserver.dir))
  end,
  apply = function(_, ctx)
    local p = ctx.package()
    ctx.target:run { "mkdir", "-p", "-m", "0755", "/opt/letsbe", onserver.dir }
    ctx.target:put(onserver.dir .. "/.package.tar", p.bytes, { mode = "0600", owner = "root", group = "root" })
    ctx.target:run(install:format(onserver.dir, p.sha256, quote(("%s-%s"):format(p.version, p.sha256:sub(1, 12)))), { timeout = 300 })
  end,
})

-- What a backup and a test write to; the rest of the system is read-only to them.
local writes = { "/opt/letsbe", "/var/lib/lbrun", "/var/lib/docker", "-/var/log/letsbe" }

local function script(name, p)
  return file.template { path = ("%s/%s.sh"):format(onserver.scripts, name), template = ("scripts/%s.sh"):format(name),
    vars = { tenant = p.tenant }, mode = "0755", owner = "root", group = "root" }
end

-- All at once: each start of apt costs seconds.
local function needed(facts)
  local list = onserver.packages(facts)
  for _, name in ipairs { "rsync", "age", "jq", "sqlite3", "logrotate" } do list[#list + 1] = name end
  return list
end

-- onserver.steps(p) -> the steps that give the server its own lbrun, the front doors of backup and
-- restore, and, where there is somebody to seal the credentials to, the timers (sections 4.1, 9.3)
function onserver.steps(p)
  local resources = {
    apt.installed { packages = needed, label = "lbrun's libraries, and what backups take" },
    onserver.lbrun {},
    directory.present { path = onserver.scripts, mode = "0755", owner = "root", group = "root" },
    directory.present { path = "/var/lib/lbrun", mode = "0700", owner = "root", group = "root" },
    script("here", p), script("backups", p), script("restore", p),
  }
  if #p.recipients > 0 then
    table.move({
      -- In the night that has no 02:00 the second time is the one; in others it finds the work
      -- done (--nightly), or has another try at it.
      timer.present { name = "letsbe-backup", description = "Backup of this server", on_calendar = { "*-*-* 02:00:00", "*-*-* 03:00:00" },
        exec = onserver.scripts .. "/backups.sh --nightly", timeout = "20h", writes = writes, well = "3" },
      timer.present { name = "letsbe-restore-test", description = "Test of a backup by restoring it", on_calendar = "*-*-01 05:00:00",
        exec = onserver.scripts .. "/restore.sh --test", after = "letsbe-backup.service", timeout = "20h", writes = writes, well = "3" },
    }, 1, 2, #resources + 1, resources)
  end
  return {
    remote.step { "backups" },
    step { name = "backups", title = "lbrun on the server, its backups and their tests", class = "compensable", tags = { "backups" },
      resources = resources },
  }
end

return onserver
