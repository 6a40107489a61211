#!/bin/sh
# apart.sh: keeps what a drill has restored to itself, also at boot: no container begins a
# connection that leaves this server, nor does a program of an ordinary user, as a container on
# the host's network is one. What root begins, and what others ask of the server, goes on.
# It stands in the table mangle, which neither ufw nor Docker writes anew.
#
#	apart.sh apply     apart.sh status
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
users='-m owner --uid-owner 1000-65533'

tables() {
	f=$1
	shift
	if [ "$f" = 6 ]; then ip6tables -w 10 -t mangle "$@"; else iptables -w 10 -t mangle "$@"; fi
}

has6() { tables 6 -S OUTPUT >/dev/null 2>&1; }

# One family's chain as text for iptables-restore: in place at once, or not at all.
chain() {
	echo '*mangle'
	echo ':LBRUN-APART - [0:0]'
	for nic in lo docker0 br-+; do echo "-A LBRUN-APART -o $nic -j RETURN"; done
	echo '-A LBRUN-APART -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN'
	echo '-A LBRUN-APART -j DROP'
	tables "$1" -C FORWARD -j LBRUN-APART 2>/dev/null || echo '-I FORWARD 1 -j LBRUN-APART'
	# shellcheck disable=SC2086
	tables "$1" -C OUTPUT $users -j LBRUN-APART 2>/dev/null || echo "-I OUTPUT 1 $users -j LBRUN-APART"
	echo COMMIT
}

in_place() {
	# shellcheck disable=SC2086
	tables "$1" -C FORWARD -j LBRUN-APART 2>/dev/null && tables "$1" -C OUTPUT $users -j LBRUN-APART 2>/dev/null &&
		tables "$1" -C LBRUN-APART -j DROP 2>/dev/null
}

case ${1-} in
apply)
	chain 4 | iptables-restore -w 10 --noflush || exit 1
	! has6 || chain 6 | ip6tables-restore -w 10 --noflush || exit 1
	;;
status)
	if in_place 4 && { ! has6 || in_place 6; }; then echo apart; else echo open; fi
	;;
*)
	echo "apart.sh: unknown command '${1-}'" >&2
	exit 2
	;;
esac
