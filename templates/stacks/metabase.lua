-- metabase.lua: Metabase, on PostgreSQL.
return {
  id = "metabase",
  database = { engine = "postgres", memory = 160 },
  secrets = {
    { name = "MB_ENCRYPTION_SECRET_KEY", kind = "password", class = "encryption" },
    { name = "MB_API_KEY", kind = "token", class = "api" },
    { name = "METABASE_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "metabase", image = "metabase/metabase", tag = "v0.63.14", port = 3000, memory = 1408,
      env = {
        MB_DB_TYPE = "postgres", MB_DB_HOST = "{{ db.host }}", MB_DB_PORT = "{{ db.port }}", MB_DB_USER = "{{ db.user }}",
        MB_DB_PASS = "{{ secret.DB_PASSWORD }}", MB_DB_DBNAME = "{{ db.name }}", MB_API_KEY = "{{ secret.MB_API_KEY }}",
        MB_ENCRYPTION_SECRET_KEY = "{{ secret.MB_ENCRYPTION_SECRET_KEY }}", MB_SITE_URL = "https://{{ host }}",
        MB_ANON_TRACKING_ENABLED = "false", JAVA_OPTS = "-Xmx1g",
      },
      health = { by = "curl", path = "/api/health", grace = 300 },
    },
  },
  nginx = { body = "50m", timeout = "300s" },
}
