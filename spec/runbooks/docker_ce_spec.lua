-- docker_ce_spec.lua: Docker from its own repository, with a key pinned by fingerprint.
-- The repository is a local one, its packages are stand-ins named like Docker's, with a
-- service that answers a ping and runs no container; Ubuntu is only rendered, by an os-release: neither Docker's own
-- repository nor a real Ubuntu is asked by any spec.
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"

-- A signed repository at http://127.0.0.1:8099 of the server. $1 names who signs.
local repository = [[
set -e; export DEBIAN_FRONTEND=noninteractive
apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends gnupg apt-utils python3 >/dev/null
mkdir -p /srv/build /srv/repo/pool && cd /srv/build
deb() { # NAME VERSION DEPENDS
  rm -rf tree; mkdir -p tree/DEBIAN
  printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: stand-in <none@example.invalid>\nDescription: stand-in\n' "$1" "$2" >tree/DEBIAN/control
  [ -z "$3" ] || echo "Depends: $3" >>tree/DEBIAN/control
  if [ "$1" = docker-compose-plugin ]; then
    mkdir -p tree/usr/libexec/docker/cli-plugins
    printf '#!/bin/sh\necho stand-in\n' >tree/usr/libexec/docker/cli-plugins/docker-compose
    chmod 755 tree/usr/libexec/docker/cli-plugins/docker-compose
  fi
  if [ "$1" = docker-ce ]; then
    mkdir -p tree/usr/sbin tree/lib/systemd/system
    printf '#!/bin/sh\nsystemctl daemon-reload\n' >tree/DEBIAN/postinst; chmod 755 tree/DEBIAN/postinst
    cp /srv/build/stand-in tree/usr/sbin/dockerd-stand-in
    printf '[Service]\nExecStart=/usr/bin/python3 /usr/sbin/dockerd-stand-in\n[Install]\nWantedBy=multi-user.target\n' \
      >tree/lib/systemd/system/docker.service
  fi
  dpkg-deb -b tree "$4/$1_$2.deb" >/dev/null
}
cat >stand-in <<'EOF'
import http.server, os, socketserver
class Answer(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return "-"
    def do_GET(self):
        self.send_response(200 if self.path == "/_ping" else 404)
        self.end_headers()
        self.wfile.write(b"OK")
path = "/run/docker.sock"
if os.path.exists(path):
    os.unlink(path)
socketserver.UnixStreamServer(path, Answer).serve_forever()
EOF
deb docker-ce 5:99.0 python3 /srv/repo/pool
deb docker-ce-cli 5:99.0 '' /srv/repo/pool
deb containerd.io 99.0 '' /srv/repo/pool
deb docker-compose-plugin 99.0 '' /srv/repo/pool
deb lbrun-stand-in 1.0 '' /srv/build
deb lbrun-stand-in 2.0 '' /srv/repo/pool
dpkg -i lbrun-stand-in_1.0.deb >/dev/null
export GNUPGHOME=/srv/gpg; mkdir -p -m 700 $GNUPGHOME
for who in right wrong; do
  gpg --batch --quiet --passphrase '' --quick-generate-key "$who <$who@example.invalid>" ed25519 sign never 2>/dev/null
done
cat >/srv/sign <<'EOF'
set -e; export GNUPGHOME=/srv/gpg; cd /srv/repo
d=dists/bookworm; mkdir -p $d/stable/binary-$(dpkg --print-architecture)
apt-ftparchive packages pool >$d/stable/binary-$(dpkg --print-architecture)/Packages
apt-ftparchive -o APT::FTPArchive::Release::Origin=Elsewhere -o APT::FTPArchive::Release::Suite=bookworm \
  -o APT::FTPArchive::Release::Codename=bookworm -o APT::FTPArchive::Release::Components=stable \
  -o APT::FTPArchive::Release::Architectures=$(dpkg --print-architecture) release $d >/srv/Release
mv /srv/Release $d/Release
gpg --batch --yes --quiet --pinentry-mode loopback -u $1 --clearsign -o $d/InRelease $d/Release
EOF
sh /srv/sign right
# Two keys in one file: only the pinned one may be taken from it.
gpg --armor --export >/srv/repo/gpg
systemd-run -q --unit repository python3 -m http.server --bind 127.0.0.1 --directory /srv/repo 8099
for i in 1 2 3 4 5 6 7 8 9 10; do curl -sf -o /dev/null http://127.0.0.1:8099/gpg && break; sleep 0.3; done
gpg --list-keys --with-colons right | awk -F: '$1 == "fpr" { print $10; exit }'
]]

local book = [[
return runbook { name = "engine", summary = "Docker from a repository", sudo = true,
  params = { fingerprint = param.string {} },
  steps = function(p)
    return { step { name = "docker", resources = docker.resources { source = "docker-ce",
      repo_url = "http://127.0.0.1:8099", fingerprint = p.fingerprint } } }
  end }
]]

local list, keyring = "/etc/apt/sources.list.d/docker.list", "/usr/share/keyrings/docker-archive-keyring.gpg"

describe("Docker's repository #vps #slow", function()
  local server, home, path, right
  setup(function()
    server = vps.up "docker-ce"
    server:exec "apt-get -q update >/dev/null"
    local out, status, err = server:exec(repository)
    assert(status == 0, err)
    right = assert(out:match "%x+\n$", out .. err):gsub("\n", "")
  end)
  teardown(function() server:down() end)
  before_each(function()
    home = support.home()
    path = home.runbook("engine", book)
  end)
  after_each(function() home.remove() end)

  local function inside(command)
    return (server:exec(command))
  end

  local function args(fingerprint, more)
    return ("%s fingerprint=%s -t %s -i %s %s"):format(path, fingerprint, server.url, server.key, more or "")
  end

  it("is not trusted by provisioning when its key is not Docker's own", function()
    local r = home.run(provision.args(server, { docker = "docker-ce",
      more = "--tags docker docker_repo_url=http://127.0.0.1:8099" }))
    assert.equal(5, r.exit, r.err)
    assert.matches("expected 9DC858229FC7DD38854AE2D88D81803C0EBFCD88, got " , r.err, 1, true)
    assert.matches(right, r.err)
    assert.matches("nothing was changed", r.err)
    assert.equal("", inside(("ls %s %s 2>/dev/null"):format(list, keyring)))
  end)

  it("is taken away again when what it offers is signed by another key", function()
    inside "sh /srv/sign wrong"
    local r = home.run(args(right))
    inside "sh /srv/sign right"
    assert.is_true(r.exit == 5 or r.exit == 6, r.err)
    assert.matches("NO_PUBKEY", r.err)
    assert.equal("", inside(("ls %s 2>/dev/null"):format(list)))
    assert.equal("0\n", inside "apt-get -q update >/dev/null 2>&1; echo $?")
  end)

  it("gives the engine, stands at the runbook's paths with the one pinned key, and is not touched again", function()
    local r = home.json(args(right, "--json"))
    assert.equal("done", r.last.status, r.last.message)
    assert.equal(0, r.exit, r.err)
    assert.equal(("deb [arch=%s signed-by=%s] http://127.0.0.1:8099 bookworm stable\n"):format(
      inside "dpkg --print-architecture":gsub("\n", ""), keyring), inside("cat " .. list))
    assert.equal("644 root\n644 root\n", inside(("stat -c '%%a %%U' %s %s"):format(list, keyring)))
    assert.equal(right .. "\n", inside(("gpg --show-keys --with-colons %s | awk -F: '$1 == \"fpr\" { print $10 }'"):format(keyring)))
    assert.equal("99.0 5:99.0 5:99.0 99.0 ",
      inside "dpkg-query -W -f '${Version} ' docker-ce docker-ce-cli containerd.io docker-compose-plugin")
    assert.equal("enabled\nactive\n", inside "systemctl is-enabled docker; systemctl is-active docker")
    local again = home.json(args(right, "--json"))
    assert.equal(0, again.exit, again.err)
    assert.equal(0, again.last.changed)
    -- A key that somebody added to the ring is no longer the pinned key alone.
    inside("GNUPGHOME=/srv/gpg gpg --export >" .. keyring)
    local drift = home.json(args(right, "--json"))
    assert.equal(1, drift.last.changed, drift.err)
    assert.equal(right .. "\n", inside(("gpg --show-keys --with-colons %s | awk -F: '$1 == \"fpr\" { print $10 }'"):format(keyring)))
  end)

  it("has newer packages that unattended upgrades leave alone, being of another origin", function()
    assert.equal("2.0\n", inside "apt-cache policy lbrun-stand-in | sed -n 's/ *Candidate: //p'")
    local words = provision.args(server, { more = "--tags updates --json" })
    local r = home.json(words)
    assert(provision.fine(r))
    local function taken()
      return inside "unattended-upgrade --dry-run --verbose 2>&1 | grep -c 'Packages that will be upgraded:.*lbrun-stand-in'"
    end
    assert.equal("0\n", taken())
    -- The same with that origin allowed: so it was the origin that kept it out, and
    -- provisioning says that somebody allows it.
    inside [[echo 'Unattended-Upgrade::Origins-Pattern:: "origin=Elsewhere";' >/etc/apt/apt.conf.d/60elsewhere]]
    assert.equal("1\n", taken())
    local plan = home.run("plan " .. provision.args(server, { more = "--tags updates" }))
    assert.matches("another file in /etc/apt/apt.conf.d allows the origin 'origin=Elsewhere'", plan.out, 1, true)
    inside "rm /etc/apt/apt.conf.d/60elsewhere"
  end)
end)

describe("the commands for other systems, rendered and not run #vps", function()
  local server, home
  setup(function()
    server = vps.up "rendered"
    home = support.home()
  end)
  teardown(function()
    server:down()
    home.remove()
  end)

  local function plan(pretty, id, version, codename, docker)
    server:exec(('printf \'PRETTY_NAME="%s"\\nID=%s\\nVERSION_ID="%s"\\nVERSION_CODENAME=%s\\n\' >/run/os; mount --bind /run/os /etc/os-release')
      :format(pretty, id, version, codename))
    local r = home.run("plan " .. provision.args(server, { docker = docker }))
    server:exec "umount /etc/os-release"
    assert.is_true(r.exit == 0 or r.exit == 3, r.err)
    return r.out
  end

  local function shows(text, wanted)
    assert(text:find(wanted, 1, true), "not in the plan: " .. wanted .. "\n" .. text)
  end

  local arch = support.sh "dpkg --print-architecture":gsub("\n", "")
  for _, os in ipairs { { "Ubuntu 22.04.5 LTS", "22.04", "jammy" }, { "Ubuntu 24.04.2 LTS", "24.04", "noble" } } do
    it(("are right for %s"):format(os[1]), function()
      local text = plan(os[1], "ubuntu", os[2], os[3], "docker-ce")
      shows(text, ("+deb [arch=%s signed-by=%s] https://download.docker.com/linux/ubuntu %s stable"):format(arch, keyring, os[3]))
      shows(text, "9DC858229FC7DD38854AE2D88D81803C0EBFCD88")
      shows(text, "docker-ce, docker-ce-cli, containerd.io, docker-compose-plugin")
      shows(text, '+        "origin=Ubuntu,archive=${distro_codename}-security,label=Ubuntu";')
      assert.is_nil(text:find("Debian-Security", 1, true))
      shows(text, "software-properties-common")
      shows(plan(os[1], "ubuntu", os[2], os[3], "distro"), "docker.io, docker-compose-v2")
    end)
  end

  it("are right for Debian 12 and 13 with Docker's repository", function()
    for version, codename in pairs { ["12"] = "bookworm", ["13"] = "trixie" } do
      local text = plan("Debian GNU/Linux " .. version, "debian", version, codename, "docker-ce")
      shows(text, ("+deb [arch=%s signed-by=%s] https://download.docker.com/linux/debian %s stable"):format(arch, keyring, codename))
      shows(text, "docker-ce, docker-ce-cli, containerd.io, docker-compose-plugin")
    end
  end)
end)
