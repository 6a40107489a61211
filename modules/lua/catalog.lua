-- catalog.lua: the tools that a tenant may choose, the tiers of servers, and the ports that
-- each opens. Images, secrets and health checks are the stacks' own.

local catalog = {}

-- id, name, subdomain, port on the loopback, memory in MiB, on every tenant
local tools = {
  { id = "nextcloud", name = "Nextcloud", subdomain = "files", port = 3023, memory = 864 },
  { id = "odoo", name = "Odoo", subdomain = "crm", port = 3025, memory = 1156 },
  { id = "chatwoot", name = "Chatwoot", subdomain = "chat", port = 3026, memory = 1520 },
  { id = "keycloak", name = "Keycloak", subdomain = "auth", port = 3003, memory = 1152 },
  { id = "nocodb", name = "NocoDB", subdomain = "tables", port = 3012, memory = 608 },
  { id = "calcom", name = "Cal.com", subdomain = "cal", port = 3013, memory = 1184 },
  { id = "umami", name = "Umami", subdomain = "analytics", port = 3009, memory = 416 },
  { id = "glitchtip", name = "GlitchTip", subdomain = "errors", port = 3007, memory = 640, core = true },
  { id = "n8n", name = "n8n", subdomain = "flows", port = 3011, memory = 736 },
  { id = "vaultwarden", name = "Vaultwarden", subdomain = "vault", port = 3005, memory = 176 },
  { id = "listmonk", name = "listmonk", subdomain = "news", port = 3015, memory = 224 },
  { id = "documenso", name = "Documenso", subdomain = "sign", port = 3014, memory = 800 },
  { id = "gitea", name = "Gitea", subdomain = "git", port = 3006, memory = 368 },
  { id = "metabase", name = "Metabase", subdomain = "bi", port = 3010, memory = 1568 },
  { id = "mattermost", name = "Mattermost", subdomain = "team", port = 3017, memory = 704 },
  { id = "typebot", name = "Typebot", subdomain = "typebot", port = 3019, memory = 864 },
  { id = "wikijs", name = "Wiki.js", subdomain = "wiki", port = 3016, memory = 384 },
  { id = "penpot", name = "Penpot", subdomain = "design", port = 3018, memory = 1792 },
  { id = "ghost", name = "Ghost", subdomain = "blog", port = 3029, memory = 768 },
  { id = "wordpress", name = "WordPress", subdomain = "www", port = 3028, memory = 704 },
  { id = "librechat", name = "LibreChat", subdomain = "ai", port = 3032, memory = 960 },
  { id = "stalwart", name = "Stalwart Mail", subdomain = "mail", port = 3031, memory = 256 },
  { id = "uptime-kuma", name = "Uptime Kuma", subdomain = "status", port = 3008, memory = 192, core = true },
  { id = "portainer", name = "Portainer CE", subdomain = "portainer", port = 3002, memory = 96, core = true },
  { id = "diun", name = "Diun", memory = 48, core = true },
  { id = "vikunja", name = "Vikunja", subdomain = "tasks", port = 3021, memory = 96 },
  { id = "paperless", name = "Paperless-ngx", subdomain = "docs", port = 3022, memory = 800 },
  { id = "stirling-pdf", name = "Stirling PDF", subdomain = "pdf", port = 3033, memory = 896 },
  { id = "homepage", name = "Homepage", subdomain = "home", port = 3001, memory = 128 },
  { id = "collabora", name = "Collabora Online (CODE)", subdomain = "office", port = 3024, memory = 1024 },
  { id = "roundcube", name = "Roundcube", subdomain = "webmail", port = 3030, memory = 128 },
}

