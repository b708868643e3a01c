# Sourced by scripts/bench: cost of the event recorder for an ingest.

EVENT_ROWS=${ROWS:-4000000}
EVENT_ROUNDS=${ROUNDS:-5}
# Seconds in which a new cluster creates its groups, with and without events.
EVENT_PAUSE=15

# event_table: waits up to 90 s until the cluster has recorded events.
event_table() {
    local _
    for _ in $(seq 90); do
        ! tw table describe events >/dev/null 2>&1 || return 0
        sleep 1
    done
    fail "no events are recorded: the cluster has no table events"
}

# event_ingest PLACE KIND: sets EVENT_RATE to the rows per second of an ingest into a new cluster without events (off), with
# events (on), or with events and a durable hook that records each version of each region (hook).
event_ingest() {
    local line target=table
    [ "$2" != off ] || target=off
    STATE=$WORK/events
    rm -rf "$STATE"
    if [ "$1" = standalone ]; then
        standalone_start --events "$target"
    else
        cluster_create 3 3 0
        TIDEWATER_EVENTS=$target cluster_start
        cluster_healthy
    fi
    sleep "$EVENT_PAUSE"
    [ "$2" = off ] || event_table
    [ "$2" != hook ] || quietly tw hook add versions --kind events --config '{}' --durable
    line=$(tw bench ingest --rows "$EVENT_ROWS" --table ingest --output json 2>"$WORK/ingest.err") ||
        fail "$(cat "$WORK/ingest.err")"
    EVENT_RATE=$(number rows_per_second <<<"$line")
    cluster_stop
}

# event_ratio PLACE KIND: prints the median rate of a kind, as a part of the median rate without events.
event_ratio() {
    local with without _
    read -r with _ < <(median <"$WORK/rates-$1-$2")
    read -r without _ < <(median <"$WORK/rates-$1-off")
    ratio "$with" "$without" 3
}

# event_rounds PLACE: compares ingests in turn. The order alternates, since the speed of the machine drifts.
event_rounds() {
    local round kind kinds
    local -A rate=()
    say "ingest of $EVENT_ROWS rows, $1, rows/s:"
    printf '    %-8s %12s %12s %12s %8s %8s\n' round off on 'on, hook' 'on/off' 'hook/off'
    for round in $(seq "$EVENT_ROUNDS"); do
        kinds='off on hook'
        [ $((round % 2)) = 1 ] || kinds='hook on off'
        for kind in $kinds; do
            event_ingest "$1" "$kind"
            rate[$kind]=$EVENT_RATE
            echo "$EVENT_RATE" >>"$WORK/rates-$1-$kind"
        done
        printf '    %-8s %12.0f %12.0f %12.0f %8s %8s\n' "$round" "${rate[off]}" "${rate[on]}" "${rate[hook]}" \
            "$(ratio "${rate[on]}" "${rate[off]}" 3)" "$(ratio "${rate[hook]}" "${rate[off]}" 3)"
    done
    say "    ingest with events on: $(event_ratio "$1" on) of off (design: at least 0.99); medians of $EVENT_ROUNDS rounds"
    say "    with a durable hook of kind events as well: $(event_ratio "$1" hook) of off"
}

events() {
    local place
    for place in standalone replicated; do event_rounds "$place"; done
}
