# common.sh: names, state and messages that every part of the sandbox shares.
# It starts no process and changes no network.
# shellcheck shell=bash
# What is set here is read in the files that source it.
# shellcheck disable=SC2034

# The cache outlives a checkout, the state never leaves it.
home=${LBRUN_SANDBOX:-$(cd "$here/../.." && pwd)/build/sandbox}
case $home in /*) ;; *) home=$PWD/$home ;; esac
cache=${LBRUN_SANDBOX_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/lbrun-sandbox}
releases="bookworm trixie"
boot_timeout=${LBRUN_SANDBOX_BOOT_TIMEOUT:-90}

say() {
	printf 'vps: %s\n' "$*" >&2
}

die() {
	say "$@"
	exit 1
}

usage_error() {
	say "$@"
	say "usage: spec/sandbox/vps help"
	exit 2
}

need_root() {
	[ "$(id -u)" -eq 0 ] || die "a VPS is booted by systemd-nspawn, which needs root"
}

need_commands() {
	local missing="" c
	for c in "$@"; do
		command -v "$c" >/dev/null || missing="$missing $c"
	done
	[ -z "$missing" ] ||
		die "not installed:$missing (packages: $(tr '\n' ' ' <"$here/packages"))"
}

check_name() {
	[[ $1 =~ ^[a-z][a-z0-9-]{0,30}$ ]] ||
		usage_error "'$1' is not a name: a letter, then letters, digits and dashes"
}

# overlayfs splits its options at these.
check_path() {
	case $1 in
	*[,:\\]*) die "$1: a path with a comma, colon or backslash cannot hold a sandbox" ;;
	esac
}

lock() {
	mkdir -p "$home"
	exec 9>"$home/lock"
	flock -w "${1:-120}" 9 || die "another command has held $home/lock for ${1:-120} s"
}

unlock() {
	exec 9>&-
}

# A pid alone may since belong to somebody else; with its start time it cannot.
start_time() {
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	# The command name may hold spaces: count the fields after it.
	stat=${stat##*) }
	# shellcheck disable=SC2086
	set -- $stat
	[ "$1" != Z ] && printf '%s\n' "${20}"
}

record_pid() {
	printf '%s %s\n' "$1" "$(start_time "$1")" >"$2.tmp" && mv "$2.tmp" "$2"
}

# live_pid FILE: prints the recorded pid if that very process still runs.
live_pid() {
	local pid start
	read -r pid start 2>/dev/null <"$1" || return 1
	[ -n "$start" ] && [ "$(start_time "$pid")" = "$start" ] && printf '%s\n' "$pid"
}

now_ms() {
	local t=$EPOCHREALTIME
	t=${t/[.,]/}
	printf '%s\n' "${t%???}"
}

# load NAME: the VPS's conf as shell variables (id release docker disk address index).
load() {
	check_name "$1"
	name=$1
	dir=$home/vps/$name
	[ -r "$dir/conf" ] || die "there is no VPS '$name' (vps list)"
	# shellcheck source=/dev/null
	. "$dir/conf"
}

# cgroup_do ID kill|remove: the VPS's own control group, reached through a private mount,
# for on a host with cgroup v1 the v2 tree may be mounted anywhere or nowhere.
cgroup_do() {
	# shellcheck disable=SC2016
	unshare -m bash -c '
		mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup || exit 1
		cd "/sys/fs/cgroup/$1" 2>/dev/null || exit 0
		case $2 in
		kill) echo 1 >cgroup.kill ;;
		remove)
			cd ..
			for _ in {1..100}; do
				find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
				[ -d "$1" ] || exit 0
				sleep 0.05
			done
			exit 1 ;;
		esac' cgroup "$1" "$2"
}
