#!/bin/sh
# ray-tls COMMAND...: give this Ray node a certificate of its own, signed by the cluster's CA, then run COMMAND with
# TLS. Ray's nodes call each other by address, and a container's address is known only once it runs.
# RAY_TLS_CA_FOLDER holds ca.crt and ca.key; RAY_TLS_NAMES, separated by spaces, are further names of this node.
set -eu
umask 077
ca="${RAY_TLS_CA_FOLDER:-/etc/ray-ca}"
own="$(mktemp -d)"
names="DNS:localhost,IP:127.0.0.1,DNS:$(hostname)"
for name in ${RAY_TLS_NAMES:-}; do names="$names,DNS:$name"; done
for address in ${RAY_TLS_ADDRESSES:-$(hostname -i)}; do names="$names,IP:$address"; done
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" > "$own/extensions"
openssl req -new -newkey rsa:2048 -nodes -subj "/CN=$(hostname | cut -c 1-64)" \
    -keyout "$own/tls.key" -out "$own/request" 2> "$own/log" || { cat "$own/log" >&2; exit 1; }
openssl x509 -req -sha256 -days 365 -in "$own/request" -extfile "$own/extensions" \
    -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -set_serial "0x$(openssl rand -hex 16)" -out "$own/tls.crt" 2> "$own/log" \
    || { cat "$own/log" >&2; exit 1; }
export RAY_USE_TLS=1 RAY_TLS_SERVER_CERT="$own/tls.crt" RAY_TLS_SERVER_KEY="$own/tls.key" RAY_TLS_CA_CERT="$ca/ca.crt"
exec "$@"
