-- 06-admin.lua: step 6: the account that everything after step 7 goes through; with sudo, for root can no
-- longer log in then. An emergency key may log in as well, whose private half is in the
-- sealed copy of the credentials alone.
return function(p)
  local function keys(ctx)
    return { p.admin_ssh_public_key, (sealed.public(ctx, "admin")) }
  end
  return step {
    name = "admin", title = "Admin user", class = "reversible", tags = { "admin" },
    resources = {
      apt.installed { "sudo" },
      user.present { name = p.admin_user, home = "/home/" .. p.admin_user, shell = "/bin/bash", groups = { "docker" } },
      sealed.admin_pair { recipients = p.recipients },
      authorized_keys.present { user = p.admin_user, keys = keys, own = sealed.comment },
      sudoers.passwordless { user = p.admin_user },
      sealed.copy { recipients = p.recipients },
    },
  }
end
