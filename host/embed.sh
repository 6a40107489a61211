#!/bin/sh
# embed.sh: print C source that holds the given Lua files as bytes (see prelude.h).
set -eu
echo '#include "prelude.h"'
n=0
for f in "$@"; do
	echo "static const unsigned char f${n}[] = {"
	od -An -v -tx1 "$f" | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'
	echo "0};"
	n=$((n + 1))
done
echo "const struct prelude_file prelude_files[] = {"
n=0
for f in "$@"; do
	echo "{ \"$(basename "$f" .lua)\", f$n, sizeof f$n - 1 },"
	n=$((n + 1))
done
echo "{ 0, 0, 0 } };"
