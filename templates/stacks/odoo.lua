-- odoo.lua: Odoo, on PostgreSQL. It makes its database itself, under its own name: the
-- container's first one is PostgreSQL's. Without workers its websocket is on its one port.
return {
  id = "odoo",
  database = { engine = "postgres", memory = 256, initial = "postgres" },
  secrets = {
    { name = "ODOO_ADMIN_PASSWORD", kind = "password", class = "admin" },
    { name = "ODOO_MASTER_PASSWORD", kind = "token", class = "app" },
  },
  files = {
    {
      -- Its own user reads it; the folder is root's alone.
      name = "odoo.conf", readable = true,
      text = "[options]\nadmin_passwd = {{ secret.ODOO_MASTER_PASSWORD }}\nproxy_mode = True\nlist_db = False\n"
        .. "dbfilter = ^odoo$\ndata_dir = /var/lib/odoo\naddons_path = /mnt/extra-addons",
    },
  },
  services = {
    {
      name = "odoo", image = "odoo", tag = "18.0-20260817", port = 8069, memory = 900, needs = { "odoo-init" },
      command = { "odoo", "-d", "odoo", "--proxy-mode", "--no-database-list" },
      env = { HOST = "{{ db.host }}", PORT = "{{ db.port }}", USER = "{{ db.user }}", PASSWORD = "{{ secret.DB_PASSWORD }}" },
      volumes = { { name = "odoo-data", mount = "/var/lib/odoo" }, { name = "odoo-addons", mount = "/mnt/extra-addons" } },
      files = { { name = "odoo.conf", mount = "/etc/odoo/odoo.conf" } },
      health = { by = "curl", path = "/web/health", grace = 180 },
    },
    {
      name = "odoo-init", like = "odoo", init = true, memory = 900,
      command = { "odoo", "-d", "odoo", "-i", "base", "--without-demo=all", "--stop-after-init" },
    },
  },
  nginx = { body = "200m", timeout = "720s", websocket = true },
}
