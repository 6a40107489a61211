-- system_spec.lua: packages, services, users, timers, the firewall, containers and nginx on a
-- real server. The images are stand-ins.
local support = require "support.lbrun"
local vps = require "support.vps"

-- A signed repository in /root/repo with one package, and a second key that is not its own.
local make_repository = [[
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq; apt-get install -y -qq --no-install-recommends gnupg apt-utils >/dev/null 2>&1
mkdir -p /root/repo/dists/stable/main/binary-amd64 /root/repo/pool /root/p/DEBIAN; cd /root/repo
printf 'Package: lbrun-sample\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: sample\n' >/root/p/DEBIAN/control
dpkg-deb -b /root/p pool/lbrun-sample_1.0_all.deb >/dev/null
apt-ftparchive packages pool >dists/stable/main/binary-amd64/Packages
apt-ftparchive -o APT::FTPArchive::Release::Origin=Elsewhere -o APT::FTPArchive::Release::Suite=stable \
  -o APT::FTPArchive::Release::Codename=stable -o APT::FTPArchive::Release::Components=main \
  -o APT::FTPArchive::Release::Architectures=amd64 release dists/stable >Release.tmp; mv Release.tmp dists/stable/Release
for who in good other; do
  gpg --batch --quiet --passphrase '' --quick-generate-key "$who@example.org" rsa3072 sign never 2>/dev/null
  gpg --batch --armor --export "$who@example.org" >/root/repo/$who.asc
done
gpg --batch --yes -u good@example.org --clearsign -o dists/stable/InRelease dists/stable/Release
cat good.asc other.asc >both.asc
chmod -R a+rX /root /root/repo
gpg --with-colons --list-keys good@example.org | awk -F: '$1 == "fpr" { print $10; exit }'
]]

