-- documenso.lua: Documenso, on PostgreSQL. Its signing certificate is a secret of its own;
-- without one it answers 200 with a warning.
local url = "postgresql://{{ db.user }}:{{ secret.DB_PASSWORD | url }}@{{ db.host }}:{{ db.port }}/{{ db.name }}"
return {
  id = "documenso",
  database = { engine = "postgres", memory = 160 },
  secrets = {
    { name = "NEXTAUTH_SECRET", kind = "password", class = "jwt" },
    { name = "NEXT_PRIVATE_ENCRYPTION_KEY", kind = "token", class = "encryption" },
    { name = "NEXT_PRIVATE_ENCRYPTION_SECONDARY_KEY", kind = "token", class = "encryption" },
    { name = "NEXT_PRIVATE_SIGNING_PASSPHRASE", kind = "token", class = "app" },
    { name = "SIGNING_CERTIFICATE", kind = "pkcs12", of = "NEXT_PRIVATE_SIGNING_PASSPHRASE", subject = "documenso", class = "encryption" },
  },
  services = {
    {
      name = "documenso", image = "documenso/documenso", tag = "v2.17.0", port = 3000, memory = 640,
      env = {
        NEXT_PRIVATE_DATABASE_URL = url, NEXT_PRIVATE_DIRECT_DATABASE_URL = url,
        NEXTAUTH_SECRET = "{{ secret.NEXTAUTH_SECRET }}", NEXT_PRIVATE_ENCRYPTION_KEY = "{{ secret.NEXT_PRIVATE_ENCRYPTION_KEY }}",
        NEXT_PRIVATE_ENCRYPTION_SECONDARY_KEY = "{{ secret.NEXT_PRIVATE_ENCRYPTION_SECONDARY_KEY }}",
        NEXT_PRIVATE_SIGNING_TRANSPORT = "local", NEXT_PRIVATE_SIGNING_LOCAL_FILE_CONTENTS = "{{ secret.SIGNING_CERTIFICATE }}",
        NEXT_PRIVATE_SIGNING_PASSPHRASE = "{{ secret.NEXT_PRIVATE_SIGNING_PASSPHRASE }}",
        NEXT_PUBLIC_WEBAPP_URL = "https://{{ host }}", NEXT_PRIVATE_INTERNAL_WEBAPP_URL = "http://localhost:3000",
        NEXT_PRIVATE_SMTP_TRANSPORT = "smtp-auth", NEXT_PRIVATE_SMTP_HOST = "mail.{{ domain }}", NEXT_PRIVATE_SMTP_PORT = "587",
        NEXT_PRIVATE_SMTP_FROM_NAME = "{{ tenant }}", NEXT_PRIVATE_SMTP_FROM_ADDRESS = "sign@{{ domain }}",
      },
      health = { by = "wget", path = "/api/health", refuse = '"warning"', grace = 180 },
    },
  },
  nginx = { body = "100m", timeout = "120s" },
}
