-- sealed.lua: the sealed copy of a server's credentials: an age file beside them that only keys which
-- are not on the server open, made anew whenever they change; and the key pairs whose private
-- halves are in that copy alone. It keeps no identity and opens nothing but for a restore.
--
-- Opened, it reads as credentials.env does. SEALED_NAME_KEY in it is an age file again, in
-- base64, for the same identity: the private half of the pair NAME. So all of it can be
-- sealed anew on a server that cannot open it.

local sealed = {}

sealed.path = credentials.dir .. "/credentials.enc"

local recipients_path = credentials.dir .. "/recipients"
local sum_path = credentials.dir .. "/.sealed"
local pairs_dir = credentials.dir .. "/keys"
local pair_names = { "admin", "hub" }
-- Said by authorized_keys.present of the keys that only it may have put there.
sealed.comment = "letsbe-emergency"

local root_only = { mode = "0600", owner = "root", group = "root" }

local function private_path(name) return ("%s/%s.enc"):format(pairs_dir, name) end
local function public_path(name) return ("%s/%s.pub"):format(pairs_dir, name) end

-- sealed.recipients(ctx, given?) -> list: those given, else those that the server knows
function sealed.recipients(ctx, given)
  if given and #given > 0 then return given end
  local list, s = {}, file.snapshot(ctx.target, { recipients_path })[1]
  for line in (s.content or ""):gmatch("[^\n]+") do list[#list + 1] = line end
  return list
end

local function known(list) return table.concat(list, "\n") .. "\n" end

-- What the copy is made of, by its sums; and what is there of it.
local function look(ctx)
  local paths = { recipients_path, sum_path, { sealed.path, sum = true }, { credentials.path, sum = true } }
  for _, name in ipairs(pair_names) do
    paths[#paths + 1] = { private_path(name), sum = true }
    paths[#paths + 1] = { public_path(name), sum = true }
  end
  local s, sums = file.snapshot(ctx.target, paths), {}
  for i = 4, #s do sums[i - 3] = s[i].sum or "none" end
  return { recipients = s[1].content, mark = s[2].content, copy = s[3], sums = sums }
end

local function mark_of(recipients, sums, copy)
  return crypto.sha256(recipients .. table.concat(sums, "\n") .. copy) .. "\n"
end

-- The pairs as the server has them: { SEALED_NAME_KEY = base64, SEALED_NAME_PUBLIC = line }.
local function pairs_of(ctx)
  local list = {}
  for _, name in ipairs(pair_names) do
    local key = "SEALED_" .. name:upper()
    if ctx.target:exists(private_path(name)) then
      list[#list + 1] = { name = key .. "_KEY", value = crypto.base64(ctx.target:get(private_path(name))) }
      if ctx.target:exists(public_path(name)) then
        list[#list + 1] = { name = key .. "_PUBLIC", value = ctx.target:get(public_path(name)) }
      end
    end
  end
  return list
end

-- The mark is that of a store with the sum `env`: it may be about to be written.
local function seal(ctx, recipients, all, env)
  local values = pairs_of(ctx)
  for _, key in ipairs(sorted_keys(all)) do values[#values + 1] = { name = key, value = all[key] } end
  local bytes = crypto.age_encrypt(ctx.render("stack/credentials.env", { values = values }), recipients)
  ctx.target:put(sealed.path, bytes, root_only)
  local seen = look(ctx)
  seen.sums[1] = env or seen.sums[1]
  ctx.target:put(sum_path, mark_of(known(recipients), seen.sums, seen.copy.sum), root_only)
end

-- sealed.renew(ctx, { KEY = secret }, text?): the copy holds these; nothing where the server
-- knows no recipients. `text` is the store that is about to be written: the copy comes
-- first, so that it never lacks what is in use.
function sealed.renew(ctx, all, text)
  local recipients = sealed.recipients(ctx)
  if #recipients > 0 then seal(ctx, recipients, all, text and crypto.sha256(text)) end
end

-- sealed.copy { recipients? }: the copy is there, of what the store holds now, for these
-- recipients or those that the server knows; done where there are none.
sealed.copy = resource("sealed.copy", {
  args = { recipients = "table?" },
  check = function(self)
    if self.recipients and #self.recipients > 0 then crypto.age_check(self.recipients) end
  end,
  id = function() return sealed.path end,
  probe = function(self, ctx)
    local list = sealed.recipients(ctx, self.recipients)
    if #list == 0 then return done() end
    local seen = look(ctx)
    local current = seen.copy.type == "file" and seen.copy.mode == "0600" and seen.recipients == known(list)
      and seen.mark == mark_of(known(list), seen.sums, seen.copy.sum or "")
    return current and done() or pending(("seal the credentials to %s"):format(table.concat(list, ", ")))
  end,
  intent = function() return "seal the credentials into " .. sealed.path end,
  apply = function(self, ctx)
    local list = sealed.recipients(ctx, self.recipients)
    credentials.folder(ctx)
    seal(ctx, list, ctx.secrets_of(credentials.path) or {})
    ctx.target:put(recipients_path, known(list), root_only)
  end,
})

-- sealed.public(ctx, name) -> "ssh-ed25519 AAAA... COMMENT" of a pair, or nil; then what it was
-- sealed to, and which Hub has its private half ("-": none)
function sealed.public(ctx, name)
  local s = file.snapshot(ctx.target, { public_path(name) })[1]
  if not s.content then return nil end
  return s.content:match("^([^\n]+)\n# (%S+) (%S+)\n$")
end

-- sealed.make_pair(ctx, name, recipients, hand_over?): the pair anew, its private half for
-- the recipients; hand_over(public, private) -> the address that it was also given to, or nil.
function sealed.make_pair(ctx, name, recipients, hand_over)
  local pair = crypto.ed25519_keypair { name = name .. " key", comment = name == "admin" and sealed.comment or "letsbe-" .. name }
  credentials.folder(ctx)
  ctx.target:run(("umask 077; mkdir -p %s && rm -f %s"):format(pairs_dir, public_path(name)))
  ctx.target:put(private_path(name), crypto.age_encrypt(pair.private, recipients), root_only)
  local url = hand_over and hand_over(pair.public, pair.private)
  ctx.target:put(public_path(name), ("%s\n# %s %s\n"):format(pair.public, table.concat(recipients, ","), url or "-"), root_only)
end

-- sealed.admin_pair { recipients? }: an emergency pair for the admin's account, of which the
-- private half is in the sealed copy alone. Other recipients make another pair: one who
-- is none any more may still hold it.
sealed.admin_pair = resource("sealed.admin_pair", {
  args = { recipients = "table?" },
  id = function() return "admin" end,
  probe = function(self, ctx)
    local list = sealed.recipients(ctx, self.recipients)
    local line, to = sealed.public(ctx, "admin")
    if #list == 0 or line and to == table.concat(list, ",") then return done() end
    return pending "make an emergency key pair, its private half for the sealed copy alone"
  end,
  apply = function(self, ctx) sealed.make_pair(ctx, "admin", sealed.recipients(ctx, self.recipients)) end,
})

-- The pairs of an opened copy that the server lacks: { name, key, public }.
local function lacking(ctx, plain)
  local list = {}
  for _, name in ipairs(pair_names) do
    local key, public = plain["SEALED_" .. name:upper() .. "_KEY"], plain["SEALED_" .. name:upper() .. "_PUBLIC"]
    if key and public and not ctx.target:exists(public_path(name)) then list[#list + 1] = { name = name, key = key, public = public } end
  end
  return list
end

-- sealed.opened { path, key }: what the sealed copy at `path` on the server holds is in the
-- store; `key` names the secret that opens it. A store that has another value for
-- something is another server's, and left as it is. Done where the secret was not given.
sealed.opened = resource("sealed.opened", {
  args = { path = "string", key = "string" },
  id = function(self) return self.path end,
  probe = function(self, ctx)
    if ctx.state_get("opened " .. self.path) or not pcall(ctx.secret, self.key) then return done() end
    local held, plain = ctx.secrets_sealed(self.path, ctx.secret(self.key))
    local all, same = ctx.secrets_of(credentials.path) or {}, #lacking(ctx, plain) == 0
    for key, secret in pairs(held) do same = same and all[key] and crypto.equal(all[key], secret) end
    if same then return done() end
    return pending(("take the credentials from %s"):format(self.path))
  end,
  apply = function(self, ctx)
    local held, plain = ctx.secrets_sealed(self.path, ctx.secret(self.key))
    local all, changed = ctx.secrets_of(credentials.path) or {}, false
    for _, key in ipairs(sorted_keys(held)) do
      if all[key] and not crypto.equal(all[key], held[key]) then
        fail("key", ("%s has another %s than %s: a restore is for a server without credentials of its own; nothing was changed")
          :format(credentials.path, key, self.path))
      end
      if not all[key] then all[key], changed = held[key], true end
    end
    if changed then credentials.write(ctx, all) end
    for _, pair in ipairs(lacking(ctx, plain)) do
      ctx.target:run(("umask 077; mkdir -p %s"):format(pairs_dir))
      ctx.target:put(private_path(pair.name), crypto.unbase64(pair.key), root_only)
      ctx.target:put(public_path(pair.name), pair.public, root_only)
    end
    ctx.state_set("opened " .. self.path, true)
  end,
})

return sealed
