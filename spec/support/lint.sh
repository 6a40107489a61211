#!/bin/bash
# lint.sh: every linter over the whole tree; all of them run, then the worst decides.
# It changes no file and builds nothing.
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

tidy() {
	local out
	out=$(find host modules spec/support -name '*.c' -print0 | sort -z |
		xargs -0 -P "$(nproc)" -I '{}' \
			clang-tidy --quiet '{}' -- "${flags[@]}" -include spec/support/analysis.h 2>&1 |
		grep -vE '^[0-9]+ warnings? |^Suppressed |^Use -header-filter|treated as errors?$')
	[ -z "$out" ] || {
		printf '%s\n' "$out"
		return 1
	}
}

# The allocator of state.c hands the moved block on; cppcheck loses it in the ?: there.
cpp() {
	cppcheck --quiet -j "$(nproc)" --std=c11 --enable=warning,portability,performance \
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
