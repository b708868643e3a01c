#!/usr/bin/env bash
# Makes the Python environment of the tests once, in the cache folder: moto (S3 endpoint), DuckDB
# and pyarrow (readers of our files). Prints the interpreter's path.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

WANTED="moto[server]==5.2.5 duckdb==2.0.0 pyarrow==26.0.1"
venv=$TIDEWATER_CACHE/venv
stamp=$venv/.installed

if [ "$(cat "$stamp" 2>/dev/null)" != "$WANTED" ]; then
    exec 3>&1 1>&2
    command -v python3 >/dev/null || packages python3
    # Debian keeps ensurepip in a package of its own.
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv
    say "making the Python environment of the tests"
    rm -rf "$venv"
    quietly python3 -m venv "$venv"
    # shellcheck disable=SC2086  # a list of words
    quietly "$venv/bin/python" -m pip install -q --disable-pip-version-check $WANTED
    printf '%s' "$WANTED" >"$stamp"
    exec 1>&3 3>&-
fi
printf '%s\n' "$venv/bin/python"
