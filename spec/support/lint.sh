#!/bin/bash
# lint.sh: every linter over the whole tree; all of them run, then the worst decides.
# It changes no file and builds nothing. What clang-tidy found nothing in is not asked again
# while the preprocessed source and the rules stay the same: BUILD_DIR/lint keeps their hashes.
#	spec/support/lint.sh BUILD_DIR COMPILER_FLAGS...
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$1
shift
failed=""

# part NAME COMMAND...: silent when it finds nothing.
part() {
	local name=$1 began=$SECONDS
	shift
	if "$@"; then
		printf 'ok   %-11s %3d s\n' "$name" $((SECONDS - began))
	else
		printf 'FAIL %-11s %3d s\n' "$name" $((SECONDS - began))
		failed="$failed $name"
	fi
}

flags=(-std=c17 -D_GNU_SOURCE -Ihost "-I$build" '-DLBRUN_VERSION="0"' '-DLBRUN_PREFIX="/"' "$@")

lua() {
	luacheck --quiet --no-color .luacheckrc host/prelude modules/lua runbooks templates spec
}

# tidy_one FILE FLAGS...: the findings of one file.
tidy_one() {
	local file=$1 hash out
	shift
	hash=$({
		cat .clang-tidy
		printf '%s\n' "$file" "$@"
		cc -E "$file" "$@" -include spec/support/analysis.h
	} | sha256sum | cut -c 1-64)
	[ ! -e "$lint_cache/$hash" ] || return 0
	out=$(clang-tidy --quiet "$file" -- "$@" -include spec/support/analysis.h 2>&1) &&
		out=$(grep -vE '^[0-9]+ warnings? |^Suppressed |^Use -header-filter|treated as errors?$' <<<"$out")
	if [ -z "$out" ]; then
		: >"$lint_cache/$hash"
	else
		printf '%s\n' "$out"
	fi
}
export lint_cache=$build/lint
export -f tidy_one

tidy() {
	local out
	mkdir -p "$lint_cache"
	out=$(find host modules spec/support -name '*.c' -print0 | sort -z |
		xargs -0 -P "$(nproc)" -I FILE bash -c 'tidy_one "$@"' tidy FILE "${flags[@]}")
	[ -z "$out" ] || {
		printf '%s\n' "$out"
		return 1
	}
}

# The allocator of state.c hands the moved block on; cppcheck loses it in the ?: there.
cpp() {
	mkdir -p "$lint_cache/cppcheck"
	cppcheck --quiet -j "$(nproc)" --cppcheck-build-dir="$lint_cache/cppcheck" --std=c11 --enable=warning,portability,performance \
		--suppress=missingInclude --suppress=memleak:host/state.c --inline-suppr \
		--error-exitcode=1 -D_GNU_SOURCE -Ihost '-DLBRUN_PREFIX="/"' '-DLBRUN_VERSION="0"' \
		host modules spec/support
}

shells() {
	local files
	mapfile -t files < <(find .ci host spec templates runbooks -type f \
		\( -name '*.sh' -o ! -name '*.*' \) ! -name '*.conf' \
		-exec grep -lE '^#!/bin/(ba)?sh|^# shellcheck shell=' {} + | LC_ALL=C sort)
	shellcheck --external-sources "${files[@]}" host/embed.sh
}

part luacheck lua
part shellcheck shells
part cppcheck cpp
part clang-tidy tidy
part layers lua5.4 spec/support/lint.lua "$build"
[ -z "$failed" ] || {
	printf 'lint:%s\n' "$failed" >&2
	exit 1
}
