#!/bin/sh
# kcadm.sh of the stand-in: logs in with the admin's password, and keeps the names of realms.
#	kcadm.sh config credentials ... --user USER --config FILE
#	kcadm.sh get realms/NAME --config FILE    kcadm.sh create realms -s realm=NAME ... --config FILE
realms=/opt/keycloak/data/realms
words=$*
config=${words##*--config }
case $words in
"config credentials "*"--user $KC_BOOTSTRAP_ADMIN_USERNAME "*)
	[ "$KC_CLI_PASSWORD" = "$KC_BOOTSTRAP_ADMIN_PASSWORD" ] || { echo "Invalid user credentials" >&2; exit 1; }
	: >"$config"
	;;
"get realms/"*)
	[ -e "$config" ] && grep -qxF -e "${2#realms/}" $realms 2>/dev/null
	;;
"create realms -s realm="*)
	[ -e "$config" ] && echo "${4#realm=}" >>$realms
	;;
*)
	echo "kcadm.sh (stand-in): unknown words" >&2
	exit 2
	;;
esac
