#!/bin/bash
# begin.sh: the directory that a backup is written to. What runs that were given up have
# left goes away, what a crash in mid-publishing has moved aside comes back, tools that are
# still stopped start, and there is room. It writes no backup.
#	BASE WORK TOOL...
# shellcheck disable=SC2015
set -u # die does not return
umask 077
base=$1 work=$2
shift 2
die() {
	printf '%s\n' "$1" >&2
	exit 1
}

mkdir -p "$base" || die "no place for backups in $base"
chmod 700 /opt/letsbe/backups "$base"
for f in "$base"/.*.replaced; do
	[ -d "$f" ] || continue
	day=${f##*/.}
	day=$base/${day%.replaced}
	if [ -e "$day" ]; then rm -rf -- "$f"; else mv -T "$f" "$day"; fi
done
for f in "$base"/.*.partial-* "$base"/.*.removed /opt/letsbe/backups/weekly/.*.removed; do
	[ ! -d "$f" ] || [ "$f" = "$work" ] || rm -rf -- "$f"
done
for f in /opt/letsbe/backups/.stopped-*; do
	[ -f "$f" ] || continue
	# One that was removed meanwhile has nothing to start.
	known=$(docker ps -a --format '{{.Names}}') || die "Docker cannot be asked for what an earlier backup stopped"
	{ grep -xF -f "$f" <<<"$known" | xargs -r docker start >/dev/null && rm -f "$f"; } || die "a tool that an earlier backup stopped does not start (${f##*/.stopped-})"
done

# As if nothing were compressed or linked: the volumes as they are, and a margin.
need=0
volumes=$(docker volume ls -q --filter label=com.docker.compose.project) || die "the volumes cannot be listed"
while read -r tool at; do
	case " $* " in *" $tool "*) ;; *) continue ;; esac
	size=$(du -skx "$at" | cut -f1) || die "the volume $at cannot be measured"
	need=$((need + size))
done < <(xargs -r docker volume inspect -f '{{index .Labels "com.docker.compose.project"}} {{.Mountpoint}}' <<<"$volumes")
free=$(df -Pk "$base" | awk 'NR == 2 { print $4 }')
[ "$free" -ge $((need + 65536)) ] ||
	die "not enough free space for a backup: $((free / 1024)) MiB are free in $base, $((need / 1024 + 64)) MiB may be needed; nothing was written"
mkdir -p "$work/.parts" && sync -f "$work"
