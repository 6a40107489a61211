-- ssh_move_spec.lua: the way from root on port 22 to the admin on 22022 never locks anybody
-- out: guard, ufw and sshd on a real server, each failure provoked for real.
local support = require "support.lbrun"
local vps = require "support.vps"

local book = [[
return runbook {
  name = "move", summary = "move SSH", sudo = true, params = { key = param.ssh_public_key {} },
  access = function() return { "letsbe-admin@:22022" } end,
  steps = function(p) return {
    step { name = "firewall", resources = {
      ufw.ssh_doors { port = 22022 }, ufw.allow { "80/tcp" },
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

local reset = [[
export DEBIAN_FRONTEND=noninteractive
command -v ufw >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends ufw sudo; } >/dev/null 2>&1
if [ ! -d /root/orig ]; then
  mkdir /root/orig; cp -a /etc/ssh /root/orig/ssh; cp -a /etc/ufw /root/orig/ufw; cp -a /etc/default/ufw /root/orig/default
fi
nft delete table inet spec 2>/dev/null
iptables -t raw -F PREROUTING
systemctl stop lbrun-guard.timer 2>/dev/null; systemctl disable --quiet lbrun-guard.timer lbrun-guard.service 2>/dev/null
ufw --force disable >/dev/null
rm -rf /etc/ssh /etc/ufw; cp -a /root/orig/ssh /etc/ssh; cp -a /root/orig/ufw /etc/ufw; cp -a /root/orig/default /etc/default/ufw
pkill -u letsbe-admin; userdel -r letsbe-admin 2>/dev/null
rm -rf /var/lib/lbrun /etc/sudoers.d/*
systemctl stop ssh.socket ssh.service
systemctl disable --quiet ssh.socket 2>/dev/null; systemctl enable --quiet ssh.service; systemctl start ssh.service
true
]]

-- The server drops what comes in on this port: a proof of it waits in vain.
local function block(port)
  return ("iptables -t raw -A PREROUTING -p tcp --dport %d -j DROP"):format(port)
end

for _, release in ipairs { "bookworm", "trixie" } do
  describe("moving SSH on " .. release .. " #vps #slow", function()
    local server, home, path, key
    setup(function()
      server = vps.up("move-" .. release, { release = release })
      key = support.slurp(server.key .. ".pub"):gsub("\n", "")
    end)
    teardown(function() server:down() end)
    before_each(function()
      home = support.home()
      path = home.runbook("move", book)
      server:exec(reset)
    end)
    after_each(function() home.remove() end)

    local function words(verb)
      return ("%s %s -t %s -i %s key=%s"):format(verb, path, server.url, server.key, support.quote(key))
    end
    local function on_server(command)
      return (server:exec(command):gsub("%s+$", ""))
    end
    local function ports()
      return on_server "ss -Hltn | awk '{ n = split($4, a, \":\"); print a[n] }' | grep -E '^(22|22022)$' | sort -un | tr '\\n' ' '"
    end
    local function state()
      return on_server "for s in armed confirmed fired; do [ -d /var/lib/lbrun/guard/ssh/$s ] && echo $s; done; true"
    end
    local function login(user, port)
      local _, status = server:ssh("true", { user = user, port = port })
      return status == 0
    end
    local function background(line)
      local p = io.popen(("env -u SSH_AUTH_SOCK HOME=%s XDG_STATE_HOME=%s/state %s %s >%s/bg.out 2>&1 </dev/null & echo $!")
        :format(home.dir, home.dir, support.binary, line, home.dir))
      local pid = p:read "l"
      p:close()
      return pid
    end
    local function wait_for(seconds, condition, what)
      for _ = 1, seconds * 5 do
        if condition() then return end
        os.execute "sleep 0.2"
      end
      error(("waited %d s in vain for %s"):format(seconds, what))
    end

    -- lbrun is killed while the guard is armed: the proof of the new port hangs.
    local function killed_while_armed()
      server:exec(block(22022))
      local pid = background(words "run")
      wait_for(40, function() return state():find "armed" and ports() == "22 22022" end, "an armed guard")
      os.execute("kill -9 " .. pid)
      return support.slurp(home.dir .. "/bg.out"):match "move%-%w+"
    end

    it("ends with the admin on the new port alone, and a second run changes nothing", function()
      local r = home.run(words "run")
      assert.are.equal(0, r.exit, r.out .. r.err)
      assert.are.equal("22022", ports())
      assert.is_true(login("letsbe-admin", "22022"))
      assert.is_false(login("root", "22022"))
      assert.are.equal("filtered", server:scan "22"[22])
      assert.are.equal("confirmed", state())
      r = home.run(words "run")
      assert.are.equal(0, r.exit, r.out .. r.err)
      assert.is_truthy(r.out:find "0 changed", r.out)
    end)

    it("undo opens the old door first and ends where it began", function()
      local r = home.run(words "run")
      assert.are.equal(0, r.exit, r.out .. r.err)
      r = home.run("undo " .. r.id .. " -y")
      assert.is_true(r.exit == 0 or r.exit == 3, r.out .. r.err)
      assert.are.equal("22", ports())
      assert.is_true(login("root", "22"))
      assert.are.equal("Status: inactive", on_server "ufw status | head -1")
    end)

    it("a file that overrides the hardening is named, and the guard restores what stood before", function()
      server:exec "printf 'MaxAuthTries 6\\n' >/etc/ssh/sshd_config.d/00-aaa.conf"
      local r = home.run(words "run")
      assert.are.equal(6, r.exit, r.out .. r.err)
      assert.is_truthy((r.out .. r.err):find "maxauthtries", r.out .. r.err)
      assert.is_truthy((r.out .. r.err):find "guard has put the old", r.out .. r.err)
      assert.is_true(login("root", "22"))
      assert.are.equal("fired", state())
      server:exec "rm /etc/ssh/sshd_config.d/00-aaa.conf"
      r = home.run("resume " .. r.id)
      assert.are.equal(3, r.exit, r.out .. r.err)
      assert.are.equal("22022", ports())
    end)

    it("a configuration that was broken before is not touched", function()
      server:exec "echo Bogus yes >/etc/ssh/sshd_config.d/50-bad.conf"
      local r = home.run(words "run")
      assert.are.equal(5, r.exit, r.out .. r.err)
      assert.is_truthy((r.out .. r.err):find "broken already", r.out .. r.err)
      assert.are.equal("", on_server "ls /etc/ssh/sshd_config.d | grep lbrun; true")
      assert.are.equal("22", ports())
    end)

    it("a firewall that shuts the new port leaves the old one as it was", function()
      server:exec "sed -i '/^# End required lines/a -A ufw-before-input -p tcp --dport 22022 -m conntrack --ctstate NEW -j DROP' /etc/ufw/before.rules"
      local r = home.run(words "run")
      assert.are.equal(5, r.exit, r.out .. r.err)
      assert.is_truthy((r.out .. r.err):find "was not proved", r.out .. r.err)
      assert.are.equal("22", ports())
      assert.is_true(login("root", "22"))
    end)

    it("an admin who may not use sudo is found out before the old door is shut", function()
      server:exec "printf 'letsbe-admin ALL=(ALL:ALL) PASSWD: ALL\\n' >/etc/sudoers.d/zz-house; chmod 440 /etc/sudoers.d/zz-house"
      local r = home.run(words "run")
      assert.are.equal(5, r.exit, r.out .. r.err)
      assert.is_truthy((r.out .. r.err):find "sudo", r.out .. r.err)
      assert.are.equal("22", ports())
      assert.is_true(login("root", "22"))
    end)

    it("where systemd's socket listens, the socket is taken out of the way", function()
      server:exec "systemctl disable --quiet ssh.service; systemctl stop ssh.service; systemctl enable --quiet --now ssh.socket"
      assert.is_true(login("root", "22"))
      local r = home.run(words "run")
      assert.are.equal(0, r.exit, r.out .. r.err)
      assert.are.equal("22022", ports())
      assert.are.equal("inactive", on_server "systemctl is-active ssh.socket")
      server:reboot()
      assert.are.equal("22022", ports())
      assert.is_true(login("letsbe-admin", "22022"))
    end)

    it("where systemd's socket listened, a guard that fires and an undo give the port back to it", function()
      server:exec "systemctl stop ssh.service; systemctl disable --quiet ssh.service; systemctl enable --quiet --now ssh.socket"
      server:exec "printf 'letsbe-admin ALL=(ALL:ALL) PASSWD: ALL\\n' >/etc/sudoers.d/zz-house; chmod 440 /etc/sudoers.d/zz-house"
      local r = home.run(words "run")
      assert.are.equal(5, r.exit, r.out .. r.err)
      assert.are.equal("22", ports())
      assert.are.equal("active enabled disabled", (on_server
        "systemctl is-active ssh.socket; systemctl is-enabled ssh.socket ssh.service":gsub("\n", " ")))
      assert.is_true(login("root", "22"))
      server:exec "rm /etc/sudoers.d/zz-house"
      r = home.run("resume " .. r.id)
      assert.are.equal(3, r.exit, r.out .. r.err)
      assert.are.equal("22022", ports())
      r = home.run("undo " .. r.id .. " -y")
      assert.is_true(r.exit == 0 or r.exit == 3, r.out .. r.err)
      assert.are.equal("22", ports())
      assert.are.equal("active", on_server "systemctl is-active ssh.socket")
      assert.is_true(login("root", "22"))
    end)

    it("a port and an AllowUsers of another file do not stay beside ours", function()
      server:exec "printf 'Port 2200\\nAllowUsers root\\n' >>/etc/ssh/sshd_config; printf 'PasswordAuthentication yes\\n' >/etc/ssh/sshd_config.d/50-cloud-init.conf; systemctl restart ssh; echo 'Port 22' >>/etc/ssh/sshd_config; systemctl restart ssh"
      local r = home.run(words "run")
      assert.are.equal(0, r.exit, r.out .. r.err)
      assert.are.equal("22022", on_server "sshd -T | awk '$1 == \"port\" { print $2 }'")
      assert.are.equal("letsbe-admin", on_server "sshd -T | awk '$1 == \"allowusers\" { print $2 }'")
    end)

    it("lbrun killed while the guard is armed: the server puts the old state back by itself, and resume says so", function()
      local id = killed_while_armed()
      wait_for(120, function() return state() == "fired" end, "the guard to fire")
      wait_for(5, function() return ports() == "22" end, "sshd on its old port alone")
      assert.is_true(login("root", "22"))
      server:exec "iptables -t raw -F PREROUTING"
      local r = home.run("resume " .. id)
      assert.are.equal(3, r.exit, r.out .. r.err)
      assert.is_truthy((r.out .. r.err):find "had fired", r.out .. r.err)
      assert.are.equal("22022", ports())
    end)

    it("a reboot while the guard is armed brings the old state back at boot", function()
      local id = killed_while_armed()
      server:exec "sync"
      server:reboot()
      assert.are.equal("fired", state())
      assert.are.equal("22", ports())
      assert.is_true(login("root", "22"))
      local r = home.run("resume " .. id)
      assert.are.equal(3, r.exit, r.out .. r.err)
      assert.are.equal("22022", ports())
    end)

    it("lbrun killed while the guard is armed: a resume in time goes on and keeps the first copies", function()
      local id = killed_while_armed()
      server:exec "iptables -t raw -F PREROUTING"
      local r = home.run("resume " .. id)
      assert.are.equal(0, r.exit, r.out .. r.err)
      assert.is_truthy(home.run("log " .. id).out:find "armed again")
      assert.are.equal("22022", ports())
      assert.are.equal("confirmed", state())
      os.execute "sleep 95"
      assert.are.equal("22022", ports())
    end)
  end)
end
