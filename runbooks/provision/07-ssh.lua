-- 07-ssh.lua: step 7: sshd moves to its new port and is hardened. Each stage is made under a guard and
-- proved by a new connection as the admin, with sudo, on the new port; only then is the old
-- door shut. A run that dies anywhere in between leaves a way in.
return function(p)
  return step {
    name = "ssh", title = "SSH hardening", class = "reversible", tags = { "ssh" },
    resources = {
      sshd.also_on { port = p.ssh_port, user = p.admin_user },
      sshd.hardened { port = p.ssh_port, user = p.admin_user },
      ufw.only_ssh { port = p.ssh_port, user = p.admin_user },
    },
  }
end
