#!/bin/bash
# setup.sh: steps 1 to 8 of the runbook as plain shell, the thing that lbrun is measured
# against. It is the runbook's own text as far as that works unattended on Debian 12; what
# differs is said beside it. It runs on the server, as root. It is measured, never used.
#	setup.sh "ADMIN PUBLIC KEY" NGINX_IMAGE
set -e
admin_ssh_public_key=$1
nginx_image=$2
export DEBIAN_FRONTEND=noninteractive
# The same packages on both sides: lbrun installs none that are only recommended.
install() { apt-get install -y --no-install-recommends "$@"; }

# Step 1
apt-get update && apt-get upgrade -y
install curl wget gnupg2 ca-certificates lsb-release apt-transport-https \
	software-properties-common unzip jq htop iotop net-tools dnsutils certbot \
	python3-certbot-nginx fail2ban rclone
# Without these fail2ban does not start (hazard 4).
install python3-systemd iptables
printf '[sshd]\nenabled = true\nbackend = systemd\nport = 22022\n' >/etc/fail2ban/jail.d/sshd.local
systemctl restart fail2ban

# Step 2, from the release on both sides: the sandbox cannot reach Docker's repository.
install docker.io docker-compose
systemctl enable --now docker

# Step 3, with the nginx that python3-certbot-nginx brings.
for service in apache2 postfix nginx; do
	systemctl stop $service 2>/dev/null || true
	systemctl disable $service 2>/dev/null || true
done

# Step 4
mkdir -p /opt/letsbe/nginx/conf /opt/letsbe/nginx/sites
cat >/opt/letsbe/nginx/conf/nginx.conf <<'NGINX'
events {}
http {
	include /etc/nginx/sites-enabled/*.conf;
}
NGINX
cat >/opt/letsbe/nginx/sites/00-fallback.conf <<'NGINX'
server {
	listen 80 default_server;
	location / { return 301 https://$host$request_uri; }
}
NGINX
cat >/opt/letsbe/nginx/docker-compose.yml <<COMPOSE
version: "3"
services:
  nginx:
    image: $nginx_image
    container_name: letsbe-nginx
    network_mode: host
    restart: unless-stopped
    command: ["nginx", "-c", "/etc/nginx/lbrun/nginx.conf", "-g", "daemon off;"]
    volumes:
      - /opt/letsbe/nginx/conf:/etc/nginx/lbrun:ro
      - /opt/letsbe/nginx/sites:/etc/nginx/sites-enabled:ro
COMPOSE
(cd /opt/letsbe/nginx && docker-compose up -d)

# Step 5
install ufw
ufw default deny incoming
ufw default allow outgoing
ufw allow 80/tcp
ufw allow 443/tcp
ufw allow 22022/tcp
ufw --force enable

# Step 6
install sudo
useradd -m -s /bin/bash -G docker letsbe-admin
mkdir -p /home/letsbe-admin/.ssh
echo "$admin_ssh_public_key" >/home/letsbe-admin/.ssh/authorized_keys
chmod 700 /home/letsbe-admin/.ssh
chmod 600 /home/letsbe-admin/.ssh/authorized_keys
chown -R letsbe-admin:letsbe-admin /home/letsbe-admin/.ssh

# Step 7
cat >>/etc/ssh/sshd_config.d/00-hardening.conf <<'SSHD'
Port 22022
PermitRootLogin no
PasswordAuthentication no
PubkeyAuthentication yes
MaxAuthTries 3
LoginGraceTime 30
AllowUsers letsbe-admin
SSHD
systemctl restart ssh

# Step 8; dpkg-reconfigure would ask (hazard 5).
install unattended-upgrades
dpkg-reconfigure -f noninteractive -plow unattended-upgrades
printf 'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n' \
	>/etc/apt/apt.conf.d/20auto-upgrades
cat >/etc/apt/apt.conf.d/50unattended-upgrades <<'APT'
Unattended-Upgrade::Origins-Pattern {
	"origin=Debian,codename=${distro_codename}-security,label=Debian-Security";
};
APT
