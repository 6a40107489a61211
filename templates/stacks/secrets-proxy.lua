-- secrets-proxy.lua: the Safety Wrapper's proxy with its registry of secrets, in SQLite. Its
-- image, tag, port and health path are the catalog's.
return {
  id = "secrets-proxy",
  secrets = { { name = "SAFETY_WRAPPER_REGISTRY_KEY", kind = "token" } },
  services = {
    {
      name = "secrets-proxy", container = "letsbe-secrets-proxy", memory = 128,
      env = { SAFETY_WRAPPER_REGISTRY_KEY = "{{ secret.SAFETY_WRAPPER_REGISTRY_KEY }}", LETSBE_TENANT = "{{ tenant }}" },
      sentry = { SENTRY_DSN = "{{ secret.SENTRY_DSN }}" },
      volumes = { { name = "secrets-proxy-data", mount = "/data" } },
      health = { by = "curl", grace = 30 },
    },
  },
}
