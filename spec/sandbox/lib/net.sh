# net.sh: the bridge of one sandbox home, its way out, and "another host" on it.
# Addresses of a VPS itself are set by `keep`, anew at every boot.
# shellcheck shell=bash
# The variables of a VPS and of its sandbox come from `conf`, `net` and common.sh.
# shellcheck disable=SC2154,SC1091

# The bridge's name is the claim on a subnet: the kernel gives it to one home alone.
net_up() {
	local n old
	if [ -r "$home/net" ]; then
		# shellcheck source=/dev/null
		. "$home/net"
	fi
	old=$(ip -o link show type bridge | sed -n 's/.*alias lbrun-forward=\([01]\).*/\1/p' | head -n 1)
	old=${old:-$(cat /proc/sys/net/ipv4/ip_forward)}
	if [ -n "${bridge:-}" ] && ! ip link show "$bridge" >/dev/null 2>&1; then
		ip link add "$bridge" type bridge || die "cannot make the bridge $bridge"
	fi
	for ((n = 0; n < 64; n++)); do
		[ -z "${bridge:-}" ] || break
		[ -z "$(ip -4 route show "${LBRUN_SANDBOX_NET:-10.77}.$n.0/24")" ] || continue
		ip link add "lbr$n" type bridge 2>/dev/null || continue
		bridge=lbr$n
		subnet=${LBRUN_SANDBOX_NET:-10.77}.$n
	done
	[ -n "${bridge:-}" ] || die "no free subnet below ${LBRUN_SANDBOX_NET:-10.77}.0.0/16"
	printf 'bridge=%q\nsubnet=%q\n' "$bridge" "$subnet" >"$home/net"
	ip link show "$bridge" | grep -q 'alias lbrun-forward=' ||
		ip link set "$bridge" alias "lbrun-forward=$old"
	# A bridge without an address of its own takes one of its ports', and changes with them.
	ip link set "$bridge" address "$(hardware_address 1)" mtu "$(uplink_mtu)" up
	ip addr replace "$subnet.1/24" dev "$bridge"
	echo 1 >/proc/sys/net/ipv4/ip_forward
	net_rules | while read -r table chain rule; do
		# shellcheck disable=SC2086
		iptables -w 10 -t "$table" -C $chain $rule 2>/dev/null ||
			iptables -w 10 -t "$table" -I $chain $rule || exit 1
	done || die "iptables refused a rule of the sandbox network"
}

# Docker on the host sets FORWARD to DROP, hence the two accepts.
net_rules() {
	printf '%s\n' \
		"nat POSTROUTING -s $subnet.0/24 ! -o $bridge -j MASQUERADE" \
		"filter FORWARD -i $bridge -j ACCEPT" \
		"filter FORWARD -o $bridge -j ACCEPT"
}

# A smaller path behind a larger bridge loses the packets in between.
uplink_mtu() {
	local dev
	dev=$(ip -4 route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
	awk '{ print ($1 > 1500) ? 1500 : $1 }' "/sys/class/net/${dev:-lo}/mtu"
}

# Called with the lock held and no VPS left.
net_down() {
	local pid forward
	[ -r "$home/net" ] || return 0
	# shellcheck source=/dev/null
	. "$home/net"
	if pid=$(live_pid "$home/outside.pid"); then
		kill -KILL "$pid"
	fi
	rm -f "$home/outside.pid"
	net_rules | while read -r table chain rule; do
		# shellcheck disable=SC2086
		while iptables -w 10 -t "$table" -D $chain $rule 2>/dev/null; do :; done
	done
	forward=$(ip -o link show "$bridge" 2>/dev/null |
		sed -n 's/.*alias lbrun-forward=\([01]\).*/\1/p')
	ip link del "${bridge}out" 2>/dev/null
	ip link del "$bridge" 2>/dev/null
	if [ -n "$forward" ] && ! ip -o link show type bridge | grep -q 'alias lbrun-forward='; then
		echo "$forward" >/proc/sys/net/ipv4/ip_forward
	fi
	rm -f "$home/net"
	bridge=
}

# outside_up: a network namespace that stands for another host in the network. Prints the
# pid of the process that holds it.
outside_up() {
	local pid
	# shellcheck source=/dev/null
	. "$home/net"
	if live_pid "$home/outside.pid"; then
		return 0
	fi
	setsid unshare -n sleep infinity </dev/null >/dev/null 2>&1 9>&- &
	pid=$!
	net_attach "$pid" "${bridge}out" 250
	record_pid "$pid" "$home/outside.pid"
	printf '%s\n' "$pid"
}

hardware_address() {
	printf '02:4c:42:%02x:00:%02x\n' "${bridge#lbr}" "$1"
}

# net_attach PID LINK HOSTPART: an eth0 in PID's namespace, LINK its end on the bridge.
# PID is still in our own namespace for a moment after its start. The hardware address is
# the same after a reboot, or this machine would talk to the old one for some seconds.
net_attach() {
	local pid=$1 link=$2 part=$3 i own mac
	own=$(readlink /proc/self/ns/net)
	for ((i = 0; i < 100; i++)); do
		[ "$(readlink "/proc/$pid/ns/net")" = "$own" ] || break
		sleep 0.02
	done
	mac=$(hardware_address "$part")
	ip link del "$link" 2>/dev/null
	ip link add "$link" mtu "$(uplink_mtu)" type veth \
		peer name eth0 address "$mac" mtu "$(uplink_mtu)" netns "$pid" || return 1
	ip link set "$link" master "$bridge" up
	# shellcheck disable=SC2016
	nsenter -t "$pid" -n sh -c '
		ip link set lo up && ip addr add "$1.$2/24" dev eth0 && ip link set eth0 up &&
		ip route add default via "$1.1"' net "$subnet" "$part"
}
