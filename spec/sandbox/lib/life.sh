# life.sh: a VPS from `up` to `down`, and the ways into it.
# What goes on inside is the caller's business; mounts belong to `keep`.
# shellcheck shell=bash
# The variables of a VPS and of its sandbox come from `conf`, `net` and common.sh.
# shellcheck disable=SC2154,SC1091

# run_vps NAME: starts the keeper and waits until the VPS has booted.
run_vps() {
	rm -f "$dir/control" "$dir/status"
	mkfifo "$dir/control"
	setsid unshare -m "$here/keep" "$dir" </dev/null >>"$dir/keep.log" 2>&1 9>&- &
	disown
	wait_boot 1
}

# wait_boot COUNT: until boot number COUNT has come up whole.
wait_boot() {
	local want=$1 state="" word count end
	end=$((SECONDS + boot_timeout))
	while [ $SECONDS -lt $end ]; do
		sleep 0.1
		read -r word count 2>/dev/null <"$dir/status" || continue
		[ "$word" != failed ] || die "$name did not start: $(tail -n 1 "$dir/keep.log")"
		[ "$count" -ge "$want" ] || continue
		[ "$word" = on ] || die "$name switched itself off; its console: $dir/console.log"
		state=$(inside timeout 20 systemctl is-system-running 2>/dev/null)
		case $state in
		running) return 0 ;;
		degraded)
			say "$name is up, with failed units:" \
				"$(inside systemctl --failed --plain --no-legend | awk '{ printf "%s ", $1 }')"
			return 0
			;;
		esac
	done
	die "$name has not booted in $boot_timeout s (state: ${state:-none}); its console: $dir/console.log"
}

boots() {
	local word count
	read -r word count <"$dir/status"
	[ "$word" = on ] || die "$name is switched off"
	printf '%s\n' "$count"
}

# The first process inside; nspawn is its only parent.
leader() {
	local pid
	pid=$(live_pid "$dir/nspawn.pid") || return 1
	pgrep -o -P "$pid"
}

# inside CMD...: runs CMD in the VPS without ssh. Its environment is a root shell's.
inside() {
	local pid
	if ! pid=$(leader); then
		say "$name is switched off"
		return 1
	fi
	# shellcheck disable=SC2016
	nsenter -t "$pid" -m -u -i -n -p -C -- /usr/bin/env -i \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" /bin/sh -c 'cd / && exec "$@"' sh "$@"
}

# order SIGNAL: systemd's own signals for poweroff and reboot work without D-Bus.
order() {
	local pid
	pid=$(leader) || die "$name is switched off"
	kill -s "$1" "$pid" || die "the first process of $name takes no signal"
}

