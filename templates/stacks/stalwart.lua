-- stalwart.lua: Stalwart Mail, with its own RocksDB. Mail comes in on ports of its own. It counts
-- requests by the visitor's address, of which its own checks are not to be one.
return {
  id = "stalwart",
  secrets = {
    { name = "STALWART_ADMIN_PASSWORD", kind = "password", class = "smtp" },
    { name = "SMTP_RELAY_PASSWORD", kind = "password", class = "smtp" },
  },
  services = {
    {
      name = "stalwart", image = "stalwartlabs/stalwart", tag = "v0.16.13", port = 8080, memory = 256,
      env = {
        STALWART_RECOVERY_ADMIN = "admin:{{ secret.STALWART_ADMIN_PASSWORD }}", STALWART_PUBLIC_URL = "https://{{ host }}",
        STALWART_HOSTNAME = "{{ host }}",
      },
      ports = {
        { host = 25, port = 25, public = true }, { host = 587, port = 587, public = true }, { host = 993, port = 993, public = true },
      },
      volumes = { { name = "stalwart-etc", mount = "/etc/stalwart" }, { name = "stalwart-data", mount = "/var/lib/stalwart" } },
      health = { by = "bash", path = "/healthz/live", headers = { ["X-Forwarded-For"] = "127.0.0.1" }, grace = 60 },
    },
  },
  nginx = { body = "100m", timeout = "3600s", websocket = true },
  sites = {
    {
      name = "mail-discovery", subdomains = { "autoconfig", "autodiscover", "mta-sts" }, port = 3031, body = "1m", timeout = "60s",
    },
  },
}
