# Sourced by the scripts of this directory: paths, and installation of missing packages.
# Sets ROOT (the clone), CARGO_TARGET_DIR (outside of it) and TIDEWATER_CACHE.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TIDEWATER_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/tidewater
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$TIDEWATER_CACHE/target}
export ROOT TIDEWATER_CACHE
mkdir -p "$TIDEWATER_CACHE"

say() { printf '%s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs a command. Shows its output only when it fails.
quietly() {
    local log
    log=$(mktemp)
    if "$@" >"$log" 2>&1 </dev/null; then
        rm -f "$log"
    else
        local status=$?
        cat "$log" >&2
        rm -f "$log"
        printf 'error: %s (exit status %s)\n' "$*" "$status" >&2
        return "$status"
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        fail "needs root, or these packages installed: $*"
    fi
}

# Installs Debian packages.
packages() {
    command -v apt-get >/dev/null || fail "please install: $*"
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    quietly as_root apt-get update -q
    quietly as_root apt-get install -q -y --no-install-recommends "$@"
}

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    ldconfig -p 2>/dev/null | grep 'libclang[-.0-9]*\.so' >/dev/null && return 0
    # Not libclang-cpp.so, which may be there alone and is of no use.
    compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null ||
        compgen -G '/usr/lib/llvm-*/lib/libclang-[0-9]*.so*' >/dev/null
}

# Installs what a build needs: Clang and libclang for RocksDB, a linker, make, the Rust toolchain.
setup_build() {
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    command -v cargo >/dev/null || fail "cargo is missing: install the Rust toolchain first"
    local missing=()
    has_libclang || missing+=(libclang-dev)
    { command -v clang && command -v clang++; } >/dev/null || missing+=(clang)
    { command -v cc && command -v make; } >/dev/null || missing+=(build-essential)
    [ ${#missing[@]} = 0 ] || packages "${missing[@]}"
    PATH=$ROOT/scripts/lib/compilers:$PATH
    export PATH
    from_this_clone
}

has_faketime() {
    compgen -G '/usr/lib*/*/faketime/libfaketimeMT.so.1' >/dev/null ||
        compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1' >/dev/null
}

# Installs what tests and checks need in addition: libfaketime, for nodes with wrong clocks, PostgreSQL and OpenSSL, for
# sources of refreshable tables, and Python.
setup_cluster_tests() {
    has_faketime || packages faketime
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages postgresql
    command -v openssl >/dev/null || packages openssl
    command -v python3 >/dev/null || packages python3
}

# Clones share one build directory. Cargo compares sources by modification time only: without this, artifacts
# that were built later from another clone would count as up to date.
from_this_clone() {
    local mark=$CARGO_TARGET_DIR/built-from
    if [ "$(cat "$mark" 2>/dev/null)" != "$ROOT" ]; then
        mkdir -p "$CARGO_TARGET_DIR"
        find "$ROOT" -name target -prune -o \( -name '*.rs' -o -name '*.proto' \) -exec touch {} +
        printf '%s' "$ROOT" >"$mark"
    fi
}

# Prints the time since a value of SECONDS, as "12m 3s".
since() {
    local seconds=$((SECONDS - $1))
    if [ $seconds -ge 60 ]; then
        printf '%sm %ss' $((seconds / 60)) $((seconds % 60))
    else
        printf '%ss' $seconds
    fi
}
