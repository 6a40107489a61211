#!/bin/bash
# remote.sh: backups on an rclone remote: which there are, one more, one less, one back. A
# backup there is whole when its manifest stands, which is sent last and goes first. It
# chooses none, and deletes nothing but what it is told by name.
#	list CONFIG TARGET
#	send CONFIG TARGET NAME DAY	DAY: the backup's directory here
#	drop CONFIG TARGET NAME...
#	fetch CONFIG TARGET NAME TO [TOOL]	TO: the directory here; of one tool, or all
#	keep CONFIG TARGET FILE NAME		a file beside the backups, as evidence/NAME
# shellcheck disable=SC2015
set -u -o pipefail # die does not return
umask 077
export LC_ALL=C
verb=$1 config=$2 target=$3
shift 3
logs=${LBRUN_REMOTE_LOGS:-/var/log/letsbe}
# A store that is gone is seen to be gone within minutes, not hours.
options=(--config "$config" --ask-password=false --retries 2 --low-level-retries 2 --contimeout 20s --timeout 2m)
bulk=("${options[@]}" --transfers 4 --checkers 8 --fast-list --log-file "$logs/rclone.log" --skip-links)

die() {
	printf 'remote: %s\n' "$1" >&2
	exit 1
}

# The last thing that rclone wrote of an error says why.
why() { tail -n 200 "$logs/rclone.log" 2>/dev/null | grep -vE '^$| (NOTICE|INFO|DEBUG) *:' | tail -n 1 | cut -c1-300; }

# Nothing there yet is no failure.
ls_() {
	local status
	rclone lsf "${options[@]}" "$@"
	status=$?
	[ $status -eq 0 ] || [ $status -eq 3 ]
}

# What is encrypted there has other sums: cryptcheck knows how to compare them.
check() {
	local how=check
	[ "$(awk '/^\[/ { at = $0 } at == "[remote]" && $1 == "type" { print $3 }' "$config")" != crypt ] || how=cryptcheck
	rclone "$how" "${bulk[@]}" --one-way "$@" 2>/dev/null || die "what arrived at $target is not what was sent: $(why)"
}

case $verb in
list)
	ls_ -R --max-depth 2 --files-only --include '/*/manifest.json' "$target/daily" | sed 's,/manifest\.json$,\twhole,' || die "$target cannot be listed"
	ls_ --dirs-only "$target/daily" | sed 's,/$,\tthere,' || die "$target cannot be listed"
	;;
send)
	name=$1 day=$2
	to=$target/daily/$name
	mkdir -p "$logs" || die "no place for its log"
	[ -s "$day/manifest.json" ] || die "$day is no whole backup"
	rclone copy "${bulk[@]}" --exclude /manifest.json "$day" "$to" || die "the copy to $target broke off: $(why)"
	check --exclude /manifest.json "$day" "$to"
	rclone copy "${bulk[@]}" --include /manifest.json "$day" "$to" || die "the manifest was not sent to $target: $(why)"
	check --include /manifest.json "$day" "$to"
	printf 'daily/%s\n' "$name" | rclone rcat "${bulk[@]}" "$target/latest" || die "$target/latest was not written: $(why)"
	;;
drop)
	for name; do
		# First what makes it whole: one that is half gone must not look good.
		rclone delete "${bulk[@]}" --include /manifest.json "$target/daily/$name" &&
			rclone purge "${bulk[@]}" "$target/daily/$name" || die "$name cannot be removed from $target: $(why)"
	done
	;;
keep)
	mkdir -p "$logs" || die "no place for its log"
	rclone copyto "${bulk[@]}" "$1" "$target/evidence/$2" || die "$target/evidence/$2 was not written: $(why)"
	;;
fetch)
	name=$1 to=$2 tool=${3:-}
	mkdir -p "$logs" "$to" || die "no place in $to"
	rclone copy "${bulk[@]}" --include /manifest.json "$target/daily/$name" "$to" || die "the manifest of $name does not come: $(why)"
	[ -s "$to/manifest.json" ] || die "there is no whole backup $name in $target"
	words=()
	if [ -n "$tool" ]; then
		# A snapshot's files stand in the directory that its list is named after.
		while read -r path; do
			words+=(--include "/$path")
			case $path in *.sha256) words+=(--include "/${path%.sha256}/**") ;; esac
		done < <(jq -r --arg tool "$tool" '.parts[$tool].files[].path' "$to/manifest.json")
		[ ${#words[@]} -gt 0 ] || die "the backup $name has nothing of $tool"
	fi
	need=$(rclone size "${options[@]}" --json "${words[@]}" "$target/daily/$name" | jq .bytes) || die "$name cannot be measured"
	free=$(df -Pk "$to" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge $((need / 1024 + 65536)) ] || die "not enough free space to fetch $name: $((free / 1024)) MiB are free in $to, $((need / 1048576 + 64)) MiB are needed"
	rclone copy "${bulk[@]}" "${words[@]}" "$target/daily/$name" "$to" || die "the copy from $target broke off: $(why)"
	# Owners, modes, links and empty directories, which an object store does not keep. Links
	# last: nothing is written through one. Only the lists that the manifest names, as it has
	# them: a tenant's own files may end in .meta too.
	lists=$(jq -r --arg tool "$tool" '.parts | to_entries[] | select($tool == "" or .key == $tool) | .value.files[]
		| select(.kind == "meta") | "\(.sha256) \(.path)"' "$to/manifest.json") || die "the manifest of $name cannot be read"
	while read -r sum meta; do
		[ -n "$sum" ] || continue
		case /$meta/ in */../*) die "a path of the manifest of $name leads outside" ;; esac
		meta=$to/$meta
		[ "$(sha256sum <"$meta" | cut -d ' ' -f 1)" = "$sum" ] || die "${meta#"$to"/} is not what was backed up"
		[ -d "${meta%.meta}" ] || mkdir "${meta%.meta}" || die "no place for ${meta%.meta}"
		perl -e '
use strict; local $/ = "\0"; my ($root, @links, @dirs) = (shift);
while (defined(my $about = <STDIN>)) {
	my ($path, $link) = (scalar <STDIN>, scalar <STDIN>);
	chomp($about, $path, $link);
	die "a path leads outside\n" if "/$path/" =~ m{/\.\./} || $path =~ m{^/};
	my ($kind, $mode, $uid, $gid, $time) = split / /, $about;
	my $at = $path eq "" ? $root : "$root/$path";
	next if $kind !~ /^[dfl]$/;
	die "$path is a link\n" if $kind ne "l" && -l $at;
	if ($kind eq "l") { push @links, [$at, $link, $uid, $gid]; next }
	if ($kind eq "d" && !-d $at) { mkdir $at, 0700 or die "$path: $!\n" }
	next if $kind eq "f" && !-e $at;
	chown $uid, $gid, $at and chmod oct $mode, $at or die "$path: $!\n";
	if ($kind eq "d") { unshift @dirs, [$time, $at] } else { utime $time, $time, $at }
}
for (@links) { my ($at, $link, $uid, $gid) = @$_; unlink $at; symlink $link, $at or die "$at: $!\n";
	$uid || $gid and system("chown", "-h", "$uid:$gid", $at) }
utime $_->[0], $_->[0], $_->[1] for @dirs' "${meta%.meta}" <"$meta" || die "owners and links of $name cannot be set"
	done <<<"$lists"
	: >"$to/.fetched" && sync -f "$to" || die "no mark can be written"
	;;
*) die "there is no verb '$verb'" ;;
esac
