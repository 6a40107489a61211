-- mattermost.lua: Mattermost, on PostgreSQL. Its own client is what its image has to ask it with.
return {
  id = "mattermost",
  database = { engine = "postgres", memory = 192 },
  secrets = { { name = "MATTERMOST_ADMIN_PASSWORD", kind = "password", class = "admin" } },
  services = {
    {
      name = "mattermost", image = "mattermost/mattermost-team-edition", tag = "11.7.7", port = 8065, memory = 512,
      env = {
        MM_SQLSETTINGS_DRIVERNAME = "postgres",
        MM_SQLSETTINGS_DATASOURCE = "postgres://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}"
          .. "?sslmode=disable&connect_timeout=10",
        MM_SERVICESETTINGS_SITEURL = "https://{{ host }}", MM_BLEVESETTINGS_INDEXDIR = "/mattermost/bleve-indexes",
        MM_SERVICESETTINGS_ENABLELOCALMODE = "true", TZ = "UTC",
      },
      volumes = {
        { name = "mattermost-config", mount = "/mattermost/config" }, { name = "mattermost-data", mount = "/mattermost/data" },
        { name = "mattermost-plugins", mount = "/mattermost/plugins" },
        { name = "mattermost-client-plugins", mount = "/mattermost/client/plugins" },
        { name = "mattermost-logs", mount = "/mattermost/logs" }, { name = "mattermost-bleve", mount = "/mattermost/bleve-indexes" },
      },
      health = { command = { "/mattermost/bin/mmctl", "system", "status", "--local" }, path = "/api/v4/system/ping", grace = 90 },
    },
  },
  nginx = {
    body = "50m", timeout = "600s", websocket = true,
    locations = { { match = "~ /api/v[0-9]+/(users/)?websocket$", timeout = "90s" } },
  },
}
