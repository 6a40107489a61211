-- chatwoot.lua: Chatwoot, on PostgreSQL with pgvector, with Redis and a worker. One container
-- prepares the database before the others start, also after an upgrade.
local rails = { "docker/entrypoints/rails.sh" }
return {
  id = "chatwoot",
  database = { engine = "postgres", memory = 256, image = "pgvector/pgvector", tag = "pg16" },
  secrets = {
    { name = "SECRET_KEY_BASE", kind = "token", class = "jwt" },
    { name = "REDIS_PASSWORD", kind = "token", class = "api" },
    { name = "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY", kind = "letters", class = "encryption" },
    { name = "ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY", kind = "letters", class = "encryption" },
    { name = "ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT", kind = "letters", class = "encryption" },
    { name = "CHATWOOT_ADMIN_PASSWORD", kind = "password", class = "admin" },
  },
  services = {
    {
      name = "chatwoot", image = "chatwoot/chatwoot", tag = "v4.16.2-ce", port = 3000, memory = 700,
      entrypoint = rails, command = { "bundle", "exec", "rails", "s", "-p", "3000", "-b", "0.0.0.0" },
      env = {
        POSTGRES_HOST = "{{ db.host }}", POSTGRES_PORT = "{{ db.port }}", POSTGRES_USERNAME = "{{ db.user }}",
        POSTGRES_PASSWORD = "{{ secret.DB_PASSWORD }}", POSTGRES_DATABASE = "{{ db.name }}",
        SECRET_KEY_BASE = "{{ secret.SECRET_KEY_BASE }}",
        REDIS_URL = "redis://chatwoot-redis:6379", REDIS_PASSWORD = "{{ secret.REDIS_PASSWORD }}",
        ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY = "{{ secret.ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY }}",
        ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY = "{{ secret.ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY }}",
        ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT = "{{ secret.ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT }}",
        RAILS_ENV = "production", NODE_ENV = "production", INSTALLATION_ENV = "docker", FRONTEND_URL = "https://{{ host }}",
        FORCE_SSL = "false", ENABLE_ACCOUNT_SIGNUP = "false", ACTIVE_STORAGE_SERVICE = "local",
      },
      sentry = { SENTRY_DSN = "{{ secret.SENTRY_DSN }}" },
      volumes = { { name = "chatwoot-storage", mount = "/app/storage" } },
      needs = { "chatwoot-redis", "chatwoot-init" },
      health = { by = "wget", path = "/api", grace = 180 },
    },
    {
      name = "chatwoot-init", like = "chatwoot", init = true, memory = 700, needs = { "chatwoot-redis" },
      entrypoint = rails, command = { "bundle", "exec", "rails", "db:chatwoot_prepare" },
    },
    {
      name = "chatwoot-sidekiq", like = "chatwoot", memory = 500, needs = { "chatwoot-redis", "chatwoot-init" },
      entrypoint = rails, command = { "bundle", "exec", "sidekiq", "-C", "config/sidekiq.yml" },
    },
    {
      name = "chatwoot-redis", image = "redis", tag = "7.4.11-alpine", memory = 64,
      command = { "sh", "-c", 'exec redis-server --requirepass "$REDIS_PASSWORD"' },
      env = { REDIS_PASSWORD = "{{ secret.REDIS_PASSWORD }}", REDISCLI_AUTH = "{{ secret.REDIS_PASSWORD }}" },
      health = { command = { "redis-cli", "ping" }, grace = 10 },
    },
  },
  -- Its wizard leads away once there is an account.
  setup = [[
ask GET /installation/onboarding </dev/null
case $status in
3??) exit 0 ;;
200) ;;
*) fail onboarding ;;
esac
printf %s {{ secret.CHATWOOT_ADMIN_PASSWORD | sh }} >"$dir/password"
ask POST /installation/onboarding --data-urlencode 'user[name]=Administrator' --data-urlencode 'user[company]='{{ tenant | sh }} \
  --data-urlencode 'user[email]='{{ admin_email | sh }} --data-urlencode "user[password]@$dir/password" </dev/null
ask GET /installation/onboarding </dev/null
case $status in 3??) ;; *) fail onboarding ;; esac
]],
  nginx = {
    body = "0", timeout = "36000s", websocket = true,
    server = { "underscores_in_headers on;", "proxy_pass_header Authorization;", "proxy_buffering off;" },
  },
}
