-- provision_trixie_spec.lua: the same on Debian 13, whose sshd, apt and Docker packages
-- differ; and a scan of every port. What both releases share is in provision_spec.lua.
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"

describe("provisioning Debian 13 #vps #slow", function()
  local server, home
  setup(function()
    server = vps.up("prov-trixie", { release = "trixie", images = provision.images_of { "stalwart" } })
    home = support.home()
  end)
  teardown(function()
    server:down()
    home.remove()
  end)

  local function inside(command)
    return (server:exec(command))
  end

  it("plans and changes nothing, goes from bare to done, and finds nothing to do then", function()
    local bare = provision.untouched(server)
    local plan = home.run("plan " .. provision.args(server))
    assert.equal(3, plan.exit, plan.err)
    local now = provision.untouched(server)
    assert(bare == now, provision.difference(bare, now))
    local first = home.json(provision.args(server, { more = "--json tools=stalwart --skip-tags platform,verify" }))
    assert(provision.fine(first))
    local notes = support.sh(("grep -c 'package software-properties-common: left out' %s/out.txt"):format(home.dir))
    assert.not_equal("0\n", notes)
    for _, url in ipairs { server.url, ("ssh://letsbe-admin@%s:22022"):format(server.address) } do
      local again = home.json(provision.args(server, { url = url, more = "--json tools=stalwart --skip-tags platform,verify" }))
      assert(provision.fine(again))
      assert.equal(0, again.last.changed)
    end
  end)

  it("has sshd, packages, Docker, fail2ban and updates as the runbook wants them", function()
    local settings = "\n" .. inside "sshd -T"
    for _, line in ipairs { "port 22022", "permitrootlogin no", "passwordauthentication no", "pubkeyauthentication yes",
        "maxauthtries 3", "logingracetime 30", "allowusers letsbe-admin" } do
      assert(settings:find("\n" .. line .. "\n", 1, true), line)
    end
    assert.equal("root\n", (server:ssh("sudo -n id -un", { user = "letsbe-admin", port = "22022" })))
    assert.equal("active\nactive\n", inside "systemctl is-active docker fail2ban")
    assert.matches("Journal matches:", inside "fail2ban-client status sshd")
    -- Its first check comes after the interval, which a quick run does not last.
    assert.equal("healthy\n", inside("for i in $(seq 45); do s=$(docker inspect -f '{{.State.Health.Status}}' letsbe-nginx); "
      .. "[ \"$s\" = starting ] || break; sleep 1; done; echo $s"))
    assert.matches("codename=%${distro_codename}%-security,label=Debian%-Security", inside "apt-config dump Unattended-Upgrade")
    assert.equal("enabled\n", inside "systemctl is-enabled unattended-upgrades")
  end)

  it("answers another host on 80, 22022 and, with a mail server chosen, on its three ports alone", function()
    local ports = server:scan "1-65535"
    assert.same({ filtered = 65535 - 6 }, ports.others)
    ports.others = nil
    assert.same({ [80] = "open", [443] = "open", [22022] = "open", [25] = "open", [587] = "open", [993] = "open" }, ports)
  end)
end)
