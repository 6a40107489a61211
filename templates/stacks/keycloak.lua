-- keycloak.lua: Keycloak, on PostgreSQL. Health and metrics are on a port of their own,
-- which stays on the loopback. Its image has no client for HTTP.
return {
  id = "keycloak",
  database = { engine = "postgres", memory = 128 },
  secrets = { { name = "KC_BOOTSTRAP_ADMIN_PASSWORD", kind = "password", class = "admin" } },
  services = {
    {
      name = "keycloak", image = "quay.io/keycloak/keycloak", tag = "26.6.3", port = 8080, memory = 1024,
      command = { "start" }, ports = { { host = 3034, port = 9000 } },
      env = {
        KC_DB = "postgres", KC_DB_URL_HOST = "{{ db.host }}", KC_DB_URL_DATABASE = "{{ db.name }}",
        KC_DB_USERNAME = "{{ db.user }}", KC_DB_PASSWORD = "{{ secret.DB_PASSWORD }}",
        KC_BOOTSTRAP_ADMIN_USERNAME = "admin", KC_BOOTSTRAP_ADMIN_PASSWORD = "{{ secret.KC_BOOTSTRAP_ADMIN_PASSWORD }}",
        KC_HOSTNAME = "https://{{ host }}", KC_HTTP_ENABLED = "true", KC_PROXY_HEADERS = "xforwarded", KC_HEALTH_ENABLED = "true",
      },
      volumes = { { name = "keycloak-data", mount = "/opt/keycloak/data" } },
      health = { by = "bash", path = "/health/ready", port = 9000, grace = 180 },
    },
  },
  -- By its own command, which asks its container for the password: a realm for the tenant's people.
  setup = [[
docker exec keycloak bash -c '
export KC_CLI_PASSWORD="$KC_BOOTSTRAP_ADMIN_PASSWORD"
kcadm() { /opt/keycloak/bin/kcadm.sh "$@" --config /tmp/lbrun.config; }
kcadm config credentials --server http://127.0.0.1:8080 --realm master --user "$KC_BOOTSTRAP_ADMIN_USERNAME" &&
  { kcadm get realms/{{ tenant }} >/dev/null 2>&1 || kcadm create realms -s realm={{ tenant }} -s enabled=true; }
s=$?; rm -f /tmp/lbrun.config; exit $s'
]],
  nginx = {
    body = "10m", timeout = "60s", server = { "proxy_buffer_size 128k;", "proxy_buffers 4 256k;", "proxy_busy_buffers_size 256k;" },
    hidden = { "/health", "/metrics" },
  },
}
