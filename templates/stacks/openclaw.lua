-- openclaw.lua: OpenClaw with the Safety Wrapper extension. On the host's network: the tools
-- that its agents use, and the Secrets Proxy, are on the loopback. Its image, tag, port and
-- health path are the catalog's. It reads its configuration anew whenever that has changed.
return {
  id = "openclaw",
  secrets = { { name = "OPENCLAW_GATEWAY_TOKEN", kind = "token" } },
  services = {
    {
      name = "openclaw", container = "letsbe-openclaw", network = "host", memory = 1536,
      env = {
        OPENCLAW_GATEWAY_TOKEN = "{{ secret.OPENCLAW_GATEWAY_TOKEN }}", OPENCLAW_CONFIG_PATH = "/etc/openclaw/openclaw.json",
        SECRETS_PROXY_URL = "http://127.0.0.1:8100", LETSBE_TENANT = "{{ tenant }}", LETSBE_DOMAIN = "{{ domain }}",
      },
      sentry = { SENTRY_DSN = "{{ secret.SENTRY_DSN }}" },
      volumes = { { name = "openclaw-home", mount = "/home/node/.openclaw" } },
      -- The second has backup-status.json alone in it, which the Safety Wrapper reads.
      binds = {
        { from = "config", mount = "/etc/openclaw" }, { source = "/opt/letsbe/status", mount = "/opt/letsbe/backups", read_only = true },
      },
      health = { by = "curl", grace = 60 },
    },
  },
}
