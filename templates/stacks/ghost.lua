-- ghost.lua: Ghost, on MySQL. It answers plain HTTP with a redirect unless told that the
-- visitor came by HTTPS.
return {
  id = "ghost",
  database = { engine = "mysql", memory = 448 },
  secrets = {
    { name = "GHOST_ADMIN_PASSWORD", kind = "password", class = "admin" },
    { name = "GHOST_ADMIN_API_KEY", kind = "issued", class = "api" },
  },
  services = {
    {
      name = "ghost", image = "ghost", tag = "6.59.0-alpine", port = 2368, memory = 320,
      env = {
        NODE_ENV = "production", url = "https://{{ host }}",
        database__client = "mysql", database__connection__host = "{{ db.host }}",
        database__connection__port = "{{ db.port }}", database__connection__user = "{{ db.user }}",
        database__connection__password = "{{ secret.DB_PASSWORD }}", database__connection__database = "{{ db.name }}",
        mail__transport = "SMTP", mail__options__host = "mail.{{ domain }}", mail__options__port = "587",
      },
      volumes = { { name = "ghost-content", mount = "/var/lib/ghost/content" } },
      health = { by = "wget", path = "/ghost/api/admin/site/", headers = { ["X-Forwarded-Proto"] = "https" }, grace = 120 },
    },
  },
  nginx = { body = "50m", timeout = "60s" },
}
