#!/bin/sh
# make-env.sh: write .env, readable by its owner alone, from env.example with a fresh random value for each secret.
set -eu
umask 077
cd "$(dirname "$0")"
target="${1:-.env}"
if [ -e "$target" ]; then
    echo "$target: there is one already, and the databases were made with its passwords; move it away to start anew" >&2
    exit 1
fi
random() { od -An -N 24 -tx1 /dev/urandom | tr -d ' \n'; }
while IFS= read -r line; do
    case "$line" in
        '#'*) ;;
        *= | *:) line="$line$(random)" ;;
    esac
    printf '%s\n' "$line"
done < env.example > "$target"
