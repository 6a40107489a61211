-- homepage.lua: Homepage, with its settings in files. It answers 400 to a name that it was not
-- told. Its first page lists the chosen tools.
return {
  id = "homepage",
  files = {
    {
      name = "services.yaml", readable = true,
      text = "# Written by lbrun from the chosen tools.\n- Tools:\n{% for t in tools %}\n    - {{ t.name | yaml }}:\n"
        .. "        href: {{ t.url | yaml }}\n{% endfor %}",
    },
  },
  services = {
    {
      name = "homepage", image = "ghcr.io/gethomepage/homepage", tag = "v1.13.2", port = 3000, memory = 128,
      env = { HOMEPAGE_ALLOWED_HOSTS = "{{ host }},{{ domain }},127.0.0.1:{{ port }},127.0.0.1:3000" },
      volumes = { { name = "homepage-config", mount = "/app/config" } },
      files = { { name = "services.yaml", mount = "/app/config/services.yaml" } },
      health = { by = "wget", path = "/api/healthcheck", grace = 30 },
    },
  },
  nginx = { body = "1m", timeout = "60s" },
}
