#!/bin/bash
# Serves with nothing but defaults in a network of its own, and prints what it listens on: defaults.sh PROGRAM DIR
set -euo pipefail
program=$1
cd "$2"
printf '[scan]\nclamd = "off"\naccept_unscanned = true\n' >ptportal.toml
exec unshare --net bash -c '
    ip link set lo up
    "$0" --config ptportal.toml serve 2>log &
    server=$!
    for _ in $(seq 200); do grep -q " ready " log && break; sleep 0.1; done
    ss -Hltnp | awk "{ print \$4 }" | sort
    kill "$server"; wait "$server" || true' "$program"