-- Parts that a server with tools has beside them. What stands here stands nowhere else:
-- image and tag (OpenClaw's is an image of our own that holds the extension), the port on the
-- loopback, and the path that every health check of the part asks.
catalog.platform = {
  nginx = { image = "nginx:1.30.4-alpine", memory = 64 },
  ["openclaw"] = { id = "openclaw", name = "OpenClaw", image = "letsbe/openclaw", tag = "v2026.2.1", port = 18789,
    health = "/health", memory = 1536, extension = "safety-wrapper" },
  ["secrets-proxy"] = { id = "secrets-proxy", name = "Secrets Proxy", image = "letsbe/secrets-proxy", tag = "1.0.0", port = 8100,
    health = "/health", memory = 128 },
}

-- Disks are sold in decimal gigabytes, memory in binary ones. Price and estimated cost are
-- euros a month.
catalog.tiers = {
  lite = { cpus = 4, memory = 8 << 30, disk = 160 * 10 ^ 9, tools = { 5, 8 }, price = 29, cost = { 8, 12 } },
  build = { cpus = 8, memory = 16 << 30, disk = 320 * 10 ^ 9, tools = { 10, 15 }, price = 45, cost = { 14, 18 } },
  scale = { cpus = 12, memory = 32 << 30, disk = 640 * 10 ^ 9, tools = { 15, 25 }, price = 75, cost = { 22, 28 } },
  enterprise = { cpus = 16, memory = 64 << 30, disk = 1200 * 10 ^ 9, tools = { 28 }, price = 109, cost = { 35, 45 } },
}
catalog.tier_names = { "lite", "build", "scale", "enterprise" }

-- Ports to the outside that come with a tool.
local public = { stalwart = { "25/tcp", "587/tcp", "993/tcp" } }

local by_id = {}
for _, t in ipairs(tools) do by_id[t.id] = t end

-- catalog.names() -> the ids of all tools
function catalog.names()
  local list = {}
  for i, t in ipairs(tools) do list[i] = t.id end
  return list
end

-- catalog.sorted(ids) -> the same in the catalog's order: what is made of a set of tools does
-- not depend on the order in which they were chosen.
function catalog.sorted(ids)
  local chosen, list = {}, {}
  for _, id in ipairs(ids) do chosen[id] = true end
  for _, t in ipairs(tools) do
    if chosen[t.id] then list[#list + 1] = t.id end
  end
  return list
end

-- catalog.get(id) -> { id, name, subdomain, port, memory, core } or nil
function catalog.get(id)
  return by_id[id]
end

-- catalog.part(id) -> the tool, or the part of the platform, that has a stack of its own
function catalog.part(id)
  local part = catalog.platform[id]
  return by_id[id] or part and part.id and part or nil
end

-- catalog.public_ports(ids) -> { "25/tcp", ... } beyond HTTP, HTTPS and SSH
function catalog.public_ports(ids)
  local list = {}
  for _, id in ipairs(ids) do
    for _, port in ipairs(public[id] or {}) do list[#list + 1] = port end
  end
  return list
end

-- catalog.shortfalls(tier, facts) -> texts that say where a server is smaller than its tier
-- (5 % tolerance: what the kernel and the file system keep for themselves).
function catalog.shortfalls(tier, facts)
  local want, list = catalog.tiers[tier], {}
  local gib = 1 << 30
  if facts.cpus and facts.cpus < want.cpus * 0.95 then
    list[#list + 1] = ("%d vCPU, tier %s has %d"):format(facts.cpus, tier, want.cpus)
  end
  if facts.memory < want.memory * 0.95 then
    list[#list + 1] = ("%.1f GiB of memory, tier %s has %d"):format(facts.memory / gib, tier, want.memory // gib)
  end
  if facts.disk < want.disk * 0.95 then
    list[#list + 1] = ("%.0f GB of disk, tier %s has %.0f"):format(facts.disk / 10 ^ 9, tier, want.disk / 10 ^ 9)
  end
  return list
end

-- What the system itself and the platform's parts take.
local host_memory = 768

-- What the chosen tools need with the system's and the platform's own, in MiB.
local function needed(ids)
  local need = host_memory
  for _, part in pairs(catalog.platform) do need = need + part.memory end
  for _, id in ipairs(ids) do need = need + by_id[id].memory end
  return need
end

-- Refused above, warned above.
local refused, warned = 90, 75

-- catalog.sum(ids, tier) -> { memory (MiB), share (percent), verdict }
function catalog.sum(ids, tier)
  local need = needed(ids)
  local share = need * (1 << 20) / catalog.tiers[tier].memory * 100
  return { memory = need, share = share, verdict = share > refused and "refused" or share > warned and "tight" or "fits" }
end

-- catalog.memory_warnings(ids, tier?, facts) -> texts, where the chosen tools take more than
-- 75 % of what the tier, if it is told, or the server has. Above 90 % it raises.
function catalog.memory_warnings(ids, tier, facts)
  local list, need = {}, needed(ids)
  if #ids == 0 then return list end
  local limits = { { "this server", facts.memory } }
  if tier then table.insert(limits, 1, { "tier " .. tier, catalog.tiers[tier].memory }) end
  for _, limit in ipairs(limits) do
    local share = need * (1 << 20) / limit[2] * 100
    local text = ("the chosen tools need %d MiB with the platform's own, %.0f %% of the memory of %s"):format(need, share, limit[1])
    if share > refused then fail("memory", text .. ", more than 90 %; nothing was changed") end
    if share > warned then list[#list + 1] = text end
  end
  return list
end

return catalog
