#!/bin/sh
# Lists the interpreters of this machine that PyDSM supports, one of each version, the oldest first. Each is tried by
# running it: what pyenv puts into the path may be the name of a version that is not chosen, and does not run.
set -u

for version in 3.11 3.12 3.13; do
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python /usr/bin/"python$version" \
        /usr/local/bin/"python$version" /opt/homebrew/bin/"python$version"; do
        if found=$("$candidate" -c 'import ensurepip, ssl, sqlite3, sys, venv; print("%d.%d" % sys.version_info[:2], sys.executable)' 2>/dev/null) &&
            [ "${found%% *}" = "$version" ]; then
            printf '%s\n' "${found#* }"
            break
        fi
    done
done
