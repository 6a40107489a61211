#!/bin/sh
# lbrun's guard: keeps copies of sshd's and ufw's files and puts them back unless somebody
# confirms in time over a new connection. A guard is a directory below /var/lib/lbrun/guard;
# its state is the one subdirectory it has: armed, confirmed or fired. It changes by rename
# under one lock. It never touches Docker's chains, host keys or users.
#
#	guard.sh arm NAME SAVES...   guard.sh confirm NAME   guard.sh fire [NAME]
#	guard.sh state NAME          guard.sh clear NAME
set -u
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
root=/var/lib/lbrun/guard

die() {
	echo "guard: $1" >&2
	exit "${2:-1}"
}

state_of() {
	for s in armed confirmed fired; do
		[ ! -d "$root/$1/$s" ] || { echo "$s"; return; }
	done
	echo none
}

save_sshd() {
	[ -d /etc/ssh ] || return 0
	cp -a /etc/ssh "$1/ssh" || return
	rm -f "$1"/ssh/ssh_host_*
	if systemctl is-enabled --quiet ssh.socket 2>/dev/null; then echo enabled; else echo disabled; fi >"$1/socket"
	if systemctl is-active --quiet ssh.socket; then echo active; else echo inactive; fi >>"$1/socket"
	if systemctl is-enabled --quiet ssh.service 2>/dev/null; then echo enabled; else echo disabled; fi >>"$1/socket"
}

save_ufw() {
	[ -d /etc/ufw ] || return 0
	cp -a /etc/ufw "$1/ufw" && cp -a /etc/default/ufw "$1/ufw.default" || return
	iptables -S FORWARD 2>/dev/null | sed -n 's/^-P FORWARD //p' >"$1/forward"
}

# Copies back what was saved and removes what came since, host keys apart.
restore_tree() {
	cp -a --remove-destination "$1/." "$2/" || return
	(cd "$2" && find . ! -type d ! -path './ssh_host_*') | while IFS= read -r f; do
		[ -e "$1/$f" ] || [ -L "$1/$f" ] || rm -f "$2/$f"
	done
}

# The unit runs this before sshd and ufw (it has to, at boot), so that a start that waited
# would wait for the unit itself: it sets --no-block.
restore_sshd() {
	[ -d "$1/ssh" ] || return 0
	block=${LBRUN_GUARD_BLOCK:---no-pager}
	restore_tree "$1/ssh" /etc/ssh
	sync
	socket=$(sed -n 1p "$1/socket")
	active=$(sed -n 2p "$1/socket")
	service=$(sed -n 3p "$1/socket")
	systemctl daemon-reload
	if [ "$active" = active ] && ! systemctl is-active --quiet ssh.socket; then
		# A socket cannot be bound while the service holds its port. Sessions live on.
		systemctl stop ssh.service
		[ "$service" = enabled ] || systemctl disable --quiet ssh.service
		[ "$socket" != enabled ] || systemctl enable --quiet ssh.socket
		systemctl "$block" start ssh.socket
	elif [ "$active" = active ]; then
		systemctl "$block" restart ssh.socket
	else
		[ "$socket" = enabled ] || systemctl disable --quiet ssh.socket 2>/dev/null
		systemctl is-active --quiet ssh.socket && systemctl stop ssh.socket
		systemctl reset-failed ssh.service 2>/dev/null
		systemctl "$block" reload-or-restart ssh.service
	fi
}

restore_ufw() {
	if [ ! -d "$1/ufw" ]; then
		# ufw came while the guard was armed: without its rules nothing is shut.
		[ -x /usr/sbin/ufw ] && ufw --force disable
		return 0
	fi
	restore_tree "$1/ufw" /etc/ufw
	cp -a --remove-destination "$1/ufw.default" /etc/default/ufw
	sync
	if grep -q '^ENABLED=yes' /etc/ufw/ufw.conf; then
		ufw reload || { /lib/ufw/ufw-init force-stop; ufw --force enable; }
	else
		/lib/ufw/ufw-init force-stop
		# Stopping leaves FORWARD open; what stood before was perhaps Docker's DROP.
		[ ! -s "$1/forward" ] || iptables -P FORWARD "$(cat "$1/forward")"
	fi
}

