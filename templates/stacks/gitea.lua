-- gitea.lua: Gitea, on PostgreSQL, without SSH: the firewall has no door for it.
return {
  id = "gitea",
  database = { engine = "postgres", memory = 112 },
  secrets = {
    { name = "GITEA__security__SECRET_KEY", kind = "token", class = "app" },
    { name = "GITEA__metrics__TOKEN", kind = "token", class = "api" },
    { name = "GITEA_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "gitea", image = "gitea/gitea", tag = "1.27.2", port = 3000, memory = 256,
      env = {
        GITEA__database__DB_TYPE = "postgres", GITEA__database__HOST = "{{ db.host }}:{{ db.port }}",
        GITEA__database__USER = "{{ db.user }}", GITEA__database__PASSWD = "{{ secret.DB_PASSWORD }}",
        GITEA__database__NAME = "{{ db.name }}", GITEA__security__SECRET_KEY = "{{ secret.GITEA__security__SECRET_KEY }}",
        GITEA__metrics__ENABLED = "true", GITEA__metrics__TOKEN = "{{ secret.GITEA__metrics__TOKEN }}",
        USER_UID = "1000", USER_GID = "1000", GITEA__server__ROOT_URL = "https://{{ host }}/", GITEA__server__DOMAIN = "{{ host }}",
        GITEA__server__DISABLE_SSH = "true", GITEA__security__INSTALL_LOCK = "true", GITEA__service__DISABLE_REGISTRATION = "true",
      },
      volumes = { { name = "gitea-data", mount = "/data" } },
      health = { by = "curl", path = "/api/healthz", grace = 60 },
    },
  },
  nginx = { body = "512m", timeout = "600s", server = { "proxy_request_buffering off;" }, hidden = { "/metrics" } },
}
