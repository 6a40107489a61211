-- wikijs.lua: Wiki.js, on PostgreSQL. Before its setup it answers every path with 200, so that
-- its health path says little until then.
return {
  id = "wikijs",
  database = { engine = "postgres", memory = 128 },
  secrets = { { name = "WIKIJS_ADMIN_PASSWORD", kind = "password", class = "admin" } },
  services = {
    {
      name = "wikijs", image = "ghcr.io/requarks/wiki", tag = "2.5.314", port = 3000, memory = 256,
      env = {
        DB_TYPE = "postgres", DB_HOST = "{{ db.host }}", DB_PORT = "{{ db.port }}", DB_USER = "{{ db.user }}",
        DB_PASS = "{{ secret.DB_PASSWORD }}", DB_NAME = "{{ db.name }}",
      },
      volumes = { { name = "wikijs-content", mount = "/wiki/data/content" } },
      health = { by = "curl", path = "/healthz", grace = 90 },
    },
  },
  nginx = { body = "100m", timeout = "120s", websocket = true },
}
