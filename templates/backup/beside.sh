#!/bin/bash
# beside.sh: what a container beside production needs of the server, and its end. It is
# filled by restore.sh, and this touches nothing of production.
#	can MEMORY IMAGE FOLDER...	MEMORY in MiB; prints the image's id; status 3: it cannot be
#	down PROJECT DIR
#	sweep KIND DIRS			all twins of a kind that others have left below DIRS
# shellcheck disable=SC2015
set -u -o pipefail
verb=$1
shift

refuse() {
	printf '%s\n' "$1" >&2
	exit 3
}

down() { # PROJECT DIR
	local label=label=com.docker.compose.project=$1
	# A tool's own project is never meant.
	case $1 in ?*-test | ?*-temp) ;; *) refuse "$1 is no twin of a tool" ;; esac
	docker ps -aq --filter "$label" | xargs -r docker rm -f >/dev/null &&
		docker volume ls -q --filter "$label" | xargs -r docker volume rm -f >/dev/null &&
		docker network ls -q --filter "$label" | xargs -r docker network rm >/dev/null &&
		rm -rf -- "$2" && return 0
	printf '%s\n' "what belongs to $1 cannot be removed" >&2
	exit 1
}

case $verb in
can)
	memory=$1 image=$2
	shift 2
	free=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
	[ "$free" -ge $((memory + 64)) ] || refuse "not enough memory for it beside what runs: $free MiB are free, $((memory + 64)) MiB are needed"
	for folder; do [ -e "$folder" ] || refuse "it reads $folder, which is not on this server"; done
	docker image inspect "$image" >/dev/null 2>&1 || docker pull -q "$image" >/dev/null 2>&1 ||
		refuse "its image $image is not on this server and cannot be pulled"
	docker image inspect -f '{{.Id}}' "$image"
	;;
down) down "$1" "$2" ;;
sweep)
	{
		docker ps -a --format '{{.Label "com.docker.compose.project"}}'
		docker volume ls --format '{{.Label "com.docker.compose.project"}}'
		ls -1 "$2" 2>/dev/null || :
	} | sort -u | while read -r project; do
		case $project in ?*-"$1") down "$project" "$2/$project" </dev/null ;; esac
	done
	;;
esac
