-- 04-nginx.lua: step 4: nginx in a container on the host's network, with the site that answers for every
-- name that has none. Certificates come with step 9.
local function has_ipv6(ctx)
  return { ipv6 = ctx.target:exists("/proc/net/if_inet6") }
end

return function()
  local dir = nginx.dir
  return step {
    name = "nginx", title = "nginx with its fallback site", class = "reversible", tags = { "nginx" },
    resources = {
      directory.present { path = dir .. "/conf", mode = "0755" },
      directory.present { path = dir .. "/sites", mode = "0755" },
      directory.present { path = dir .. "/webroot", mode = "0755" },
      directory.present { path = "/etc/letsencrypt", mode = "0755" },
      file.template {
        path = dir .. "/docker-compose.yml", template = "nginx/docker-compose.yml", mode = "0644",
        vars = { image = catalog.platform.nginx.image, container = nginx.container },
      },
      nginx.main { template = "nginx/nginx.conf" },
      nginx.site { name = "00-fallback", template = "nginx/fallback.conf", vars = has_ipv6 },
      compose.up { project = "nginx", dir = dir, wait = 0 },
      nginx.answers { status = 301 },
    },
  }
end
