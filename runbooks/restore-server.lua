-- restore-server.lua: a bare new server becomes the tenant's from the remote copy, with the recovery
-- key alone (section 5.2): the credentials out of their sealed copy, provisioning with empty
-- stacks, the data of every tool, provisioning again, which must find nothing amiss. It
-- orders no server and changes no name in the DNS.

-- It lies where a restore's sweep does not come, and is gone at the end.
local sealed_copy = "/var/lib/lbrun/recovery.enc"

local function params()
  local all = {}
  for _, file in ipairs { "server", "params" } do
    for name, p in pairs(include("provision/" .. file)) do all[name] = p end
  end
  all.date = param.string { optional = true, pattern = "^%d%d%d%d%-%d%d%-%d%d$", description = "the backup's day; the newest if left out" }
  all.remote_config = param.secret { description = "an rclone configuration with a section [remote], where the backups are" }
  all.recovery_key = param.secret { description = "the age identity that the credentials were sealed to" }
  return all
end

-- The tenant's own words for its server, for a child run of provisioning.
local function given(ctx)
  local values = {}
  for _, file in ipairs { "server", "params" } do
    for name, p in pairs(include("provision/" .. file)) do
      if p.kind ~= "secret" then values[name] = ctx.params[name] end
    end
  end
  values.tools = ctx.state_get("tools")
  values.restore, values.sealed_copy = true, sealed_copy
  if #values.recipients == 0 then values.recipients = { crypto.age_recipient(ctx.secret "recovery_key") } end
  return values
end

local function fetch_step(p)
  return step { name = "copy", title = "The remote copy", class = "compensable",
    probe = function(ctx)
      if ctx.state_get("tools") and ctx.target:exists(sealed_copy) then return done() end
      return pending((p.date and "the backup of " .. p.date or "the newest backup") .. " in " .. remote.target(p))
    end,
    apply = function(ctx)
      local began = ctx.state_get("began") or ctx.now()
      ctx.state_set("began", began)
      local from = copies.choose(ctx, { tool = "credentials", date = p.date, from = "remote" })
      local manifest = copies.manifest(ctx, from)
      local tools, left = {}, {}
      for _, id in ipairs(catalog.names()) do
        if manifest.parts[id] then tools[#tools + 1] = id end
      end
      if #p.tools > 0 then
        local wanted = {}
        for _, id in ipairs(p.tools) do wanted[id] = true end
        for _, id in ipairs(tools) do
          if not wanted[id] then left[#left + 1] = id end
        end
        tools = p.tools
      end
      if #left > 0 then ctx.warn(("in the backup and not asked for: %s"):format(table.concat(left, ", "))) end
      if #tools == 0 then fail("not_found", ("there is no tool in the backup %s; no tool was deployed"):format(from:match("[^/]+$"))) end
      ctx.target:run(("umask 077; mkdir -p /var/lib/lbrun && cp %s %s.new && sync %s.new && mv -fT %s.new %s"):format(
        quote(from .. "/credentials.enc"), sealed_copy, sealed_copy, sealed_copy, sealed_copy))
      ctx.log(("the backup of %s, made on %s: %s"):format(manifest.began, manifest.host or "?", table.concat(tools, ", ")))
      ctx.state_set("day", manifest.date)
      ctx.state_set("made", manifest.began)
      ctx.state_set("tools", tools)
    end }
end

local function child(name, title, make)
  return step { name = name, title = title, class = "compensable", rerun = true, apply = function(ctx) ctx.child(make(ctx)) end }
end

return runbook {
  name = "restore-server", summary = "Make a bare server the tenant's again, from the remote copy", section = "5.2", sudo = true,
  params = params(),
  access = function(p) return { ("%s@:%d"):format(p.admin_user, p.ssh_port) } end,
  preflight = function(ctx)
    local fine, why = pcall(crypto.age_recipient, ctx.secret "recovery_key")
    if not fine then fail("key", ("recovery_key is no age identity (%s); nothing was changed"):format(tostring(why))) end
    if ctx.target:exists(stack.dir) and not ctx.target:exists(sealed_copy) then
      fail("usage", ("this server has tools already (%s): a server is restored onto a bare one; nothing was changed"):format(stack.dir))
    end
    hub.check(ctx)
  end,
  steps = function(p)
    local list = {
      step { name = "lists", title = "Package lists", class = "compensable", resources = { apt.updated { max_age = "1d" } } },
      remote.step(),
      fetch_step(p),
      child("provision", "The server, with empty stacks", function(ctx) return { runbook = "provision.lua", params = given(ctx) } end),
      child("restore", "The data of every tool", function(ctx)
        return { runbook = "restore.lua", params = { all = true, from = "remote", date = ctx.state_get("day"), tenant = p.tenant } }
      end),
      child("verify", "Provisioning again, and its verification", function(ctx)
        return { runbook = "provision.lua", params = given(ctx) }
      end),
      step { name = "end", title = "Without the sealed copy", class = "compensable",
        probe = function(ctx)
          local left = ctx.target:exists(sealed_copy) or ctx.target:exists(copies.fetched(ctx))
          return left and pending("remove it") or done()
        end,
        apply = function(ctx) ctx.target:run { "rm", "-rf", sealed_copy, copies.fetched(ctx) } end },
      step { name = "times", title = "How long it took", class = "pure", rerun = true, apply = function(ctx)
        ctx.log(("%d minutes; the data is of %s. Left to a person: the names in the DNS, if the address is another"):format(
          (ctx.now() - ctx.state_get("began")) // 60, ctx.state_get("made")))
      end },
    }
    if p.hub_url then
      list[#list + 1] = step { name = "hub", title = "The Hub's record of the server", class = "pure", resources = {
        hub.reported { call = "connection", fields = function(ctx)
          return { host = ctx.target.url:match("@?%[?([%w.:-]-)%]?:%d+$") or ctx.facts.hostname, port = p.ssh_port, user = p.admin_user }
        end } } }
    end
    return list
  end,
}
