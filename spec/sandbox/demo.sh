#!/bin/bash
# demo.sh: boots the VPS `demo` on this machine and makes it a tenant with three tools over
# SSH; when it is up already, the run finds nothing to do. It builds nothing (`make demo` does
# that first). The images and the Hub are stand-ins.
set -eu
cd "$(dirname "$0")/../.."
vps=spec/sandbox/vps
dir=build/demo
journal=$dir/journal.db
tools=ghost,nextcloud,uptime-kuma
mkdir -p "$dir"

# images PART...: the images of these, as --images wants them. No registry is asked.
images() {
	./lbrun runbooks/catalog.lua --journal "$dir/catalog.db" --json json=true | python3 -c '
import json, sys
for line in sys.stdin:
    line = json.loads(line)
    if line["type"] == "log":
        known = json.loads(line["text"])["images"]
print(",".join(dict.fromkeys(image for part in sys.argv[1:] for image in known[part])))' "$@"
}

if ! $vps address demo >/dev/null 2>&1; then
	$vps up demo --images "$(images nginx ${tools//,/ } openclaw secrets-proxy)"
	rm -rf "$journal"* "$dir/hub"
fi
address=$($vps address demo)
key=$($vps key demo)
known=$($vps known-hosts demo)
fingerprint=$(ssh-keygen -lf "$known" | awk '/ED25519/ { print $2; exit }')
target="ssh://root@$address:22"

# The Hub listens on the bridge, where the server reaches it too. It ends with this script.
if [ ! -d "$dir/hub" ]; then
	mkdir -m 700 "$dir/hub"
	(umask 077 && head -c 24 /dev/urandom | base64 >"$dir/hub/token")
fi
port=$(cat "$dir/hub/port" 2>/dev/null || true)
: >"$dir/hub/said" # for the first look, which may come before its first word
python3 spec/support/hub.py "$dir/hub" "${address%.*}.1" "${port:-0}" >"$dir/hub/said" </dev/null &
trap 'kill $!' EXIT
for _ in $(seq 100); do
	port=$(sed -n 's/^port //p' "$dir/hub/said")
	[ -z "$port" ] || break
	sleep 0.1
done
[ -n "$port" ] || {
	echo "demo: the Hub's stand-in does not start" >&2
	exit 1
}
echo "$port" >"$dir/hub/port"

# Who could open the sealed copy of its credentials: in earnest a key that is kept elsewhere.
[ -s "$dir/recovery.key" ] || age-keygen -o "$dir/recovery.key" 2>"$dir/recovery.said"

say() { printf '\n%s\n' "$*"; }

say "\$ ./lbrun runbooks/provision.lua -t $target -y tenant=demo domain=demo.example tools=$tools ..."
status=0
./lbrun runbooks/provision.lua --journal "$journal" -t "$target?fingerprint=$fingerprint" -i "$key" \
	-y --no-input tenant=demo domain=demo.example tier=lite docker_source=distro \
	acme=self-signed alert_url=https://alerts.example/hook admin_ssh_public_key="$(cat "$key.pub")" tools=$tools \
	recipients="$(age-keygen -y "$dir/recovery.key")" \
	hub_url="http://${address%.*}.1:$(cat "$dir/hub/port")" job_id=demo-1 runner_token=@"$dir/hub/token" || status=$?
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
say "Its sites, over HTTPS with a certificate of its own (the images are stand-ins):"
for name in demo blog.demo files.demo status.demo; do
	printf '  %-22s %s\n' "$name.example" "$(curl -sk --max-time 20 -o /dev/null -w '%{http_code}' \
		--resolve "$name.example:443:$address" "https://$name.example/")"
done
say "What the Hub (a stand-in) was told:"
python3 -c '
import json, sys
for line in open(sys.argv[1]):
    r = json.loads(line)
    print("  %s %s %s" % (r["method"], r["path"], json.dumps(r["body"])[:60]))' "$dir/hub/requests.jsonl"
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
