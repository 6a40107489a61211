# base.sh: the cached trees that every VPS starts from, and the cache of .deb files.
# It boots nothing.
# shellcheck shell=bash
# The variables of a VPS and of its sandbox come from `conf`, `net` and common.sh.
# shellcheck disable=SC2154,SC1091

# The machine's own package sources, one line each: URI SUITE COMPONENTS..., for the suites
# that belong to RELEASE. They are read here and written into the VPS alone.
apt_sources() {
	local release=$1 own
	own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	if [ -n "${LBRUN_SANDBOX_MIRROR:-}" ]; then
		printf '%s %s main\n' "$LBRUN_SANDBOX_MIRROR" "$release"
		printf '%s %s main\n' "$LBRUN_SANDBOX_MIRROR" "$release-updates"
		return
	fi
	{
		cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
			sed -n 's/^deb  *\(\[[^]]*\]\)* *//p'
		awk -v RS= '
			{
				split("", f)
				n = split($0, line, "\n")
				for (i = 1; i <= n; i++) {
					if (line[i] ~ /^#/)
						continue
					if (line[i] ~ /^[A-Za-z-]+:/) {
						key = tolower(substr(line[i], 1, index(line[i], ":") - 1))
						line[i] = substr(line[i], index(line[i], ":") + 1)
					}
					f[key] = f[key] " " line[i]
				}
				if (f["types"] !~ /(^| )deb( |$)/ || f["enabled"] ~ /no/)
					next
				nu = split(f["uris"], u, " ")
				ns = split(f["suites"], s, " ")
				for (i = 1; i <= nu; i++)
					for (j = 1; j <= ns; j++)
						print u[i], s[j], f["components"]
			}' /etc/apt/sources.list.d/*.sources 2>/dev/null
	} | awk -v own="$own" -v release="$release" '
		$2 == own || $2 == own "-updates" || $2 == own "-security" {
			sub("^" own, release, $2)
			$1 = $1
			if (!seen[$1 " " $2]++)
				print
		}'
}

# How the machine reaches its sources (proxy, date checks), as apt.conf lines.
apt_options() {
	apt-config dump 2>/dev/null | grep -E \
		'^Acquire::(https?::(Proxy|CA|Verify|Timeout)[A-Za-z-]*|Check-(Valid-Until|Date)|Retries|ForceIPv4) ' |
		grep -v ' "";$'
}

base_digest() {
	{
		cat "$here/image-packages"
		declare -f base_build base_settle
		apt_sources "$1"
	} | sha256sum | cut -c 1-8
}

# base_path RELEASE: the read-only tree. docker_path RELEASE: what Docker adds to it.
base_path() {
	printf '%s/%s-%s\n' "$cache" "$1" "$(base_digest "$1")"
}

docker_path() {
	printf '%s-docker-%s\n' "$(base_path "$1")" \
		"$(declare -f docker_build | sha256sum | cut -c 1-8)"
}

# One builder at a time; the others wait for its tree.
base_need() {
	local release=$1 docker=$2 tree
	case " $releases " in
	*" $release "*) ;;
	*) usage_error "release '$release' is not one of: $releases" ;;
	esac
	check_path "$cache"
	tree=$(base_path "$release")
	mkdir -p "$cache"
	exec 8>"$cache/$release.lock"
	flock -w 1800 8 || die "another command has been building $tree for half an hour"
	[ -d "$tree" ] || base_build "$release" "$tree" || die "$release: see $cache/$release.log"
	if [ "$docker" = 1 ] && ! [ -d "$(docker_path "$release")" ]; then
		docker_build "$release" "$tree" "$(docker_path "$release")" || die "$release with Docker: see $cache/$release.log"
	fi
	exec 8>&-
}

base_build() {
	local release=$1 tree=$2 uri keyring tmp=$2.tmp
	uri=$(apt_sources "$release" | awk -v r="$release" '$2 == r { print $1; exit }')
	[ -n "$uri" ] || die "apt's sources on this machine name no Debian suite: set LBRUN_SANDBOX_MIRROR"
	keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -r "$keyring" ] || die "$keyring is missing (package debian-archive-keyring)"
	say "building the $release tree, once: about a minute"
	rm -rf --one-file-system "$tmp"
	export http_proxy=${http_proxy:-$(apt-config dump | sed -n 's/^Acquire::http::Proxy "\(.*\)";/\1/p')}
	[ -n "$http_proxy" ] || unset http_proxy
	{
		unshare -m debootstrap --variant=minbase --keyring="$keyring" \
			--include="$(paste -s -d , "$here/image-packages")" \
			"$release" "$tmp" "$uri" 9>&- 8>&- &&
			base_settle "$release" "$tmp" &&
			mv "$tmp" "$tree"
	} >"$cache/$release.log" 2>&1 </dev/null
}

