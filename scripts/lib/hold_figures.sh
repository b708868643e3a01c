# Sourced by scripts/bench: latency of calls about read holds, and the cost of a held epoch for a table under load.

HOLD_TABLES=${HOLD_TABLES:-1000}
HOLD_COUNT=${HOLD_COUNT:-10000}
HOLD_CLIENTS=${HOLD_CLIENTS:-1}
HOLD_REQUESTS=${HOLD_REQUESTS:-2000}
HOLD_SECONDS=${HOLD_SECONDS:-600}
# Keys of each table. The load overwrites all of them in each period, which has this number of seconds.
HOLD_KEYS=${HOLD_KEYS:-100000}
HOLD_PERIOD=${HOLD_PERIOD:-2}
# Tables with records, and commands, of the part `restart`.
HOLD_COLLECTIONS=${HOLD_COLLECTIONS:-10000}
HOLD_COMMANDS=${HOLD_COMMANDS:-100000}
# Reads of each table and kind, whose median is printed.
HOLD_READS=${HOLD_READS:-5}
# Limit of the design for the 99th percentile of each call, in ms.
HOLD_LIMIT=5

# hold_cluster METAS: starts a new cluster with one data node, and waits up to a minute for the feature level of holds.
hold_cluster() {
    local _
    STATE=$WORK/holds
    rm -rf "$STATE"
    cluster_create "$1" 1 0
    cluster_start
    cluster_healthy
    for _ in $(seq 300); do
        # A name that is not in use: no effect.
        ! tw hold release unused >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    quietly tw hold release unused
}

# hold_latency LINE CALL FIELD: prints a field of the latency of a call, of the figures of `bench holds`.
hold_latency() { grep -o "\"$2\":{[^}]*}" <<<"$1" | number "$3"; }

# hold_peer LINE: sets HOLD_PEER to the name of the peer, and HOLD_PEER_P99 to the 99th percentile of its latency in ms. The
# peer is a put of etcd by as many clients where it is installed, otherwise the command without effect of the same run.
hold_peer() {
    local puts
    HOLD_PEER='command without effect'
    HOLD_PEER_P99=$(hold_latency "$1" empty_command p99)
    command -v etcd >/dev/null || return 0
    ETCD_PUTS=$(example etcd_puts)
    etcd_start
    puts=$("$ETCD_PUTS" "$SECONDS_EACH" "$HOLD_CLIENTS" "${ETCD_CLIENTS[@]}")
    etcd_stop
    HOLD_PEER="put of etcd $(etcd --version | sed -n '1s/.*: //p')"
    HOLD_PEER_P99=$(number p99 <<<"$puts")
}

# hold_calls: prints the latency of acquisitions, downgrades and releases, and whether each is below the limit.
hold_calls() {
    local line call p99 verdict
    hold_cluster 3
    say "calls about holds, three meta nodes and one data node;"
    local options=(--tables "$HOLD_TABLES" --holds "$HOLD_COUNT" --clients "$HOLD_CLIENTS" --requests "$HOLD_REQUESTS")
    say "\$ tidewater bench holds ${options[*]}"
    line=$(tw bench holds "${options[@]}" --output json)
    hold_peer "$line"
    printf '    %-14s %10s %10s %10s %10s %8s\n' 'ms' median p90 p99 max ratio
    for call in empty_command acquire downgrade release; do
        p99=$(hold_latency "$line" "$call" p99)
        verdict=
        if [ "$call" != empty_command ]; then
            verdict="  p99 is not below $HOLD_LIMIT ms"
            if awk -v p99="$p99" -v limit="$HOLD_LIMIT" 'BEGIN { exit !(p99 < limit) }'; then
                verdict="  p99 is below $HOLD_LIMIT ms"
            fi
        fi
        printf '    %-14s %10.2f %10.2f %10.2f %10.2f %8s%s\n' "$call" "$(hold_latency "$line" "$call" p50)" \
            "$(hold_latency "$line" "$call" p90)" "$p99" "$(hold_latency "$line" "$call" max)" \
            "$(ratio "$p99" "$HOLD_PEER_P99")" "$verdict"
    done
    say "    ratios: p99 to that of a $HOLD_PEER, $HOLD_PEER_P99 ms; design: each p99 below $HOLD_LIMIT ms"
    cluster_stop
}

# hold_overwrite ROUND: writes all keys of both tables once, with values of their own in each round.
hold_overwrite() {
    local table
    for table in held free; do
        quietly tw bench ingest --rows "$HOLD_KEYS" --keys "$HOLD_KEYS" --first $(($1 * HOLD_KEYS)) --table "$table"
    done
}

# hold_load: overwrites all keys of both tables in each period, for HOLD_SECONDS. HOLD_OVERWRITES is the number of times.
hold_load() {
    local begun=$SECONDS left shown=$SECONDS
    HOLD_OVERWRITES=0
    while [ $((SECONDS - begun)) -lt "$HOLD_SECONDS" ]; do
        HOLD_OVERWRITES=$((HOLD_OVERWRITES + 1))
        hold_overwrite "$HOLD_OVERWRITES"
        left=$((begun + HOLD_OVERWRITES * HOLD_PERIOD - SECONDS))
        [ "$left" -le 0 ] || sleep "$left"
        # The load takes long: show that it goes on.
        [ $((SECONDS - shown)) -ge 60 ] || continue
        shown=$SECONDS
        say "    overwriting: $((SECONDS - begun)) of $HOLD_SECONDS s" >&2
    done
}

