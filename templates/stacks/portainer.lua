-- portainer.lua: Portainer CE, with its own BoltDB. It reads the admin's password from a file at
-- its first start; without an admin it would lock itself after some minutes.
return {
  id = "portainer",
  secrets = {
    { name = "PORTAINER_ADMIN_PASSWORD", kind = "password", class = "admin" },
    { name = "PORTAINER_API_KEY", kind = "issued", class = "api" },
  },
  files = { { name = "admin-password", text = "{{ secret.PORTAINER_ADMIN_PASSWORD }}" } },
  services = {
    {
      name = "portainer", image = "portainer/portainer-ce", tag = "2.39.6-alpine", port = 9000, memory = 96,
      command = { "--admin-password-file=/run/secrets/portainer-admin" },
      volumes = { { name = "portainer-data", mount = "/data" } },
      binds = { { source = "/var/run/docker.sock", mount = "/var/run/docker.sock" } },
      files = { { name = "admin-password", mount = "/run/secrets/portainer-admin" } },
      health = { by = "wget", path = "/api/system/status", grace = 30 },
    },
  },
  nginx = { body = "100m", timeout = "3600s", websocket = true },
}
