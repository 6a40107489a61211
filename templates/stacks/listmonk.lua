-- listmonk.lua: listmonk, on PostgreSQL. Its one command installs, upgrades and serves.
return {
  id = "listmonk",
  database = { engine = "postgres", memory = 128 },
  secrets = { { name = "LISTMONK_ADMIN_PASSWORD", kind = "password", class = "admin" } },
  services = {
    {
      name = "listmonk", image = "listmonk/listmonk", tag = "v6.2.0", port = 9000, memory = 96,
      command = { "sh", "-c", "./listmonk --install --idempotent --yes --config '' && ./listmonk --upgrade --yes --config '' "
        .. "&& exec ./listmonk --config ''" },
      env = {
        LISTMONK_app__address = "0.0.0.0:9000", LISTMONK_db__host = "{{ db.host }}", LISTMONK_db__port = "{{ db.port }}",
        LISTMONK_db__user = "{{ db.user }}", LISTMONK_db__password = "{{ secret.DB_PASSWORD }}",
        LISTMONK_db__database = "{{ db.name }}", LISTMONK_db__ssl_mode = "disable", TZ = "Etc/UTC",
        LISTMONK_ADMIN_USER = "admin", LISTMONK_ADMIN_PASSWORD = "{{ secret.LISTMONK_ADMIN_PASSWORD }}",
      },
      volumes = { { name = "listmonk-uploads", mount = "/listmonk/uploads" } },
      health = { by = "wget", path = "/health", grace = 60 },
    },
  },
  nginx = { body = "50m", timeout = "120s" },
}
