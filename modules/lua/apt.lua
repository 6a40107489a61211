-- apt.lua: packages and repositories of Debian and Ubuntu. It waits for cloud-init and
-- for other users of dpkg's lock, answers no question with anything but the old file, and
-- mends an interrupted dpkg first. It removes nothing but what it installed.

local apt = {}

local options = "-y -q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0" ..
  " -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"

-- What stands before each change. The lists' lock has no timeout of its own in apt, and
-- dpkg --configure none at all: both are tried until the holder is gone.
local prepare = [[
umask 022
DEBIAN_FRONTEND=noninteractive; NEEDRESTART_MODE=a; APT_LISTCHANGES_FRONTEND=none; UCF_FORCE_CONFFOLD=1
export DEBIAN_FRONTEND NEEDRESTART_MODE APT_LISTCHANGES_FRONTEND UCF_FORCE_CONFFOLD
lb_mark=
lb_locked() { grep -Eq 'Could not get lock|is locked by another process|Unable to lock'; }
lb_retry() {
  lb_i=0
  while :; do
    lb_err=$("$@" 2>&1 >&3) && { [ -z "$lb_err" ] || echo "$lb_err" >&2; return 0; }
    lb_status=$?
    if ! echo "$lb_err" | lb_locked || [ $lb_i -ge 120 ]; then echo "$lb_err" >&2; return $lb_status; fi
    [ $lb_i -gt 0 ] || echo "waiting for another process that holds the package lock"
    lb_i=$((lb_i + 1)); sleep 5
  done 3>&1
}
lb_update() {
  lb_retry apt-get -q -o APT::Update::Error-Mode=any update || return
  mkdir -p /var/lib/lbrun && chmod 700 /var/lib/lbrun && touch /var/lib/lbrun/apt-updated
}
if command -v cloud-init >/dev/null 2>&1; then timeout 900 cloud-init status --wait >/dev/null 2>&1; fi
if [ -n "$(ls -A /var/lib/dpkg/updates 2>/dev/null)" ] || [ -n "$(dpkg --audit 2>/dev/null)" ]; then
  echo "finishing an interrupted dpkg"
  lb_retry dpkg --force-confold --force-confdef --configure -a
fi
# A disk that was full, or a power cut, leaves packages whose dependencies never came: apt
# refuses then, and is asked about it only then.
lb_apt() {
  apt-get ]] .. options .. [[ $lb_mark "$@" && return
  apt-get -q -o Debug::NoLocking=1 check >/dev/null 2>&1 && return 100
  echo "completing packages that lack their dependencies"
  apt-get ]] .. options .. [[ $lb_mark --fix-broken install && apt-get ]] .. options .. [[ $lb_mark "$@"
}
]]
apt.prepare = prepare

-- Packages that a release no longer has: false drops one, a list replaces it.
local replaced = {
  ["debian 13"] = {
    ["software-properties-common"] = { why = "no longer packaged; repositories are files in sources.list.d" },
    dnsutils = { by = { "bind9-dnsutils" }, why = "now only a name that it provides" },
  },
}

