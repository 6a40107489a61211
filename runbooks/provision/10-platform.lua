-- 10-platform.lua: step 10: OpenClaw with the Safety Wrapper, the Secrets Proxy, and what is done inside
-- OpenClaw once. A server without tools gets none: there is nothing for agents to work with.
local home = "/home/node/.openclaw"

local function agents()
  local list, all = {}, data "openclaw/agents.lua"
  for i, a in ipairs(all) do
    list[i] = { id = a.id, name = a.name, role = a.role, text = a.text, default = i == 1, last = i == #all,
      workspace = home .. "/workspace-" .. a.id }
  end
  return list
end

local function config(p)
  local fallbacks = {}
  for i = 2, #p.models do fallbacks[i - 1] = p.models[i] end
  local part = catalog.platform.openclaw
  return { port = part.port, models = p.models, fallbacks = fallbacks, agents = agents(), extension = part.extension }
end

local function deploy(id, p)
  local resources = stack.resources(stack.get(id), p)
  if id == "openclaw" then
    local dir = stack.dir .. "/openclaw/config"
    table.insert(resources, #resources, directory.present { path = backup.status_dir, mode = "0755", owner = "root", group = "root" })
    table.insert(resources, #resources, directory.present { path = dir, mode = "0755", owner = "root", group = "root" })
    -- Its token comes from the environment: nothing in the file is secret.
    table.insert(resources, #resources, file.template { path = dir .. "/openclaw.json", template = "openclaw/openclaw.json",
      vars = config(p), mode = "0644", owner = "root", group = "root" })
  end
  return step { name = "platform/" .. id, title = catalog.part(id).name, class = "compensable", tags = { "platform" },
    resources = resources }
end

-- What was done inside OpenClaw stands in its own volume.
local volume = "openclaw-home"

local function marked(ctx, name, want) return marks.same(ctx, volume, name, want) end

local function mark(ctx, name, want) marks.set(ctx, volume, name, want) end

local function script_words(name)
  return { "docker", "exec", "-i", "letsbe-openclaw", ("/opt/letsbe/scripts/%s.sh"):format(name) }
end

-- The registry's input is the store itself, which stays on the server. Another volume is
-- another registry; a volume's own date changes with what is in it.
local seeded = ("$({ sha256sum <%s; docker volume inspect -f '{{.Mountpoint}}' openclaw-home secrets-proxy-data |"
  .. " xargs stat -c '%%i %%W'; } | sha256sum | cut -c1-64)"):format(credentials.path)

local function seed()
  return step {
    name = "platform/seed", title = "Secrets registry", class = "compensable", tags = { "platform" },
    probe = function(ctx)
      return marked(ctx, "seed-secrets", seeded) and done() or pending("seed the secrets registry from " .. credentials.path)
    end,
    apply = function(ctx)
      ctx.target:run(("%s <%s"):format(argv(script_words "seed-secrets"), credentials.path), { timeout = 120 })
      mark(ctx, "seed-secrets", seeded)
    end,
  }
end

-- Every deployed tool, as its agents reach it: on the loopback, and by name for people.
local function tools_of(p)
  local list = {}
  for _, id in ipairs(catalog.sorted(p.tools)) do
    local tool, s = catalog.get(id), stack.get(id)
    list[#list + 1] = s and {
      id = id, name = tool.name, url = tool.port and ("http://127.0.0.1:%d"):format(tool.port),
      public_url = tool.subdomain and ("https://%s.%s"):format(tool.subdomain, p.domain), containers = json.array(stack.containers(s)),
    } or nil
  end
  return json.array(list)
end

local function registry(p)
  local input = json.encode({ tenant = p.tenant, domain = p.domain, tools = tools_of(p) }, { sort = true })
  local want = crypto.sha256(input)
  return step {
    name = "platform/tool-registry", title = "tool-registry.json", class = "compensable", tags = { "platform" },
    probe = function(ctx)
      return marked(ctx, "tool-registry", want) and done() or pending("generate tool-registry.json from " .. table.concat(p.tools, ", "))
    end,
    apply = function(ctx)
      local words = script_words "generate-tool-registry"
      words.stdin, words.timeout = input, 120
      ctx.target:run(words)
      mark(ctx, "tool-registry", want)
    end,
  }
end

local function souls()
  local list = agents()
  local function wanted(ctx, agent) return ctx.render("openclaw/SOUL.md", { agent = agent }) end
  local function differing(ctx)
    local parts, missing = { marks.find(volume) }, {}
    for _, a in ipairs(list) do
      parts[#parts + 1] = ("[ \"$(sha256sum <\"$home\"/workspace-%s/SOUL.md 2>/dev/null | cut -c1-64)\" = %s ] && echo same %s\n"):format(
        a.id, crypto.sha256(wanted(ctx, a)), a.id)
    end
    local out = "\n" .. ctx.target:run(table.concat(parts) .. "true").stdout
    for _, a in ipairs(list) do
      if not out:find("\nsame " .. a.id .. "\n", 1, true) then missing[#missing + 1] = a end
    end
    return missing
  end
  return step {
    name = "platform/souls", title = "SOUL.md of each agent", class = "compensable", tags = { "platform" },
    probe = function(ctx)
      local names = {}
      for i, a in ipairs(differing(ctx)) do names[i] = a.id end
      return #names == 0 and done() or pending("write SOUL.md of " .. table.concat(names, ", "))
    end,
    apply = function(ctx)
      for _, a in ipairs(differing(ctx)) do
        ctx.target:run { "docker", "exec", "-i", "letsbe-openclaw", "sh", "-c",
          'umask 077; mkdir -p "$1" && cat >"$1/SOUL.md.new" && mv -f "$1/SOUL.md.new" "$1/SOUL.md"', "sh", a.workspace,
          stdin = wanted(ctx, a) }
      end
    end,
  }
end

-- Tools that are set up when they are new, in the runbook's order: by their own API or command,
-- else by the automation in OpenClaw's container.
local automated = { "calcom", "chatwoot", "keycloak", "nextcloud", "stalwart", "umami", "uptime-kuma" }

local function setup(id, p)
  local tool, s = catalog.get(id), stack.get(id)
  local url = ("http://127.0.0.1:%d"):format(tool.port)
  local order = { tool = id, url = url, public_url = ("https://%s.%s"):format(tool.subdomain, p.domain) }
  local input = json.encode(order, { sort = true })
  local want, name = crypto.sha256(input .. (s.setup or "")), "setup-" .. id
  return step {
    name = "platform/setup/" .. id, title = "First set-up of " .. tool.name, class = "compensable", tags = { "platform" },
    probe = function(ctx)
      return marked(ctx, name, want) and done() or pending("run the first set-up of " .. tool.name)
    end,
    apply = function(ctx)
      local words = s.setup and { "bash", "-s" } or script_words "setup"
      words.stdin, words.timeout = input, 300
      if s.setup then
        words.stdin = template.render("{{ head | raw }}{{ own | raw }}", { head = ctx.render("setup/head.sh", { url = url }),
          own = stack.setup(s, p, credentials.of(ctx, id, stack.secrets(s))) }, { name = name })
      end
      local result = ctx.target:try(words)
      ctx.state_set(name, { by = s.setup and "its own interface" or "automation", status = result.status })
      if result.ok then return mark(ctx, name, want) end
      ctx.warn(("the first set-up of %s failed with status %d; the next run tries again: %s"):format(tool.name, result.status,
        last_lines(result.stderr, 1)))
    end,
    -- What failed is a warning.
    verify = function() return true end,
  }
end

-- The server says of itself what nobody can ask it.
local function push(p)
  local dir = "/opt/letsbe/monitor"
  local words = { dir .. "/push.sh", tostring(catalog.get("uptime-kuma").port), tostring(monitors.disk),
    table.unpack(monitors.pushed(p.tools)) }
  return step {
    name = "platform/push", title = "Disk use, told to Uptime Kuma", class = "compensable", tags = { "platform" },
    resources = {
      directory.present { path = dir, mode = "0700", owner = "root", group = "root" },
      file.template { path = dir .. "/push.sh", template = "monitor/push.sh", mode = "0700", owner = "root", group = "root" },
      timer.present { name = "letsbe-push", description = "Disk use, told to Uptime Kuma", exec = table.concat(words, " "),
        every = monitors.every .. "s", after = "docker.service" },
    },
  }
end

-- Uptime Kuma has no command and no HTTP for its monitors: the container's automation has.
-- Without alert_url the target that is there stays.
local function watch(p)
  local list = monitors.of(p)
  local shown = { tool = "uptime-kuma", part = "monitors", url = ("http://127.0.0.1:%d"):format(catalog.get("uptime-kuma").port),
    monitors = json.array(list), notification = p.alert_url }
  local want = crypto.sha256(json.encode(shown, { sort = true }))
  return step {
    name = "platform/monitors", title = "Monitors of Uptime Kuma", class = "compensable", tags = { "platform" },
    probe = function(ctx) return marked(ctx, "monitors", want) and done() or pending(("tell Uptime Kuma of %d monitors"):format(#list)) end,
    apply = function(ctx)
      if not p.alert_url then ctx.warn "no alert_url was given: Uptime Kuma watches, and alerts nobody that it was not told of before" end
      local secrets = credentials.of(ctx, "uptime-kuma", stack.secrets(stack.get "uptime-kuma"))
      local words = script_words "setup"
      words.timeout = 300
      words.stdin = template.render('{"order":{{ order | raw }},"pushToken":{{ token | json }}}',
        { order = json.encode(shown, { sort = true }), token = secrets.UPTIME_KUMA_PUSH_TOKEN }, { name = "monitors" })
      local result = ctx.target:try(words)
      ctx.state_set("monitors", { status = result.status })
      if result.ok then return mark(ctx, "monitors", want) end
      ctx.warn(("Uptime Kuma did not take its monitors (status %d); the next run tries again: %s"):format(result.status,
        last_lines(result.stderr, 1)))
    end,
    verify = function() return true end,
  }
end

-- The pair by which the Hub is known here. Its private half goes to the Hub and into the sealed
-- copy: where the Hub did not take it, the next run makes and hands over another pair.
local function hub_key(p)
  local wanted_url = p.hub_url and p.hub_url:gsub("/+$", "")
  return step {
    name = "platform/hub-key", title = "The Hub's key pair", class = "compensable", tags = { "platform" },
    probe = function(ctx)
      local list = sealed.recipients(ctx, p.recipients)
      local line, to, url = sealed.public(ctx, "hub")
      if #list == 0 or line and to == table.concat(list, ",") and url == (wanted_url or url) then return done() end
      return pending("make the Hub's key pair" .. (wanted_url and " and hand its private half to " .. wanted_url or ""))
    end,
    apply = function(ctx)
      sealed.make_pair(ctx, "hub", sealed.recipients(ctx, p.recipients), wanted_url and function(public, private)
        local url, why = hub.hand_over(ctx, { public_key = public, private_key = private })
        if not url then
          ctx.warn(("the Hub at %s did not take its key (%s); the next run makes another pair and tries again"):format(wanted_url, why))
        end
        return url
      end)
      sealed.renew(ctx, ctx.secrets_of(credentials.path) or {})
    end,
    verify = function() return true end,
  }
end

local function register(p)
  local url = ("%s/api/v1/tenants/%s/registration"):format(p.hub_url:gsub("/+$", ""), p.tenant)
  local fields = { domain = p.domain, tools = json.array(catalog.sorted(p.tools)), version = catalog.platform.openclaw.tag }
  local body = json.encode(fields, { sort = true })
  local want = crypto.sha256(url .. body)
  return step {
    name = "platform/register", title = "Registration with the Hub", class = "compensable", tags = { "platform" },
    probe = function(ctx) return marked(ctx, "hub-register", want) and done() or pending("register with " .. p.hub_url) end,
    apply = function(ctx)
      local words = script_words "hub-register"
      words.timeout = 120
      words.stdin = template.render(
        '{"method":"PUT","url":{{ url | json }},"token":{{ token | json }},"key":{{ key | json }},"body":{{ body | raw }}}',
        { url = url, token = ctx.secret "runner_token", key = want, body = body }, { name = "registration" })
      local result = ctx.target:try(words)
      if not result.ok then
        ctx.warn(("the Hub at %s did not take the registration from the server (status %d); the next run tries again"):format(
          p.hub_url, result.status))
        -- Until then the Hub learns of it from here, by the outbox when it is silent.
        hub.report(ctx, { call = "registration", fields = fields })
        return
      end
      -- The proof that the Safety Wrapper registered is the Hub's own answer.
      local fine, answer = pcall(json.decode, result.stdout)
      ctx.state_set("registration", { url = url, answer = fine and answer or last_lines(result.stdout, 1) })
      mark(ctx, "hub-register", want)
    end,
    verify = function() return true end,
  }
end

-- What a tool itself hands out is made in the tool, by a person or an agent, and comes into the
-- store by config.json. Until then it is listed as missing.
local function tokens(p)
  local list = {}
  for _, id in ipairs(catalog.sorted(p.tools)) do
    for _, spec in ipairs(stack.issued(stack.get(id))) do
      list[#list + 1] = { key = credentials.key(id, spec.name), tool = catalog.get(id).name }
    end
  end
  return #list > 0 and step {
    name = "platform/tokens", title = "Tokens that tools hand out", class = "pure", tags = { "platform" },
    apply = function(ctx)
      local have, missing = ctx.secrets_of(credentials.path) or {}, json.array {}
      for _, item in ipairs(list) do
        if not have[item.key] then
          missing[#missing + 1] = item.key
          ctx.log(("missing: %s, which %s hands out; once it is in %s, a run takes it from there"):format(item.key, item.tool,
            p.config_json))
        end
      end
      ctx.state_set("missing tokens", missing)
    end,
  } or nil
end

return function(p)
  if #p.tools == 0 then return {} end
  local list, chosen = { deploy("openclaw", p), deploy("secrets-proxy", p), seed(), registry(p), souls() }, {}
  for _, id in ipairs(p.tools) do chosen[id] = true end
  for _, id in ipairs(automated) do
    -- What comes back from a backup has been set up.
    if chosen[id] and not p.restore then list[#list + 1] = setup(id, p) end
  end
  if chosen["uptime-kuma"] then
    list[#list + 1] = push(p)
    list[#list + 1] = watch(p)
  end
  list[#list + 1] = tokens(p)
  list[#list + 1] = hub_key(p)
  if p.hub_url then list[#list + 1] = register(p) end
  return list
end
