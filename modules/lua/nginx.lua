-- nginx.lua: sites of the nginx container: a file each, tested inside the container before
-- it is read, taken back when it does not pass. It gets no certificates.

local nginx = {}

nginx.dir = "/opt/letsbe/nginx"
nginx.container = "letsbe-nginx"
nginx.config = "/etc/nginx/lbrun/nginx.conf"

local function marks(name)
  return ("%s/.loaded/%s"):format(nginx.dir, name)
end

local function path_of(self)
  return ("%s/%s/%s.conf"):format(nginx.dir, self.folder or "sites", self.name)
end

local function content_of(self, ctx)
  if self.content then return self.content end
  local vars = self.vars
  if type(vars) == "function" then vars = vars(ctx) end
  return ctx.render(self.template, vars)
end

-- Tests the whole configuration in the container and lets nginx read it. Where no nginx
-- runs there is nothing to reload: it reads its files when it starts.
function nginx.reload(ctx)
  return ctx.target:try((("c=%s; conf=%s\n"):format(quote(nginx.container), quote(nginx.config))) .. [[
state=$(docker inspect -f '{{.State.Status}}' "$c" 2>/dev/null)
[ "$state" = running ] || exit 0
docker exec "$c" nginx -t -c "$conf" 2>&1 || exit 20
docker exec "$c" nginx -c "$conf" -s reload 2>&1 || exit 21]], { timeout = 60 })
end

local function check(self)
  if not self.name:match("^[%w.-]+$") then error("nginx.site: name is of letters, digits, '.' and '-'", 3) end
  if (self.content == nil) == (self.template == nil) then error("nginx.site: give content or template", 3) end
end

-- nginx.site { name, content or template, vars?, folder? }: the site is on disk and nginx has read
-- this very text. A site that nginx refuses is taken back and the old one stays in force.
nginx.site = resource("nginx.site", {
  args = { name = "string", content = "string?", template = "string?", vars = "table|function|nil", folder = "string?" },
  check = check,
  id = function(self) return self.name end,
  probe = function(self, ctx)
    local text = content_of(self, ctx)
    local states = file.snapshot(ctx.target, { path_of(self), marks(self.name) })
    local change = file.difference(path_of(self), states[1], text, { mode = "0644" })
    if change then return pending(change) end
    -- After a crash between writing and reading, the file alone proves nothing.
    if (states[2].content or "") ~= crypto.sha256(text) .. "\n" then
      return pending(("%s is written, but nginx has not read it: test and reload"):format(path_of(self)))
    end
    return done()
  end,
  intent = function(self, ctx)
    return diff(nil, content_of(self, ctx), { path = path_of(self), absent = true })
  end,
  before = function(self, ctx)
    local s = file.snapshot(ctx.target, { { path_of(self), sum = true } })[1]
    local before = { ref = s.type ~= "absent" and ctx.stash(path_of(self)) or nil }
    ctx.state_set("nginx.site " .. path_of(self), before)
    return before
  end,
  apply = function(self, ctx)
    local t, path, text = ctx.target, path_of(self), content_of(self, ctx)
    local states = file.snapshot(t, { path, marks(self.name) })
    local old = states[1].content
    t:put(path, text, { mode = "0644", owner = "root", group = "root" })
    local result = nginx.reload(ctx)
    if not result.ok then
      -- What nginx has not read may be this very text, left by an attempt that was cut off
      -- between writing and testing: then what stood before the first attempt comes back.
      local first = (ctx.state_get("nginx.site " .. path) or {}).ref
      if old and states[2].content == crypto.sha256(old) .. "\n" then
        t:put(path, old, { mode = "0644", owner = "root", group = "root" })
      elseif first then ctx.unstash(first, path)
      else t:run { "rm", "-f", path } end
      fail("nginx", ("nginx does not take the site %s, the old one stays: %s"):format(self.name,
        last_lines(result.stdout .. result.stderr, 3)))
    end
    t:run(("umask 022; mkdir -p %s/.loaded && echo %s >%s"):format(nginx.dir, crypto.sha256(text), quote(marks(self.name))))
  end,
  undo = function(self, ctx, old)
    if old.ref then ctx.unstash(old.ref, path_of(self)) else ctx.target:run { "rm", "-f", path_of(self) } end
    ctx.target:run(("rm -f %s; rmdir %s 2>/dev/null; true"):format(quote(marks(self.name)), quote(nginx.dir .. "/.loaded")))
    -- The container may be gone by the time a site is undone.
    nginx.reload(ctx)
  end,
})

-- nginx.main { template }: the main configuration, by the same rules.
function nginx.main(given)
  return nginx.site { name = "nginx", folder = "conf", template = given.template, vars = given.vars }
end

-- nginx.site_absent { name }: the site is gone and nginx has forgotten it.
nginx.site_absent = resource("nginx.site_absent", {
  args = { name = "string" },
  id = function(self) return self.name end,
  probe = function(self, ctx)
    local states = file.snapshot(ctx.target, { { path_of(self), sum = true }, { marks(self.name), sum = true } })
    if states[1].type == "absent" and states[2].type == "absent" then return done() end
    return pending("remove " .. path_of(self))
  end,
  before = function(self, ctx)
    local s = file.snapshot(ctx.target, { { path_of(self), sum = true } })[1]
    return { ref = s.type ~= "absent" and ctx.stash(path_of(self)) or nil }
  end,
  apply = function(self, ctx)
    ctx.target:run { "rm", "-f", path_of(self) }
    local result = nginx.reload(ctx)
    if not result.ok then fail("nginx", "nginx does not reload: " .. last_lines(result.stdout, 3)) end
    ctx.target:run { "rm", "-f", marks(self.name) }
  end,
  undo = function(self, ctx, old)
    if old.ref then ctx.unstash(old.ref, path_of(self)) end
    nginx.reload(ctx)
  end,
})

-- nginx.answers { port?, host?, path?, status }: nginx on the server gives this status.
nginx.answers = resource("nginx.answers", {
  args = { port = "integer?", host = "string?", path = "string?", status = "integer" },
  id = function(self) return ("%d on port %d%s"):format(self.status, self.port or 80, self.path or "/") end,
  probe = function(self, ctx)
    local out = ctx.target:run(("curl -s -o /dev/null --max-time 5 -w '%%{http_code}' -H %s http://127.0.0.1:%d%s; true")
      :format(quote("Host: " .. (self.host or "unknown.invalid")), self.port or 80, quote(self.path or "/"))).stdout
    if out == tostring(self.status) then return done() end
    return pending(("nginx answers %s on port %d, not %d"):format(out == "000" and "nothing" or out, self.port or 80, self.status))
  end,
  apply = function(self, ctx)
    local result = ctx.target:try(([[
i=0
while [ $i -lt 40 ]; do
  [ "$(curl -s -o /dev/null --max-time 5 -w '%%{http_code}' -H %s http://127.0.0.1:%d%s)" = %d ] && exit 0
  i=$((i + 1)); sleep 0.25
done; docker logs --tail 5 %s >&2; exit 1]]):format(quote("Host: " .. (self.host or "unknown.invalid")), self.port or 80,
      quote(self.path or "/"), self.status, quote(nginx.container)), { timeout = 90 })
    if not result.ok then fail("nginx", "nginx does not answer as it should: " .. last_lines(result.stderr, 3)) end
  end,
})

return nginx
