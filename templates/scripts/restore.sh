#!/bin/sh
# restore.sh: brings back what was backed up (section 5), into production, or beside it with
# --target temp; or only tests that it would come back (--test). A thin front door to lbrun's
# restore.lua and restore-test.lua, which do it. Written by lbrun.
set -u
usage() {
	cat >&2 <<'END'
usage: restore.sh --tool TOOL [--date YYYY-MM-DD] [--from remote]       one tool
       restore.sh --all [--date YYYY-MM-DD] [--from remote]             every tool
       restore.sh --tool TOOL [--date YYYY-MM-DD] --target temp         into a container beside it
       restore.sh --tool TOOL --target temp --remove                    which is removed again
       restore.sh --test [--tool TOOL | --all] [--from remote]          prove a backup
END
	exit 2
}
book=restore.lua
tool='' date='' target='' from='' all='' remove=''
while [ $# -gt 0 ]; do
	case $1 in
	--*=*)
		word=$1
		shift
		set -- "${word%%=*}" "${word#*=}" "$@"
		continue
		;;
	--all) all=yes ;;
	--remove) remove=yes ;;
	--test) book=restore-test.lua ;;
	--tool | --date | --target | --from)
		[ $# -ge 2 ] || usage
		case $1 in
		--tool) tool=$2 ;;
		--date) date=$2 ;;
		--target) target=$2 ;;
		--from) from=$2 ;;
		esac
		shift
		;;
	*) usage ;;
	esac
	shift
done
[ $book = restore-test.lua ] || [ -n "$tool$all" ] || usage
exec /opt/letsbe/scripts/here.sh $book "tenant={{ tenant }}" ${tool:+"tool=$tool"} ${date:+"date=$date"} \
	${target:+"as=$target"} ${from:+"from=$from"} ${all:+all=true} ${remove:+remove=true}
