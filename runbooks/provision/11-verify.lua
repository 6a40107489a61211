-- 11-verify.lua: the runbook's section 3.4: is the server as a tenant's server should be? Containers
-- against the expected set with their health, the site by name, OpenClaw, the Secrets Proxy and
-- config.json decide (exit 11); a tool's own health path is a warning. It changes nothing.
local function stacks(p)
  local list = {}
  for _, id in ipairs(p.tools) do list[#list + 1] = stack.get(id) end
  for _, id in ipairs { "openclaw", "secrets-proxy" } do list[#list + 1] = stack.get(id) end
  return list
end

local function expected(p)
  local names, grace = { nginx.container }, 60
  for _, s in ipairs(stacks(p)) do
    for _, name in ipairs(stack.containers(s)) do names[#names + 1] = name end
    grace = math.max(grace, stack.grace(s))
  end
  return names, grace
end

local ask = [[
ask() {
  name=$1 refuse=$2; shift 2
  out=$(curl -sS --max-time 15 -w '\n%{http_code}' "$@" 2>&1); code=$?
  status=${out##*
}
  [ $code = 0 ] && [ "$status" -lt 400 ] || { echo "ask $name no ${status:-000}, curl $code"; return; }
  [ -z "$refuse" ] || case $out in *"$refuse"*) echo "ask $name no $status, and what it says is '$refuse'"; return ;; esac
  echo "ask $name yes $status"
}
]]

-- All questions in one round trip.
local function script(ctx, p)
  local parts = { ask, "docker ps -a --format 'container {{.Names}} {{.State}} {{.Status}}'" }
  for _, s in ipairs(stacks(p)) do
    local url, health = stack.address(s)
    if url then
      local words = { "ask", s.id, health.refuse or "" }
      for _, name in ipairs(sorted_keys(health.headers or {})) do
        words[#words + 1] = "-H"
        words[#words + 1] = ("%s: %s"):format(name, health.headers[name])
      end
      words[#words + 1] = url
      parts[#parts + 1] = argv(words)
    end
  end
  -- The certificate that nginx should show is known by its key: neither a CA's word nor any
  -- certificate at all would do.
  local serving = certificate.serving(ctx, p.domain, p.domain)
  local pem = serving.certificate:find("^/etc/letsencrypt/") and serving.certificate or certificate.path
  parts[#parts + 1] = ("pin=$(openssl x509 -in %s -noout -pubkey | openssl pkey -pubin -outform der |"):format(quote(pem))
  parts[#parts + 1] = "openssl dgst -sha256 -binary | base64)"
  parts[#parts + 1] = ("ask site '' -k --pinnedpubkey \"sha256//$pin\" --resolve %s https://%s/"):format(
    quote(p.domain .. ":443:127.0.0.1"), p.domain)
  parts[#parts + 1] = ("docker exec letsbe-openclaw openclaw plugins list --json 2>&1 | grep -q %s || echo extension no")
    :format(quote(('"%s"'):format(catalog.platform.openclaw.extension)))
  parts[#parts + 1] = ("for f in %s %s; do [ -e $f ] || [ -L $f ] && echo config yes; done; true"):format(
    quote(p.config_json), quote(p.config_json .. ".lbrun-wipe"))
  return table.concat(parts, "\n")
end

local function containers(out, names)
  local seen, bad, starting = {}, {}, {}
  for name, state, status in out:gmatch("container (%S+) (%S+) ([^\n]*)") do seen[name] = { state, status } end
  for _, name in ipairs(names) do
    local state, status = table.unpack(seen[name] or { "missing", "" })
    if state == "missing" then
      bad[#bad + 1] = ("container %s is missing"):format(name)
    elseif status:find("health: starting", 1, true) then
      starting[#starting + 1] = name
    elseif state ~= "running" or status:find("(unhealthy)", 1, true) then
      bad[#bad + 1] = ("container %s: %s"):format(name, status)
    end
  end
  return bad, starting
end

local function verify(ctx, p)
  local names, grace = expected(p)
  local out, bad, starting
  local text, waited = script(ctx, p), 0
  while true do
    out = "\n" .. ctx.target:run(text, { timeout = 600 }).stdout
    bad, starting = containers(out, names)
    if #starting == 0 or #bad > 0 or waited >= grace then break end
    sleep(2)
    waited = waited + 2
  end
  -- Beside others that are lost, those that still start are not waited for.
  for _, name in ipairs(#bad == 0 and starting or {}) do bad[#bad + 1] = ("container %s is not healthy after %d s"):format(name, waited) end
  local needed = { site = "https://" .. p.domain, openclaw = "OpenClaw", ["secrets-proxy"] = "the Secrets Proxy" }
  for id, verdict, how in out:gmatch("\nask (%S+) (%a+) ([^\n]*)") do
    if verdict ~= "yes" and needed[id] then
      bad[#bad + 1] = ("%s does not answer (%s)"):format(needed[id], how)
    elseif verdict ~= "yes" then
      ctx.warn(("%s does not answer as it should at %s (%s)"):format(catalog.get(id).name, (stack.address(stack.get(id))), how))
    end
  end
  if out:find("\nextension no", 1, true) then
    bad[#bad + 1] = ("OpenClaw has not loaded its extension %s"):format(catalog.platform.openclaw.extension)
  end
  if out:find("\nconfig yes", 1, true) then bad[#bad + 1] = p.config_json .. " is still there, with passwords in it" end
  if #bad > 0 then fail("verify", "verification failed: " .. table.concat(bad, "; ")) end
end

return function(p)
  if #p.tools == 0 then return {} end
  return { step {
    name = "verify", title = "Verification", class = "pure", tags = { "verify" },
    apply = function(ctx) verify(ctx, p) end,
  } }
end
