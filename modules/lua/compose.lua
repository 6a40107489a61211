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

-- compose.up { project, dir, files?, wait?, may_exit? }: every service of docker-compose.yml
-- runs, from this very configuration, and none is unhealthy. `files` names what else the
-- project reads (.env); `wait` is how long containers may take until each passes the test of its
-- health (2m); 0 does not wait.
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
    ctx.target:job(docker.compose_script .. ([[
cd %s || exit 1
project=%s
# Under a temporary name first: a mark that is there but not whole would be believed.
rm -f %s.new
for f in %s; do [ -e "$f" ] && echo "sum $f $(sha256sum <"$f" | cut -c1-64)" >>%s.new; done
# Of each container that is not well: what it says itself.
ill() {
  %s"$project" --format '{{.Names}} {{.State}} {{.Status}}' | grep -Ev ' running Up [^(]*(\(healthy\))?$| created ' |
    while read -r name state status; do
      echo "$name: $status; its last lines:"
      docker logs --tail 4 "$name" 2>&1
    done >&2
}
# A container's own test of its health, now: the engine asks it only after an interval.
well() {
  name=$1; set --
  while IFS= read -r word; do set -- "$@" "$word"; done <<EOF
$(docker inspect -f '{{range .Config.Healthcheck.Test}}{{println .}}{{end}}' "$name")
EOF
  [ "$1" = CMD ] && shift && timeout 30 docker exec "$name" "$@" >/dev/null 2>&1
}
$dc -p "$project" up -d --remove-orphans || { ill; exit 1; }
wait=%d; end=$(($(date +%%s) + wait)); passed=" "
while [ $wait -gt 0 ]; do
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
$(%s"$project" --format '{{.Names}} {{.Status}}')
EOF
  [ -n "$waiting" ] || break
  if [ $(date +%%s) -ge $end ]; then echo "not healthy in time: $waiting" >&2; ill; exit 3; fi
  sleep 1
done
if [ $wait -gt 0 ] && %s"$project" --format '{{.Status}}' | grep -q '(unhealthy)'; then ill; exit 4; fi
%s"$project" --format 'service %s' | sort -u >>%s.new
chmod 600 %s.new && mv -fT %s.new %s
]]):format(quote(self.dir), quote(self.project), mark, argv(files_of(self)), mark, ps, seconds, ps, ps, ps, hash_format, mark, mark,
      mark, mark), { name = "up", timeout = seconds + 1800 })
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
