-- n8n.lua: n8n, on PostgreSQL, with its task runner. The owner's password goes in as a hash.
return {
  id = "n8n",
  database = { engine = "postgres", memory = 128 },
  secrets = {
    { name = "N8N_ENCRYPTION_KEY", kind = "token", class = "encryption" },
    { name = "N8N_RUNNERS_AUTH_TOKEN", kind = "token", class = "api" },
    { name = "N8N_OWNER_PASSWORD", kind = "password", class = "admin" },
    { name = "N8N_INSTANCE_OWNER_PASSWORD_HASH", kind = "bcrypt", of = "N8N_OWNER_PASSWORD", class = "app" },
  },
  services = {
    {
      name = "n8n", image = "n8nio/n8n", tag = "2.35.5", port = 5678, memory = 448,
      env = {
        DB_TYPE = "postgresdb", DB_POSTGRESDB_HOST = "{{ db.host }}", DB_POSTGRESDB_PORT = "{{ db.port }}",
        DB_POSTGRESDB_USER = "{{ db.user }}", DB_POSTGRESDB_PASSWORD = "{{ secret.DB_PASSWORD }}",
        DB_POSTGRESDB_DATABASE = "{{ db.name }}", N8N_ENCRYPTION_KEY = "{{ secret.N8N_ENCRYPTION_KEY }}",
        N8N_INSTANCE_OWNER_MANAGED_BY_ENV = "true", N8N_INSTANCE_OWNER_EMAIL = "{{ admin_email }}",
        N8N_INSTANCE_OWNER_PASSWORD_HASH = "{{ secret.N8N_INSTANCE_OWNER_PASSWORD_HASH }}",
        N8N_HOST = "{{ host }}", N8N_PROTOCOL = "https", WEBHOOK_URL = "https://{{ host }}/",
        N8N_EDITOR_BASE_URL = "https://{{ host }}", N8N_PROXY_HOPS = "1",
        N8N_RUNNERS_MODE = "external", N8N_RUNNERS_BROKER_LISTEN_ADDRESS = "0.0.0.0",
        N8N_RUNNERS_AUTH_TOKEN = "{{ secret.N8N_RUNNERS_AUTH_TOKEN }}",
      },
      sentry = { N8N_SENTRY_DSN = "{{ secret.SENTRY_DSN }}" },
      volumes = { { name = "n8n-data", mount = "/home/node/.n8n" } },
      health = { by = "wget", path = "/healthz/readiness", grace = 90 },
    },
    {
      name = "n8n-runner", image = "n8nio/runners", tag = "2.35.5", memory = 160, needs = { "n8n" },
      env = { N8N_RUNNERS_AUTH_TOKEN = "{{ secret.N8N_RUNNERS_AUTH_TOKEN }}", N8N_RUNNERS_TASK_BROKER_URI = "http://n8n:5679" },
      sentry = { N8N_SENTRY_DSN = "{{ secret.SENTRY_DSN }}" },
    },
  },
  nginx = { body = "64m", timeout = "3600s", websocket = true, server = { "proxy_buffering off;" } },
}
