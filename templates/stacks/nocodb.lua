-- nocodb.lua: NocoDB, on PostgreSQL, which it names in a query string of its own.
return {
  id = "nocodb",
  database = { engine = "postgres", memory = 160 },
  secrets = {
    { name = "NC_AUTH_JWT_SECRET", kind = "token", class = "jwt" },
    { name = "NC_ADMIN_PASSWORD", kind = "password", class = "admin" },
    { name = "NC_CONNECTION_ENCRYPT_KEY", kind = "token", class = "encryption" },
    { name = "NOCODB_API_TOKEN", kind = "issued", class = "api" },
  },
  services = {
    {
      name = "nocodb", image = "nocodb/nocodb", tag = "2026.08.1", port = 8080, memory = 448,
      env = {
        NC_DB = "pg://{{ db.host }}:{{ db.port }}?u={{ db.user }}&p={{ secret.DB_PASSWORD | url }}&d={{ db.name }}",
        NC_AUTH_JWT_SECRET = "{{ secret.NC_AUTH_JWT_SECRET }}", NC_CONNECTION_ENCRYPT_KEY = "{{ secret.NC_CONNECTION_ENCRYPT_KEY }}",
        NC_ADMIN_EMAIL = "{{ admin_email }}", NC_ADMIN_PASSWORD = "{{ secret.NC_ADMIN_PASSWORD }}",
        NC_PUBLIC_URL = "https://{{ host }}", NC_DISABLE_TELE = "true",
      },
      sentry = { NC_SENTRY_DSN = "{{ secret.SENTRY_DSN }}" },
      volumes = { { name = "nocodb-data", mount = "/usr/app/data" } },
      health = { by = "wget", path = "/api/v1/health", grace = 90 },
    },
  },
  nginx = { body = "100m", timeout = "300s", websocket = true },
}
