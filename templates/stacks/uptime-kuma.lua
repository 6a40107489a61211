-- uptime-kuma.lua: Uptime Kuma, with its own SQLite. On the host's network: what it watches
-- is on the loopback.
return {
  id = "uptime-kuma",
  secrets = {
    { name = "UPTIME_KUMA_ADMIN_PASSWORD", kind = "password", class = "admin" },
    -- A name follows it in each monitor's token, which has 32 characters at most.
    { name = "UPTIME_KUMA_PUSH_TOKEN", kind = "letters", length = 24, class = "app" },
  },
  services = {
    {
      name = "uptime-kuma", image = "louislam/uptime-kuma", tag = "2.5.0", port = 3008, network = "host", memory = 192,
      env = { UPTIME_KUMA_DB_TYPE = "sqlite", UPTIME_KUMA_HOST = "127.0.0.1", UPTIME_KUMA_PORT = "{{ port }}" },
      volumes = { { name = "uptime-kuma-data", mount = "/app/data" } },
      health = { command = { "extra/healthcheck" }, path = "/api/entry-page", grace = 60 },
    },
  },
  nginx = { body = "10m", timeout = "3600s", websocket = true },
}
