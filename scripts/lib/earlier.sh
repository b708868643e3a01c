# Sourced, after build.sh: the binary of an earlier release, for the test of rolling upgrades.

# The last commit without feature levels. After a release, the commit of that release.
EARLIER_COMMIT=4965f885d261b8d9ef6d8c42bdb55f1ea256c32e
EARLIER_BIN=$TIDEWATER_CACHE/releases/$EARLIER_COMMIT/tidewater

# Builds EARLIER_BIN unless it is there, in a directory of its own: cargo takes crates of the same name in one
# target directory for the same crates. Hard links to the compiled dependencies save their compilation.
build_earlier() {
    local begun=$SECONDS dir=$CARGO_TARGET_DIR/earlier profile=$CARGO_TARGET_DIR/debug
    [ ! -x "$EARLIER_BIN" ] || return 0
    has_earlier_commit || fail "this clone is shallow, and commit $EARLIER_COMMIT cannot be fetched"
    say "building the earlier release $EARLIER_COMMIT"
    rm -rf "$dir"
    mkdir -p "$dir/source" "$dir/target/debug" "$(dirname "$EARLIER_BIN")"
    git -C "$ROOT" archive "$EARLIER_COMMIT" | tar -x -C "$dir/source"
    if [ -d "$profile/.fingerprint" ]; then
        cp -al "$profile/deps" "$profile/build" "$dir/target/debug/"
        cp -a "$profile/.fingerprint" "$dir/target/debug/"
        find "$dir/target/debug" -mindepth 2 -maxdepth 2 -name '*tidewater*' -exec rm -rf {} +
    fi
    # With an example, and for the whole workspace: only then do the dependencies have the features that they
    # have in a build of all targets. Otherwise half of them would be compiled again.
    (
        cd "$dir/source"
        unset RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS
        export CARGO_TARGET_DIR=$dir/target
        cargo_with_progress build --locked --workspace --bin tidewater --example own_hook
    )
    mv "$dir/target/debug/tidewater" "$EARLIER_BIN"
    rm -rf "$dir"
    say "built in $(since "$begun")"
}

has_earlier_commit() {
    git -C "$ROOT" cat-file -e "$EARLIER_COMMIT^{commit}" 2>/dev/null ||
        git -C "$ROOT" fetch --quiet --depth 1 origin "$EARLIER_COMMIT" 2>/dev/null
}
