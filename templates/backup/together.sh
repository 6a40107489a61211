#!/bin/bash
# together.sh: runs a script several times side by side, as many as the machine bears: LIMIT at
# most, and one alone while memory is short or the load is high. A run that fails is left to who
# asks for it again alone, and hears why then: the status is 0. It knows nothing of the script.
#	SCRIPT LIMIT [COUNT WORD...]...		COUNT words are those of one run
set -u
script=$1 limit=$2
shift 2

# Whether one more may begin beside those that run.
may() {
	[ "$1" -gt 0 ] || return 0
	[ "$1" -lt "$limit" ] && awk '/^MemAvailable:/ { exit $2 < 524288 }' /proc/meminfo &&
		awk -v most=$((limit * 2)) '{ exit $1 > most }' /proc/loadavg
}

while [ $# -gt 0 ]; do
	count=$1
	shift
	until may "$(jobs -rp | wc -l)"; do wait -n; done
	bash -c "$script" together.sh "${@:1:count}" </dev/null &
	shift "$count"
done
wait
exit 0
