#!/bin/sh
# backups.sh: backs up this server, or one tool on it (section 4): a thin front door to
# lbrun's backup.lua, which does it and says how it went. Written by lbrun.
set -u
usage() {
	echo "usage: backups.sh [--tool TOOL | --nightly]" >&2
	echo "--nightly: unless this night's is done" >&2
	exit 2
}
tool='' stamp=''
while [ $# -gt 0 ]; do
	case $1 in
	--tool)
		[ $# -ge 2 ] || usage
		tool=$2
		shift
		;;
	--tool=*) tool=${1#--tool=} ;;
	--nightly) stamp=/var/lib/lbrun/nightly ;;
	*) usage ;;
	esac
	shift
done
[ -z "$stamp" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$(date +%F)" ] || exit 0
today=$(date +%F)
/opt/letsbe/scripts/here.sh backup.lua "tenant={{ tenant }}" ${tool:+"tool=$tool"}
status=$?
# Done with warnings is done.
if [ -n "$stamp" ] && { [ $status -eq 0 ] || [ $status -eq 3 ]; }; then printf '%s\n' "$today" >"$stamp"; fi
exit $status
