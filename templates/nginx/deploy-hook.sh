#!/bin/sh
# Written by lbrun: what certbot runs when it has got or renewed a certificate. nginx, in its container,
# tests all it has and reads it anew; what it refuses leaves the old certificate in force.
set -u
lineage=${RENEWED_LINEAGE:?}
container=letsbe-nginx
config=/etc/nginx/lbrun/nginx.conf
marks=/opt/letsbe/nginx/.loaded
if [ -n "$(docker ps -q -f "name=^/$container\$" -f status=running)" ]; then
	docker exec "$container" nginx -t -q -c "$config" || exit 1
	docker exec "$container" nginx -q -c "$config" -s reload || exit 1
fi
umask 022
mkdir -p "$marks"
sed -n '/BEGIN CERT/,/END CERT/p;/END CERT/q' "$lineage/fullchain.pem" | sha256sum | cut -c 1-64 >"$marks/${lineage##*/}.fullchain"
