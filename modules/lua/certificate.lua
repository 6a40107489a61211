-- certificate.lua: which certificate nginx shows for a name: a CA's where there is one that
-- covers it, else our own. It asks no CA.

local certificate = {}

-- As nginx sees it in its container, where this folder is /etc/nginx/lbrun.
certificate.path = nginx.dir .. "/conf/fallback.pem"
local inside = "/etc/nginx/lbrun/fallback.pem"
local mark = nginx.dir .. "/.loaded/fallback.pem"
local margin = 30 * 86400

local function covers(names, name)
  for _, have in ipairs(names) do
    if have == name or have:sub(1, 2) == "*." and have:sub(2) == name:match("^[^.]+(%..+)$") then return true end
  end
  return false
end

-- A file's first certificate, without what else is in it.
local function read(t, path)
  local text = t:run(("[ ! -e %s ] || sed -n '/BEGIN CERT/,/END CERT/p;/END CERT/q' %s"):format(quote(path), quote(path))).stdout
  return text ~= "" and text or nil
end

-- certificate.serving(ctx, domain, name) -> { certificate, key, trusted }: the files for
-- nginx, by its own paths.
function certificate.serving(ctx, domain, name)
  local live = "/etc/letsencrypt/live/" .. domain
  local pem = read(ctx.target, live .. "/fullchain.pem")
  local fine, seen = pcall(crypto.certificate, pem or "")
  if fine and seen.not_after > (ctx.facts.clock or 0) and covers(seen.names, name) then
    return { certificate = live .. "/fullchain.pem", key = live .. "/privkey.pem", trusted = not seen.self_signed }
  end
  return { certificate = inside, key = inside, trusted = false }
end

-- certificate.self_signed { names }: the fallback covers these names and is good for
-- another month, and nginx has read it. Certificate and key are one file, so they match.
certificate.self_signed = resource("certificate.self_signed", {
  args = { names = "table" },
  id = function() return "fallback" end,
  probe = function(self, ctx)
    local pem = read(ctx.target, certificate.path)
    if not pem then return pending("make a certificate of our own for " .. table.concat(self.names, ", ")) end
    local fine, seen = pcall(crypto.certificate, pem)
    if not fine then return pending(certificate.path .. " holds no certificate") end
    for _, name in ipairs(self.names) do
      if not covers(seen.names, name) then return pending("the certificate of our own lacks " .. name) end
    end
    if seen.not_after < (ctx.facts.clock or 0) + margin then return pending "the certificate of our own ends within 30 days" end
    local states = file.snapshot(ctx.target, { { certificate.path, sum = true }, mark })
    local changes = file.attribute_changes(states[1], { mode = "0600", owner = "root", group = "root" })
    if #changes > 0 then return pending(certificate.path .. ": " .. table.concat(changes, ", ")) end
    if states[2].content ~= crypto.sha256(pem) .. "\n" then return pending "nginx has not read the certificate of our own" end
    return done()
  end,
  apply = function(self, ctx)
    local made = crypto.self_signed { names = self.names, days = 3650, name = "fallback.key" }
    ctx.target:put(certificate.path, template.render("{{ cert }}{{ key }}", made, { name = "fallback.pem" }),
      { mode = "0600", owner = "root", group = "root" })
    local result = nginx.reload(ctx)
    if not result.ok then fail("nginx", "nginx does not reload: " .. last_lines(result.stdout .. result.stderr, 3)) end
    ctx.target:run(("umask 022; mkdir -p %s/.loaded && echo %s >%s"):format(nginx.dir,
      crypto.sha256(read(ctx.target, certificate.path)), mark))
  end,
})

return certificate
