#!/bin/sh
# push.sh PORT LIMIT NAME...: tells Uptime Kuma how full the disk is, and whether the containers
# NAME run, which answer nobody. Written by lbrun, started by letsbe-push.timer. It watches
# nothing else.
port=$1 limit=$2
shift 2
token=$(sed -n 's/^UPTIME_KUMA_PUSH_TOKEN=\([A-Za-z0-9]*\)$/\1/p' /opt/letsbe/env/credentials.env)
[ -n "$token" ] || { echo "there is no UPTIME_KUMA_PUSH_TOKEN" >&2; exit 1; }
failed=0

# push NAME up|down MESSAGE; the token stands in nobody's list of processes.
push() {
	printf 'url = "http://127.0.0.1:%s/api/push/%s%s?status=%s&msg=%s"\n' "$port" "$token" "$1" "$2" "$3" |
		curl -sS -f -o /dev/null --max-time 20 -K - || failed=1
}

used=$(df --output=pcent / | tr -dc '0-9')
if [ "${used:-100}" -gt "$limit" ]; then push disk down "${used}%25"; else push disk up "${used}%25"; fi
for name in "$@"; do
	if [ -n "$(docker ps -q --filter "name=^/$name\$" --filter status=running)" ]; then
		push "$name" up running
	else
		push "$name" down stopped
	fi
done
exit $failed
