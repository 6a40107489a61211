-- sudoers.lua: drop-ins of sudo, checked by visudo before they take effect. It installs no
-- package.

local sudoers = {}

-- sudoers.present { name, content }: /etc/sudoers.d/NAME.
function sudoers.present(given)
  if type(given.name) ~= "string" or not given.name:match("^[%w_-]+$") then
    error("sudoers.present: name is of letters, digits, '_' and '-' (sudo skips a name with a dot)", 2)
  end
  return file.content {
    path = "/etc/sudoers.d/" .. given.name, content = given.content, mode = "0440", owner = "root", group = "root",
    check = 'PATH=$PATH:/usr/sbin; visudo -cqf "$1"',
  }
end

-- sudoers.passwordless { user }: the user may become root without a password.
function sudoers.passwordless(given)
  if type(given.user) ~= "string" or not given.user:match("^[a-z_][a-z0-9_-]*$") then
    error("sudoers.passwordless: user is the name of a user", 2)
  end
  return sudoers.present {
    name = "90-lbrun-" .. given.user,
    content = ("# Written by lbrun.\n%s ALL=(ALL:ALL) NOPASSWD: ALL\n"):format(given.user),
  }
end

return sudoers
