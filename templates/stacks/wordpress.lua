-- wordpress.lua: WordPress, on MySQL. Before its installation its health path redirects.
return {
  id = "wordpress",
  database = { engine = "mysql", memory = 448 },
  secrets = {
    { name = "WORDPRESS_ADMIN_PASSWORD", kind = "password", class = "admin" },
    { name = "WORDPRESS_AUTH_KEY", kind = "token", class = "app" }, { name = "WORDPRESS_SECURE_AUTH_KEY", kind = "token", class = "app" },
    { name = "WORDPRESS_LOGGED_IN_KEY", kind = "token", class = "app" }, { name = "WORDPRESS_NONCE_KEY", kind = "token", class = "app" },
    { name = "WORDPRESS_AUTH_SALT", kind = "token", class = "app" }, { name = "WORDPRESS_SECURE_AUTH_SALT", kind = "token", class = "app" },
    { name = "WORDPRESS_LOGGED_IN_SALT", kind = "token", class = "app" }, { name = "WORDPRESS_NONCE_SALT", kind = "token", class = "app" },
  },
  services = {
    {
      name = "wordpress", image = "wordpress", tag = "7.1.0-php8.3-apache", port = 80, memory = 256,
      env = {
        WORDPRESS_DB_HOST = "{{ db.host }}", WORDPRESS_DB_USER = "{{ db.user }}", WORDPRESS_DB_PASSWORD = "{{ secret.DB_PASSWORD }}",
        WORDPRESS_DB_NAME = "{{ db.name }}",
        WORDPRESS_AUTH_KEY = "{{ secret.WORDPRESS_AUTH_KEY }}", WORDPRESS_SECURE_AUTH_KEY = "{{ secret.WORDPRESS_SECURE_AUTH_KEY }}",
        WORDPRESS_LOGGED_IN_KEY = "{{ secret.WORDPRESS_LOGGED_IN_KEY }}", WORDPRESS_NONCE_KEY = "{{ secret.WORDPRESS_NONCE_KEY }}",
        WORDPRESS_AUTH_SALT = "{{ secret.WORDPRESS_AUTH_SALT }}", WORDPRESS_SECURE_AUTH_SALT = "{{ secret.WORDPRESS_SECURE_AUTH_SALT }}",
        WORDPRESS_LOGGED_IN_SALT = "{{ secret.WORDPRESS_LOGGED_IN_SALT }}", WORDPRESS_NONCE_SALT = "{{ secret.WORDPRESS_NONCE_SALT }}",
      },
      volumes = { { name = "wordpress-html", mount = "/var/www/html" } },
      health = { by = "curl", path = "/wp-login.php", headers = { ["X-Forwarded-Proto"] = "https" }, grace = 60 },
    },
  },
  nginx = { body = "64m", timeout = "120s" },
}