describe("the library on a server #vps #slow", function()
  local server, home
  setup(function() server = vps.up("library", { docker = true, images = { vps.nginx } }) end)
  teardown(function() server:down() end)
  before_each(function()
    home = support.home()
    server:exec "rm -rf /var/lib/lbrun/lock"
  end)
  after_each(function() home.remove() end)

  local function book(text, extra)
    return home.runbook("b", ([[return runbook { name = "b", summary = "s", sudo = true, steps = {
      step { name = "s", resources = { %s } }, %s } }]]):format(text, extra or ""))
  end
  local function lb(verb, what)
    return home.run(("%s %s -t %s -i %s"):format(verb, what, server.url, server.key))
  end
  local function apply(text)
    local r = lb("run", book(text))
    r.all = r.out .. r.err
    return r
  end
  local function applied(text)
    local r = apply(text)
    assert.is_true(r.exit == 0 or r.exit == 3, r.all)
    local again = apply(text)
    assert.is_truthy(again.out:find("0 changed", 1, true), again.all)
    return r
  end
  local function undone(r)
    local u = home.run("undo " .. r.id .. " -y")
    assert.are.equal(0, u.exit, u.out .. u.err)
  end
  local function on_server(command) return (server:exec(command):gsub("%s+$", "")) end

  it("packages: undo removes what the run installed and nothing else", function()
    server:exec "apt-get update -qq; apt-get install -y -qq --no-install-recommends tree >/dev/null 2>&1"
    local before = on_server "dpkg-query -W -f='${Package} ${Status}\n' | grep 'ok installed' | sort | sha256sum"
    local r = applied "apt.installed { 'tree', 'jq' }"
    assert.are.equal("2", on_server "dpkg-query -W -f='${db:Status-Abbrev}\n' tree jq | grep -c ^ii")
    undone(r)
    assert.are.equal(before, on_server "dpkg-query -W -f='${Package} ${Status}\n' | grep 'ok installed' | sort | sha256sum")
  end)

  it("packages: an interrupted dpkg is mended first, and a held lock is waited for", function()
    server:exec [[
      apt-get install -y -qq --no-install-recommends --download-only bc >/dev/null 2>&1
      dpkg --unpack /var/cache/apt/archives/bc_*.deb >/dev/null
      cp -a /var/lib/dpkg/status /root/status]]
    assert.are.equal("iU", on_server "dpkg-query -W -f='${db:Status-Abbrev}' bc")
    server:exec [[systemd-run --quiet --unit=holder perl -e '
      use Fcntl; open(my $f, ">", "/var/lib/dpkg/lock-frontend"); my $l = pack("s s l! l! i", F_WRLCK, 0, 0, 0, 0);
      fcntl($f, F_SETLK, $l) or exit 1; sleep 8']]
    applied "apt.installed { 'bc', 'dc' }"
    assert.are.equal("ii ii", on_server "dpkg-query -W -f='${db:Status-Abbrev}' bc dc")
  end)

  it("packages: a file that was changed here is kept, and no question is asked", function()
    server:exec "apt-get install -y -qq --no-install-recommends nano >/dev/null 2>&1; echo '# mine' >>/etc/nanorc; dpkg -r nano >/dev/null"
    applied "apt.installed { 'nano' }"
    assert.are.equal("# mine", on_server "tail -1 /etc/nanorc")
  end)

  it("repositories: only the pinned key is trusted, and a wrong one changes nothing", function()
    local fingerprint = on_server(make_repository):match "%x+$"
    local text = [[apt.repository { name = "elsewhere", url = "file:/root/repo", suite = "stable", key_url = "file:///root/repo/%s.asc",
      fingerprint = "%s" }]]
    local r = apply(text:format("other", fingerprint))
    assert.are.equal(5, r.exit, r.all)
    assert.is_truthy(r.all:find("not the pinned one", 1, true), r.all)
    assert.are.equal("", on_server "ls /etc/apt/sources.list.d /usr/share/keyrings | grep elsewhere; true")
    r = applied(text:format("both", fingerprint) .. ", apt.installed { 'lbrun-sample' }")
    assert.are.equal("644 644", on_server "stat -c %a /etc/apt/sources.list.d/elsewhere.list /usr/share/keyrings/elsewhere.gpg | paste -sd' '")
    assert.are.equal("1", on_server "gpg --show-keys --with-colons /usr/share/keyrings/elsewhere.gpg | grep -c ^pub")
    assert.are.equal("deb [arch=amd64 signed-by=/usr/share/keyrings/elsewhere.gpg] file:/root/repo stable main",
      on_server "cat /etc/apt/sources.list.d/elsewhere.list")
    undone(r)
    assert.are.equal("", on_server "ls /etc/apt/sources.list.d | grep elsewhere; dpkg -l lbrun-sample 2>/dev/null | grep ^ii; true")
  end)

  it("unattended upgrades take from the security origin and from no other", function()
    server:exec [[printf 'Package: lbrun-sample\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: s\n' >/root/p/DEBIAN/control
      dpkg-deb -b /root/p /root/s.deb >/dev/null && dpkg -i /root/s.deb >/dev/null
      sed -i s/1.0/2.0/ /root/p/DEBIAN/control; cd /root/repo; rm -f pool/*; dpkg-deb -b /root/p pool/lbrun-sample_2.0_all.deb >/dev/null
      apt-ftparchive packages pool >dists/stable/main/binary-amd64/Packages
      apt-ftparchive -o APT::FTPArchive::Release::Origin=Elsewhere -o APT::FTPArchive::Release::Suite=stable \
        -o APT::FTPArchive::Release::Codename=stable release dists/stable >/root/R; mv /root/R dists/stable/Release
      gpg --batch --yes -u good@example.org --clearsign -o dists/stable/InRelease dists/stable/Release
      echo 'deb [trusted=yes] file:/root/repo stable main' >/etc/apt/sources.list.d/more.list; apt-get update -qq]]
    assert.is_truthy(on_server("apt-cache policy lbrun-sample"):find("Candidate: 2.0", 1, true))
    applied "apt.installed { 'unattended-upgrades' }, unattended.security {}"
    local said = on_server "unattended-upgrade --dry-run --debug 2>&1"
    assert.is_truthy(said:find("Debian-Security", 1, true), said)
    assert.is_nil(said:match "Packages that will be upgraded:[^\n]*lbrun%-sample")
    server:exec "printf 'Unattended-Upgrade::Origins-Pattern { \"origin=Elsewhere\"; };\n' >/etc/apt/apt.conf.d/99more"
    local r = lb("plan", book "unattended.security {}")
    assert.is_truthy(r.out:find("origin=Elsewhere", 1, true), r.out .. r.err)
    server:exec "rm /etc/apt/apt.conf.d/99more /etc/apt/sources.list.d/more.list; apt-get update -qq"
  end)

  it("services: stopped and disabled comes back by undo; one that is not there is as good", function()
    assert.are.equal("active enabled", on_server "systemctl is-active cron; systemctl is-enabled cron":gsub("\n", " "))
    local r = applied "service.disabled_stopped { 'cron', 'no-such-unit' }"
    assert.are.equal("inactive disabled", on_server "systemctl is-active cron; systemctl is-enabled cron":gsub("\n", " "))
    undone(r)
    assert.are.equal("active enabled", on_server "systemctl is-active cron; systemctl is-enabled cron":gsub("\n", " "))
  end)

  it("services: one that is older than the file it reads is restarted, once", function()
    local text = "service.fresh { name = 'cron', files = { '/etc/crontab' } }"
    applied(text)
    local pid = on_server "systemctl show -p MainPID --value cron"
    server:exec "sleep 0.1; touch /etc/crontab"
    applied(text)
    assert.are_not.equal(pid, on_server "systemctl show -p MainPID --value cron")
  end)

  it("timers: the pair stands, waits and goes", function()
    local r = applied [[timer.present { name = "lbrun-x", description = "x", exec = "/bin/true", on_calendar = "*-*-* 02:00:00" }]]
    assert.are.equal("active", on_server "systemctl is-active lbrun-x.timer")
    assert.is_truthy(on_server "systemd-analyze verify /etc/systemd/system/lbrun-x.timer 2>&1; echo ok":find "ok$")
    undone(r)
    assert.are.equal("0", on_server "ls /etc/systemd/system | grep -c lbrun-x; true")
    applied [[timer.present { name = "lbrun-x", description = "x", exec = "/bin/true", every = "5m" }]]
    applied [[timer.absent { name = "lbrun-x" }]]
  end)

  it("users: account, key and sudo rights come and go; a bad sudoers file never takes effect", function()
    local key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNhWSB9QRtYiEv5uUQg77TnVnboN2TZfrOK5nSdCzuc who"
    local text = ([[user.present { name = "someone", shell = "/bin/bash", groups = { "docker" } },
      authorized_keys.present { user = "someone", keys = { "%s" } }, sudoers.passwordless { user = "someone" } ]]):format(key)
    local r = applied(text)
    assert.are.equal("700 600", on_server "stat -c %a /home/someone/.ssh /home/someone/.ssh/authorized_keys | paste -sd' '")
    assert.are.equal("someone:someone", on_server "stat -c %U:%G /home/someone/.ssh/authorized_keys")
    assert.are.equal("root", on_server "su someone -c 'sudo -n whoami'")
    assert.is_truthy(on_server "id -nG someone":find "docker")
    undone(r)
    assert.are.equal("absent", on_server "getent passwd someone >/dev/null || echo absent; ls /etc/sudoers.d | grep someone; true")
    r = apply "sudoers.present { name = 'bad', content = 'this is no rule at all ((\\n' }"
    assert.are.equal(5, r.exit, r.all)
    assert.are.equal("", on_server "ls /etc/sudoers.d | grep bad; ls /var/lib/lbrun/check; true")
  end)

  it("keys: others stay unless the list is to be exclusive", function()
    server:exec "useradd -m keyed; mkdir /home/keyed/.ssh; printf '# mine\nssh-rsa AAAAB3old old\n' >/home/keyed/.ssh/authorized_keys"
    local key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGNhWSB9QRtYiEv5uUQg77TnVnboN2TZfrOK5nSdCzuc who"
    applied(("authorized_keys.present { user = 'keyed', keys = { '%s' } }"):format(key))
    assert.are.equal("3", on_server "grep -c . /home/keyed/.ssh/authorized_keys")
    applied(("authorized_keys.present { user = 'keyed', keys = { '%s' }, exclusive = true }"):format(key))
    assert.are.equal("# mine", on_server "grep -v ed25519 /home/keyed/.ssh/authorized_keys")
  end)

  it("fail2ban watches without rsyslog and bans who tries too often", function()
    applied "apt.installed { 'fail2ban', 'python3-systemd', 'iptables' }, fail2ban.sshd { port = 22, maxretry = 2 }"
    assert.are.equal("0", on_server "dpkg -l rsyslog 2>/dev/null | grep -c ^ii; true")
    -- One that is banned in the middle of its handshake would wait for a quarter of an hour.
    server:outside("for i in 1 2 3 4; do timeout 10 ssh -o BatchMode=yes -o ConnectTimeout=3 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null nobody-$i@" .. server.address .. " true; done")
    local banned
    for _ = 1, 40 do
      banned = on_server "fail2ban-client get sshd banned"
      if banned:find "%d+%.%d+" then break end
      os.execute "sleep 0.25"
    end
    -- It may not have read the last tries yet, and would ban the host that the next specs look from.
    server:exec "systemctl stop fail2ban"
    local other = server:outside("hostname -I"):match "%d+%.%d+%.%d+%.%d+"
    assert.is_truthy(banned:find(other, 1, true), banned)
  end)

  it("containers: what was changed from outside is seen, and put right", function()
    server:exec((([[mkdir -p /opt/x; printf 'services:\n  web:\n    image: NGINX\n    ports: ["8080:80"]\n    restart: unless-stopped\n' >/opt/x/docker-compose.yml]])
      :gsub("NGINX", vps.nginx)))
    local text = "compose.up { project = 'x', dir = '/opt/x' }"
    local r = applied(text)
    server:exec "docker stop $(docker ps -q --filter label=com.docker.compose.project=x)"
    assert.is_truthy(lb("plan", book(text)).out:find("service web: Exited", 1, true))
    applied(text)
    server:exec "docker rm -f $(docker ps -q --filter label=com.docker.compose.project=x)"
    assert.is_truthy(lb("plan", book(text)).out:find("service web has no container", 1, true))
    applied(text)
    server:exec "sed -i s/8080/8081/ /opt/x/docker-compose.yml"
    assert.is_truthy(lb("plan", book(text)).out:find("docker-compose.yml has changed", 1, true))
    applied(text)
    assert.are.equal("open", server:scan "8081"[8081])
    undone(r)
    assert.are.equal("", on_server "docker ps -aq --filter label=com.docker.compose.project=x")
  end)

  it("the firewall closes what Docker publishes, and a forwarded port can be let through", function()
    server:exec((([[mkdir -p /opt/y; printf 'services:\n  a:\n    image: NGINX\n    ports: ["8080:80", "127.0.0.1:8090:80"]\n' >/opt/y/docker-compose.yml]])
      :gsub("NGINX", vps.nginx)))
    applied [[apt.installed { "ufw" }, ufw.ssh_doors { port = 22 }, ufw.default { incoming = "deny", outgoing = "allow" },
      ufw.docker_closed {}, ufw.enabled {}, compose.up { project = "y", dir = "/opt/y" }]]
    assert.are.equal("200", on_server "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/")
    local seen = server:scan "22,8080,8090"
    assert.are.equal("open", seen[22])
    assert.are.equal("filtered", seen[8080])
    assert.are_not.equal("open", seen[8090])
    applied [[ufw.allow { "80/tcp", routed = true }]]
    assert.are.equal("open", server:scan "8080"[8080])
    server:reboot()
    server:exec "for i in $(seq 50); do docker ps >/dev/null 2>&1 && break; sleep 0.2; done; cd /opt/y && docker-compose -p y up -d"
    server:exec "ufw --force route delete allow proto tcp from any to any port 80"
    assert.are.equal("filtered", server:scan "8080"[8080])
    applied "compose.down { project = 'y', dir = '/opt/y' }"
  end)

  it("nginx: a site that it refuses is taken back; one that is written but not read is read", function()
    local step4 = [[directory.present { path = "/opt/letsbe/nginx/conf" }, directory.present { path = "/opt/letsbe/nginx/sites" },
      directory.present { path = "/opt/letsbe/nginx/webroot" }, directory.present { path = "/etc/letsencrypt" },
      file.template { path = "/opt/letsbe/nginx/docker-compose.yml", template = "nginx/docker-compose.yml",
        vars = { image = catalog.platform.nginx.image, container = nginx.container } },
      nginx.main { template = "nginx/nginx.conf" },
      nginx.site { name = "00-fallback", template = "nginx/fallback.conf", vars = { ipv6 = true } },
      compose.up { project = "nginx", dir = "/opt/letsbe/nginx", wait = 0 }, nginx.answers { status = 301 } ]]
    applied(step4)
    assert.are.equal("404", on_server "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1/.well-known/acme-challenge/x")
    server:exec "mkdir -p /opt/letsbe/nginx/webroot/.well-known/acme-challenge; echo proof >/opt/letsbe/nginx/webroot/.well-known/acme-challenge/x"
    assert.are.equal("proof", on_server "curl -s http://any.name@127.0.0.1/.well-known/acme-challenge/x")
    local r = apply [[nginx.site { name = "bad", content = "server { listen 80; nonsense; }\n" }]]
    assert.are.equal(5, r.exit, r.all)
    assert.is_truthy(r.all:find("nonsense", 1, true), r.all)
    assert.are.equal("00-fallback.conf", on_server "ls /opt/letsbe/nginx/sites")
    local site = [[nginx.site { name = "good", content = "server { listen 80; server_name good.test; return 204; }\n" }]]
    server:exec "printf 'server { listen 80; server_name good.test; return 204; }\n' >/opt/letsbe/nginx/sites/good.conf"
    assert.is_truthy(lb("plan", book(site)).out:find("has not read it", 1, true))
    applied(site)
    server:exec "rm /opt/letsbe/nginx/sites/good.conf"
    r = applied(site)
    assert.are.equal("204", on_server "sleep 0.3; curl -s -o /dev/null -w '%{http_code}' -H 'Host: good.test' http://127.0.0.1/")
    undone(r)
    assert.are.equal("301", on_server "sleep 0.3; curl -s -o /dev/null -w '%{http_code}' -H 'Host: good.test' http://127.0.0.1/")
  end)
end)
