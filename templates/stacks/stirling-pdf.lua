-- stirling-pdf.lua: Stirling PDF, with its own H2 beside its settings.
return {
  id = "stirling-pdf",
  secrets = {
    { name = "SECURITY_INITIALLOGIN_PASSWORD", kind = "password", class = "admin" },
    { name = "SECURITY_CUSTOMGLOBALAPIKEY", kind = "token", class = "api" },
  },
  services = {
    {
      name = "stirling-pdf", image = "stirlingtools/stirling-pdf", tag = "2.14.3", port = 8080, memory = 896,
      env = {
        SECURITY_ENABLELOGIN = "true", SECURITY_INITIALLOGIN_USERNAME = "admin",
        SECURITY_INITIALLOGIN_PASSWORD = "{{ secret.SECURITY_INITIALLOGIN_PASSWORD }}",
        SECURITY_CUSTOMGLOBALAPIKEY = "{{ secret.SECURITY_CUSTOMGLOBALAPIKEY }}",
        DISABLE_ADDITIONAL_FEATURES = "false", JAVA_TOOL_OPTIONS = "-Xmx768m",
      },
      volumes = { { name = "stirling-pdf-configs", mount = "/configs" }, { name = "stirling-pdf-logs", mount = "/logs" } },
      health = { by = "curl", path = "/api/v1/info/status", grace = 120 },
    },
  },
  nginx = { body = "500m", timeout = "600s", server = { "proxy_request_buffering off;" } },
}
