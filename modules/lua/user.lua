-- user.lua: accounts, groups and their SSH keys. It sets no passwords.

local user = {}

local function check_name(self)
  if not self.name:match("^[a-z_][a-z0-9_-]*$") or #self.name > 32 then
    error(("'%s' is not the name of a user"):format(self.name), 3)
  end
end

local function look(t, name)
  local out = t:run(("u=%s; getent passwd -- \"$u\" || { echo absent; exit 0; }; id -nG -- \"$u\""):format(quote(name))).stdout
  if out == "absent\n" then return nil end
  local entry, groups = out:match("^([^\n]*)\n([^\n]*)")
  local _, _, uid, gid, comment, home, shell = entry:match("^([^:]*):([^:]*):(%d+):(%d+):([^:]*):([^:]*):([^:]*)$")
  local member = {}
  for g in (groups or ""):gmatch("%S+") do member[g] = true end
  return { uid = tonumber(uid), gid = tonumber(gid), comment = comment, home = home, shell = shell, groups = member }
end
user.look = look

-- Ends its sessions and takes it away with its home.
local function remove(t, name)
  return t:try(([[
loginctl terminate-user %s 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do
  userdel -r %s 2>/dev/null; s=$?
  case $s in 0 | 6 | 12) exit 0 ;; esac
  sleep 0.3
done
userdel -r %s]]):format(quote(name), quote(name), quote(name)), { timeout = 60 })
end

-- user.present { name, shell?, home?, groups?, comment?, system? }: the account exists, in
-- at least these groups.
user.present = resource("user.present", {
  args = { name = "string", shell = "string?", home = "string?", groups = "table?", comment = "string?",
    system = "boolean?" },
  check = check_name,
  id = function(self) return self.name end,
  probe = function(self, ctx)
    local seen = look(ctx.target, self.name)
    local text = {}
    if not seen then
      text[1] = ("create user %s, home %s, shell %s%s"):format(self.name, self.home or "/home/" .. self.name,
        self.shell or "/bin/sh", self.groups and ", groups " .. table.concat(self.groups, ", ") or "")
      return pending(text[1])
    end
    for _, key in ipairs { "shell", "home", "comment" } do
      if self[key] and seen[key] ~= self[key] then
        text[#text + 1] = ("%s: %s %s -> %s"):format(self.name, key, seen[key], self[key])
      end
    end
    for _, g in ipairs(self.groups or {}) do
      if not seen.groups[g] then text[#text + 1] = ("%s: not in group %s"):format(self.name, g) end
    end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  before = function(self, ctx)
    local seen = look(ctx.target, self.name)
    if not seen then return { absent = true } end
    return { shell = seen.shell, home = seen.home, comment = seen.comment,
      groups = sorted_keys(seen.groups) }
  end,
  apply = function(self, ctx)
    local t = ctx.target
    local seen = look(t, self.name)
    if not seen then
      local words = { "useradd", "-m", "-s", self.shell or "/bin/sh" }
      if self.home then table.move({ "-d", self.home }, 1, 2, #words + 1, words) end
      if self.comment then table.move({ "-c", self.comment }, 1, 2, #words + 1, words) end
      if self.system then words[#words + 1] = "-r" end
      if self.groups and #self.groups > 0 then
        table.move({ "-G", table.concat(self.groups, ",") }, 1, 2, #words + 1, words)
      end
      words[#words + 1] = self.name
      t:run(words)
      return
    end
    local words = { "usermod" }
    if self.shell and seen.shell ~= self.shell then table.move({ "-s", self.shell }, 1, 2, #words + 1, words) end
    if self.home and seen.home ~= self.home then table.move({ "-d", self.home, "-m" }, 1, 3, #words + 1, words) end
    if self.comment and seen.comment ~= self.comment then table.move({ "-c", self.comment }, 1, 2, #words + 1, words) end
    local missing = {}
    for _, g in ipairs(self.groups or {}) do
      if not seen.groups[g] then missing[#missing + 1] = g end
    end
    if #missing > 0 then table.move({ "-a", "-G", table.concat(missing, ",") }, 1, 3, #words + 1, words) end
    if #words > 1 then
      words[#words + 1] = self.name
      t:run(words)
    end
  end,
  undo = function(self, ctx, before)
    local t = ctx.target
    local seen = look(t, self.name)
    if before.absent then
      if not seen then return end
      if ctx.facts.user == self.name then
        ctx.warn(("user %s stays: this run is logged in as it"):format(self.name))
        return
      end
      local result = remove(t, self.name)
      if not result.ok then
        ctx.warn(("user %s stays: %s"):format(self.name, last_lines(result.stderr, 1)))
      end
      return
    end
    t:run { "usermod", "-s", before.shell, "-d", before.home, "-c", before.comment, self.name }
    local keep = {}
    for _, g in ipairs(before.groups) do keep[g] = true end
    for _, g in ipairs(self.groups or {}) do
      if not keep[g] then t:try { "gpasswd", "-d", self.name, g } end
    end
  end,
})

-- user.absent { name }: there is no such account; its home went with it.
user.absent = resource("user.absent", {
  args = { name = "string" },
  check = check_name,
  id = function(self) return self.name end,
  probe = function(self, ctx)
    return look(ctx.target, self.name) and pending(("remove user %s and its home"):format(self.name)) or done()
  end,
  apply = function(self, ctx)
    if ctx.facts.user == self.name then
      fail("user", ("user %s is who this run is logged in as: log in as another to remove it"):format(self.name))
    end
    local result = remove(ctx.target, self.name)
    if not result.ok then fail("user", ("user %s stays: %s"):format(self.name, last_lines(result.stderr, 1))) end
  end,
})

-- user.group { name, system? }: a group exists.
user.group = resource("user.group", {
  args = { name = "string", system = "boolean?" },
  check = check_name,
  id = function(self) return self.name end,
  probe = function(self, ctx)
    if ctx.target:try({ "getent", "group", self.name }, { ok = { 0, 2 } }).status == 0 then return done() end
    return pending("create group " .. self.name)
  end,
  before = function() return {} end,
  apply = function(self, ctx)
    if self.system then ctx.target:run { "groupadd", "-r", self.name } else ctx.target:run { "groupadd", self.name } end
  end,
  undo = function(self, ctx) ctx.target:try { "groupdel", self.name } end,
})

return user