cmd_up() {
	local release=bookworm disk="" docker=0 images=() seed="" name="" index lower t
	while [ $# -gt 0 ]; do
		case $1 in
		--release) release=${2:-} && shift ;;
		--disk) disk=${2:-} && shift ;;
		--docker) docker=1 ;;
		--images) IFS=, read -ra images <<<"${2:-}" && shift ;;
		-*) usage_error "up: unknown option $1" ;;
		*)
			[ -z "$name" ] || usage_error "up takes one name"
			name=$1
			;;
		esac
		shift || usage_error "up: the last option lacks its value"
	done
	check_name "$name"
	[[ -z $disk || $disk =~ ^[0-9]+[MG]$ ]] || usage_error "--disk wants a size such as 2G or 900M"
	[ -z "$disk" ] || [ ${#images[@]} -eq 0 ] || usage_error "--images does not go with --disk (vps images)"
	need_root
	need_commands debootstrap systemd-nspawn ip iptables unshare nsenter ssh-keygen pgrep flock
	check_path "$home"
	t=$(now_ms)
	[ ! -e "$home/vps/$name" ] || die "there is a VPS '$name' already (vps down $name)"
	base_need "$release" "$docker"
	lower=$(base_path "$release")
	[ "$docker" = 0 ] || lower=$(docker_path "$release"):$lower
	if [ ${#images[@]} -gt 0 ]; then
		seed=$(seed_need "$release" "${images[@]}") || exit 1
	fi

	lock
	mkdir -p "$home/vps"
	mkdir "$home/vps/$name" 2>/dev/null || die "there is a VPS '$name' already (vps down $name)"
	dir=$home/vps/$name
	[ -r "$home/key" ] || ssh-keygen -q -t ed25519 -N '' -C lbrun-sandbox -f "$home/key"
	net_up
	index=$(free_index)
	id=$bridge-$name
	address=$subnet.$index
	write_conf
	unlock
	if ! (lay_out); then
		lock
		take_down
		tidy
		unlock
		exit 1
	fi
	run_vps
	say "$name: $release at $address, up in $(($(now_ms) - t)) ms"
}

write_conf() {
	{
		printf '%s=%q\n' name "$name" id "$id" release "$release" disk "$disk" docker "$docker" \
			index "$index" address "$address" lower "$lower" seed "$seed"
	} >"$dir/conf.tmp" && mv "$dir/conf.tmp" "$dir/conf"
}

# What the keeper will mount.
lay_out() {
	if [ -n "$disk" ]; then
		disk_image || die "cannot make a disk of $disk: is it large enough for the $release tree?"
		return
	fi
	mkdir -p "$dir/store/archives/partial" "$dir/store/docker"
	debs_lend "$release" "$dir/store/archives"
	[ -z "$seed" ] || seed_lend "$seed" "$dir/store/docker" || die "cannot lay out the images of $name"
}

# mkfs fills the image by itself, so that no mount is needed here.
disk_image() {
	truncate -s "$disk" "$dir/disk.img" || return 1
	# shellcheck disable=SC2016
	unshare -m sh -c '
		mount --make-rprivate / &&
		if [ "$1" != "${1#*:}" ]; then
			mkdir "$2/merged" && mount -t overlay -o "lowerdir=$1" overlay "$2/merged"
		else
			ln -s "$1" "$2/merged"
		fi &&
		mkfs.ext4 -q -F -m 0 -d "$2/merged/" "$2/disk.img"' disk "$lower" "$dir" >&2
}

free_index() {
	local i
	for ((i = 10; i < 250; i++)); do
		grep -qsx "index=$i" "$home"/vps/*/conf || { printf '%s\n' "$i"; return; }
	done
	die "all addresses of $subnet.0/24 are taken"
}

# take_down NAME [keep-conf]: ends the VPS's processes and takes its files away.
take_down() {
	local pid
	# A keeper that has only just begun is not in its control group yet.
	if pid=$(live_pid "$dir/keep.pid"); then
		kill -KILL "$pid"
	fi
	if ! cgroup_do "$id" kill || ! cgroup_do "$id" remove; then
		die "some process of $name does not end (control group $id)"
	fi
	ip link del "${id%%-*}v$index" 2>/dev/null
	[ ! -d "$dir/store/archives" ] || debs_keep "$release" "$dir/store/archives"
	[ "${1:-}" = keep-conf ] && mv "$dir/conf" "$home/vps/.$name.conf"
	rm -rf --one-file-system "$dir" || die "cannot remove $dir"
	[ "${1:-}" = keep-conf ] || return 0
	mkdir "$dir" && mv "$home/vps/.$name.conf" "$dir/conf"
}

cmd_down() {
	local each
	need_root
	[ $# -eq 1 ] || usage_error "down takes a name or --all"
	if [ "$1" != --all ]; then
		load "$1"
		lock
		take_down
	else
		lock
		for each in "$home"/vps/*/; do
			each=${each%/}
			if [ -r "$each/conf" ]; then
				load "${each##*/}"
				take_down
			elif [ -d "$each" ]; then
				rm -rf --one-file-system "$each"
			fi
		done
	fi
	tidy
	unlock
}

# The last one out takes the network down.
tidy() {
	rmdir "$home/vps" 2>/dev/null
	[ -d "$home/vps" ] || net_down
}

cmd_list() {
	local each word
	for each in "$home"/vps/*/conf; do
		[ -r "$each" ] || continue
		load "$(basename "$(dirname "$each")")"
		word=dead
		live_pid "$dir/keep.pid" >/dev/null && read -r word _ <"$dir/status"
		printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$word" "$address" "$release" "${disk:--}"
	done
}

cmd_ssh() {
	local user=root port=22 options=() command
	load "${1:-}"
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		--user) user=${2:-} && shift ;;
		--port) port=${2:-} && shift ;;
		--) shift && break ;;
		-*) usage_error "ssh NAME [--user USER] [--port PORT] [-- COMMAND...]" ;;
		*) break ;;
		esac
		shift || usage_error "ssh: the last option lacks its value"
	done
	options=(-F /dev/null -i "$home/key" -p "$port" -o IdentitiesOnly=yes -o BatchMode=yes
		-o UserKnownHostsFile="$dir/known_hosts" -o GlobalKnownHostsFile=/dev/null
		-o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o ConnectTimeout=10
		-o ServerAliveInterval=15 -o LogLevel=ERROR)
	# One word is a shell line as ssh takes it; several are a command with its arguments.
	case $# in
	0) exec ssh "${options[@]}" "$user@$address" ;;
	1) command=$1 ;;
	*) printf -v command '%q ' "$@" ;;
	esac
	exec ssh "${options[@]}" "$user@$address" "$command"
}

cmd_exec() {
	load "${1:-}"
	shift
	[ "${1:-}" = -- ] && shift
	[ $# -gt 0 ] || usage_error "exec NAME -- COMMAND..."
	inside "$@"
}

# The machine's own reboot, and the wait until it is back.
cmd_reboot() {
	local n
	load "${1:-}"
	n=$(boots) || exit 1
	order RTMIN+5
	wait_boot $((n + 1))
}

wait_off() {
	local word end=$((SECONDS + boot_timeout))
	while [ $SECONDS -lt $end ]; do
		read -r word _ 2>/dev/null <"$dir/status"
		[ "$word" != off ] || return 0
		sleep 0.05
	done
	die "$name is still on after $boot_timeout s"
}

cmd_stop() {
	load "${1:-}"
	order RTMIN+4
	wait_off
}

# Power loss: every process of the VPS is gone at once, nothing is told before.
cmd_kill() {
	load "${1:-}"
	cgroup_do "$id/vps" kill
	wait_off
}

cmd_start() {
	local word count
	load "${1:-}"
	live_pid "$dir/keep.pid" >/dev/null || die "$name is dead: vps down $name"
	read -r word count <"$dir/status"
	[ "$word" = off ] || die "$name is on already"
	echo start >"$dir/control"
	wait_boot $((count + 1))
}

# The same address, another machine.
cmd_reimage() {
	load "${1:-}"
	lock
	take_down keep-conf
	unlock
	lay_out
	run_vps
}

cmd_rekey() {
	local pid
	load "${1:-}"
	pid=$(leader) || die "$name is switched off"
	nsenter -t "$(live_pid "$dir/keep.pid")" -m "$here/lib/identity" "$dir/root" "$dir" keys
	inside systemctl restart ssh
}

# Ports as nmap takes them: 22,80 or 1-1024, separated by commas or blanks. A range is gone
# through fast; of single ports each is asked patiently, so that a busy machine's late
# answer is not taken for a firewall's silence.
cmd_scan() {
	local ports pid pace=(-T3 --initial-rtt-timeout 1s --max-retries 4)
	load "${1:-}"
	shift
	[ $# -gt 0 ] || usage_error "scan NAME PORTS..."
	need_commands nmap
	lock
	pid=$(outside_up) || exit 1
	unlock
	ports=$*
	[[ $ports != *-* ]] || pace=(-T4 --initial-rtt-timeout 1s --max-rtt-timeout 4s --min-rate 5000 --max-retries 2)
	timeout 300 nsenter -t "$pid" -n nmap -Pn -n -sS --send-ip --disable-arp-ping "${pace[@]}" \
		-p "${ports// /,}" -oX - "$address" 2>/dev/null |
		sed 's/<port /\n&/g' |
		sed -n 's/.*portid="\([0-9]*\)"><state state="\([a-z|]*\)".*/\1 \2/p
			s/.*<extraports state="\([a-z|]*\)" count="\([0-9]*\)".*/others \1 \2/p'
}

cmd_outside() {
	local pid
	[ "${1:-}" = -- ] && shift
	[ $# -gt 0 ] || usage_error "outside -- COMMAND..."
	need_root
	[ -r "$home/net" ] || die "there is no VPS, so there is no network"
	lock
	pid=$(outside_up) || exit 1
	unlock
	exec nsenter -t "$pid" -n -- "$@"
}
