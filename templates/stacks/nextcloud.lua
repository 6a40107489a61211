-- nextcloud.lua: Nextcloud, on PostgreSQL, with Redis and a container for its cron jobs.
return {
  id = "nextcloud",
  database = { engine = "postgres", memory = 192 },
  secrets = { { name = "NEXTCLOUD_ADMIN_PASSWORD", kind = "password", class = "admin" } },
  services = {
    {
      name = "nextcloud", image = "nextcloud", tag = "34.0.3-apache", port = 80, memory = 512,
      env = {
        POSTGRES_HOST = "{{ db.host }}", POSTGRES_USER = "{{ db.user }}", POSTGRES_DB = "{{ db.name }}",
        POSTGRES_PASSWORD = "{{ secret.DB_PASSWORD }}",
        NEXTCLOUD_ADMIN_USER = "admin", NEXTCLOUD_ADMIN_PASSWORD = "{{ secret.NEXTCLOUD_ADMIN_PASSWORD }}",
        NEXTCLOUD_TRUSTED_DOMAINS = "{{ host }}", OVERWRITEPROTOCOL = "https", OVERWRITECLIURL = "https://{{ host }}",
        TRUSTED_PROXIES = "172.16.0.0/12 192.168.0.0/16", REDIS_HOST = "nextcloud-redis",
        PHP_UPLOAD_LIMIT = "10G", APACHE_BODY_LIMIT = "0",
      },
      volumes = { { name = "nextcloud-html", mount = "/var/www/html" } },
      needs = { "nextcloud-redis" },
      health = { by = "curl", path = "/status.php", grace = 180 },
    },
    {
      name = "nextcloud-redis", image = "redis", tag = "7.4.11-alpine", memory = 64,
      health = { command = { "redis-cli", "ping" }, grace = 10 },
    },
    { name = "nextcloud-cron", like = "nextcloud", entrypoint = { "/cron.sh" }, needs = { "nextcloud" }, memory = 96 },
  },
  -- Its variables install it; its jobs are the other container's.
  setup = [[
docker exec -u www-data nextcloud php occ background:cron &&
  docker exec -u www-data nextcloud php occ status --output=json | grep -q '"installed": *true'
]],
  nginx = {
    body = "10g", timeout = "3600s",
    server = { "proxy_buffering off;", "proxy_request_buffering off;" },
    redirects = { ["/.well-known/carddav"] = "/remote.php/dav", ["/.well-known/caldav"] = "/remote.php/dav" },
  },
}
