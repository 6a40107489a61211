-- scp.lua: netcup's interfaces as runbooks see them (`scp`): every method of the client, which
-- raises; a plan only reads. The login is the operator's own. It knows no operation's meaning.
local util = require "lb.util"
local web = require "lb.web"

local scp = {}

-- true: it reads; false: it changes something.
local panel = {
  servers = true, server = true, snapshots = true, snapshot = true, snapshot_check = true, metrics = true, rdns = true,
  rescue = true, image_flavours = true, find_image = true, ssh_keys = true, tasks = true, task = true, wait = true, whoami = true,
  power = false, set_nickname = false, set_hostname = false, set_rdns = false, delete_rdns = false, snapshot_create = false,
  snapshot_revert = false, snapshot_delete = false, snapshot_export = false, rescue_on = false, rescue_off = false,
  reinstall = false, add_ssh_key = false, delete_ssh_key = false, cancel_task = false,
}
local zones = { zone = true, dns_records = true, set_zone_ttl = false, dns_update = false, dns_logout = true }

-- What passes by itself, or when a person has logged in.
local passing = { connect = true, resolve = true, tls = true, timeout = true, aborted = true, maintenance = true,
  rate_limited = true, busy = true, server = true, protocol = true, locked = true }
-- What the person has to do then.
local remedy = { panel = "lbrun netcup login", zones = "valid credentials of netcup's DNS interface (man lbrun, netcup-dns.json)" }
local login = { auth_failed = true, denied = true, access_denied = true, expired_token = true, store = true }

local function raise(err, kind)
  if err.code == "interrupted" then util.raise("interrupted", "interrupted while netcup was asked") end
  util.raise(login[err.code] and "key" or "netcup", tostring(err), { why = err.code, reason = err.reason, state = err.state,
    passing = passing[err.code] or false, login = login[err.code] and remedy[kind] or false })
end

-- scp.new(env) -> methods. The client is opened at the first call: a runbook that asks
-- nothing needs no login.
function scp.new(env)
  local patience = 60 -- of one call; a runbook that waits longer parks
  local clients = {}
  local function client(kind)
    if not clients[kind] then
      local netcup = require "lb.netcup"
      local more = kind == "zones" and netcup.credentials() or {}
      more.patience = patience
      clients[kind] = netcup.open(more)
    end
    return clients[kind]
  end
  local methods = {}
  for kind, list in pairs { panel = panel, zones = zones } do
    for name, reads in pairs(list) do
      methods[name] = function(...)
        if not reads and web.reading(env) then util.misuse(("a plan does not call scp.%s"):format(name)) end
        local c = client(kind)
        local value, err = c[name](c, ...)
        if value == nil and err ~= nil then raise(err, kind) end
        return value
      end
    end
  end
  return methods
end

return scp
