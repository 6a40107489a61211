#!/bin/bash
# demo.sh: boots the VPS `demo` on this machine and provisions it over SSH; when it is up
# already, the run finds nothing to do. It builds nothing (`make demo` does that first).
set -eu
cd "$(dirname "$0")/../.."
vps=spec/sandbox/vps
dir=build/demo
journal=$dir/journal.db
mkdir -p "$dir"

if ! $vps address demo >/dev/null 2>&1; then
	# The VPS gets nginx's image as a stand-in: no registry is asked.
	$vps up demo --images "$(sed -n 's/.*nginx = { image = "\([^"]*\)".*/\1/p' modules/lua/catalog.lua)"
	rm -f "$journal"*
fi
address=$($vps address demo)
key=$($vps key demo)
known=$($vps known-hosts demo)
fingerprint=$(ssh-keygen -lf "$known" | awk '/ED25519/ { print $2; exit }')
target="ssh://root@$address:22"

say() { printf '\n%s\n' "$*"; }

say "\$ ./lbrun runbooks/provision.lua -t $target -y tenant=demo domain=demo.example ..."
status=0
./lbrun runbooks/provision.lua --journal "$journal" -t "$target?fingerprint=$fingerprint" -i "$key" \
	-y --no-input tenant=demo domain=demo.example tier=lite docker_source=distro \
	acme=self-signed admin_ssh_public_key="$(cat "$key.pub")" || status=$?
case $status in
0 | 3) ;; # 3: done, with warnings, such as a machine smaller than its tier
*)
	say "lbrun ended with exit $status; what is done and what is left:"
	./lbrun runs --journal "$journal"
	echo "To begin anew: $vps down demo"
	exit "$status"
	;;
esac

run() { $vps ssh demo --user letsbe-admin --port 22022 -- "$1"; }
say "What the server has, asked as letsbe-admin on port 22022:"
# shellcheck disable=SC2016
run '. /etc/os-release; printf "  %-10s %s\n" system "$PRETTY_NAME"
	printf "  %-10s %s\n" docker "$(sudo docker version --format "{{.Server.Version}}")"
	printf "  %-10s %s\n" containers "$(sudo docker ps --format "{{.Names}} ({{.Status}})" | paste -sd ,)"
	printf "  %-10s %s\n" firewall "$(sudo ufw status | sed -n "s/^Status: //p")"
	printf "  %-10s %s\n" fail2ban "$(sudo fail2ban-client status sshd | sed -n "s/.*Currently banned:[[:space:]]*/banned now: /p")"
	printf "  %-10s %s\n" sshd "$(sudo sshd -T | grep -E "^(port|permitrootlogin|passwordauthentication|allowusers) " | paste -sd ,)"
	printf "  %-10s %s\n" updates "$(systemctl is-enabled unattended-upgrades)"'
say "Ports as another host sees them:"
$vps scan demo 22,25,80,443,587,993,3000-3040,8100,18789,22022 | grep -v '^others' | sed 's/^/  /'

cat <<END

Look at it:
  $vps ssh demo --user letsbe-admin --port 22022
  curl -sI http://$address/
  ./lbrun runs --journal $journal
  ./lbrun show RUN --journal $journal
Run \`make demo\` again: it finds nothing to do. Remove it: $vps down demo
END
