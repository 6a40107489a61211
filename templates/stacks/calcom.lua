-- calcom.lua: Cal.com, on PostgreSQL. Its first start rewrites and migrates for minutes.
return {
  id = "calcom",
  database = { engine = "postgres", memory = 160 },
  secrets = {
    { name = "NEXTAUTH_SECRET", kind = "password", class = "jwt" },
    -- Exactly 32 characters: the key of AES-256.
    { name = "CALENDSO_ENCRYPTION_KEY", kind = "password", bytes = 24, class = "encryption" },
    { name = "CRON_API_KEY", kind = "token", bytes = 16, class = "api" },
    { name = "CALCOM_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "calcom", image = "calcom/cal.com", tag = "v6.2.0", port = 3000, memory = 1024,
      env = {
        DATABASE_URL = "postgresql://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}",
        DATABASE_DIRECT_URL = "postgresql://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}",
        DATABASE_HOST = "{{ db.host }}:{{ db.port }}",
        NEXTAUTH_SECRET = "{{ secret.NEXTAUTH_SECRET }}", CALENDSO_ENCRYPTION_KEY = "{{ secret.CALENDSO_ENCRYPTION_KEY }}",
        CRON_API_KEY = "{{ secret.CRON_API_KEY }}",
        NEXT_PUBLIC_WEBAPP_URL = "https://{{ host }}", NEXTAUTH_URL = "https://{{ host }}/api/auth",
        NEXT_PUBLIC_LICENSE_CONSENT = "agree", CALCOM_TELEMETRY_DISABLED = "1", ALLOWED_HOSTNAMES = '"{{ host }}"',
        EMAIL_FROM = "cal@{{ domain }}",
      },
      health = { by = "wget", path = "/api/version", grace = 300 },
    },
  },
  -- It takes an admin while it has no user at all.
  setup = [[
ask POST /api/auth/setup -H "$json" <<'END'
{ "username": "admin", "full_name": "Administrator",
  "email_address": {{ admin_email | json }}, "password": {{ secret.CALCOM_ADMIN_PASSWORD | json }} }
END
case $status in
2??) ;;
400) grep -q 'No setup needed' "$dir/answer" || fail setup ;;
*) fail setup ;;
esac
]],
  nginx = { body = "25m", timeout = "120s" },
}
