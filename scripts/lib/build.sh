# Sourced: builds that show progress, and the binary that scripts run.

# Seconds between two progress lines of a build whose output is not a terminal.
PROGRESS_SECONDS=20

# Runs cargo. A terminal gets cargo's progress bar. Other outputs get the crates compiled and the elapsed
# time every PROGRESS_SECONDS, and everything that cargo prints besides its status lines.
cargo_with_progress() {
    if [ -t 2 ]; then
        cargo "$@"
        return
    fi
    CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=120 cargo "$@" 2>&1 >/dev/null |
        stdbuf -oL tr '\r' '\n' | report_progress
}

# Reads cargo's progress bar, a line for each of its states, e.g. "Building [==>  ] 12/345: arrow, zip".
report_progress() {
    local line names begun=$SECONDS last=$SECONDS escape=$'\e'
    while IFS= read -r line; do
        line=${line//"$escape["[0-9;]*[a-zA-Z]/}
        if [[ $line =~ ([0-9]+)/([0-9]+)(:\ (.*))?$ && $line == *Building* ]]; then
            if [ $((SECONDS - last)) -ge "$PROGRESS_SECONDS" ]; then
                last=$SECONDS
                names=${BASH_REMATCH[4]}
                say "  ${BASH_REMATCH[1]} of ${BASH_REMATCH[2]} crates, $(since "$begun") (${names%"${names##*[! ]}"})"
            fi
        elif ! [[ $line =~ ^\ *(Compiling|Checking|Downloading|Downloaded|Finished|Fresh|Blocking|Updating|Locking)\  || -z ${line// /} ]]; then
            printf '%s\n' "$line" >&2
        fi
    done
}

# Builds the whole workspace with its tests, and sets TIDEWATER_BIN to the binary. The linter is the compiler of
# the workspace's own crates: dependencies are compiled once, and no second pass is needed. `cargo clippy`
# would check the whole dependency tree again.
build_with_lints() {
    export RUSTC_WORKSPACE_WRAPPER=clippy-driver
    export CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
    # The cluster tests start the binary: it must be of this source before they run.
    cargo_with_progress build --locked --workspace --all-targets --timings
    export TIDEWATER_BIN=$CARGO_TARGET_DIR/debug/tidewater
}

# Sets TIDEWATER to $TIDEWATER_BIN, or to the build of this source with a profile: `release`, or `demo`,
# which compiles in half the time and runs slower.
built_binary() {
    local profile=$1 begun=$SECONDS
    TIDEWATER=${TIDEWATER_BIN:-}
    if [ -z "$TIDEWATER" ]; then
        setup_build
        [ -x "$CARGO_TARGET_DIR/$profile/tidewater" ] || say "building (see docs/development.md for how long it takes)"
        (cd "$ROOT" && cargo_with_progress build --locked --profile "$profile" -p tidewater-cli </dev/null)
        [ $((SECONDS - begun)) -lt 5 ] || say "built in $(since "$begun")"
        TIDEWATER=$CARGO_TARGET_DIR/$profile/tidewater
    fi
    [ -x "$TIDEWATER" ] || fail "no binary at $TIDEWATER"
    export TIDEWATER
}
