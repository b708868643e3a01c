#!/usr/bin/env bash
# Creates the Python environment of the tests in the cache directory: moto (S3 endpoint), DuckDB, pyarrow, Polars and
# PyIceberg (readers of SSTs), and the Python client of this clone. Prints the interpreter's path.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

WANTED="moto[server]==5.2.5 duckdb==2.0.0 duckdb-cli==1.5.6 pyarrow==26.0.1 pandas==3.1.1 polars==2.1.0
    pyiceberg==0.12.0 pytest==9.2.0 grpcio==1.85.1 grpcio-tools==1.85.1 setuptools==84.2.1"
venv=$TIDEWATER_CACHE/venv
stamp=$venv/.installed

exec 3>&1 1>&2
if [ "$(cat "$stamp" 2>/dev/null)" != "$WANTED" ]; then
    command -v python3 >/dev/null || packages python3
    # Debian has ensurepip in a separate package.
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv
    say "installing the Python environment of the tests"
    rm -rf "$venv"
    quietly python3 -m venv "$venv"
    # shellcheck disable=SC2086  # a list of words
    quietly "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-compile $WANTED
    printf '%s' "$WANTED" >"$stamp"
fi
# Clones share the environment: the client is installed again when its sources differ.
sources=$(cd "$ROOT" && git ls-files -- python proto | xargs cat | cksum)
if [ "$(cat "$venv/.client" 2>/dev/null)" != "$sources" ]; then
    quietly "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
        --force-reinstall "$ROOT/python"
    rm -rf "$ROOT/python/build" "$ROOT"/python/*.egg-info
    printf '%s' "$sources" >"$venv/.client"
fi
exec 1>&3 3>&-
printf '%s\n' "$venv/bin/python"
