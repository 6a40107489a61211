-- compose.lua: a Compose project that is up as its files say. It renders no files and pulls
-- no newer image than the tag names.

local compose = {}

-- What stood when the project was last brought up is kept beside its files: the checksum of
-- each file it reads and, for each service, the config hash that Compose gave its containers.
local mark = ".lbrun-up"

local function check(self)
  if self.dir:sub(1, 1) ~= "/" then error("compose.up: dir is absolute", 3) end
  if not self.project:match("^[a-z0-9][a-z0-9_-]*$") then
    error(("compose.up: '%s' is not the name of a project"):format(self.project), 3)
  end
  for _, f in ipairs(self.files or {}) do
    if f:find("/", 1, true) then error("compose.up: files are names inside dir", 3) end
  end
end

local function files_of(self)
  local list = { "docker-compose.yml" }
  for _, f in ipairs(self.files or {}) do list[#list + 1] = f end
  return list
end

local ps = "docker ps -a --no-trunc --filter label=com.docker.compose.oneoff=False --filter label=com.docker.compose.project="
local hash_format = '{{.Label "com.docker.compose.service"}} {{.Label "com.docker.compose.config-hash"}}'

-- Container states and the marks, without a call of Compose: that takes half a second.
local function look_script(self)
  return ([[
cd %s 2>/dev/null || { echo "none no directory"; exit 0; }
[ -e docker-compose.yml ] || { echo "none no docker-compose.yml"; exit 0; }
command -v docker >/dev/null || { echo "none docker is not installed"; exit 0; }
for f in %s; do [ -e "$f" ] && echo "sum $f $(sha256sum <"$f" | cut -c1-64)"; done
[ ! -e %s ] || sed 's/^/mark /' %s
%s%s --format 'has %s {{.State}} {{.Status}}' || echo "none the engine does not answer"
]]):format(quote(self.dir), argv(files_of(self)), mark, mark, ps, quote(self.project), hash_format)
end

local function compare(self, out)
  local why = out:match("none ([^\n]*)")
  if why then return { why } end
  local sums, marked, expected, list = {}, {}, {}, {}
  for name, sum in out:gmatch("\nsum (%S+) (%x+)") do sums[name] = sum end
  for name, sum in out:gmatch("\nmark sum (%S+) (%x+)") do marked[name] = sum end
  for service, hash in out:gmatch("\nmark service (%S+) (%S+)") do expected[service] = hash end
  if not next(marked) then return { ("%s: docker compose up -d"):format(self.project) } end
  for _, name in ipairs(files_of(self)) do
    if sums[name] ~= marked[name] then list[#list + 1] = ("%s has changed since the project was brought up"):format(name) end
  end
  local seen = {}
  for service, hash, state, status in out:gmatch("\nhas (%S+) (%S+) (%S+) ([^\n]*)") do
    if not expected[service] then
      list[#list + 1] = ("service %s is not in the project any more"):format(service)
    elseif expected[service] ~= hash then
      list[#list + 1] = ("service %s was created from another configuration"):format(service)
    elseif state ~= "running" and not (self.may_exit and self.may_exit[service]) then
      list[#list + 1] = ("service %s: %s"):format(service, status)
    elseif status:find("(unhealthy)", 1, true) then
      list[#list + 1] = ("service %s is unhealthy: %s"):format(service, status)
    end
    seen[service] = true
  end
  for _, service in ipairs(sorted_keys(expected)) do
    if not seen[service] then list[#list + 1] = ("service %s has no container"):format(service) end
  end
  return list
end

-- The job that brings a project up: $dir, $project, $mark, $wait are given, and its files as "$@".
-- Statuses: 1 Compose failed, 3 not healthy in time, 4 unhealthy; then what was found stands
-- after the line `found:` of stderr.
local up_script = [[
cd "$dir" || exit 2
begun=$(date +%s)
all() { docker ps -a --no-trunc --filter label=com.docker.compose.oneoff=False --filter label=com.docker.compose.project="$project" "$@"; }
had=$(docker volume ls -q) || exit 2
own=$(docker volume ls -q --filter label=com.docker.compose.project="$project") || exit 2
# It stands until all was well once.
[ -n "$own" ] || { : >"$mark.first" && sync "$mark.first"; }
# Under a temporary name first: a mark that is there but not whole would be believed.
rm -f "$mark.new"
for f; do [ -e "$f" ] && echo "sum $f $(sha256sum <"$f" | cut -c1-64)" >>"$mark.new"; done
ill() {
  all --format '{{.Names}} {{.State}} {{.Status}}' |
    grep -Ev ' running Up [^(]*(\(healthy\))?$| created | exited Exited \(0\)'
}
# What a container says since we began, else its last words: the first three lines that tell of
# an error, which in a loop of restarts are the cause, and the last three.
words() {
  { docker logs --since "$begun" "$1" 2>&1 | grep . || docker logs --tail 20 "$1" 2>&1; } | awk '
    { line[NR] = $0 }
    n < 3 && tolower($0) ~ /error|fatal|panic|exception|fail|denied|refused|cannot|no space|disk/ { n++; show[NR] = 1 }
    END { for (i = 1; i <= NR; i++) if (i in show || i > NR - 3) print line[i] }'
}
# The disk of Docker's data: what a container says of a full one may be anything, or nothing.
full() {
  root=$(docker info -f '{{.DockerRootDir}}')
  set -- $(df -Pk "$root" | tail -n 1)
  [ "${4:-0}" -lt 65536 ] || printf %s "$said" | grep -Eqi 'no space left|enospc|disk (is )?full|out of disk|err(or|no|code):? 28' || return
  echo "No space left on device: $((${4:-0} / 1024)) of $((${2:-0} / 1024)) MiB are free in $root"
}
# A database whose first start was cut off leaves a directory that its image takes for a whole
# one ever after. So what a first start made that ended on a full disk, or with a container that
# does not run, is removed, and the next try begins with nothing. Nothing goes where one volume
# is older than this job: there may be data in it, and parts of a tool do not go alone. A person
# is told when the server went down in the middle of a first start.
forget() {
  new=$({ docker volume ls -q --filter label=com.docker.compose.project="$project"
    all -q | xargs -r docker inspect -f '{{range .Mounts}}{{if eq .Type "volume"}}{{println .Name}}{{end}}{{end}}'
  } | grep . | sort -u)
  [ -n "$new" ] || return
  old=
  for v in $new; do ! printf '%s\n' "$had" | grep -Fqx -e "$v" || old=1; done
  new=$(echo $new)
  if [ -n "$old" ]; then
    [ ! -e "$mark.first" ] || echo "no start of it has ended well yet: its volumes may be half filled, and were left; when" \
      "nothing in them is worth keeping: cd $dir && $dc -p $project down && docker volume rm $new"
    return
  fi
  [ -n "$full" ] || ill | grep -Eq '^[^ ]+ (restarting|exited|dead) ' || return
  if $dc -p "$project" down >/dev/null 2>&1 && docker volume rm $new >/dev/null; then
    echo "the volumes that this first start had made ($new) were removed: the next try begins with nothing"
  else
    echo "the volumes that this first start had made are half filled; before the next try: docker volume rm $new"
  fi
}
gone() {
  said=$(ill | head -n 4 | while read -r name state status; do echo "$name: $status; it said:"; words "$name"; done)
  full=$(full)
  { echo found:; [ -z "$full" ] || echo "$full"; [ -z "$said" ] || printf '%s\n' "$said"; forget; } >&2
  exit "$1"
}
# A container's own test of its health, now: the engine asks it only after an interval.
well() {
  name=$1; set --
  while IFS= read -r word; do set -- "$@" "$word"; done <<EOF
$(docker inspect -f '{{range .Config.Healthcheck.Test}}{{println .}}{{end}}' "$name")
EOF
  [ "$1" = CMD ] && shift && timeout 30 docker exec "$name" "$@" >/dev/null 2>&1
}
$dc -p "$project" up -d --remove-orphans || gone 1
end=$(($(date +%s) + wait)); passed=" "
while [ "$wait" -gt 0 ]; do
  waiting=
  while read -r name status; do
    case $status in
    *"health: starting"*)
      case $passed in *" $name "*) continue ;; esac
      if well "$name"; then passed="$passed$name "; continue; fi ;;
    *Restarting*) ;;
    *) continue ;;
    esac
    waiting="$waiting$name $status; "
  done <<EOF
$(all --format '{{.Names}} {{.Status}}')
EOF
  [ -n "$waiting" ] || break
  if [ "$(date +%s)" -ge $end ]; then echo "not healthy in time: $waiting" >&2; gone 3; fi
  sleep 1
done
if [ "$wait" -gt 0 ] && all --format '{{.Status}}' | grep -q '(unhealthy)'; then gone 4; fi
all --format 'service HASH' | sort -u >>"$mark.new"
chmod 600 "$mark.new" && mv -fT "$mark.new" "$mark" && rm -f "$mark.first"
]]
up_script = up_script:gsub("HASH", hash_format)

-- Why a project is not up: the cause first, then what Compose said last, then its containers.
local function complaint(stderr)
  local own, found = ("\n" .. stderr):match("^(.*)\nfound:\n(.*)$")
  if not own then return last_lines(stderr, 5) end
  local full, rest = found:match("^(No space left on device[^\n]*)\n(.*)$")
  local parts = {}
  for _, text in ipairs { full or "", last_lines(own, 3), last_lines(rest or found, 40) } do
    if text ~= "" then parts[#parts + 1] = text end
  end
  return table.concat(parts, "\n")
end

-- compose.up { project, dir, files?, wait?, may_exit? }: every service of docker-compose.yml
-- runs, from this very configuration, and none is unhealthy. `files` names what else the
-- project reads (.env); `wait` is how long containers may take until each passes the test of its
-- health (2m); 0 does not wait. A first start that fails half-way leaves no volumes.
compose.up = resource("compose.up", {
  args = { project = "string", dir = "string", files = "table?", wait = "string|number|nil", may_exit = "table?" },
  check = check,
  id = function(self) return self.project end,
  probe = function(self, ctx)
    local list = compare(self, "\n" .. ctx.target:run(look_script(self)).stdout)
    return #list == 0 and done() or pending(table.concat(list, "\n"))
  end,
  intent = function(self) return ("docker compose up -d in %s"):format(self.dir) end,
  before = function(self, ctx)
    local out = ctx.target:try(("docker ps -aq --filter label=com.docker.compose.project=%s"):format(quote(self.project)))
    return { up = out.ok and out.stdout ~= "" }
  end,
  apply = function(self, ctx)
    local seconds = math.ceil(duration(self.wait or "2m"))
    local given = ("dir=%s project=%s mark=%s wait=%d; set -- %s\n"):format(quote(self.dir), quote(self.project), mark, seconds,
      argv(files_of(self)))
    local result = ctx.target:job(docker.compose_script .. given .. up_script,
      { name = "up", timeout = seconds + 1800, ok = { 0, 1, 3, 4 } })
    if result.status ~= 0 then
      fail("command", ("%s: its up ended with status %d: %s"):format(ctx.effect, result.status, complaint(result.stderr)))
    end
  end,
  undo = function(self, ctx, old)
    if old.up then
      ctx.warn(("project %s was up before this run; its containers stay as they are now"):format(self.project))
      return
    end
    ctx.target:job(docker.compose_script .. ("cd %s && $dc -p %s down && rm -f %s"):format(quote(self.dir),
      quote(self.project), mark), { name = "down", timeout = "10m" })
  end,
})

-- compose.down { project, dir }: no container of the project is left; volumes stay.
compose.down = resource("compose.down", {
  args = { project = "string", dir = "string" },
  check = check,
  id = function(self) return self.project end,
  probe = function(self, ctx)
    local out = ctx.target:run(("command -v docker >/dev/null || exit 0; %s%s --format '{{.Names}}'"):format(ps,
      quote(self.project))).stdout
    return out == "" and done() or pending("remove containers: " .. out:gsub("\n(.)", ", %1"))
  end,
  before = function() return {} end,
  apply = function(self, ctx)
    ctx.target:job(docker.compose_script .. ("cd %s && $dc -p %s down; s=$?; rm -f %s; exit $s"):format(quote(self.dir),
      quote(self.project), mark), { name = "down", timeout = "10m" })
  end,
  undo = function(self, ctx)
    ctx.target:job(docker.compose_script .. ("cd %s && $dc -p %s up -d"):format(quote(self.dir), quote(self.project)),
      { name = "up", timeout = "30m" })
  end,
})

return compose
