-- docker.lua: the Docker engine and what the server calls Compose. It starts no containers
-- (see compose).

local docker = {}

-- The key that signs download.docker.com, for Debian and Ubuntu alike.
docker.key_fingerprint = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"

local distro_packages = {
  ["debian 12"] = { "docker.io", "docker-compose", "iptables" },
  ["debian 13"] = { "docker.io", "docker-cli", "docker-compose", "iptables" },
  ["ubuntu 22.04"] = { "docker.io", "docker-compose-v2", "iptables" },
  ["ubuntu 24.04"] = { "docker.io", "docker-compose-v2", "iptables" },
}
local ce_packages = { "docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin" }

-- docker.packages(source) -> function(facts) -> list, for apt.installed { packages = ... }
function docker.packages(source)
  return function(facts)
    if source == "docker-ce" then return ce_packages end
    local list = distro_packages[facts.os_id .. " " .. facts.os_version]
    if not list then fail("unsupported", "no Docker packages are known for " .. facts.pretty) end
    return list
  end
end

-- docker.resources { source, repo_url? } -> the resources that give a running engine.
function docker.resources(options)
  local source = options.source
  local list = {}
  if source == "docker-ce" then
    local function url(facts)
      if options.repo_url then return options.repo_url end
      return "https://download.docker.com/linux/" .. facts.os_id
    end
    list[1] = apt.repository {
      name = "docker", url = url, components = "stable", fingerprint = options.fingerprint or docker.key_fingerprint,
      key_url = function(facts) return url(facts) .. "/gpg" end,
      keyring = "/usr/share/keyrings/docker-archive-keyring.gpg", list = "/etc/apt/sources.list.d/docker.list",
    }
  elseif source ~= "distro" then
    error(("docker: source is docker-ce or distro, not '%s'"):format(tostring(source)), 2)
  end
  list[#list + 1] = apt.installed { packages = docker.packages(source), label = "Docker from " .. source }
  list[#list + 1] = docker.engine {}
  return list
end

-- docker.engine {}: the engine answers, now and after a boot, and there is a Compose.
docker.engine = resource("docker.engine", {
  args = {},
  id = function() return "running" end,
  probe = function(_, ctx)
    local out = ctx.target:run([[
set -- $(systemctl show -p LoadState -p ActiveState -p UnitFileState --value docker.service | sed 's/^$/-/')
echo "unit $1 $2 $3"
# The plugin's file says it in a millisecond; asking the client takes a hundred.
for d in /usr/libexec/docker /usr/lib/docker /usr/local/lib/docker; do
  [ ! -x $d/cli-plugins/docker-compose ] || echo compose
done
command -v docker-compose >/dev/null && echo compose
curl -sf --max-time 5 --unix-socket /run/docker.sock http://docker/_ping >/dev/null && echo ping
true]]).stdout
    local list = {}
    local load, active, enabled = out:match("unit (%S+) (%S+) (%S+)")
    if load ~= "loaded" then return pending("docker: not installed yet; to be enabled and started") end
    if active ~= "active" then list[#list + 1] = ("docker.service: %s -> active"):format(active) end
    if enabled ~= "enabled" then list[#list + 1] = ("docker.service: %s -> enabled"):format(enabled) end
    if #list == 0 and not out:find("ping", 1, true) then list[1] = "docker.service is active, but the engine does not answer" end
    if not out:find("compose", 1, true) then list[#list + 1] = "there is no docker compose" end
    return #list == 0 and done() or pending(table.concat(list, "\n"))
  end,
  apply = function(_, ctx)
    ctx.target:run("systemctl enable --quiet docker.service && systemctl start docker.service", { timeout = 180 })
    local result = ctx.target:try([[
i=0
while [ $i -lt 60 ]; do
  curl -sf --max-time 5 --unix-socket /run/docker.sock http://docker/_ping >/dev/null && exit 0
  i=$((i + 1)); sleep 0.5
done
journalctl -u docker.service -n 5 --no-pager -o cat >&2; exit 1]], { timeout = 120 })
    if not result.ok then fail("docker", "the engine does not answer: " .. last_lines(result.stderr, 3)) end
  end,
})

-- docker.volumes_absent { "NAME", ... }: there are no such volumes. What was in them is gone.
docker.volumes_absent = resource("docker.volumes_absent", {
  args = {},
  list = true,
  id = function(self) return table.concat(self, ", ") end,
  probe = function(self, ctx)
    local seen, list = {}, {}
    for name in ctx.target:run("command -v docker >/dev/null || exit 0; docker volume ls -q").stdout:gmatch("[^\n]+") do
      seen[name] = true
    end
    for _, name in ipairs(self) do list[#list + 1] = seen[name] and name or nil end
    return #list == 0 and done() or pending("delete the volumes " .. table.concat(list, ", "))
  end,
  apply = function(self, ctx) ctx.target:run({ "docker", "volume", "rm", "-f", table.unpack(self) }, { timeout = 600 }) end,
})

-- Shell text that sets $dc to the Compose command: the plugin, else the older program.
docker.compose_script = [[
if docker compose version >/dev/null 2>&1; then dc="docker compose"; else dc=docker-compose; fi
]]

return docker
