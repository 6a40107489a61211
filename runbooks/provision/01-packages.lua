-- 01-packages.lua: step 1: the release's updates, the runbook's 17 packages, and a fail2ban that works
-- without rsyslog and watches the port that sshd is going to have.
local names = {
  "curl", "wget", "gnupg2", "ca-certificates", "lsb-release", "apt-transport-https",
  "software-properties-common", "unzip", "jq", "htop", "iotop", "net-tools", "dnsutils", "certbot",
  "python3-certbot-nginx", "fail2ban", "rclone",
  -- What fail2ban needs to read the journal and to ban, which it only recommends.
  "python3-systemd", "iptables",
  -- Of steps 5, 6 and 8, which find them there: each start of apt costs seconds.
  "ufw", "sudo", "unattended-upgrades",
}

return function(p)
  local function packages(facts)
    local list = table.move(names, 1, #names, 1, {})
    -- Of step 2, for the same reason; Docker's own repository is not known yet.
    for _, name in ipairs(p.docker_source == "distro" and docker.packages "distro"(facts) or {}) do list[#list + 1] = name end
    return list
  end
  return step {
    name = "packages", title = "System packages", class = "compensable", tags = { "packages" },
    resources = {
      apt.updated { max_age = "1d" },
      apt.upgraded {},
      -- Before its package, so that fail2ban starts once, and well.
      fail2ban.sshd { port = p.ssh_port, ahead = true },
      apt.installed { packages = packages, label = "packages of the runbook" },
      fail2ban.sshd { port = p.ssh_port },
    },
  }
end
