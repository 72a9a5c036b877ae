#!/bin/sh
# Makes .venv with a suitable Python and installs PyDSM and its tools into it. `make` calls this when pyproject.toml
# is newer than what is installed. PYTHON=/path/to/python chooses the interpreter, VENV=DIR another place than .venv.
set -eu

VENV=${VENV:-.venv}

say() { printf '>> %s\n' "$*"; }
fail() {
    printf 'make: %s\n' "$*" >&2
    exit 1
}

suitable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14 python; do
        if suitable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

make_venv() {
    "$1" -m venv --clear "$VENV" >/dev/null 2>&1
}

if ! suitable "$VENV/bin/python" || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || fail "no Python 3.11 or newer found; install one, or say where it is: make setup PYTHON=/path/to/python3.11"
    say "Making $VENV with $("$python" --version) ($python)"
    if ! make_venv "$python"; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "This Python cannot make virtual environments; trying Debian's python$version-venv"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "python$version-venv" >/dev/null 2>&1 || true
        make_venv "$python" || fail "$python cannot make a virtual environment; install its venv module (Debian: apt-get install python$version-venv) and run make again"
    fi
fi

say "Installing PyDSM and its tools into $VENV (a minute at most, from the package index)"
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input --editable '.[dev]' ||
    fail "pip could not install the packages above; check the network, or the index that pip is set to use, and run make again"
say "Ready: $("$VENV/bin/python" --version), $("$VENV/bin/python" -c 'import pydsm; print("PyDSM", pydsm.__version__)')"
