-- 06-admin.lua: step 6: the account that everything after step 7 goes through; with sudo, for root can no
-- longer log in then.
return function(p)
  return step {
    name = "admin", title = "Admin user", class = "reversible", tags = { "admin" },
    resources = {
      apt.installed { "sudo" },
      user.present { name = p.admin_user, home = "/home/" .. p.admin_user, shell = "/bin/bash", groups = { "docker" } },
      authorized_keys.present { user = p.admin_user, keys = { p.admin_ssh_public_key } },
      sudoers.passwordless { user = p.admin_user },
    },
  }
end
