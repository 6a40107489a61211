-- 01-packages.lua: step 1: the release's updates, the runbook's 17 packages, and a fail2ban that works
-- without rsyslog and watches the port that sshd is going to have.
return function(p)
  return step {
    name = "packages", title = "System packages", class = "compensable", tags = { "packages" },
    resources = {
      apt.updated { max_age = "1d" },
      apt.upgraded {},
      apt.installed {
        "curl", "wget", "gnupg2", "ca-certificates", "lsb-release", "apt-transport-https",
        "software-properties-common", "unzip", "jq", "htop", "iotop", "net-tools", "dnsutils", "certbot",
        "python3-certbot-nginx", "fail2ban", "rclone",
        -- What fail2ban needs to read the journal and to ban, which it only recommends.
        "python3-systemd", "iptables",
        -- Of steps 5, 6 and 8, which find them there: each start of apt costs seconds.
        "ufw", "sudo", "unattended-upgrades",
      },
      fail2ban.sshd { port = p.ssh_port },
    },
  }
end
