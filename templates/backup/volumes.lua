-- volumes.lua: how a tool's volumes are backed up. What is not named here is archived while
-- its tool is stopped (`stop`), which is right for every store: RocksDB, Bolt, H2, SQLite.
-- `sqlite` takes a running tool's SQLite files by SQLite's backup API and archives them with the
-- others; `tar` archives a running tool's files, `snapshot` keeps them as files that are linked to
-- those of the day before, `none` leaves out what the tool makes again.
return {
  methods = {
    ["nextcloud-html"] = "snapshot",
    ["secrets-proxy-data"] = "sqlite", ["uptime-kuma-data"] = "sqlite", ["vikunja-db"] = "sqlite", ["paperless-data"] = "sqlite",
    ["odoo-data"] = "tar", ["odoo-addons"] = "tar", ["chatwoot-storage"] = "tar", ["nocodb-data"] = "tar",
    ["glitchtip-uploads"] = "tar", ["n8n-data"] = "tar", ["vaultwarden-data"] = "tar", ["listmonk-uploads"] = "tar",
    ["gitea-data"] = "tar", ["mattermost-config"] = "tar", ["mattermost-data"] = "tar", ["mattermost-plugins"] = "tar",
    ["mattermost-client-plugins"] = "tar", ["penpot-assets"] = "tar", ["ghost-content"] = "tar", ["wordpress-html"] = "tar",
    ["librechat-images"] = "tar", ["librechat-uploads"] = "tar", ["stalwart-etc"] = "tar", ["vikunja-files"] = "tar",
    ["paperless-media"] = "tar", ["homepage-config"] = "tar", ["roundcube-config"] = "tar", ["openclaw-home"] = "tar",
    ["keycloak-data"] = "none", ["mattermost-logs"] = "none", ["mattermost-bleve"] = "none", ["wikijs-content"] = "none",
    ["librechat-logs"] = "none", ["diun-data"] = "none", ["paperless-export"] = "none", ["paperless-consume"] = "none",
    ["stirling-pdf-logs"] = "none",
  },
  -- Where they stand inside a day's directory, if not below volumes/.
  places = { openclaw = "openclaw", ["secrets-proxy"] = "safety-wrapper", nextcloud = "nextcloud" },
}
