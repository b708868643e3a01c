# Sourced: the binary that scripts run.

# Sets TIDEWATER to $TIDEWATER_BIN, or to the release build of this source.
release_binary() {
    TIDEWATER=${TIDEWATER_BIN:-}
    if [ -z "$TIDEWATER" ]; then
        setup_build
        local begun=$SECONDS
        [ -x "$CARGO_TARGET_DIR/release/tidewater" ] || say "building (about twenty minutes the first time)"
        (cd "$ROOT" && cargo build -q --release -p tidewater-cli </dev/null)
        [ $((SECONDS - begun)) -lt 5 ] || say "built in $(since "$begun")"
        TIDEWATER=$CARGO_TARGET_DIR/release/tidewater
    fi
    [ -x "$TIDEWATER" ] || fail "no binary at $TIDEWATER"
    export TIDEWATER
}
