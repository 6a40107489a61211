-- umami.lua: Umami, on PostgreSQL.
return {
  id = "umami",
  database = { engine = "postgres", memory = 128 },
  secrets = {
    { name = "APP_SECRET", kind = "token", class = "app" },
    { name = "TWO_FACTOR_ENCRYPTION_KEY", kind = "token", class = "encryption" },
    { name = "UMAMI_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "umami", image = "ghcr.io/umami-software/umami", tag = "3.3.1", port = 3000, memory = 288,
      env = {
        DATABASE_URL = "postgresql://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}",
        DATABASE_TYPE = "postgresql", APP_SECRET = "{{ secret.APP_SECRET }}",
        TWO_FACTOR_ENCRYPTION_KEY = "{{ secret.TWO_FACTOR_ENCRYPTION_KEY }}",
      },
      health = { by = "curl", path = "/api/heartbeat", grace = 120 },
    },
  },
  -- It begins with a password that everybody knows.
  setup = [[
ask POST /api/auth/login -H "$json" <<'END'
{ "username": "admin", "password": {{ secret.UMAMI_ADMIN_PASSWORD | json }} }
END
[ "$status" != 200 ] || exit 0
ask POST /api/auth/login -H "$json" <<'END'
{ "username": "admin", "password": "umami" }
END
[ "$status" = 200 ] || fail login
sed -n 's/.*"token": *"\([^"]*\)".*/Authorization: Bearer \1/p' "$dir/answer" >"$dir/token"
ask POST /api/me/password -H "$json" -H "@$dir/token" <<'END'
{ "currentPassword": "umami", "newPassword": {{ secret.UMAMI_ADMIN_PASSWORD | json }} }
END
[ "$status" = 200 ] || fail password
]],
  nginx = { body = "2m", timeout = "60s" },
}
