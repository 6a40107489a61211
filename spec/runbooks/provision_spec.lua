-- provision_spec.lua: a bare Debian 12 becomes a tenant server, steps 1 to 8; the second
-- run finds nothing to do. Debian 13, kills and full disks have files of their own.
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"

describe("provisioning Debian 12 #vps", function()
  local server, home, bare, planned, run
  setup(function()
    server = vps.up("prov-bookworm", { images = provision.images })
    home = support.home()
  end)
  teardown(function()
    server:down()
    home.remove()
  end)

  local function inside(command)
    return (server:exec(command))
  end

  local function unchanged(what)
    local now = provision.untouched(server)
    assert(now == bare, what .. " changed the server:\n" .. provision.difference(bare, now))
  end

  describe("before the first change", function()
    setup(function() bare = provision.untouched(server) end)

    it("refuses an unknown tool by its name, without asking the server", function()
      local r = home.run(provision.args(server, { url = "ssh://root@192.0.2.1:22", more = "tools=nextcloud,nextclowd" }))
      assert.equal(2, r.exit, r.err)
      assert.matches("nextclowd", r.err)
      assert.matches("tools", r.err)
    end)

    it("refuses an admin key that none of its identities belongs to (12)", function()
      support.sh(("ssh-keygen -q -t ed25519 -N '' -f %s/other"):format(home.dir))
      local other = support.slurp(home.dir .. "/other.pub"):gsub("\n$", "")
      local r = home.run(provision.args(server, { key = other }))
      assert.equal(12, r.exit, r.err)
      assert.matches("admin_ssh_public_key", r.err)
      assert.matches("nothing was changed", r.err)
      unchanged "the refused run"
    end)

    it("refuses an identity that is no key (12)", function()
      support.spit(home.dir .. "/garbage", "-----BEGIN OPENSSH PRIVATE KEY-----\nnothing\n-----END OPENSSH PRIVATE KEY-----\n")
      support.sh("chmod 600 " .. home.dir .. "/garbage")
      local args = provision.args(server):gsub("%-i %S+", "-i " .. home.dir .. "/garbage")
      local r = home.run(args)
      assert.equal(12, r.exit, r.err)
      unchanged "the refused run"
    end)

    for _, os in ipairs { { "Debian GNU/Linux 11 (bullseye)", "debian", "11", "bullseye" },
        { "Ubuntu 20.04.6 LTS", "ubuntu", "20.04", "focal" }, { "Rocky Linux 9.4 (Blue Onyx)", "rocky", "9.4", "" } } do
      it(("refuses %s by its name"):format(os[1]), function()
        inside(('printf \'PRETTY_NAME="%s"\\nID=%s\\nVERSION_ID="%s"\\nVERSION_CODENAME=%s\\n\' >/run/os; mount --bind /run/os /etc/os-release')
          :format(os[1], os[2], os[3], os[4]))
        local r = home.run(provision.args(server))
        inside "umount /etc/os-release; rm /run/os"
        assert.equal(5, r.exit, r.err)
        assert.matches(os[1], r.err, 1, true)
        unchanged "the refused run"
      end)
    end

    it("plans every change and makes none", function()
      local text = home.run("plan " .. provision.args(server, { more = "--journal " .. home.dir .. "/plan.db" }))
      assert.equal(3, text.exit, text.err)
      for _, step in ipairs(provision.steps) do assert.matches("step " .. step .. " %(", text.out) end
      for _, line in ipairs { "install wget, gnupg2", "+port = 22022", "+PermitRootLogin no", "+AllowUsers letsbe-admin",
          "NOPASSWD: ALL", provision.public_key(server), "container_name", "default_server", "Debian-Security",
          "create user letsbe-admin" } do
        assert(text.out:find(line, 1, true), "the plan does not show: " .. line .. "\n" .. text.out)
      end
      assert.is_nil(io.open(home.dir .. "/plan.db"))
      planned = home.json("plan " .. provision.args(server, { more = "--detailed-exitcode --json" }))
      assert.equal(10, planned.exit, planned.err)
      unchanged "the plan"
    end)
  end)

  it("goes from bare to done", function()
    run = home.json(provision.args(server, { more = "--json" }))
    assert(provision.fine(run))
    local done = {}
    for _, line in ipairs(run.lines) do
      if line.type == "step.done" then done[#done + 1] = line.step end
    end
    assert.same({ "config", table.unpack(provision.steps) }, done)
  end)

  it("changed nothing that the plan did not name", function()
    local named = {}
    for _, line in ipairs(planned.lines) do
      if line.type == "plan.effect" and line.state ~= "done" then named[line.step .. "/" .. line.effect] = true end
    end
    local count = 0
    for _, line in ipairs(run.lines) do
      if line.type == "effect.begin" then
        count = count + 1
        assert(named[line.step .. "/" .. line.effect], "not in the plan: " .. line.step .. "/" .. line.effect)
      end
    end
    assert.is_true(count > 20, count .. " effects")
  end)

  it("finds nothing to do the second time, by every way in", function()
    local admin = ("ssh://letsbe-admin@%s:22022"):format(server.address)
    local began = os.time()
    -- The old address again; the new one; the old one from a machine that never saw this server.
    for i, try in ipairs { { server.url, home }, { admin, home }, { server.url, support.home() } } do
      local r = try[2].json(provision.args(server, { url = try[1], more = "--json" }))
      assert(provision.fine(r))
      assert.equal(0, r.last.changed, "way " .. i)
      if try[2] ~= home then try[2].remove() end
    end
    local took = os.time() - began
    assert.is_true(took * 3 < run.last.seconds, ("three runs without a change took %.0f s, the first one %.0f s"):format(
      took, run.last.seconds))
    local plan = home.run("plan --detailed-exitcode " .. provision.args(server))
    assert.equal(3, plan.exit, plan.out)
    assert.matches("\n0 to change, 0 after them", plan.out)
  end)

  it("leaves sshd as the runbook wants it", function()
    local settings = "\n" .. inside "sshd -T"
    for _, line in ipairs { "port 22022", "permitrootlogin no", "passwordauthentication no", "pubkeyauthentication yes",
        "maxauthtries 3", "logingracetime 30", "allowusers letsbe-admin", "kbdinteractiveauthentication no" } do
      assert(settings:find("\n" .. line .. "\n", 1, true), line)
    end
    assert.is_nil(settings:find("\nport 22\n", 1, true))
    local _, root = server:ssh("true", { port = "22022" })
    assert.equal(255, root)
    assert.equal("root\n", (server:ssh("sudo -n id -un", { user = "letsbe-admin", port = "22022" })))
  end)

  it("leaves the admin with one key, docker and sudo", function()
    assert.equal("letsbe-admin /home/letsbe-admin /bin/bash\n",
      inside "getent passwd letsbe-admin | awk -F: '{ print $1, $6, $7 }'")
    assert.matches("docker", inside "id -Gn letsbe-admin")
    assert.equal("700 letsbe-admin /home/letsbe-admin/.ssh\n600 letsbe-admin /home/letsbe-admin/.ssh/authorized_keys\n",
      inside "stat -c '%a %U %n' /home/letsbe-admin/.ssh /home/letsbe-admin/.ssh/authorized_keys")
    assert.equal(provision.public_key(server) .. "\n", inside "cat /home/letsbe-admin/.ssh/authorized_keys")
    assert.equal("440 root root\n", inside "stat -c '%a %U %G' /etc/sudoers.d/90-lbrun-letsbe-admin")
    assert.equal("0\n", inside "visudo -cq; echo $?")
    assert.equal("!\n", inside "getent shadow letsbe-admin | cut -d: -f2")
  end)

  it("leaves packages, Docker, fail2ban and updates at work", function()
    local list = "curl wget gnupg2 ca-certificates lsb-release apt-transport-https software-properties-common unzip jq htop "
      .. "iotop net-tools dnsutils certbot python3-certbot-nginx fail2ban rclone ufw docker.io unattended-upgrades"
    local states = inside("dpkg-query -W -f '${db:Status-Abbrev}\\n' " .. list .. " | sort | uniq -c")
    assert.equal("20ii", (states:gsub("%s", "")))
    assert.equal("0\n", inside "apt-get -s upgrade | grep -c '^Inst'")
    assert.equal("active\nactive\n", inside "systemctl is-active docker fail2ban")
    assert.equal("enabled\nenabled\nenabled\nenabled\n", inside "systemctl is-enabled docker fail2ban ufw unattended-upgrades")
    assert.matches("Journal matches:.*_SYSTEMD_UNIT=ssh.service", inside "fail2ban-client status sshd")
    assert.matches("22022", inside "fail2ban-client get sshd action iptables-multiport port")
    -- Its first check comes after the interval, which a quick run does not last.
    assert.equal("healthy\n", inside("for i in $(seq 45); do s=$(docker inspect -f '{{.State.Health.Status}}' letsbe-nginx); "
      .. "[ \"$s\" = starting ] || break; sleep 1; done; echo $s"))
    assert.equal("0\n", inside "systemctl is-active -q nginx apache2 postfix && echo 1 || echo 0")
    local allowed = inside "apt-config dump | grep -E 'Unattended-Upgrade::(Origins-Pattern|Allowed-Origins):: '"
    assert.equal('Unattended-Upgrade::Origins-Pattern:: "origin=Debian,codename=${distro_codename}-security,label=Debian-Security";\n',
      allowed)
    assert.matches('Unattended%-Upgrade "1"', inside "apt-config dump APT::Periodic")
  end)

  it("leaves a firewall that lets in 80, 443 and 22022 alone", function()
    local status = inside "ufw status verbose"
    assert.matches("Status: active", status)
    assert.matches("Default: deny %(incoming%), allow %(outgoing%)", status)
    local ports = {}
    for port, v6 in status:gmatch("\n(%S+)( ?%(?v?6?%)?)%s+ALLOW IN") do
      ports[#ports + 1] = port .. (v6:find "6" and "v6" or "")
    end
    table.sort(ports)
    assert.same({ "22022/tcp", "22022/tcpv6", "443/tcp", "443/tcpv6", "80/tcp", "80/tcpv6" }, ports)
  end)

  it("answers another host on 80 and 22022, and nowhere else, Docker's ports included", function()
    inside("docker run -d --rm --name published -p 127.0.0.1:3001:80 -p 0.0.0.0:3002:80 -p 0.0.0.0:8100:80 "
      .. provision.images[1])
    assert.equal("301\n", inside [[
for i in 1 2 3 4 5 6 7 8; do sleep 0.25; curl -s -o /dev/null http://127.0.0.1:3001/ && break; done
curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1/ ]])
    assert.equal("0\n0\n", inside "for p in 3001 3002; do curl -s -o /dev/null http://127.0.0.1:$p/; echo $?; done")
    local ports = server:scan "1-1100,2375-2376,3000-3100,5432,6379,8000-8200,9000-9100,18789,22022"
    ports.others = nil
    assert.same({ [80] = "open", [443] = "closed", [22022] = "open" }, ports)
    -- Nor when the other host knows the way to the containers' own network.
    local ip = inside "docker inspect -f '{{.NetworkSettings.IPAddress}}' published":gsub("%s", "")
    local out = server:outside(("ip route replace %s via %s; curl -s --max-time 3 -o /dev/null http://%s/; echo $?; ip route del %s")
      :format(ip, server.address, ip, ip))
    assert.equal("28\n", out)
    inside "docker stop -t 0 published"
    assert.equal("301\n", (server:outside(("curl -s --max-time 5 -o /dev/null -w '%%{http_code}\\n' http://%s/"):format(server.address))))
  end)

  it("is the same after a reboot", function()
    local before = provision.state(server)
    server:reboot()
    inside "for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -o /dev/null http://127.0.0.1/ && break; sleep 0.5; done"
    local now = provision.state(server)
    assert(before == now, provision.difference(before, now))
    local ports = server:scan "22,80,443,8100,22022"
    ports.others = nil
    assert.same({ [22] = "filtered", [80] = "open", [443] = "closed", [8100] = "filtered", [22022] = "open" }, ports)
    local r = home.json(provision.args(server, { more = "--json" }))
    assert(provision.fine(r))
    assert.equal(0, r.last.changed)
  end)

  it("keeps no job, lock or armed guard behind, and its own folder shut", function()
    assert.equal("700 root\n", inside "stat -c '%a %U' /var/lib/lbrun")
    assert.equal("", inside "ls /var/lib/lbrun/jobs; ls -d /var/lib/lbrun/lock /var/lib/lbrun/guard/*/armed 2>/dev/null")
    assert.equal("inactive\n", inside "systemctl is-active lbrun-guard.timer")
    assert.equal(0, home.run("verify-journal").exit)
  end)
end)
