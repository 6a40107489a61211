#!/bin/sh
# sshd.sh DIR PORT [sshd_config line...]: makes keys and a configuration in DIR for a private
# OpenSSH server on 127.0.0.1:PORT, and becomes that server. Runs as any user; as root it
# needs the privilege separation folder. With SHLVL bash does not read ~/.bashrc. DIR/ready appears once the files are there.
set -eu
dir=$1 port=$2
shift 2
mkdir -p "$dir"
chmod 700 "$dir"
for type in ed25519 ecdsa rsa; do
  [ -f "$dir/host_$type" ] || ssh-keygen -q -t "$type" -N '' -C "host $type" -f "$dir/host_$type"
done
[ -f "$dir/id" ] || ssh-keygen -q -t ed25519 -N '' -C 'spec key' -f "$dir/id"
[ -f "$dir/authorized_keys" ] || cp "$dir/id.pub" "$dir/authorized_keys"
chmod 600 "$dir/authorized_keys"
if [ "$(id -u)" = 0 ]; then mkdir -p /run/sshd; fi
wanted=$(for line in "$@"; do printf '%s\n' "$line"; done)
has() { printf '%s\n' "$wanted" | grep -q "^$1 "; }
{
  # what the spec asks for stands first, since sshd takes the first value of a key
  printf '%s\n' "$wanted"
  has HostKey || printf 'HostKey %s\n' "$dir/host_ed25519" "$dir/host_ecdsa" "$dir/host_rsa"
  has Subsystem || echo 'Subsystem sftp internal-sftp'
  cat <<END
ListenAddress 127.0.0.1
Port $port
PidFile $dir/pid
AuthorizedKeysFile $dir/authorized_keys
StrictModes no
UsePAM no
SetEnv SHLVL=9
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
UseDNS no
LogLevel VERBOSE
PermitRootLogin yes
MaxStartups 100:30:200
END
} > "$dir/config"
: > "$dir/ready"
exec /usr/sbin/sshd -D -e -f "$dir/config" 2> "$dir/log"
