-- authorized_keys.lua: public keys that may log in as a user. Type and key decide, not
-- the comment. It makes no users.

local authorized_keys = {}

-- "type base64" of a line, past any options before it; nil for what is no key.
local function identity(line)
  if line:match("^%s*#") then return nil end
  local kind, body = line:match("([%w@.-]+)%s+(AAAA[%w+/]+=*)")
  return kind and kind .. " " .. body
end

local function locate(t, name)
  local out = t:run(([[
e=$(getent passwd -- %s) || { echo nobody; exit 0; }
h=$(echo "$e" | cut -d: -f6); g=$(id -gn -- %s)
printf '%%s\n%%s\n' "$h" "$g"
]]):format(quote(name), quote(name)) .. file.snapshot_script({}) ..
    'lb_snap "$h/.ssh" s; lb_snap "$h/.ssh/authorized_keys" c').stdout
  if out == "nobody\n" then return nil end
  local home, group, at = out:match("^([^\n]*)\n([^\n]*)\n()")
  local states = file.parse_snapshot(out, 2, at)
  return { home = home, group = group, dir = states[1], keys = states[2],
    path = home .. "/.ssh/authorized_keys" }
end

local function keys_of(self, ctx)
  return type(self.keys) == "function" and self.keys(ctx) or self.keys
end

local function wanted(self, ctx, content)
  local mine, keys = {}, keys_of(self, ctx)
  for _, key in ipairs(keys) do mine[identity(key)] = true end
  local lines, have = {}, {}
  for _, line in ipairs(file.lines(content or "")) do
    local known = identity(line)
    if known and mine[known] then have[known] = true end
    local old = self.exclusive or self.own and line:match("%s(%S+)%s*$") == self.own
    if not old or not known or mine[known] then lines[#lines + 1] = line end
  end
  for _, key in ipairs(keys) do
    if not have[identity(key)] then lines[#lines + 1] = key end
  end
  return table.concat(lines, "\n") .. "\n"
end

-- authorized_keys.present { user, keys, exclusive?, own? }: the keys (a list, or a function of
-- ctx that gives it) may log in; with exclusive no others, with own = COMMENT no others
-- that carry this comment. ~/.ssh is 0700 and the file 0600, both the user's own.
authorized_keys.present = resource("authorized_keys.present", {
  args = { user = "string", keys = "table|function", exclusive = "boolean?", own = "string?" },
  check = function(self)
    for _, key in ipairs(type(self.keys) == "table" and self.keys or {}) do
      if not identity(key) or key:find("\n") then
        error("authorized_keys: each key is one OpenSSH public key line", 3)
      end
    end
  end,
  id = function(self) return self.user end,
  probe = function(self, ctx)
    local seen = locate(ctx.target, self.user)
    if not seen then
      return pending(diff(nil, wanted(self, ctx), { path = ("/home/%s/.ssh/authorized_keys"):format(self.user), absent = true }))
    end
    local text = {}
    local change = file.difference(seen.path, seen.keys, wanted(self, ctx, seen.keys.content),
      { mode = "0600", owner = self.user, group = seen.group })
    if change then text[1] = change end
    if seen.dir.type ~= "directory" then
      text[#text + 1] = ("create directory %s/.ssh, mode 0700"):format(seen.home)
    else
      local attributes = file.attribute_changes(seen.dir, { mode = "0700", owner = self.user, group = seen.group })
      if #attributes > 0 then text[#text + 1] = seen.home .. "/.ssh: " .. table.concat(attributes, ", ") end
    end
    return #text == 0 and done() or pending(table.concat(text, "\n"))
  end,
  before = function(self, ctx)
    local seen = locate(ctx.target, self.user)
    if not seen then return { nobody = true } end
    if seen.keys.type == "absent" then return { absent = true } end
    return { ref = ctx.stash(seen.path) }
  end,
  apply = function(self, ctx)
    local seen = locate(ctx.target, self.user)
    if not seen then fail("in_the_way", ("there is no user %s"):format(self.user)) end
    local owner = self.user .. ":" .. seen.group
    ctx.target:run(("umask 077; [ -d %s ] || mkdir %s; chown %s %s && chmod 700 %s"):format(quote(seen.home .. "/.ssh"),
      quote(seen.home .. "/.ssh"), quote(owner), quote(seen.home .. "/.ssh"), quote(seen.home .. "/.ssh")))
    ctx.target:put(seen.path, wanted(self, ctx, seen.keys.content), { mode = "0600", owner = self.user, group = seen.group })
  end,
  undo = function(self, ctx, before)
    local seen = locate(ctx.target, self.user)
    if not seen then return end
    if before.ref then ctx.unstash(before.ref, seen.path)
    else ctx.target:run { "rm", "-f", "--", seen.path } end
  end,
})

return authorized_keys
