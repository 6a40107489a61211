-- config_json.lua: a file of initial passwords that other hands put on the server. Its values
-- go to credentials.env, then it is overwritten and removed. It makes no secret.
--
-- The file is a JSON object of names to texts, those of a tool in an object of its own:
--   { "GHOST_ADMIN_PASSWORD": "...", "nextcloud": { "admin_password": "..." }, "smtp_relay": "..." }
-- A name that a tool or the platform knows in credentials.env (GHOST_ADMIN_PASSWORD,
-- NEXTCLOUD_ADMIN_PASSWORD) becomes the value of that credential, unless it has one already;
-- all else is kept as CONFIG_NAME. A file that does not read so is left, readable by root alone.

local config_json = {}

local function leftover(path)
  return path .. ".lbrun-wipe"
end

local function keys_of(items, path)
  local known, keys = credentials.known(), {}
  for _, item in ipairs(items) do
    local name = item.name:upper():gsub("[^%w]", "_")
    local key = item.tool and credentials.key(item.tool:lower():gsub("[^%w]", "-"), name) or name
    if not known[key] and not key:match("^CONFIG_") then key = "CONFIG_" .. key end
    if keys[key] then fail("config", ("%s names %s twice"):format(path, key)) end
    keys[key] = item.value
  end
  return keys
end

local function presence(self, ctx)
  local out = ctx.target:run(("for f in %s %s; do [ -e $f ] || [ -L $f ] && echo yes || echo no; done"):format(
    quote(self.path), quote(leftover(self.path)))).stdout
  return out:match("^yes") ~= nil, out:match("yes\n$") ~= nil
end

local function refused(self, err)
  fail("config", ("%s; nothing was imported. The file was left as it is, readable by root alone: correct or remove it, then resume")
    :format(err.message), { path = self.path })
end

-- Overwritten where it lies, then removed, and the folder synced.
local function wipe(ctx, path)
  ctx.target:run(("[ ! -e %s ] || { shred -n 1 -z -f -- %s && rm -f -- %s && sync -- %s; }"):format(quote(path), quote(path),
    quote(path), quote(path:match("^(.*)/") ~= "" and path:match("^(.*)/") or "/")))
end

local function import(self, ctx, items)
  local all, changed, differing = ctx.secrets_of(credentials.path) or {}, false, {}
  local keys = keys_of(items, self.path)
  for _, key in ipairs(sorted_keys(keys)) do
    local at = key
    if all[at] and not crypto.equal(all[at], keys[key]) and not at:match("^CONFIG_") then
      differing[#differing + 1] = key
      at = "CONFIG_" .. key
    end
    if not all[at] or not crypto.equal(all[at], keys[key]) then all[at], changed = keys[key], true end
  end
  if changed then credentials.write(ctx, all) end
  if #differing > 0 then
    ctx.warn(("%s has another value than credentials.env for %s; what is in use stays, the other is kept as CONFIG_NAME")
      :format(self.path, table.concat(differing, ", ")))
  end
end

-- config_json.imported { path }: the file is not there; what it held is in credentials.env.
config_json.imported = resource("config_json.imported", {
  args = { path = "string" },
  id = function(self) return self.path end,
  probe = function(self, ctx)
    local here, left = presence(self, ctx)
    if not here then return left and pending("wipe " .. leftover(self.path)) or done() end
    local fine, names = pcall(function() return sorted_keys(keys_of(ctx.secrets_in_json(self.path) or {}, self.path)) end)
    if not fine then return pending(("%s cannot be imported"):format(self.path)) end
    return pending(("import %s from %s into %s, then wipe it"):format(#names > 0 and table.concat(names, ", ") or "nothing",
      self.path, credentials.path))
  end,
  apply = function(self, ctx)
    local t, old = ctx.target, leftover(self.path)
    -- Under that name it has been imported already.
    wipe(ctx, old)
    t:run(("[ ! -f %s ] || [ -L %s ] || { chown root:root %s && chmod 0600 %s; }"):format(quote(self.path), quote(self.path),
      quote(self.path), quote(self.path)))
    local fine, err = pcall(function()
      local items = ctx.secrets_in_json(self.path)
      if items then import(self, ctx, items) end
    end)
    if not fine then
      if type(err) == "table" and err.code == "config" then refused(self, err) end
      error(err, 0)
    end
    t:run(("[ ! -e %s ] || { mv -fT -- %s %s && sync -- %s; }"):format(quote(self.path), quote(self.path), quote(old), quote(old)))
    wipe(ctx, old)
  end,
})

return config_json
