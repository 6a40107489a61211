-- glitchtip.lua: GlitchTip, on PostgreSQL, all its roles in one container and no broker.
-- Its image has Python and no client for HTTP.
return {
  id = "glitchtip",
  database = { engine = "postgres", memory = 128 },
  secrets = {
    { name = "SECRET_KEY", kind = "token", class = "app" },
    { name = "GLITCHTIP_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "glitchtip", image = "glitchtip/glitchtip", tag = "6.2.6", port = 8000, memory = 512,
      env = {
        DATABASE_URL = "postgres://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}",
        SECRET_KEY = "{{ secret.SECRET_KEY }}", SERVER_ROLE = "all_in_one", VALKEY_URL = "",
        GLITCHTIP_DOMAIN = "https://{{ host }}", DEFAULT_FROM_EMAIL = "errors@{{ domain }}",
        ENABLE_USER_REGISTRATION = "False", EMAIL_URL = "consolemail://",
      },
      volumes = { { name = "glitchtip-uploads", mount = "/code/uploads" } },
      health = { by = "python", path = "/_health/", grace = 90 },
    },
  },
  nginx = { body = "40m", timeout = "60s" },
}
