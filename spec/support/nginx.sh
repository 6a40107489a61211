#!/bin/sh
# nginx.sh CONF: `nginx -t` of a configuration, by Debian's nginx. Where none is installed its
# package is unpacked below build/ and not installed: installing would start a web server.
set -eu
program=$(command -v nginx || true)
if [ -z "$program" ]; then
	program=$PWD/build/nginx/usr/sbin/nginx
	if [ ! -x "$program" ]; then
		mkdir -p build/nginx
		cd build/nginx
		apt-get -q download nginx >download.log 2>&1 || { cat download.log >&2; exit 1; }
		dpkg -x nginx_*.deb .
		cd ../..
	fi
fi
exec "$program" -t -q -c "$1" -p "$(dirname "$1")" -e stderr
