-- penpot.lua: Penpot, on PostgreSQL: frontend, backend, exporter, and Valkey. The frontend hands
-- its health path to the backend, so that it speaks for both.
local flags = "enable-login-with-password disable-registration enable-smtp enable-prepl-server"
return {
  id = "penpot",
  database = { engine = "postgres", memory = 192 },
  secrets = {
    { name = "PENPOT_SECRET_KEY", kind = "password", bytes = 64, class = "app" },
    { name = "PENPOT_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "penpot", image = "penpotapp/frontend", tag = "2.17.1", port = 8080, memory = 64, needs = { "penpot-backend" },
      env = { PENPOT_FLAGS = flags, PENPOT_PUBLIC_URI = "https://{{ host }}", PENPOT_HTTP_SERVER_MAX_BODY_SIZE = "367001600" },
      volumes = { { name = "penpot-assets", mount = "/opt/data/assets" } },
      health = { by = "curl", path = "/readyz", grace = 180 },
    },
    {
      name = "penpot-backend", image = "penpotapp/backend", tag = "2.17.1", port = 6060, memory = 960, needs = { "penpot-valkey" },
      env = {
        PENPOT_FLAGS = flags, PENPOT_PUBLIC_URI = "https://{{ host }}", PENPOT_SECRET_KEY = "{{ secret.PENPOT_SECRET_KEY }}",
        PENPOT_DATABASE_URI = "postgresql://{{ db.host }}/{{ db.name }}", PENPOT_DATABASE_USERNAME = "{{ db.user }}",
        PENPOT_DATABASE_PASSWORD = "{{ secret.DB_PASSWORD }}", PENPOT_REDIS_URI = "redis://penpot-valkey/0",
        PENPOT_OBJECTS_STORAGE_BACKEND = "fs", PENPOT_OBJECTS_STORAGE_FS_DIRECTORY = "/opt/data/assets",
        PENPOT_HTTP_SERVER_MAX_BODY_SIZE = "367001600", PENPOT_TELEMETRY_ENABLED = "false",
      },
      volumes = { { name = "penpot-assets", mount = "/opt/data/assets" } },
      health = { by = "curl", path = "/readyz", grace = 180 },
    },
    {
      name = "penpot-exporter", image = "penpotapp/exporter", tag = "2.17.1", memory = 384, needs = { "penpot-valkey" },
      env = {
        PENPOT_SECRET_KEY = "{{ secret.PENPOT_SECRET_KEY }}", PENPOT_PUBLIC_URI = "https://{{ host }}",
        PENPOT_INTERNAL_URI = "http://penpot:8080", PENPOT_REDIS_URI = "redis://penpot-valkey/0",
      },
    },
    {
      name = "penpot-valkey", image = "valkey/valkey", tag = "8.1.3", memory = 192,
      env = { VALKEY_EXTRA_FLAGS = "--maxmemory 128mb --maxmemory-policy volatile-lfu" },
      health = { command = { "valkey-cli", "ping" }, grace = 10 },
    },
  },
  nginx = { body = "350m", timeout = "300s", websocket = true },
}
