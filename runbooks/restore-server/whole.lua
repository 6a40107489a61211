-- whole.lua: a bare server that becomes the tenant's from the remote copy, with the recovery key
-- alone: what restore-server.lua and drill.lua have in common. It judges nothing.

-- It lies where a restore's sweep does not come, and is gone at the end.
local sealed_copy = "/var/lib/lbrun/recovery.enc"

-- whole(of_provisioning) -> what such a runbook is made of; given the lists of provisioning's parameters
return function(of_provisioning)
  local whole = { sealed_copy = sealed_copy }

  -- whole.params(more?) -> those of provisioning, what says where the backups are, and its own
  function whole.params(more)
    local all = {
      date = param.string { optional = true, pattern = "^%d%d%d%d%-%d%d%-%d%d$", description = "the backup's day; the newest if left out" },
      remote_config = param.secret { description = "an rclone configuration with a section [remote], where the backups are" },
      recovery_key = param.secret { description = "the age identity that the credentials were sealed to" },
    }
    for _, list in ipairs(of_provisioning) do
      for name, one in pairs(list) do all[name] = one end
    end
    for name, one in pairs(more or {}) do all[name] = one end
    return all
  end

  -- whole.preflight(ctx): the server is bare, and the key is one
  function whole.preflight(ctx)
    local fine, why = pcall(crypto.age_recipient, ctx.secret "recovery_key")
    if not fine then fail("key", ("recovery_key is no age identity (%s); nothing was changed"):format(tostring(why))) end
    if ctx.target:exists(stack.dir) and not ctx.target:exists(sealed_copy) then
      fail("usage", ("this server has tools already (%s): a server is restored onto a bare one; nothing was changed"):format(stack.dir))
    end
  end

  -- The tenant's own words for its server, for a child run of provisioning.
  local function given(ctx, adapt)
    local values = {}
    for _, list in ipairs(of_provisioning) do
      for name, one in pairs(list) do
        if one.kind ~= "secret" then values[name] = ctx.params[name] end
      end
    end
    values.tools = ctx.state_get("tools")
    values.restore, values.sealed_copy = true, sealed_copy
    if #values.recipients == 0 then values.recipients = { crypto.age_recipient(ctx.secret "recovery_key") } end
    if adapt then adapt(values) end
    return values
  end

  local function fetch_step(p)
    return step { name = "copy", title = "The remote copy", class = "compensable",
      probe = function(ctx)
        if ctx.state_get("tools") and ctx.target:exists(sealed_copy) then return done() end
        return pending((p.date and "the backup of " .. p.date or "the newest backup") .. " in " .. remote.target(p))
      end,
      apply = function(ctx)
        ctx.state_set("began", ctx.state_get("began") or ctx.now())
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
        local counts = {}
        for _, id in ipairs(tools) do
          if manifest.parts[id] then counts[id] = evidence.counts(manifest.parts[id]) end
        end
        ctx.state_set("day", manifest.date)
        ctx.state_set("made", manifest.began)
        ctx.state_set("counts", counts)
        ctx.state_set("tools", tools)
      end }
  end

  local function child(name, title, make)
    return step { name = name, title = title, class = "compensable", rerun = true, apply = function(ctx) ctx.child(make(ctx)) end }
  end

  -- whole.steps(p, { adapt?, first?, restored? }) -> the steps up to a server that provisioning has
  -- verified. adapt(values) changes what the child runs are given, `first` is a step before
  -- provisioning, `restored` one between the data and its second run.
  function whole.steps(p, o)
    local function provisioning(ctx) return { runbook = "provision.lua", params = given(ctx, o.adapt) } end
    local list = {
      step { name = "lists", title = "Package lists", class = "compensable", resources = { apt.updated { max_age = "1d" } } },
      remote.step(),
      fetch_step(p),
    }
    list[#list + 1] = o.first
    list[#list + 1] = child("provision", "The server, with empty stacks", provisioning)
    list[#list + 1] = child("restore", "The data of every tool", function(ctx)
      return { runbook = "restore.lua", params = { all = true, from = "remote", date = ctx.state_get("day"), tenant = p.tenant,
        hub_url = given(ctx, o.adapt).hub_url } }
    end)
    list[#list + 1] = o.restored
    list[#list + 1] = child("verify", "Provisioning again, and its verification", provisioning)
    list[#list + 1] = step { name = "end", title = "Without the sealed copy", class = "compensable",
      probe = function(ctx)
        local left = ctx.target:exists(sealed_copy) or ctx.target:exists(copies.fetched(ctx))
        return left and pending("remove it") or done()
      end,
      apply = function(ctx) ctx.target:run { "rm", "-rf", sealed_copy, copies.fetched(ctx) } end }
    return list
  end
  return whole
end
