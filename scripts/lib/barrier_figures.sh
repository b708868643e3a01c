# Sourced by scripts/bench: cost of barriers for an ingest.

BARRIER_ROWS=${ROWS:-4000000}
BARRIER_ROUNDS=${ROUNDS:-5}

# barrier_ingest INTERVAL: prints the rows per second of an ingest into a new cluster with this interval of barriers.
barrier_ingest() {
    STATE=$WORK/barriers
    rm -rf "$STATE"
    cluster_create 1 3 0 >&2
    TIDEWATER_BARRIER_INTERVAL=$1 cluster_start >&2
    cluster_healthy >&2
    tw bench ingest --rows "$BARRIER_ROWS" --table ingest --output json 2>/dev/null | number rows_per_second
    cluster_stop >&2
}

# barriers: compares ingests with barriers each second, and ten each second, with ingests almost without barriers. The
# order alternates, since the speed of the machine drifts.
barriers() {
    local round interval rate intervals
    say "ingest of $BARRIER_ROWS rows, one meta and three data nodes, rows/s by interval of barriers:"
    printf '    %-8s %12s %12s %12s %8s %8s\n' round 60s 1s 100ms '1s/60s' '100ms/60s'
    for round in $(seq "$BARRIER_ROUNDS"); do
        declare -A rate=()
        intervals='60s 1s 100ms'
        [ $((round % 2)) = 1 ] || intervals='100ms 1s 60s'
        for interval in $intervals; do rate[$interval]=$(barrier_ingest "$interval"); done
        printf '    %-8s %12.0f %12.0f %12.0f %8s %8s\n' "$round" "${rate[60s]}" "${rate[1s]}" "${rate[100ms]}" \
            "$(ratio "${rate[1s]}" "${rate[60s]}" 3 | tee -a "$WORK/ratios-1s")" \
            "$(ratio "${rate[100ms]}" "${rate[60s]}" 3 | tee -a "$WORK/ratios-100ms")"
        for interval in 1s 100ms; do echo >>"$WORK/ratios-$interval"; done
    done
    for interval in 1s 100ms; do
        say "    $interval against 60s: median, least, greatest: $(median <"$WORK/ratios-$interval")"
    done
}
