#!/bin/sh
# isolate.sh: cuts a server off: nothing that it or its containers begin leaves it, and
# from outside SSH alone is reached (and 80 and 443 where that was chosen). It keeps to three
# chains of its own; ufw's and Docker's rules stay as they are. It stops no container.
#
#	isolate.sh apply      (also at boot; the first time it records what is gone afterwards)
#	isolate.sh open-ssh   the guard's: inbound is as before, nothing gets out all the same
#	isolate.sh release    isolate.sh status    isolate.sh leave ADDRESS:PORT...
set -u
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
dir=/var/lib/lbrun/isolation
web=closed ports=22
# shellcheck disable=SC1091
[ ! -r $dir/conf ] || . $dir/conf

# What a cut connection or a stopped container no longer tells. Bounded: the cut waits.
volatile() {
	[ ! -d $dir/evidence/volatile ] || return 0
	new=$dir/evidence/.volatile
	rm -rf $new && mkdir -p $new || return 0
	(
		cd $new || exit
		date -u +%FT%TZ >./time
		timeout 5 ss -tuanp >connections 2>&1 &
		timeout 5 ps auxwwf >processes 2>&1 &
		timeout 5 who -a >logins 2>&1 &
		timeout 5 ip neigh >neighbours 2>&1 &
		timeout 5 ip route >routes 2>&1 &
		timeout 5 iptables-save >rules4 2>&1 &
		timeout 5 ip6tables-save >rules6 2>&1 &
		timeout 5 docker ps -a --no-trunc >containers 2>&1 &
		wait
	)
	mv -T $new $dir/evidence/volatile
	sync
}

each_web() {
	[ "$web" != open ] || for p in 80 443; do echo "$1 $p $2"; done
}

# One family's chains as text for iptables-restore: in place at once, or not at all.
chains() {
	family=$1
	echo '*filter'
	printf ':%s - [0:0]\n' LBRUN-OUT LBRUN-FWD LBRUN-IN
	for nic in lo docker0 br-+; do
		echo "-A LBRUN-OUT -o $nic -j RETURN"
		echo "-A LBRUN-IN -i $nic -j RETURN"
	done
	# Only what answers somebody else's connection: a port alone could be taken as a source.
	for p in $(echo "$ports" | tr , ' ') $( [ "$web" != open ] || echo 80 443 ); do
		echo "-A LBRUN-OUT -p tcp -m conntrack --ctstate ESTABLISHED --ctdir REPLY --ctorigdstport $p -j RETURN"
		echo "-A LBRUN-IN -p tcp --dport $p -j RETURN"
	done
	# Without its lease or its neighbours the server would be lost to us as well.
	if [ "$family" = 4 ]; then
		echo "-A LBRUN-OUT -p udp --sport 68 --dport 67 -j RETURN"
		echo "-A LBRUN-IN -p udp --sport 67 --dport 68 -j RETURN"
	else
		for t in 133 134 135 136; do
			echo "-A LBRUN-OUT -p ipv6-icmp --icmpv6-type $t -j RETURN"
			echo "-A LBRUN-IN -p ipv6-icmp --icmpv6-type $t -j RETURN"
		done
		echo "-A LBRUN-OUT -p udp --sport 546 --dport 547 -j RETURN"
		echo "-A LBRUN-IN -p udp --sport 547 --dport 546 -j RETURN"
	fi
	echo "-A LBRUN-FWD -i docker0 -o docker0 -j RETURN"
	echo "-A LBRUN-FWD -i br-+ -o br-+ -j RETURN"
	for nic in docker0 br-+; do
		each_web "-A LBRUN-FWD -o $nic -p tcp -m conntrack --ctorigdstport" "-j RETURN"
	done
	each_web "-A LBRUN-FWD -p tcp -m conntrack --ctstate ESTABLISHED --ctdir REPLY --ctorigdstport" "-j RETURN"
	for c in OUT FWD IN; do echo "-A LBRUN-$c -j DROP"; done
	jump "$family" OUTPUT LBRUN-OUT
	jump "$family" FORWARD LBRUN-FWD
	# Docker puts its own rules above ours in FORWARD, and this chain above its own. At boot we
	# are earlier than it and make the chain; it then takes the one that is there.
	tables "$family" -S DOCKER-USER >/dev/null 2>&1 || echo ':DOCKER-USER - [0:0]'
	jump "$family" DOCKER-USER LBRUN-FWD
	[ -e $dir/inbound-open ] || jump "$family" INPUT LBRUN-IN
	echo COMMIT
}