# hold_bytes TABLE: prints the sum of the bytes of the files of a table.
hold_bytes() {
    local region files bytes sum=0
    for region in $(regions_of "$1"); do
        files=$(tw region files "$region" --output json) || return 1
        # None in a region without files.
        for bytes in $(number bytes <<<"$files"); do sum=$((sum + bytes)); done
    done
    printf '%s' "$sum"
}

# hold_line NAME UNIT HELD FREE: prints a line of the comparison, with both numbers divided by UNIT.
hold_line() {
    awk -v name="$1" -v unit="$2" -v held="$3" -v free="$4" 'BEGIN {
        printf "    %-24s %12.3f %12.3f %8.2f\n", name, held / unit, free / unit, held / free
    }'
}

# hold_compare WHEN: prints size, scan time and count time of both tables. The reads alternate, since the speed of the
# machine drifts.
hold_compare() {
    local table _
    local -A bytes=() scan=() count=()
    rm -f "$WORK"/hold-scan-* "$WORK"/hold-count-*
    for _ in $(seq "$HOLD_READS"); do
        for table in held free; do
            tw bench scan --table "$table" --output json | number seconds >>"$WORK/hold-scan-$table"
            tw bench scan --count --table "$table" --output json | number seconds >>"$WORK/hold-count-$table"
        done
    done
    for table in held free; do
        bytes[$table]=$(hold_bytes "$table")
        scan[$table]=$(median <"$WORK/hold-scan-$table" | cut -d' ' -f1)
        count[$table]=$(median <"$WORK/hold-count-$table" | cut -d' ' -f1)
    done
    printf '    %-24s %12s %12s %8s\n' "$1" held 'not held' ratio
    hold_line 'files, MiB' 1048576 "${bytes[held]}" "${bytes[free]}"
    hold_line 'scan, s' 1 "${scan[held]}" "${scan[free]}"
    hold_line 'count, s' 1 "${count[held]}" "${count[free]}"
}

# hold_passed EPOCH: waits up to a minute until the regions of the held table no longer keep this epoch.
hold_passed() {
    local _ since
    for _ in $(seq 120); do
        # Null or absent while an owner does not report.
        since=$(tw table describe held --output json | number since) || true
        [ "${since:-0}" -le "$1" ] || return 0
        sleep 0.5
    done
    fail "epoch $1 of the table is still kept a minute after the release of its hold"
}

# hold_epoch: compares two tables with the same load. A hold keeps one of them readable as of an epoch before it.
hold_epoch() {
    local epoch table
    hold_cluster 1
    hold_overwrite 0
    epoch=$(tw hold acquire old held --lease "$((HOLD_SECONDS + 3600))s" --output json | number epoch)
    say "two tables with the same overwrites for $HOLD_SECONDS s, one of them held, one meta and one data node:"
    hold_load
    for table in held free; do flush_all "$table"; done
    say "    each of $HOLD_KEYS keys overwritten $HOLD_OVERWRITES times; reads: medians of $HOLD_READS"
    hold_compare 'at the end of the load'
    quietly tw hold release old
    hold_passed "$epoch"
    for table in held free; do quietly tw region compact --table "$table"; done
    hold_compare 'released and compacted'
    cluster_stop
}

# hold_meta_bytes: prints the sum of the bytes in the directories of the meta nodes.
hold_meta_bytes() { du -sb "$STATE"/nodes/meta-* | awk '{ sum += $1 } END { print sum }'; }

# hold_restarted: kills all meta nodes, and prints the time until a command about holds has succeeded, in seconds.
hold_restarted() {
    local node begun
    for node in $(seq "$METAS"); do node_signal KILL "meta-$node"; done
    begun=$EPOCHREALTIME
    for node in $(seq "$METAS"); do node_start "meta-$node"; done
    until tw hold release unused >/dev/null 2>&1; do sleep 0.05; done
    awk -v begun="$begun" -v ended="$EPOCHREALTIME" 'BEGIN { printf "%.2f", ended - begun }'
}

# hold_restart: restarts three meta nodes with many collections, before and after many commands about their holds.
hold_restart() {
    local options=(--tables "$HOLD_COLLECTIONS" --holds "$HOLD_COLLECTIONS" --cleanup false) commands times
    hold_cluster 3
    quietly tw bench holds "${options[@]}" --requests 1
    times=$(hold_restarted)
    say "three meta nodes with $HOLD_COLLECTIONS collections: all killed, first command after $times s, $(hold_meta_bytes) bytes"
    commands=0
    while [ "$commands" -lt "$HOLD_COMMANDS" ]; do
        quietly tw bench holds "${options[@]}" --requests $((HOLD_COMMANDS / 10))
        # Each request of the four kinds is one command, and so is each hold of a table.
        commands=$((commands + 4 * (HOLD_COMMANDS / 10) + HOLD_COLLECTIONS))
        say "    $commands commands later: $(hold_meta_bytes) bytes"
    done
    times=$(hold_restarted)
    say "    all killed: first command after $times s, $(hold_meta_bytes) bytes"
    cluster_stop
}
