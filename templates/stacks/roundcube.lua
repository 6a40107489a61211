-- roundcube.lua: Roundcube, with its own SQLite, for the mailboxes of Stalwart.
return {
  id = "roundcube",
  secrets = { { name = "ROUNDCUBEMAIL_DES_KEY", kind = "letters", length = 24, class = "encryption" } },
  services = {
    {
      name = "roundcube", image = "roundcube/roundcubemail", tag = "1.7.4-apache", port = 80, memory = 128,
      env = {
        ROUNDCUBEMAIL_DES_KEY = "{{ secret.ROUNDCUBEMAIL_DES_KEY }}", ROUNDCUBEMAIL_DB_TYPE = "sqlite",
        ROUNDCUBEMAIL_DEFAULT_HOST = "ssl://mail.{{ domain }}", ROUNDCUBEMAIL_DEFAULT_PORT = "993",
        ROUNDCUBEMAIL_SMTP_SERVER = "tls://mail.{{ domain }}", ROUNDCUBEMAIL_SMTP_PORT = "587",
        ROUNDCUBEMAIL_UPLOAD_MAX_FILESIZE = "25M",
      },
      volumes = { { name = "roundcube-db", mount = "/var/roundcube/db" }, { name = "roundcube-config", mount = "/var/roundcube/config" } },
      health = { by = "curl", path = "/", grace = 60 },
    },
  },
  nginx = { body = "30m", timeout = "120s" },
}
