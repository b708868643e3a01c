# Sourced by scripts/bench: rate of an export, compared with scans of the same rows.

EXPORT_ROWS=${EXPORT_ROWS:-10000000}
EXPORT_ROUNDS=${ROUNDS:-3}
# Least rate of an export of the design, as a part of that of the command `scan`.
EXPORT_LIMIT=0.8

# seconds_of COMMAND..: runs a command, and prints its time in seconds.
seconds_of() {
    local begun=$EPOCHREALTIME
    quietly "$@" >&2
    awk -v begun="$begun" -v ended="$EPOCHREALTIME" 'BEGIN { printf "%.3f", ended - begun }'
}

# export_round ROUND: measures a scan to a file, a scan without output and an export, each of all rows.
export_round() {
    local target=$WORK/exports/$1
    seconds_of tw scan exported --format csv --out "$WORK/scan.csv" >>"$WORK/export-scan"
    echo >>"$WORK/export-scan"
    rm -f "$WORK/scan.csv"
    tw bench scan --table exported --output json | number seconds >>"$WORK/export-read"
    seconds_of tw export create "round-$1" --table exported --to "file://$target" --wait --timeout 1h \
        >>"$WORK/export-export"
    echo >>"$WORK/export-export"
    quietly tw export drop "round-$1"
    EXPORT_BYTES=$(du -sb "$target" | cut -f1)
    rm -rf "$target"
}

# export_line NAME KIND: prints the median rate of a kind, and that of exports as a part of it.
export_line() {
    local seconds exported _
    read -r seconds _ < <(median <"$WORK/export-$2")
    read -r exported _ < <(median <"$WORK/export-export")
    awk -v name="$1" -v rows="$EXPORT_ROWS" -v seconds="$seconds" -v exported="$exported" 'BEGIN {
        printf "    %-32s %10.2f %14.0f %10.2f\n", name, seconds, rows / seconds, seconds / exported
    }'
}

exports() {
    local round
    STATE=$WORK/state
    mkdir -p "$WORK/exports"
    TIDEWATER_EXPORT_DIR=$WORK/exports standalone_start
    say "export of $EXPORT_ROWS rows to Parquet in a directory, standalone:"
    quietly tw bench ingest --rows "$EXPORT_ROWS" --table exported
    flush_all exported
    quietly tw region compact --table exported
    for round in $(seq "$EXPORT_ROUNDS"); do export_round "$round"; done
    printf '    %-32s %10s %14s %10s\n' '' 's' rows/s 'export/it'
    export_line 'export create --wait' export
    export_line 'scan --format csv --out FILE' scan
    export_line 'bench scan (no output)' read
    say "    medians of $EXPORT_ROUNDS rounds; $((EXPORT_BYTES / 1048576)) MiB of objects; design: at least $EXPORT_LIMIT of scan"
    cluster_stop
}
