-- export.lua: the customer's own way into the server for the days of export: an account with
-- sudo, beside the admin's. A child run of deprovision.lua, once to open and once to close.
return runbook {
  name = "deprovision-export", summary = "Open or close the customer's SSH access", section = "8.1", sudo = true,
  params = {
    tenant = param.string { pattern = "^[a-z][a-z0-9-]*$", max = 40, description = "the customer's short name" },
    open = param.boolean { description = "true opens it, false takes it away" },
    key = param.ssh_public_key { optional = true, description = "the customer's public key; needed to open" },
    user = param.string { pattern = "^[a-z_][a-z0-9_-]*$", max = 32, default = "letsbe-export", description = "the account" },
    admin_user = param.string { pattern = "^[a-z_][a-z0-9_-]*$", max = 32, default = "letsbe-admin", description = "ours, which stays" },
    ssh_port = param.integer { min = 1, max = 65535, default = 22022, description = "where sshd listens" },
  },
  preflight = function(ctx)
    local p = ctx.params
    if p.user == p.admin_user then fail("usage", "the customer's account is not the admin's: give user another name") end
    if p.open and not p.key then fail("usage", "to open the access a key is needed: key='ssh-ed25519 ...'") end
  end,
  steps = function(p)
    local function door(also)
      return step { name = "door", title = "Who may log in", class = "reversible",
        resources = { sshd.hardened { port = p.ssh_port, user = p.admin_user, also = also } } }
    end
    if p.open then
      return {
        step { name = "account", title = "The customer's account", class = "reversible", resources = {
          user.present { name = p.user, home = "/home/" .. p.user, shell = "/bin/bash" },
          authorized_keys.present { user = p.user, keys = { p.key } },
          sudoers.passwordless { user = p.user },
        } },
        door { p.user },
      }
    end
    return {
      door(nil),
      step { name = "account", title = "The customer's account", class = "compensable", resources = {
        file.absent { path = "/etc/sudoers.d/90-lbrun-" .. p.user },
        user.absent { name = p.user },
      } },
    }
  end,
}
