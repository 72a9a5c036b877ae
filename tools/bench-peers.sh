#!/bin/sh
# Installs what PyDSM is measured against (python -m benchmarks.comparison): Debian's etcd and Redis, without starting them as
# services, and PySyncObj into .venv.
set -eu

VENV=${VENV:-.venv}

if [ "$(id -u)" = 0 ]; then
    root=""
else
    root="sudo -n"
fi

if ! command -v etcd >/dev/null 2>&1 || ! command -v redis-server >/dev/null 2>&1 || ! command -v redis-benchmark >/dev/null 2>&1; then
    if ! command -v apt-get >/dev/null 2>&1; then
        printf 'bench-peers: no apt-get here: install etcd, redis-server and redis-benchmark yourself, so that they are in PATH\n' >&2
        exit 1
    fi
    printf '>> Installing etcd-server, redis-server and redis-tools with apt-get\n'
    $root apt-get update -qq
    # RUNLEVEL=1 keeps Debian from starting them.
    $root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends etcd-server redis-server redis-tools
fi
printf '>> Installing PySyncObj into %s\n' "$VENV"
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input --editable '.[bench,plots]'
