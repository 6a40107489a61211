#!/bin/sh
# httpd.sh: certificates for the test server of httpd.py, made in the folder given.
#	httpd.sh FOLDER
# An authority (ca.pem) and leaves NAME.pem + NAME.key: good, wrong (another name), expired,
# and self, which only itself vouches for. It starts nothing.
set -eu
cd "$1"
exec 2>openssl.log
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

key ca
openssl req -x509 -new -key ca.key -subj "/CN=test authority" -days 2 -out ca.pem
leaf() { # NAME SUBJECT-ALTERNATIVE-NAME OPENSSL-OPTIONS...
	name=$1 san=$2
	shift 2
	key "$name"
	openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
	printf 'subjectAltName=%s\n' "$san" >"$name.ext"
	openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial \
		-extfile "$name.ext" -out "$name.pem" "$@"
}
leaf good "DNS:localhost,DNS:site.test,IP:127.0.0.1" -days 2
leaf wrong "DNS:other.test" -days 2
leaf expired "DNS:localhost,IP:127.0.0.1" -days -1
key self
openssl req -x509 -new -key self.key -subj "/CN=localhost" -days 2 \
	-addext "subjectAltName=DNS:localhost" -out self.pem
