-- credentials.lua: the one store of what was minted for a server, a root-only file on it.
-- What is in it is used, what is absent is minted, written, then used. Nothing is changed.

local credentials = {}

credentials.dir = "/opt/letsbe/env"
credentials.path = credentials.dir .. "/credentials.env"

-- credentials.key(tool, name) -> its name in the store, where each tool has a prefix
function credentials.key(tool, name)
  local prefix = tool:upper():gsub("-", "_") .. "_"
  return name:sub(1, #prefix) == prefix and name or prefix .. name
end

-- credentials.known() -> { KEY = true } of every tool's and the platform's secrets, with those
-- that tools hand out
function credentials.known()
  local known = {}
  local function add(id, secrets)
    for _, spec in ipairs(secrets) do known[credentials.key(id, spec.name)] = true end
  end
  for _, ids in ipairs { catalog.names(), sorted_keys(catalog.platform) } do
    for _, id in ipairs(ids) do
      local s = stack.get(id)
      if s then add(id, stack.all_secrets(s)) end
    end
  end
  return known
end

-- credentials.folder(ctx): the store's folder is there, for root alone.
function credentials.folder(ctx)
  ctx.target:run(("mkdir -p -m 0755 /opt/letsbe && mkdir -p %s && chmod 0700 %s"):format(credentials.dir, credentials.dir))
end

-- credentials.write(ctx, { KEY = secret }): the whole store, and the sealed copy of it.
function credentials.write(ctx, all)
  local values = {}
  for i, key in ipairs(sorted_keys(all)) do values[i] = { name = key, value = all[key] } end
  local text = ctx.render("stack/credentials.env", { values = values })
  credentials.folder(ctx)
  sealed.renew(ctx, all, text)
  ctx.target:put(credentials.path, text, { mode = "0600", owner = "root", group = "root" })
end

local function missing(self, have)
  local list = {}
  for _, spec in ipairs(self.secrets) do
    local key = credentials.key(self.tool, spec.name)
    if not have[key] then list[#list + 1] = { key = key, spec = spec } end
  end
  return list
end

local function names_of(list)
  local names = {}
  for i, item in ipairs(list) do names[i] = item.key end
  return table.concat(names, ", ")
end

-- credentials.present { tool, secrets }: the store holds these secrets of the tool, each
-- { name, kind, bytes?, length?, alphabet?, of?, subject? }.
credentials.present = resource("credentials.present", {
  args = { tool = "string", secrets = "table" },
  id = function(self) return self.tool end,
  probe = function(self, ctx)
    local list = missing(self, ctx.secrets_of(credentials.path) or {})
    if #list == 0 then return done() end
    return pending(("mint %s into %s"):format(names_of(list), credentials.path))
  end,
  intent = function(self) return ("mint %s into %s"):format(names_of(missing(self, {})), credentials.path) end,
  apply = function(self, ctx)
    local all = ctx.secrets_of(credentials.path) or {}
    local function other(name) return all[credentials.key(self.tool, name)] end
    for _, item in ipairs(missing(self, all)) do all[item.key] = stack.mint(item.spec, item.key, other) end
    credentials.write(ctx, all)
  end,
})

-- credentials.absent { tool, secrets }: the store holds none of these. What they open must be
-- gone before.
credentials.absent = resource("credentials.absent", {
  args = { tool = "string", secrets = "table" },
  id = function(self) return self.tool end,
  probe = function(self, ctx)
    local have, list = ctx.secrets_of(credentials.path) or {}, {}
    for _, spec in ipairs(self.secrets) do
      local key = credentials.key(self.tool, spec.name)
      if have[key] then list[#list + 1] = key end
    end
    return #list == 0 and done() or pending(("remove %s from %s"):format(table.concat(list, ", "), credentials.path))
  end,
  apply = function(self, ctx)
    local all = ctx.secrets_of(credentials.path)
    for _, spec in ipairs(self.secrets) do all[credentials.key(self.tool, spec.name)] = nil end
    credentials.write(ctx, all)
  end,
})

-- credentials.of(ctx, tool, secrets) -> { NAME = secret }, by the tool's own names
function credentials.of(ctx, tool, secrets)
  local have, all = ctx.secrets_of(credentials.path) or {}, {}
  for _, spec in ipairs(secrets) do
    local key = credentials.key(tool, spec.name)
    all[spec.name] = have[key] or fail("key", ("%s has no %s yet"):format(credentials.path, key))
  end
  return all
end

return credentials
