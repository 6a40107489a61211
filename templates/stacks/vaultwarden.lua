-- vaultwarden.lua: Vaultwarden, on PostgreSQL. The token of its admin page goes in as a hash.
return {
  id = "vaultwarden",
  database = { engine = "postgres", memory = 112 },
  secrets = {
    { name = "VAULTWARDEN_ADMIN_PASSWORD", kind = "password", class = "admin" },
    { name = "ADMIN_TOKEN", kind = "argon2id", of = "VAULTWARDEN_ADMIN_PASSWORD", class = "api" },
  },
  services = {
    {
      name = "vaultwarden", image = "vaultwarden/server", tag = "1.37.1", port = 80, memory = 64,
      env = {
        DATABASE_URL = "postgresql://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}",
        ADMIN_TOKEN = "{{ secret.ADMIN_TOKEN }}", DOMAIN = "https://{{ host }}", SIGNUPS_ALLOWED = "false", ROCKET_PORT = "80",
      },
      volumes = { { name = "vaultwarden-data", mount = "/data" } },
      health = { by = "curl", path = "/alive", grace = 60 },
    },
  },
  nginx = { body = "525m", timeout = "3600s", websocket = true },
}
