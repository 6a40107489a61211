-- diun.lua: Diun. On the host's network: what it reports to is on the loopback. It answers
-- nobody, so that running is all that can be said of it.
return {
  id = "diun",
  services = {
    {
      name = "diun", image = "crazymax/diun", tag = "4.33.0", network = "host", memory = 48, command = { "serve" },
      env = {
        DIUN_WATCH_SCHEDULE = "0 6 * * *", DIUN_PROVIDERS_DOCKER = "true", DIUN_PROVIDERS_DOCKER_WATCHBYDEFAULT = "true",
        DIUN_NOTIF_WEBHOOK_ENDPOINT = "http://127.0.0.1:8100/webhooks/diun", DIUN_NOTIF_WEBHOOK_METHOD = "POST", TZ = "UTC",
      },
      volumes = { { name = "diun-data", mount = "/data" } },
      binds = { { source = "/var/run/docker.sock", mount = "/var/run/docker.sock" } },
    },
  },
}
