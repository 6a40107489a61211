-- firewall_spec.lua: ufw that stood before us, with a limit on SSH, is there again after an
-- undo, and lets in who comes anew. The move of SSH itself is ssh_move_spec.lua's.
local support = require "support.lbrun"
local vps = require "support.vps"

local book = [[
return runbook {
  name = "move", summary = "move SSH", sudo = true, params = { key = param.ssh_public_key {} },
  access = function() return { "letsbe-admin@:22022" } end,
  steps = function(p) return {
    step { name = "firewall", resources = {
      ufw.ssh_doors { port = 22022 }, ufw.allow { "80/tcp", "443/tcp" },
      ufw.default { incoming = "deny", outgoing = "allow" }, ufw.docker_closed {}, ufw.enabled {} } },
    step { name = "admin", resources = {
      user.present { name = "letsbe-admin", shell = "/bin/bash" },
      authorized_keys.present { user = "letsbe-admin", keys = { p.key } },
      sudoers.passwordless { user = "letsbe-admin" } } },
    step { name = "ssh", resources = {
      sshd.also_on { port = 22022, user = "letsbe-admin" },
      sshd.hardened { port = 22022, user = "letsbe-admin" },
      ufw.only_ssh { port = 22022, user = "letsbe-admin" } } },
  } end }
]]

describe("a firewall that was on before #vps #slow", function()
  local server, home, path, key
  setup(function()
    server = vps.up("firewall", { release = "bookworm" })
    key = support.slurp(server.key .. ".pub"):gsub("\n", "")
    server:exec [[
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq --no-install-recommends ufw sudo >/dev/null 2>&1]]
  end)
  teardown(function() server:down() end)
  before_each(function()
    home = support.home()
    path = home.runbook("move", book)
  end)
  after_each(function() home.remove() end)

  local function words(verb)
    return ("%s %s -t %s -i %s key=%s"):format(verb, path, server.url, server.key, support.quote(key))
  end
  local function on_server(command)
    return (server:exec(command):gsub("%s+$", ""))
  end
  local function added()
    return on_server "ufw show added | grep '^ufw' | sort"
  end

  it("and sshd's folder are looked at by a plan, which makes neither", function()
    local plan = home.runbook("plan", [[
return runbook { name = "plan", summary = "x", sudo = true, steps = {
  -- As where systemd's socket listens and no session is there.
  step { name = "gone", probe = function(ctx) ctx.root:run("rm -rf /run/sshd") return done() end, apply = function() end },
  step { name = "ssh", resources = {
    sshd.also_on { port = 22022, user = "letsbe-admin" }, sshd.hardened { port = 22022, user = "letsbe-admin" } } } } }]])
    local r = home.run(("plan %s -t %s -i %s"):format(plan, server.url, server.key))
    local there = on_server "ls -d /run/sshd 2>&1; mount | grep -c '^lbrun '; mkdir -m 0755 /run/sshd"
    assert.are.equal(0, r.exit, r.out .. r.err)
    assert.is_truthy(r.out:find("+Port 22022", 1, true), r.out)
    assert.is_nil((r.out .. r.err):find("broken", 1, true), r.out .. r.err)
    assert.is_truthy(there:find("cannot access", 1, true), there)
    assert.is_truthy(there:find("\n0", 1, true), there)
  end)

  it("with a limit on SSH and a port refused: both are back after an undo, and a new connection gets in", function()
    server:exec "ufw limit 22/tcp comment mine; ufw reject 80/tcp; ufw default deny incoming; ufw --force enable"
    local stood = added()
    assert.is_truthy(stood:find("ufw limit 22/tcp", 1, true), stood)
    local r = home.run(words "run")
    assert.are.equal(0, r.exit, r.out .. r.err)
    local now = added()
    assert.is_nil(now:find("22/tcp comment 'mine'", 1, true), now)
    assert.is_truthy(now:find("ufw allow 80/tcp", 1, true), now)
    r = home.run("undo " .. r.id .. " -y")
    assert.is_true(r.exit == 0 or r.exit == 3, r.out .. r.err)
    assert.are.equal(stood, added())
    assert.are.equal("Status: active", on_server "ufw status | head -1")
    local _, status = server:ssh("true", { user = "root", port = "22" })
    assert.are.equal(0, status)
  end)
end)
