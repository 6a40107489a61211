-- remote.lua: a tenant's backups on an rclone remote: its configuration on the server, and
-- the calls of templates/backup/remote.sh. Which backups are kept is backup.lua's affair.

local remote = {}

remote.config = credentials.dir .. "/rclone.conf"
remote.logs = "/var/log/letsbe"

-- remote.target(p) -> where the tenant's backups lie
function remote.target(p)
  return ("remote:backups/%s"):format(p.tenant)
end

-- remote.params(more?) -> the parameters that a runbook with a remote has, and its own
function remote.params(more)
  local all = {
    tenant = param.string { optional = true, pattern = "^[a-z][a-z0-9-]*$", max = 40,
      description = "the customer's short name, which the remote copies stand under" },
    remote_config = param.secret { optional = true,
      description = "an rclone configuration with a section [remote], kept on the server as " .. remote.config },
  }
  for name, one in pairs(more or {}) do all[name] = one end
  return all
end

local function given(ctx)
  local fine, secret = pcall(ctx.secret, "remote_config")
  return fine and secret or nil
end

-- remote.known(ctx): the server has a remote, or is given one by this run
function remote.known(ctx)
  return given(ctx) ~= nil or ctx.target:exists(remote.config)
end

-- remote.check(ctx): for a preflight: a remote needs the name that its copies stand under.
function remote.check(ctx)
  if not ctx.params.tenant and remote.known(ctx) then
    fail("usage", "tenant is needed: the remote copies stand under its name; nothing was changed")
  end
end

local function wanted(ctx)
  return file.content { path = remote.config, content = given(ctx), mode = "0600", owner = "root", group = "root",
    check = [[grep -qx '\[remote\]' "$1" || { echo 'it has no section [remote]'; exit 1; }]] }
end

-- remote.configured {}: the server has the configuration that the run was given; done where
-- it was given none.
remote.configured = resource("remote.configured", {
  args = {},
  id = function() return remote.config end,
  probe = function(_, ctx)
    if not given(ctx) then return done() end
    local one = wanted(ctx)
    return one.def.probe(one.self, ctx)
  end,
  apply = function(_, ctx)
    local one = wanted(ctx)
    ctx.target:run(("mkdir -p -m 0755 /opt/letsbe && mkdir -p %s && chmod 0700 %s"):format(credentials.dir, credentials.dir))
    one.def.apply(one.self, ctx)
  end,
})

local rotate = [[
/var/log/letsbe/*.log {
	weekly
	rotate 8
	maxsize 50M
	compress
	delaycompress
	missingok
	notifempty
	create 0640 root adm
}
]]

-- remote.step(tags?): its program, its configuration and a log that does not grow for ever
function remote.step(tags)
  return step {
    name = "remote/program", title = "rclone and its configuration", class = "reversible", tags = tags,
    resources = {
      apt.installed { "rclone", "jq", "logrotate" },
      directory.present { path = remote.logs, mode = "0750", owner = "root", group = "adm" },
      file.content { path = "/etc/logrotate.d/letsbe", content = rotate, mode = "0644", owner = "root", group = "root" },
      remote.configured {},
    },
  }
end

local function words_of(ctx, verb, more)
  local words = { "bash", "-c", ctx.source "backup/remote.sh", "remote.sh", verb, remote.config, remote.target(ctx.params) }
  table.move(more, 1, #more, #words + 1, words)
  return words
end

-- remote.list(ctx) -> list of { name, complete } of what lies there
function remote.list(ctx)
  local all, by_name = {}, {}
  for name, what in ctx.target:run(words_of(ctx, "list", {}), { timeout = 600 }).stdout:gmatch("([^\t\n]+)\t(%a+)\n") do
    if not by_name[name] then
      by_name[name] = { name = name, complete = false }
      all[#all + 1] = by_name[name]
    end
    if what == "whole" then by_name[name].complete = true end
  end
  return all
end

-- remote.act(ctx, "send", NAME, DAY), ("drop", NAME...), ("fetch", NAME, TO, TOOL?), ("keep", FILE,
-- NAME): as a job
function remote.act(ctx, verb, ...)
  return ctx.target:job(words_of(ctx, verb, { ... }), { name = verb, timeout = "24h" })
end

return remote