tables() {
	f=$1
	shift
	if [ "$f" = 6 ]; then ip6tables -w 10 "$@"; else iptables -w 10 "$@"; fi
}

jump() {
	tables "$1" -C "$2" -j "$3" 2>/dev/null || echo "-I $2 1 -j $3"
}

has6() { ip6tables -w 10 -S OUTPUT >/dev/null 2>&1; }

unjump() {
	while tables "$1" -D "$2" -j "$3" 2>/dev/null; do :; done
}

in_place() {
	for pair in "OUTPUT LBRUN-OUT" "FORWARD LBRUN-FWD"; do
		tables "$1" -C "${pair% *}" -j "${pair#* }" 2>/dev/null || return 1
	done
	[ -e $dir/inbound-open ] || tables "$1" -C INPUT -j LBRUN-IN 2>/dev/null || return 1
	tables "$1" -C DOCKER-USER -j LBRUN-FWD 2>/dev/null
}

case ${1-} in
apply)
	volatile
	chains 4 | iptables-restore -w 10 --noflush || exit 1
	! has6 || chains 6 | ip6tables-restore -w 10 --noflush || exit 1
	;;
open-ssh)
	: >$dir/inbound-open
	for f in 4 6; do unjump "$f" INPUT LBRUN-IN; done
	sync
	;;
release)
	for f in 4 6; do
		for pair in "OUTPUT LBRUN-OUT" "FORWARD LBRUN-FWD" "DOCKER-USER LBRUN-FWD" "INPUT LBRUN-IN"; do
			unjump "$f" "${pair% *}" "${pair#* }"
		done
		for c in LBRUN-OUT LBRUN-FWD LBRUN-IN; do
			tables "$f" -F $c 2>/dev/null
			tables "$f" -X $c 2>/dev/null
		done
		# One that Docker uses is not empty.
		tables "$f" -X DOCKER-USER 2>/dev/null
	done
	rm -f $dir/inbound-open
	;;
status)
	[ ! -e $dir/inbound-open ] || echo inbound-open
	[ "$(systemctl is-enabled lbrun-isolate.service 2>/dev/null)" != enabled ] || echo at-boot
	if in_place 4 && { ! has6 || in_place 6; }; then
		echo isolated
	elif { iptables-save; ip6tables-save; } 2>/dev/null | grep -q LBRUN-; then
		echo partly
	else
		echo open
	fi
	;;
leave)
	shift
	try() {
		who=$1 to=$2
		shift 2
		if timeout 4 "$@" bash -c "exec 3<>/dev/tcp/${to%:*}/${to##*:}" 2>/dev/null; then
			echo "$who $to reached"
		else
			echo "$who $to cut"
		fi
	}
	for to; do try host "$to" env & done
	for id in $(docker ps -q 2>/dev/null); do
		set -- "$@"
		name=$(docker inspect -f '{{.Name}} {{.State.Pid}} {{.HostConfig.NetworkMode}}' "$id") || continue
		pid=${name#* }
		mode=${pid#* }
		pid=${pid% *}
		[ "$mode" != host ] || continue
		for to; do try "${name%% *}" "$to" nsenter -t "$pid" -n & done
	done
	wait
	;;
*)
	echo "isolate.sh: unknown command '${1-}'" >&2
	exit 2
	;;
esac
