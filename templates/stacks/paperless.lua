-- paperless.lua: Paperless-ngx, with its own SQLite, and Redis.
return {
  id = "paperless",
  secrets = {
    { name = "PAPERLESS_SECRET_KEY", kind = "password", bytes = 64, class = "app" },
    { name = "PAPERLESS_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "paperless", image = "ghcr.io/paperless-ngx/paperless-ngx", tag = "3.0.5", port = 8000, memory = 768,
      env = {
        PAPERLESS_SECRET_KEY = "{{ secret.PAPERLESS_SECRET_KEY }}", PAPERLESS_ADMIN_USER = "admin",
        PAPERLESS_ADMIN_PASSWORD = "{{ secret.PAPERLESS_ADMIN_PASSWORD }}", PAPERLESS_URL = "https://{{ host }}",
        PAPERLESS_REDIS = "redis://paperless-redis:6379", PAPERLESS_DBENGINE = "sqlite",
        PAPERLESS_PROXY_SSL_HEADER = '["HTTP_X_FORWARDED_PROTO", "https"]',
      },
      volumes = {
        { name = "paperless-data", mount = "/usr/src/paperless/data" }, { name = "paperless-media", mount = "/usr/src/paperless/media" },
        { name = "paperless-export", mount = "/usr/src/paperless/export" },
        { name = "paperless-consume", mount = "/usr/src/paperless/consume" },
      },
      needs = { "paperless-redis" },
      health = { by = "curl", path = "/accounts/login/", grace = 120 },
    },
    {
      name = "paperless-redis", image = "redis", tag = "7.4.11-alpine", memory = 32,
      health = { command = { "redis-cli", "ping" }, grace = 10 },
    },
  },
  nginx = { body = "100m", timeout = "120s", websocket = true },
}
