-- directory.lua: directories with owner and mode. It does not look at what they hold.

local directory = {}

-- directory.present { path, mode?, owner?, group? }: with its missing parents (0755).
directory.present = resource("directory.present", {
  args = { path = "string", mode = "string?", owner = "string?", group = "string?" },
  check = function(self)
    if self.path:sub(1, 1) ~= "/" then error(("path '%s' is not absolute"):format(self.path), 3) end
    if self.mode then file.octal(self.mode) end
  end,
  id = function(self) return self.path end,
  probe = function(self, ctx)
    local state = file.snapshot(ctx.target, { { self.path, sum = true } })[1]
    if state.type == "absent" then return pending(("create directory %s, mode %s"):format(self.path, self.mode or "0755")) end
    if state.type == "link" then
      -- A link to a directory serves as well, unless attributes were asked for.
      state = ctx.target:run(("[ -d %s/ ] && stat -Lc '%%a %%U %%G' %s || echo no"):format(
        quote(self.path), quote(self.path))).stdout
      if state == "no\n" then return pending(self.path .. " is a link that leads to no directory") end
      local mode, owner, group = state:match("(%d+) (%S+) (%S+)")
      state = { type = "directory", mode = ("%04d"):format(tonumber(mode)), owner = owner, group = group }
    end
    if state.type ~= "directory" then return pending(("%s is a %s, not a directory"):format(self.path, state.type)) end
    local changes = file.attribute_changes(state, { mode = self.mode and file.octal(self.mode),
      owner = self.owner, group = self.group })
    if #changes == 0 then return done() end
    return pending(self.path .. ": " .. table.concat(changes, ", "))
  end,
  intent = function(self) return ("directory %s, mode %s"):format(self.path, self.mode or "0755") end,
  before = function(self, ctx)
    local seen = ctx.target:stat(self.path)
    if not seen then
      -- The topmost missing parent: undo removes what was made, as far as it is empty.
      local top = ctx.target:run(("p=%s; while [ ! -e \"$(dirname \"$p\")\" ]; do p=$(dirname \"$p\"); done; printf %%s \"$p\"")
        :format(quote(self.path))).stdout
      return { absent = true, top = top }
    end
    return { mode = seen.mode, owner = seen.owner, group = seen.group }
  end,
  apply = function(self, ctx)
    local q = quote(self.path)
    local owner = self.owner or ""
    if self.group then owner = owner .. ":" .. self.group end
    ctx.target:run(table.concat {
      "umask 022; [ -d ", q, "/ ] || mkdir -p -- ", q, " || exit 1\n",
      owner ~= "" and ("chown %s -- %s || exit 1\n"):format(quote(owner), q) or "",
      self.mode and ("chmod %s -- %s || exit 1\n"):format(self.mode, q) or "",
    })
  end,
  undo = function(self, ctx, old)
    local q = quote(self.path)
    if not old.absent then
      ctx.target:run(("chown %s -- %s && chmod %s -- %s"):format(quote(old.owner .. ":" .. old.group), q, old.mode, q))
      return
    end
    local left = ctx.target:run(([[
p=%s; top=%s
while rmdir -- "$p" 2>/dev/null && [ "$p" != "$top" ]; do p=$(dirname "$p"); done
[ -e %s ] && echo kept; true]]):format(q, quote(old.top), q)).stdout
    if left == "kept\n" then ctx.warn(self.path .. " was not removed: it holds files that are not this run's") end
  end,
})

return directory
