# images.sh: stand-ins for Docker images, since no registry can be asked.
# An image NAME:TAG is built from stand-ins/NAME (the last part of the name) and given the
# tag that was asked for. It is never the real image, and no spec may say that it is.
# shellcheck shell=bash
# The variables of a VPS and of its sandbox come from `conf`, `net` and common.sh.
# shellcheck disable=SC2154,SC1091

# image_find IMAGE: sets recipe (the folder that it is built from), short (its name) and tar
# (its place in the cache, by what it is built from). Tags are given later. It answers by
# variables: many images have one recipe, whose checksum is worked out once.
declare -A image_tars=()
image_find() {
	local part=${1##*/}
	part=${part%%@*}
	part=$here/stand-ins/${part%%:*}
	[ -f "$part/Dockerfile" ] ||
		usage_error "no stand-in for the image $1 (there are: $(cd "$here/stand-ins" && echo *))"
	# One recipe may serve several names: they are links to it.
	if [ -L "$part" ]; then part=$here/stand-ins/$(readlink "$part"); fi
	recipe=$part
	short=${recipe##*/}
	image_base_digest
	[ -n "${image_tars[$short]:-}" ] || image_tars[$short]=$cache/image-$short-$({
		printf '%s\n' "$base_digest"
		cd "$recipe" && find . -type f | LC_ALL=C sort | xargs sha256sum
	} | sha256sum | cut -c 1-8).tar
	tar=${image_tars[$short]}
}

base_digest=
image_base_digest() {
	[ -z "$base_digest" ] || return 0
	base_digest=$({
		apt_sources bookworm
		declare -f image_base
	} | sha256sum | cut -c 1-8)
}

# image_base: a small Debian as a tarball, what every stand-in stands on.
image_base() {
	local tar=$1 tmp=$1.d uri
	uri=$(apt_sources bookworm | awk '$2 == "bookworm" { print $1; exit }')
	rm -rf --one-file-system "$tmp"
	unshare -m debootstrap --variant=minbase \
		--keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
		bookworm "$tmp" "$uri" || return 1
	apt_sources bookworm | sed 's/^/deb /' >"$tmp/etc/apt/sources.list"
	apt_options >"$tmp/etc/apt/apt.conf.d/99sandbox"
	rm -rf "$tmp"/var/cache/apt/archives/*.deb "$tmp"/var/lib/apt/lists/* "$tmp"/var/log/*.log \
		"$tmp"/usr/share/doc/* "$tmp"/usr/share/man/* "$tmp"/usr/share/locale/* \
		"$tmp/etc/resolv.conf"
	tar -C "$tmp" --exclude='./dev/*' -cf "$tar.tmp" . && mv "$tar.tmp" "$tar" && rm -rf --one-file-system "$tmp"
}

# image_need IMAGE...: builds what the cache lacks, in a VPS of its own.
image_need() {
	local image recipe short tar base missing=()
	for image in "$@"; do
		image_find "$image"
		[ -f "$tar" ] || missing+=("$image")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	exec 6>"$cache/images.lock"
	flock -w 1800 6 || die "another command has been building images for half an hour"
	base=$cache/image-base-$base_digest.tar
	say "building stand-in images, once: ${missing[*]}"
	[ -f "$base" ] || image_base "$base" >"$cache/images.log" 2>&1 </dev/null 6>&- ||
		die "the base of the images: see $cache/images.log"
	builder bookworm
	inside docker import - lbrun-stand-in/base <"$base" >/dev/null || die "docker import failed"
	for image in "${missing[@]}"; do
		image_find "$image"
		[ ! -f "$tar" ] || continue
		tar -C "$recipe" -c . |
			inside docker build --network host -t "lbrun-stand-in/$short" - \
				>>"$cache/images.log" 2>&1 || die "the image $image: see $cache/images.log"
		inside docker save "lbrun-stand-in/$short" >"$tar.tmp" ||
			die "docker save failed"
		mv "$tar.tmp" "$tar"
	done
	builder_down
	exec 6>&-
}

# builder RELEASE: a VPS that has Docker and nobody asked for; it goes when we end.
builder() {
	name=image-builder-$$
	"$here/vps" up "$name" --release "$1" --docker 2>/dev/null 6>&- || die "cannot boot a VPS to build images in"
	trap builder_down EXIT
	load "$name"
}

builder_down() {
	"$here/vps" down "image-builder-$$" 6>&-
	trap - EXIT
}

# load_images IMAGE...: into the VPS that is loaded, under the tags asked for. An image that
# stands for several is read once.
load_images() {
	local image recipe short tar
	declare -A read=()
	for image in "$@"; do
		image_find "$image"
		short=lbrun-stand-in/$short
		{
			{ [ -n "${read[$short]:-}" ] || inside docker load -q <"$tar"; } &&
				inside docker tag "$short" "$image"
		} >/dev/null || die "cannot load $image into $name"
		read[$short]=1
	done
	[ ${#read[@]} -eq 0 ] || inside docker rmi "${!read[@]}" >/dev/null || die "cannot untag the stand-ins in $name"
}

# seed_need RELEASE IMAGE...: prints the path of a tree for /var/lib/docker that holds the
# images and nothing else. A VPS that gets Docker only later finds them there, as it would
# find them in a registry.
seed_need() (
	release=$1
	shift
	image_need "$@"
	tree=$cache/seed-$release-$({
		for image in "$@"; do
			image_find "$image"
			printf '%s %s\n' "$image" "$tar"
		done
		docker_path "$release"
	} | sha256sum | cut -c 1-8)
	printf '%s\n' "$tree"
	[ ! -d "$tree" ] || exit 0
	exec 6>"$cache/images.lock"
	flock -w 1800 6 || die "another command has been building images for half an hour"
	[ ! -d "$tree" ] || exit 0
	builder "$release" >&2
	load_images "$@"
	inside systemctl stop docker.socket docker.service || die "docker does not stop"
	rm -rf "$tree.tmp"
	mkdir -p "$tree.tmp"
	cp -a "$dir/store/docker/image" "$dir/store/docker/overlay2" "$tree.tmp/" ||
		die "cannot keep the images in $tree"
	mv "$tree.tmp" "$tree"
	builder_down >&2
)

# Layers never change in place, so they are shared as hard links; the lists of them do.
seed_lend() {
	cp -a "$1/image" "$2/" || return 1
	cp -al "$1/overlay2" "$2/" 2>/dev/null ||
		{ rm -rf "$2/overlay2" && cp -a "$1/overlay2" "$2/"; }
}

cmd_images() {
	load "${1:-}"
	shift
	[ $# -gt 0 ] || usage_error "images NAME IMAGE..."
	inside docker version >/dev/null 2>&1 || die "$name has no running Docker"
	target=$name
	image_need "$@"
	load "$target"
	load_images "$@"
}