# From what debootstrap leaves to what a provider's image holds.
base_settle() {
	local release=$1 root=$2
	rm -f "$root/etc/apt/sources.list"
	apt_sources "$release" | while read -r uri suite components; do
		printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n' "$uri" "$suite" "$components"
		printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n'
	done >"$root/etc/apt/sources.list.d/debian.sources"
	{
		apt_options
		printf 'Acquire::Languages "none";\n'
	} >"$root/etc/apt/apt.conf.d/99sandbox"
	cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	debs_keep "$release" "$root/var/cache/apt/archives"
	chroot_run "$root" sh -c '
		apt-get update && apt-get -y -o Dpkg::Options::=--force-confold dist-upgrade' || return 1
	debs_keep "$release" "$root/var/cache/apt/archives"
	rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb \
		"$root"/var/cache/apt/*.bin "$root"/var/log/bootstrap.log
	rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/resolv.conf"
	: >"$root/etc/machine-id"
	rm -f "$root/var/lib/dbus/machine-id"
	printf 'LANG=C.UTF-8\n' >"$root/etc/default/locale"
}

# docker_build: Docker's packages as an overlay layer above the base tree. Debian 13 has the
# client as a package of its own.
docker_build() {
	local release=$1 tree=$2 layer=$3 tmp=$3.tmp
	say "adding Docker to the $release tree, once"
	rm -rf --one-file-system "$tmp"
	mkdir -p "$tmp/upper" "$tmp/work" "$tmp/root"
	# shellcheck disable=SC2016
	unshare -m bash -c '
		here=$1 cache=$2 release=$3 tree=$4 tmp=$5
		. "$here/lib/base.sh"
		mount --make-rprivate / &&
		mount -t overlay -o "lowerdir=$tree,upperdir=$tmp/upper,workdir=$tmp/work" overlay "$tmp/root" &&
		cp -L /etc/resolv.conf "$tmp/root/etc/resolv.conf" &&
		mkdir -p "$tmp/root/var/cache/apt/archives" || exit 1
		debs_lend "$release" "$tmp/root/var/cache/apt/archives"
		chroot_run "$tmp/root" sh -c "
			apt-get update &&
			apt-get -y --no-install-recommends install docker.io docker-compose \
				\$(apt-cache --names-only search ^docker-cli\$ | cut -d \" \" -f 1)" || exit 1
		debs_keep "$release" "$tmp/root/var/cache/apt/archives"
		rm -rf "$tmp"/root/var/lib/apt/lists/* "$tmp"/root/var/cache/apt/archives/*.deb
		rm -f "$tmp/root/etc/resolv.conf" "$tmp"/root/var/cache/apt/*.bin' \
		docker "$here" "$cache" "$release" "$tree" "$tmp" \
		>>"$cache/$release.log" 2>&1 </dev/null 8>&- 9>&- || return 1
	mv "$tmp/upper" "$layer" && rm -rf "$tmp"
}

# No service of the tree may start on this machine: policy-rc.d says so while we are inside.
chroot_run() {
	local root=$1 status
	shift
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 0755 "$root/usr/sbin/policy-rc.d"
	# shellcheck disable=SC2016
	DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 timeout 900 unshare -m -p -f --kill-child sh -c '
		root=$1
		shift
		mount --make-rprivate / && mount -t proc proc "$root/proc" &&
		mount -t tmpfs tmpfs "$root/dev" && mkdir "$root/dev/pts" "$root/dev/shm" &&
		for d in null zero full random urandom tty; do
			: >"$root/dev/$d" && mount --bind "/dev/$d" "$root/dev/$d" || exit 1
		done
		ln -s /proc/self/fd "$root/dev/fd"
		exec chroot "$root" "$@"' chroot "$root" "$@"
	status=$?
	rm -f "$root/usr/sbin/policy-rc.d"
	return $status
}

# The .deb cache: lent to a VPS as hard links, kept again when it goes. A checksum failure
# makes apt fetch the file anew, so a broken one does no lasting harm.
debs_lend() {
	[ -d "$cache/debs-$1" ] || return 0
	cp -l "$cache/debs-$1"/*.deb "$2/" 2>/dev/null || cp "$cache/debs-$1"/*.deb "$2/" 2>/dev/null
}

debs_keep() {
	local f
	mkdir -p "$cache/debs-$1"
	for f in "$2"/*.deb; do
		[ -f "$f" ] || continue
		[ ! -e "$cache/debs-$1/${f##*/}" ] || continue
		ln "$f" "$cache/debs-$1/" 2>/dev/null ||
			{ cp "$f" "$cache/debs-$1/.${f##*/}.$$" &&
				mv "$cache/debs-$1/.${f##*/}.$$" "$cache/debs-$1/${f##*/}"; }
	done
}
