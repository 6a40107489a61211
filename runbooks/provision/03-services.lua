-- 03-services.lua: step 3: services that would hold the ports of ours. nginx is the one that the package
-- python3-certbot-nginx brings along: it would keep port 80 from the container.
return function()
  return step {
    name = "services", title = "Conflicting services", class = "reversible", tags = { "services" },
    resources = {
      service.disabled_stopped { "apache2", "postfix" },
      service.disabled_stopped { "nginx", brought_by = "python3-certbot-nginx" },
    },
  }
end
