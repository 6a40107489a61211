#!/bin/sh
# evidence.sh: what an isolated server tells of the incident, as one archive with its SHA-256
# beside it. Values of containers' variables are left out. It changes nothing else.
set -u
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
dir=/var/lib/lbrun/isolation
head=$1
[ ! -s $dir/evidence.tar.gz.sha256 ] || exit 0
mkdir -p $dir/evidence && cd $dir/evidence || exit 1
take() {
	name=$1
	shift
	timeout 60 "$@" >"$name" 2>&1
}
printf '%s\n' "$head" >journal-head
date -u +%FT%TZ >./time
take processes ps auxwwf
take connections ss -tuanp
take listeners ss -tulnp
take logins last -Faiwx -n 500
take failed-logins lastb -Faiwx -n 500
take who who -a
take ssh-log journalctl -u ssh -n 5000 --no-pager -o short-iso
take sudo-log journalctl -t sudo -n 2000 --no-pager -o short-iso
take rules4 iptables-save
take rules6 ip6tables-save
take modules lsmod
take units systemctl list-units --all --no-pager --plain
take timers systemctl list-timers --all --no-pager
take cron sh -c 'cat /etc/crontab /etc/cron.d/* /var/spool/cron/crontabs/* 2>/dev/null'
take accounts getent passwd
# shellcheck disable=SC2016
take keys sh -c 'for f in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
	[ -f "$f" ] && echo "$f" && ssh-keygen -lf "$f"; done; true'
take changed-files find /etc /usr/local /root /home /opt/letsbe -xdev -type f -mtime -7 -printf '%T+ %m %u %s %p\n'
take setuid find / -xdev -type f -perm /6000 -printf '%m %u %T+ %p\n'
take packages dpkg-query -W
take verify-packages sh -c 'command -v debsums >/dev/null && debsums -c || dpkg --verify'
if command -v docker >/dev/null; then
	take containers docker ps -a --no-trunc
	take images docker images --digests --no-trunc
	take networks docker network ls
	for c in $(docker ps -aq); do
		mkdir -p "container-$c"
		take "container-$c/inspect" docker inspect --format \
			'{{.Name}} {{.Image}} {{.Created}} {{json .State}} {{json .Mounts}} privileged={{.HostConfig.Privileged}} {{json .HostConfig.CapAdd}} {{json .NetworkSettings.Ports}}' "$c"
		take "container-$c/processes" docker top "$c" auxww
		take "container-$c/changes" docker diff "$c"
		take "container-$c/log" docker logs --timestamps --tail 5000 "$c"
	done
fi
find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >../.SHA256SUMS || exit 1
mv -T ../.SHA256SUMS SHA256SUMS
cd $dir && tar -czf .evidence.tar.gz evidence && sync || exit 1
mv -T .evidence.tar.gz evidence.tar.gz
sha256sum evidence.tar.gz >.sum && mv -T .sum evidence.tar.gz.sha256
sync
