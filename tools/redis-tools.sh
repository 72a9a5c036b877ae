#!/bin/sh
# Makes sure that redis-cli is there, for the tests that talk to a replica with it. Never fails: without it, those
# tests are reported as not run.
set -u

if command -v redis-cli >/dev/null 2>&1; then
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    root=""
else
    root="sudo -n"
fi

install() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-tools >/dev/null 2>&1
}

if command -v apt-get >/dev/null 2>&1 && $root true 2>/dev/null; then
    printf '>> Installing redis-tools with apt-get, for the tests that use redis-cli\n'
    install || { $root apt-get update -qq >/dev/null 2>&1 && install; }
fi

if ! command -v redis-cli >/dev/null 2>&1; then
    printf '>> redis-cli is missing: the tests that need it will be reported as NOT RUN.\n'
    printf '>> Install it with "apt-get install redis-tools" (Debian, Ubuntu) or "brew install redis" (macOS).\n'
fi
