#!/bin/bash
# run.sh: runs the specs, each file in a process of its own, and adds up what they count.
# A file that crashes, hangs or does not say how it ended counts as a failed spec. It
# builds nothing.
#	spec/support/run.sh MODE [--match NAME] [--exclude-tags A,B]
# --match NAME: the files named NAME_spec.lua or NAME_*_spec.lua, else the specs with that
# tag. LBRUN_SPEC_TIMEOUT: seconds a file may take (2700). LBRUN_SPEC_JOBS: how many files
# with VPSs run at a time (2). LBRUN_SPEC_AGAIN=1: a file that failed is run once more,
# alone, after all others, and counts as it ended then; the end says which passed only so.
set -u
cd "$(dirname "$0")/../.." || exit 1
mode=$1
shift
match="" options=()
while [ $# -gt 0 ]; do
	case $1 in
	--match) match=$2 ;;
	--exclude-tags) options+=(--exclude-tags "$2") ;;
	*)
		echo "run.sh: unknown option $1" >&2
		exit 2
		;;
	esac
	shift 2
done

mapfile -t files < <(find spec -name '*_spec.lua' | LC_ALL=C sort)
if [ -n "$match" ]; then
	named=()
	for file in "${files[@]}"; do
		case ${file##*/} in
		"$match"_spec.lua | "$match"_*_spec.lua) named+=("$file") ;;
		esac
	done
	if [ ${#named[@]} -gt 0 ]; then
		files=("${named[@]}")
	else
		options+=(--tags "$match")
	fi
fi

# The sanitizers find what was preloaded before them, and end a process they complain of.
export ASAN_OPTIONS=${ASAN_OPTIONS:-verify_asan_link_order=0:detect_leaks=1:abort_on_error=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
export LBRUN_SPEC_MODE=$mode
export logs=build/$mode/spec-logs
mkdir -p "$logs"
began=$SECONDS

log_of() {
	local name=${1#spec/}
	printf '%s/%s.log\n' "$logs" "${name//\//-}"
}
# one FILE [OPTION...]: runs it and leaves "PASSED FAILED" in its .count.
one() {
	local file=$1 log status last p=0 f=1
	shift
	log=$(log_of "$file")
	timeout --kill-after=10 "${LBRUN_SPEC_TIMEOUT:-2700}" \
		"build/$LBRUN_SPEC_MODE/lbrun-spec" "$@" "$file" >"$log" 2>&1 </dev/null
	status=$?
	last=$(tail -n 1 "$log")
	if [[ ! $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		printf 'FAIL %s: it ended with status %d and without a count\n%s\n' "$file" $status \
			"$(tail -n 40 "$log")"
	elif [ $# -gt 0 ] && [ "$(tail -n 2 "$log" | head -n 1)" = "no spec ran" ] &&
		! grep -q '^FAIL' "$log"; then
		# A file all of whose specs are left out by their tags.
		f=0
	else
		p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]}
		if [ $status -ne 0 ] && [ "$f" -eq 0 ]; then
			printf 'FAIL %s: all of its specs passed, then it ended with status %d\n' "$file" $status
			f=1
		fi
		# In one piece: two files may end at the same time.
		printf '%s\n' "$(grep -v ' passed, [0-9]* failed$' "$log")"
	fi
	printf '%d %d\n' "$p" "$f" >"${log%.log}.count"
}
export -f log_of one

rm -f "$logs"/*.count
# some JOBS GREP_OPTION: runs the files that speak of VPSs, or the others.
some() {
	grep "$2" -Z '#vps' "${files[@]}" |
		xargs -0 -r -P "$1" -I FILE bash -c 'one "$@"' one FILE "${options[@]}"
}
# Those that boot VPSs mostly wait; of the others some measure time.
some "${LBRUN_SPEC_JOBS:-2}" -l
some 1 -L
# count FILE: sets p and f.
count() {
	local log
	log=$(log_of "$1")
	p=0 f=1
	read -r p f <"${log%.log}.count" || echo "FAIL $1: it was not run"
}
passed=0 failed=0 again=()
for file in "${files[@]}"; do
	count "$file"
	if [ "$f" -gt 0 ] && [ "${LBRUN_SPEC_AGAIN:-}" = 1 ]; then
		echo "again $file: $f failed, once more alone"
		one "$file" "${options[@]}"
		count "$file"
		[ "$f" -gt 0 ] || again+=("$file")
	fi
	passed=$((passed + p)) failed=$((failed + f))
done
[ ${#again[@]} -eq 0 ] || printf 'passed at the second try only: %s\n' "${again[@]}"
if [ $((passed + failed)) -eq 0 ]; then
	echo "no spec ran${match:+ (no file or tag is named $match)}"
	failed=1
fi
printf 'in %d s\n%d passed, %d failed\n' $((SECONDS - began)) $passed $failed
[ $failed -eq 0 ]
