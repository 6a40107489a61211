#!/bin/bash
# publish.sh: makes a whole backup the day's, by rename, and `latest` its pointer. Entered
# again after a crash it goes on. It looks into no backup and removes none but the one of
# the same day that the new one stands for.
#	BASE DAY WORK LATEST
# shellcheck disable=SC2015
set -u # die does not return
base=$1 day=$2 work=$3 latest=$4
die() {
	printf '%s\n' "$1" >&2
	exit 1
}

if [ -d "$work" ]; then
	[ -s "$work/manifest.json" ] || die "$work has no manifest"
	sync -f "$work" || die "$work cannot be written to the disk"
	if [ -e "$base/$day" ]; then
		rm -rf -- "$base/.$day.replaced"
		mv -T "$base/$day" "$base/.$day.replaced" || die "the earlier backup of $day cannot be moved aside"
	fi
	mv -T "$work" "$base/$day" || {
		[ -e "$base/$day" ] || mv -T "$base/.$day.replaced" "$base/$day"
		die "$work cannot be renamed"
	}
fi
[ -d "$base/$day" ] || die "there is no $base/$day"
if [ -n "$latest" ]; then
	rm -f "$latest.new"
	ln -s "${base##*/}/$day" "$latest.new" && mv -fT "$latest.new" "$latest" || die "$latest cannot be set"
fi
sync -f "$base"
rm -rf -- "$base/.$day.replaced"