# The service stays enabled, for a boot: where nothing is armed it does nothing, and to enable
# or disable it makes systemd read every unit anew, each time.
units_on() {
	systemctl is-enabled --quiet lbrun-guard.service || systemctl enable --quiet lbrun-guard.service || return
	! systemctl show -p NeedDaemonReload lbrun-guard.service lbrun-guard.timer | grep -q =yes ||
		systemctl daemon-reload
}

timer_off() {
	for d in "$root"/*/armed; do
		[ ! -d "$d" ] || return 0
	done
	systemctl --no-block stop lbrun-guard.timer
}

fire_one() {
	d=$root/$1/armed
	read -r saves <"$d/saves"
	for what in $saves; do
		case $what in
		sshd) restore_sshd "$d" ;;
		ufw) restore_ufw "$d" ;;
		script) sh "$d/restore.sh" ;;
		esac
	done
	rm -rf "$d/ssh" "$d/ufw" "$d/ufw.default"
	date -u +%Y-%m-%dT%H:%M:%SZ >"$d/when"
	rm -rf "$root/$1/confirmed" "$root/$1/fired"
	mv -T "$d" "$root/$1/fired"
	sync
	logger -t lbrun-guard "guard $1 was not confirmed: the old state was put back" 2>/dev/null
	echo "guard $1: the old state was put back"
}

[ $# -ge 1 ] || die "usage: guard.sh arm|confirm|fire|state|clear [NAME] [SAVES]" 2
command=$1
name=${2:-}
case $name in *[!a-z0-9-]*) die "bad name '$name'" 2 ;; esac
[ -n "$name" ] || [ "$command" = fire ] || die "a name is missing" 2
mkdir -p "$root" && chmod 700 /var/lib/lbrun "$root" || exit 1
exec 9>"$root/lock" || exit 1
# Waits for a guard that is firing just now: its restore has to end first.
flock -w 60 9 || die "another guard command holds the lock" 75

case $command in
state) state_of "$name" ;;

arm)
	shift 2
	if [ "$(state_of "$name")" = armed ]; then
		# What was saved first is the state before the change; only the clock starts anew.
		answer="armed again"
	else
		rm -rf "${root:?}/$name"
		new=$root/$name/new
		mkdir -p "$new" || exit 1
		for what in "$@"; do
			case $what in
			sshd) save_sshd "$new" || die "cannot save sshd's files" ;;
			ufw) save_ufw "$new" || die "cannot save ufw's files" ;;
			script) cp "$root/restore.$name" "$new/restore.sh" || die "no restore script" ;;
			*) die "cannot save '$what'" 2 ;;
			esac
		done
		echo "$*" >"$new/saves"
		sync -f "$root"
		mv -T "$new" "$root/$name/armed" || exit 1
		answer=armed
	fi
	if ! { units_on && systemctl restart lbrun-guard.timer && systemctl is-active --quiet lbrun-guard.timer; }; then
		[ "$answer" != armed ] || rm -rf "${root:?}/$name"
		die "its timer does not start"
	fi
	sync -f "$root"
	echo "$answer"
	;;

confirm)
	case $(state_of "$name") in
	armed)
		mv -T "$root/$name/armed" "$root/$name/confirmed" || exit 1
		rm -rf "$root/$name/confirmed/ssh" "$root/$name/confirmed/ufw" "$root/$name/confirmed/ufw.default"
		sync -f "$root"
		timer_off
		echo confirmed
		;;
	*)
		state_of "$name"
		exit 3
		;;
	esac
	;;

fire)
	for d in "$root"/*/armed; do
		[ -d "$d" ] || continue
		one=${d%/armed}
		one=${one##*/}
		[ -z "$name" ] || [ "$name" = "$one" ] || continue
		fire_one "$one"
	done
	timer_off
	;;

clear)
	[ "$(state_of "$name")" != armed ] || die "guard $name is armed" 4
	rm -rf "${root:?}/$name"
	;;

*) die "unknown command '$command'" 2 ;;
esac