-- apt.resolve(names, facts) -> names for this release, notes on what was left out.
function apt.resolve(names, facts)
  local table_of = replaced[facts.os_id .. " " .. facts.os_version] or {}
  local list, notes, seen = {}, {}, {}
  for _, name in ipairs(names) do
    local other = table_of[name]
    for _, n in ipairs(other and (other.by or {}) or { name }) do
      if not seen[n] then list[#list + 1] = n end
      seen[n] = true
    end
    if other then
      notes[#notes + 1] = ("package %s: %s on %s (%s)"):format(name,
        other.by and "replaced by " .. table.concat(other.by, ", ") or "left out", facts.pretty, other.why)
    end
  end
  return list, notes
end

local function must_be_apt(facts)
  if facts.os_id ~= "debian" and facts.os_id ~= "ubuntu" then
    fail("unsupported", ("packages are managed on Debian and Ubuntu only; this is %s"):format(facts.pretty))
  end
end

local lists_script = [[
lb_new=0
for f in /var/lib/lbrun/apt-updated /var/lib/apt/periodic/update-success-stamp; do
  t=$(stat -c %Y "$f" 2>/dev/null) && [ "$t" -gt "$lb_new" ] && lb_new=$t
done
# An empty sources.list is what python3-apt leaves behind: it names no source.
lb_src=$({ [ ! -s /etc/apt/sources.list ] || stat -c %Y /etc/apt/sources.list
  stat -c %Y /etc/apt/sources.list.d /etc/apt/sources.list.d/*; } 2>/dev/null | sort -n | tail -1)
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 && lb_have=yes || lb_have=no
echo "lists $(date +%s) $lb_new ${lb_src:-0} $lb_have"
]]

-- Why the package lists must be fetched, or nil when they are fresh.
local function stale(text, max_age)
  local now, updated, sources, have = text:match("lists (%d+) (%d+) (%d+) (%a+)")
  now, updated, sources = tonumber(now), tonumber(updated), tonumber(sources)
  if have == "no" then return "there are no package lists" end
  if updated == 0 then return "when the package lists were fetched is not known" end
  if sources > updated then return "the sources are newer than the package lists" end
  if now - updated > max_age then
    return ("the package lists are %d hours old"):format((now - updated) // 3600)
  end
end

-- apt.updated { max_age? }: package lists not older than max_age (default 1d).
apt.updated = resource("apt.updated", {
  args = { max_age = "string|number|nil" },
  check = function(self) self.seconds = duration(self.max_age or "1d") end,
  id = function() return "lists" end,
  probe = function(self, ctx)
    must_be_apt(ctx.facts)
    local why = stale(ctx.target:run(lists_script).stdout, self.seconds)
    return why and pending("apt-get update: " .. why) or done()
  end,
  apply = function(_, ctx)
    ctx.target:job(prepare .. "lb_update", { name = "update", timeout = "30m" })
  end,
})

-- apt.upgraded {}: no package of the release has a newer version waiting (apt-get upgrade).
apt.upgraded = resource("apt.upgraded", {
  args = {},
  id = function() return "all" end,
  probe = function(_, ctx)
    must_be_apt(ctx.facts)
    local text = ctx.target:run(lists_script ..
      "LC_ALL=C apt-get -s -o Debug::NoLocking=1 upgrade 2>&1 | grep '^Inst '; true", { timeout = 120 }).stdout
    local list = {}
    for name, old, new in text:gmatch("Inst (%S+) %[([^%]]*)%] %((%S+)") do
      list[#list + 1] = ("  %s %s -> %s"):format(name, old, new)
    end
    if #list > 0 then return pending(("upgrade %d packages:\n%s"):format(#list, table.concat(list, "\n"))) end
    if ctx.planning and stale(text, 86400) then
      return pending("apt-get upgrade; what it would do is known after apt-get update")
    end
    return done()
  end,
  apply = function(_, ctx)
    ctx.target:job(prepare .. "lb_apt upgrade", { name = "upgrade", timeout = "60m" })
  end,
})

-- Which of the names are not installed.
local function missing(ctx, names)
  local out = ctx.target:run("dpkg-query -W -f='${db:Status-Abbrev}|${Package}\\n' " .. argv(names) ..
    " 2>/dev/null; true").stdout
  local have = {}
  for status, name in out:gmatch("(%S+)%s*|([^\n]+)") do
    if status:sub(2, 2) == "i" then have[name] = true end
  end
  local list = {}
  for _, name in ipairs(names) do
    if not have[name] then list[#list + 1] = name end
  end
  return list
end
apt.missing = missing

local function names_of(self, ctx)
  must_be_apt(ctx.facts)
  local own = self.packages and self.packages(ctx.facts) or self
  local names, notes = apt.resolve(own, ctx.facts)
  for _, note in ipairs(not self.told and notes or {}) do ctx.log(note) end
  self.told = true
  return names
end

local function check_names(self)
  if #self == 0 and not self.packages then error("name at least one package", 3) end
  for _, name in ipairs(self) do
    if type(name) ~= "string" or not name:match("^[a-z0-9][a-z0-9+.:-]*$") then
      error(("'%s' is not the name of a package"):format(tostring(name)), 3)
    end
  end
end

local function recommends(self)
  return self.recommends and " --install-recommends " or " --no-install-recommends "
end

local function id_of(self)
  return self.label or (#self > 4 and ("%s and %d more"):format(self[1], #self - 1)) or table.concat(self, ", ")
end

-- By this option apt's own history tells later which packages came with an effect, the
-- needed ones among them: to have apt say so before it begins takes seconds.
local function mark_of(self, ctx)
  return "lbrun::Effect=" .. ("%s/%s/%s"):format(ctx.run, ctx.step, id_of(self)):gsub("[^%w/.-]", "_")
end

-- What an effect of apt.installed has brought: what it asked for and did not find, and what
-- came with that.
local function installed_by(ctx, before)
  local text = ctx.target:run(([[
for f in /var/log/apt/history.log /var/log/apt/history.log.*; do [ ! -e "$f" ] || zcat -f "$f"; done |
  awk -v mark=%s '$1 == "Start-Date:" { ours = 0 } $1 == "Commandline:" { ours = index($0 " ", " " mark " ") } ours && $1 == "Install:"'
]]):format(quote(before.mark))).stdout
  local list, seen = {}, {}
  local function add(name)
    if not seen[name] then list[#list + 1] = name end
    seen[name] = true
  end
  for _, name in ipairs(before.asked) do add(name) end
  for name in text:gmatch(" ([a-z0-9][a-z0-9+.-]*):%w+ %(") do add(name) end
  return list
end

-- apt.installed { NAME..., recommends? }: installed, in any version. Instead of names,
-- packages = function(facts) may give the list for the release that is found.
apt.installed = resource("apt.installed", {
  args = { recommends = "boolean?", packages = "function?", label = "string?" },
  list = true,
  check = check_names,
  id = id_of,
  probe = function(self, ctx)
    local list = missing(ctx, names_of(self, ctx))
    if #list == 0 then return done() end
    return pending("install " .. table.concat(list, ", "))
  end,
  before = function(self, ctx)
    return { asked = json.array(missing(ctx, names_of(self, ctx))), mark = mark_of(self, ctx) }
  end,
  apply = function(self, ctx)
    local list = missing(ctx, names_of(self, ctx))
    if #list == 0 then return end
    local install = "lb_apt" .. recommends(self) .. "install " .. argv(list)
    -- Lists that are a few hours old may name versions that the mirror has dropped since.
    ctx.target:job(prepare .. "lb_mark='-o " .. mark_of(self, ctx) .. "'\n" .. install ..
      " || { echo 'once more with fresh package lists'; lb_update && " .. install .. "; }", { name = "install", timeout = "60m" })
  end,
  undo = function(_, ctx, before)
    local came = installed_by(ctx, before)
    local list, gone, mine, foreign = {}, {}, {}, {}
    for _, name in ipairs(missing(ctx, came)) do gone[name] = true end
    for _, name in ipairs(came) do
      mine[name] = true
      if not gone[name] then list[#list + 1] = name end
    end
    if #list == 0 then return end
    local out = ctx.target:run("LC_ALL=C apt-get -s -o Debug::NoLocking=1 purge " .. argv(list) ..
      " | grep -E '^(Purg|Remv) '; true", { timeout = 120 }).stdout
    for name in out:gmatch("%a+ (%S+)") do
      if not mine[name] then foreign[#foreign + 1] = name end
    end
    if #foreign > 0 then
      ctx.warn(("%s stay installed: %s, which this run did not install, need them"):format(
        table.concat(list, ", "), table.concat(foreign, ", ")))
      return
    end
    ctx.target:job(prepare .. "lb_apt purge " .. argv(list), { name = "purge", timeout = "60m" })
  end,
})

-- apt.absent { NAME... }: not installed; their configuration stays.
apt.absent = resource("apt.absent", {
  args = {},
  list = true,
  check = check_names,
  id = function(self) return table.concat(self, ", ") end,
  probe = function(self, ctx)
    must_be_apt(ctx.facts)
    local gone, list = {}, {}
    for _, name in ipairs(missing(ctx, self)) do gone[name] = true end
    for _, name in ipairs(self) do
      if not gone[name] then list[#list + 1] = name end
    end
    return #list == 0 and done() or pending("remove " .. table.concat(list, ", "))
  end,
  before = function(self, ctx)
    local gone, list = {}, {}
    for _, name in ipairs(missing(ctx, self)) do gone[name] = true end
    for _, name in ipairs(self) do
      if not gone[name] then list[#list + 1] = name end
    end
    return { removed = json.array(list) }
  end,
  apply = function(self, ctx)
    ctx.target:job(prepare .. "lb_apt remove " .. argv(self), { name = "remove", timeout = "30m" })
  end,
  undo = function(_, ctx, before)
    if #before.removed == 0 then return end
    ctx.target:job(prepare .. "lb_apt --no-install-recommends install " .. argv(before.removed),
      { name = "install", timeout = "60m" })
  end,
})

local function fingerprint_of(text)
  return (text:gsub("%s", ""):upper())
end

-- A word of the list file's line. Whoever can end the line writes sources that need no key.
local function word(name, value, spaces, level)
  if type(value) ~= "string" or value == "" or value:find(spaces and "[%c%[%]]" or "[%c%s%[%]]") then
    error(("apt.repository: %s is '%s', which holds what the line of a package source cannot"):format(name,
      (tostring(value):gsub("%c", "?"))), level or 0)
  end
  return value
end

-- The one line of the list file, for the release that is found.
local function source_line(self, ctx)
  local url = word("url", type(self.url) == "function" and self.url(ctx.facts) or self.url)
  return ("deb [arch=%s signed-by=%s] %s %s %s\n"):format(ctx.facts.arch, self.keyring, url,
    self.suite or ctx.facts.codename, self.components or "main")
end

local function key_url(self, ctx)
  return type(self.key_url) == "function" and self.key_url(ctx.facts) or self.key_url
end

-- Primary keys of a keyring file, one fingerprint a line, without touching root's ~/.gnupg.
local keys_script = [[
lb_keys() {
  h=$(mktemp -d); GNUPGHOME=$h gpg --batch --no-tty --show-keys --with-colons "$1" 2>/dev/null |
    awk -F: '$1 == "pub" { p = 1 } $1 == "fpr" && p { print $10; p = 0 }'
  rm -rf "$h"
}
]]

-- apt.repository { name, url, key_url or key, fingerprint, keyring?, list?, suite?,
-- components? }: a package source whose key is pinned; only the pinned key is trusted.
apt.repository = resource("apt.repository", {
  args = {
    name = "string", url = "string|function", key_url = "string|function|nil", key = "string?",
    fingerprint = "string", keyring = "string?", list = "string?", suite = "string?", components = "string?",
  },
  check = function(self)
    if (self.key_url == nil) == (self.key == nil) then error("apt.repository: give key or key_url", 3) end
    if not fingerprint_of(self.fingerprint):match("^%x+$") or #fingerprint_of(self.fingerprint) ~= 40 then
      error("apt.repository: fingerprint is the key's 40 hex digits", 3)
    end
    if not self.name:match("^[%w._-]+$") then error("apt.repository: name is of letters, digits, '.', '_' and '-'", 3) end
    if type(self.url) == "string" then word("url", self.url, false, 4) end
    word("suite", self.suite or "stable", false, 4)
    word("components", self.components or "main", true, 4)
    if self.keyring then word("keyring", self.keyring, false, 4) end
    self.keyring = self.keyring or ("/usr/share/keyrings/%s.gpg"):format(self.name)
    self.list = self.list or ("/etc/apt/sources.list.d/%s.list"):format(self.name)
  end,
  id = function(self) return self.name end,
  probe = function(self, ctx)
    must_be_apt(ctx.facts)
    local paths = { self.list, { self.keyring, sum = true } }
    local out = ctx.target:run(file.snapshot_script(paths) .. keys_script ..
      ("[ -e %s ] && command -v gpg >/dev/null && lb_keys %s; true"):format(quote(self.keyring), quote(self.keyring))).stdout
    local states, at = file.parse_snapshot(out, 2)
    local parts = { file.difference(self.list, states[1], source_line(self, ctx), { mode = "0644" }) }
    local want = fingerprint_of(self.fingerprint)
    if states[2].type == "absent" then
      parts[#parts + 1] = ("key %s into %s"):format(want, self.keyring)
    elseif out:sub(at) ~= want .. "\n" then
      parts[#parts + 1] = ("%s holds %s, not the pinned key %s alone"):format(self.keyring,
        out:sub(at) ~= "" and out:sub(at):gsub("\n(.)", ", %1"):gsub("\n", "") or "no key", want)
    elseif states[2].mode ~= "0644" then
      parts[#parts + 1] = self.keyring .. ": mode " .. states[2].mode .. " -> 0644"
    end
    return #parts == 0 and done() or pending(table.concat(parts, "\n"))
  end,
  intent = function(self, ctx)
    return ("%s\n%s: key %s"):format(diff(nil, source_line(self, ctx), { path = self.list, absent = true }),
      self.keyring, fingerprint_of(self.fingerprint))
  end,
  before = function(self, ctx)
    local states = file.snapshot(ctx.target, { { self.list, sum = true }, { self.keyring, sum = true } })
    return {
      list = states[1].type ~= "absent" and ctx.stash(self.list) or nil,
      keyring = states[2].type ~= "absent" and ctx.stash(self.keyring) or nil,
    }
  end,
  apply = function(self, ctx)
    local t = ctx.target
    local want = fingerprint_of(self.fingerprint)
    local fetch = self.key and ("printf %%s %s >\"$d/key\""):format(quote(self.key))
      or ("curl -fsSL --retry 3 --max-time 60 -o \"$d/key\" %s || exit 31"):format(quote(key_url(self, ctx)))
    local result = t:try(keys_script .. ([[
umask 022; d=$(mktemp -d) || exit 1; trap 'rm -rf "$d"' EXIT
command -v gpg >/dev/null || exit 30
%s
found=$(lb_keys "$d/key")
case "
$found
" in *"
%s
"*) ;; *) echo "$found"; exit 32 ;; esac
mkdir -m 700 "$d/home"; GNUPGHOME=$d/home; export GNUPGHOME
gpg --batch --no-tty --quiet --import "$d/key" 2>/dev/null
gpg --batch --no-tty --export %s >"$d/ring" && [ -s "$d/ring" ] || exit 33
install -D -m 0644 "$d/ring" %s.new && mv -fT %s.new %s]]):format(fetch, want, want,
      quote(self.keyring), quote(self.keyring), quote(self.keyring)), { timeout = "5m" })
    if result.status == 32 then
      fail("fingerprint", ("the key of %s is not the pinned one: expected %s, got %s; nothing was changed"):format(
        self.name, want, result.stdout:gsub("\n+$", ""):gsub("\n", ", ")))
    elseif result.status ~= 0 then
      fail("command", ("the key of %s cannot be taken (%s): %s"):format(self.name,
        ({ [30] = "gpg is not installed", [31] = "download failed", [33] = "gpg did not export it" })[result.status]
        or "status " .. result.status, last_lines(result.stderr, 2)))
    end
    local old = file.snapshot(t, { self.list })[1]
    t:put(self.list, source_line(self, ctx), { mode = "0644", owner = "root", group = "root" })
    local updated, err = pcall(t.job, t, prepare .. "lb_update", { name = "update", timeout = "30m" })
    if not updated then
      -- A source that cannot be read would break every later apt-get.
      if type(err) == "table" and err.code == "command" then
        if old.content then t:put(self.list, old.content, { mode = old.mode }) else t:run { "rm", "-f", self.list } end
      end
      error(err, 0)
    end
  end,
  undo = function(self, ctx, before)
    for _, key in ipairs { "list", "keyring" } do
      if before[key] then ctx.unstash(before[key], self[key]) else ctx.target:run { "rm", "-f", self[key] } end
    end
  end,
})

return apt
