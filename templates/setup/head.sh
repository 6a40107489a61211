# head.sh: what the first set-up of a tool is given before its own lines (`setup` in its data), which
# run on the server as root. A body comes on stdin: nothing secret stands in a command's words.
set -u
umask 077
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# ask METHOD PATH [WORDS OF curl]: $status and the file $dir/answer are what the tool says.
ask() {
	method=$1 path=$2
	shift 2
	status=$(curl -sS --max-time 60 -X "$method" -o "$dir/answer" -w '%{http_code}' --data-binary @- "$@" {{ url | sh }}"$path") ||
		status=000
}

# fail WHAT: it was answered otherwise than it should be.
fail() {
	echo "$1: $status $(head -c 200 "$dir/answer" 2>/dev/null | tr -d '\n')" >&2
	exit 1
}

json='Content-Type: application/json'
