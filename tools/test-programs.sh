#!/bin/sh
# Makes sure that the programs are there that some tests talk to or use: redis-cli, openssl. Never fails: without them,
# those tests are reported as not run.
set -u

if [ "$(id -u)" = 0 ]; then
    root=""
else
    root="sudo -n"
fi

install() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$1" >/dev/null 2>&1
}

# The program, and Debian's package that has it.
need() {
    if command -v "$1" >/dev/null 2>&1; then
        return
    fi
    if command -v apt-get >/dev/null 2>&1 && $root true 2>/dev/null; then
        printf '>> Installing %s with apt-get, for the tests that use %s\n' "$2" "$1"
        install "$2" || { $root apt-get update -qq >/dev/null 2>&1 && install "$2"; }
    fi
    if ! command -v "$1" >/dev/null 2>&1; then
        printf '>> %s is missing: the tests that need it will be reported as NOT RUN.\n' "$1"
        printf '>> Install it with "apt-get install %s" (Debian, Ubuntu) or with brew (macOS).\n' "$2"
    fi
}

need redis-cli redis-tools
need openssl openssl
