-- provision.lua: turns a bare VPS into a tenant server (steps 1 to 10 of the runbook's
-- section 3.2, and the verification of 3.4). Each step is a file of the folder of this name.

local supported = {
  ["ubuntu 22.04"] = true, ["ubuntu 24.04"] = true, ["debian 12"] = true, ["debian 13"] = true,
}

-- Type and body of a public key line, without its comment.
local function key_of(line)
  local kind, body = line:match("([%w@.-]+)%s+(AAAA[%w+/]+=*)")
  return kind and kind .. " " .. body
end

-- Where the credentials come from and who can open their copy when the server is lost.
local function check_credentials(ctx)
  local p = ctx.params
  if #p.recipients > 0 then
    crypto.age_check(p.recipients)
  elseif #p.tools > 0 and #sealed.recipients(ctx) == 0 then
    ctx.warn("no recipients are given: there is no sealed copy of the credentials, they are lost with the server")
  end
  if p.restore and not pcall(ctx.secret, "recovery_key") and not ctx.target:exists(credentials.path) then
    fail("key", ("a restore takes its credentials from a sealed copy: give recovery_key=@FILE (mode 0600), the age identity that "
      .. "opens %s; nothing was changed"):format(p.sealed_copy))
  end
end

-- Everything that can be known to go wrong is refused here, before the first change.
local function preflight(ctx)
  local facts, p = ctx.facts, ctx.params
  if not supported[facts.os_id .. " " .. facts.os_version] then
    fail("unsupported", ("%s is not supported: provisioning knows Ubuntu 22.04 and 24.04, Debian 12 and 13; nothing was changed")
      :format(facts.pretty))
  end
  if facts.init ~= "systemd" then
    fail("unsupported", ("the server runs %s instead of systemd as its init; nothing was changed"):format(facts.init))
  end
  if ctx.root:run("id -u").stdout ~= "0\n" then
    fail("sudo", "root is needed, by login or by sudo without a password; nothing was changed")
  end
  local identities = ctx.identities()
  if identities then
    local wanted, known = key_of(p.admin_ssh_public_key), false
    for _, line in ipairs(identities) do
      if type(line) == "table" then line = line.key or line.public end
      known = known or key_of(line) == wanted
    end
    if not known then
      fail("key", "admin_ssh_public_key belongs to no key that this lbrun can log in with: after hardening it would be "
        .. "locked out. Name the private half with --identity, or load it into the agent; nothing was changed")
    end
  end
  for _, text in ipairs(catalog.shortfalls(p.tier, facts)) do ctx.warn("the server is smaller than its tier: " .. text) end
  for _, text in ipairs(catalog.memory_warnings(p.tools, p.tier, facts)) do ctx.warn(text) end
  for _, id in ipairs(p.tools) do
    if not stack.get(id) then ctx.warn(("there is no stack for %s: it is not deployed"):format(id)) end
  end
  hub.check(ctx)
  check_credentials(ctx)
end

local function with(params)
  for _, file in ipairs { "server", "params" } do
    for name, p in pairs(include("provision/" .. file)) do params[name] = p end
  end
  return params
end

return runbook {
  name = "provision", summary = "Turn a bare VPS into a tenant server", section = "3.2", sudo = true,
  params = with {
    restore = param.boolean { default = false, description = "stacks come up empty, to be filled from a backup" },
    sealed_copy = param.string { default = "/opt/letsbe/env/credentials.enc", pattern = "^/.",
      description = "with restore: the sealed credentials, a file on the server" },
    remote_config = param.secret { optional = true,
      description = "an rclone configuration with a section [remote], where the server sends its backups" },
    recovery_key = param.secret { optional = true, description = "with restore: the age identity that opens sealed_copy" },
  },
  access = function(p) return { ("%s@:%d"):format(p.admin_user, p.ssh_port) } end,
  preflight = preflight,
  steps = function(p)
    local list = { include("provision/00-config")(p) }
    for i, name in ipairs { "01-packages", "02-docker", "03-services", "04-nginx", "05-firewall", "06-admin", "07-ssh", "08-updates" } do
      list[i + 1] = include("provision/" .. name)(p)
    end
    for _, file in ipairs { "09-stacks", "10-platform", "11-backups", "11-verify" } do
      for _, one in ipairs(include("provision/" .. file)(p)) do list[#list + 1] = one end
    end
    if p.hub_url and p.report_job then
      list[#list + 1] = step {
        name = "report", title = "Report to the Hub", class = "pure", tags = { "verify" },
        resources = { hub.reported { call = "job", fields = { status = "COMPLETED" } } },
      }
    end
    return list
  end,
  on_failure = function(ctx, why)
    if not ctx.params.report_job then return end
    hub.report(ctx, { call = "job", fields = { status = "FAILED", step = why.step, message = why.message }, key = "failed " .. why.number })
  end,
}
