-- typebot.lua: Typebot on PostgreSQL: the builder, and the viewer that visitors see under a name
-- of its own, with Redis. Both images have Node and no client for HTTP.
local env = {
  DATABASE_URL = "postgresql://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}",
  ENCRYPTION_SECRET = "{{ secret.ENCRYPTION_SECRET }}", NEXTAUTH_URL = "https://{{ host }}",
  NEXT_PUBLIC_VIEWER_URL = "https://bot.{{ domain }}", ADMIN_EMAIL = "{{ admin_email }}", DISABLE_SIGNUP = "true",
  DEFAULT_WORKSPACE_PLAN = "UNLIMITED", REDIS_URL = "redis://typebot-redis:6379", NODE_OPTIONS = "--no-node-snapshot",
  SMTP_HOST = "mail.{{ domain }}", NEXT_PUBLIC_SMTP_FROM = "typebot@{{ domain }}",
}
return {
  id = "typebot",
  database = { engine = "postgres", memory = 128 },
  -- Exactly 32 characters.
  secrets = { { name = "ENCRYPTION_SECRET", kind = "password", bytes = 24, class = "encryption" } },
  services = {
    {
      name = "typebot", image = "baptistearno/typebot-builder", tag = "3.17.2", port = 3000, memory = 352, env = env,
      needs = { "typebot-redis" }, health = { by = "node", path = "/healthz", grace = 120 },
    },
    {
      name = "typebot-viewer", image = "baptistearno/typebot-viewer", tag = "3.17.2", port = 3000, memory = 320, env = env,
      ports = { { host = 3020, port = 3000 } }, needs = { "typebot", "typebot-redis" },
      health = { by = "node", path = "/healthz", grace = 120 },
    },
    {
      name = "typebot-redis", image = "redis", tag = "7.4.11-alpine", memory = 64,
      health = { command = { "redis-cli", "ping" }, grace = 10 },
    },
  },
  nginx = { body = "50m", timeout = "300s" },
  sites = {
    { name = "bot", subdomains = { "bot" }, port = 3020, body = "50m", timeout = "300s", server = { "proxy_buffering off;" } },
  },
}
