#!/bin/sh
# here.sh: a runbook of the lbrun on this server, on this server. What an earlier such run has
# left open, at a power cut perhaps, is finished first. It knows no runbook.
#	here.sh RUNBOOK.lua [NAME=VALUE...]
set -u
lbrun=/opt/letsbe/lbrun/current/bin/lbrun
HOME=${HOME:-/root}
export HOME
[ "$(id -u)" = 0 ] || {
	echo "this needs root: sudo $0" >&2
	exit 2
}
(umask 077 && mkdir -p /var/lib/lbrun) || exit 1

run() { "$lbrun" "$@" --journal /var/lib/lbrun/here.db --allow-local-root --no-input -y; }

said=$(mktemp) || exit 1
trap 'rm -f "$said"' EXIT
book=$1
shift
run "$book" -t local: "$@" 2>"$said"
status=$?
cat "$said" >&2
[ $status -eq 8 ] || exit $status
# It is locked by a run whose process is gone: that goes on, then this one.
before=$(sed -n 's/.*go on with it: lbrun resume \([a-z0-9-]*\),.*/\1/p' "$said")
[ -n "$before" ] || exit 8
run resume "$before" || echo "the run $before did not end well; see: $lbrun show $before --journal /var/lib/lbrun/here.db" >&2
run "$book" -t local: "$@"
