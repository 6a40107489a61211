-- vikunja.lua: Vikunja, with its own SQLite. Its image is the program alone, which has a
-- command to check itself.
return {
  id = "vikunja",
  secrets = {
    { name = "VIKUNJA_SERVICE_SECRET", kind = "token", class = "jwt" },
    { name = "VIKUNJA_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "vikunja", image = "vikunja/vikunja", tag = "2.5.0", port = 3456, memory = 96,
      env = {
        VIKUNJA_SERVICE_SECRET = "{{ secret.VIKUNJA_SERVICE_SECRET }}", VIKUNJA_SERVICE_PUBLICURL = "https://{{ host }}/",
        VIKUNJA_SERVICE_ENABLEREGISTRATION = "false", VIKUNJA_DATABASE_TYPE = "sqlite", VIKUNJA_DATABASE_PATH = "/db/vikunja.db",
        VIKUNJA_FILES_BASEPATH = "/app/vikunja/files", VIKUNJA_SERVICE_IPEXTRACTIONMETHOD = "xff",
      },
      sentry = { VIKUNJA_SENTRY_ENABLED = "true", VIKUNJA_SENTRY_DSN = "{{ secret.SENTRY_DSN }}" },
      volumes = { { name = "vikunja-db", mount = "/db" }, { name = "vikunja-files", mount = "/app/vikunja/files" } },
      health = { command = { "/app/vikunja/vikunja", "healthcheck" }, path = "/health", grace = 30 },
    },
  },
  nginx = { body = "25m", timeout = "60s" },
}
