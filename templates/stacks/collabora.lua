-- collabora.lua: Collabora Online, which keeps nothing. nginx ends TLS before it.
return {
  id = "collabora",
  secrets = { { name = "COLLABORA_ADMIN_PASSWORD", kind = "password", class = "admin" } },
  services = {
    {
      name = "collabora", image = "collabora/code", tag = "25.04.9.4.1", port = 9980, memory = 1024,
      env = {
        aliasgroup1 = "https://files.{{ domain }}:443", server_name = "{{ host }}", username = "admin",
        password = "{{ secret.COLLABORA_ADMIN_PASSWORD }}", dictionaries = "en_US de_DE",
        extra_params = "--o:ssl.enable=false --o:ssl.termination=true",
      },
      health = { by = "curl", path = "/hosting/discovery", grace = 60 },
    },
  },
  nginx = { body = "100m", timeout = "36000s", websocket = true },
}
