-- librechat.lua: LibreChat, on MongoDB, without its optional search.
return {
  id = "librechat",
  database = { engine = "mongo", memory = 448, name = "LibreChat" },
  secrets = {
    -- 64 and 32 hexadecimal digits, exactly.
    { name = "CREDS_KEY", kind = "token", class = "encryption" }, { name = "CREDS_IV", kind = "token", bytes = 16, class = "encryption" },
    { name = "JWT_SECRET", kind = "token", class = "jwt" }, { name = "JWT_REFRESH_SECRET", kind = "token", class = "jwt" },
    { name = "LIBRECHAT_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "librechat", image = "ghcr.io/danny-avila/librechat", tag = "v0.8.7", port = 3080, memory = 512,
      env = {
        MONGO_URI = "mongodb://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}?authSource=admin",
        CREDS_KEY = "{{ secret.CREDS_KEY }}", CREDS_IV = "{{ secret.CREDS_IV }}", JWT_SECRET = "{{ secret.JWT_SECRET }}",
        JWT_REFRESH_SECRET = "{{ secret.JWT_REFRESH_SECRET }}", HOST = "0.0.0.0", PORT = "3080", NODE_ENV = "production",
        DOMAIN_CLIENT = "https://{{ host }}", DOMAIN_SERVER = "https://{{ host }}", ALLOW_REGISTRATION = "false", SEARCH = "false",
        TRUST_PROXY = "1",
      },
      volumes = {
        { name = "librechat-images", mount = "/app/client/public/images" }, { name = "librechat-uploads", mount = "/app/uploads" },
        { name = "librechat-logs", mount = "/app/api/logs" },
      },
      health = { by = "wget", path = "/health", grace = 90 },
    },
  },
  nginx = { body = "50m", timeout = "600s", server = { "proxy_buffering off;" } },
}
