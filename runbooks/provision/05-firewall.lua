-- 05-firewall.lua: step 5: ufw. Until step 7 has proved the new SSH port, the old one stays open beside it.
return function(p)
  local resources = {
    apt.installed { "ufw" },
    ufw.ssh_doors { port = p.ssh_port },
    ufw.allow { "80/tcp", "443/tcp" },
  }
  local mail = catalog.public_ports(p.tools)
  if #mail > 0 then
    mail.routed = true
    resources[#resources + 1] = ufw.allow(mail)
  end
  resources[#resources + 1] = ufw.default { incoming = "deny", outgoing = "allow" }
  resources[#resources + 1] = ufw.docker_closed {}
  resources[#resources + 1] = ufw.enabled {}
  return step {
    name = "firewall", title = "Firewall", class = "reversible", tags = { "firewall" },
    resources = resources,
  }
end
