# Sourced by scripts/bench: effect and cost of compactor nodes for a data node.
#
# Two settings approximate a separate machine for the compactor. With "idle", it gets only the processor
# time that no other process uses (SCHED_IDLE). With "pinned", it has one core, and all other processes
# share the other core.

tw() { "$TIDEWATER" "$@" --meta "$(meta_addrs)"; }

# Prints the median, minimum and maximum of the numbers on standard input.
median() {
    sort -n | awk '{ all[NR] = $1 }
        END {
            median = NR % 2 ? all[(NR + 1) / 2] : (all[NR / 2] + all[NR / 2 + 1]) / 2
            print median, all[1], all[NR]
        }'
}

# ratio A B [DIGITS]: prints A / B.
ratio() { awk -v a="$1" -v b="$2" -v digits="${3:-2}" 'BEGIN { printf "%.*f", digits, a / b }'; }

seconds_now() { date +%s.%N; }

# metric NODE NAME [LABEL]: prints the sum of a metric over all labels, or over those that contain LABEL.
metric() {
    curl -sf "http://$(addr_of "$1")/metrics" |
        awk -v name="$2" -v label="${3:-}" '
            { bare = $1; sub(/\{.*/, "", bare) }
            bare == name && (label == "" || index($1, label)) { sum += $2 }
            END { printf "%d", sum }'
}

regions_of() {
    tw region list --table "$1" --output json | grep -o '"region_id": *[0-9]*' | tr -dc '0-9\n'
}

flush_all() { tw region flush --table "$1" >/dev/null; }

peak_mib() { awk '/^VmHWM:/ { printf "%d", $2 / 1024 }' "/proc/$(pid_of "$1")/status"; }

# remote_cluster COMPACTORS DATA_FLAGS COMPACTOR_FLAGS: starts a new cluster of one meta node, one data
# node and compactors that the data node knows.
remote_cluster() {
    local n
    STATE=$WORK/remote
    rm -rf "$STATE"
    cluster_create 1 1 "$1"
    node_start meta-1 && node_ready meta-1
    # shellcheck disable=SC2086 # several flags
    node_start data-1 $2 && node_ready data-1
    for n in $(seq "$1"); do
        # shellcheck disable=SC2086
        node_start "compactor-$n" $3 && node_ready "compactor-$n"
    done
    cluster_healthy
    # The data node learns of the compactors with its next heartbeat.
    sleep 2.5
}

remote_cluster_stop() {
    cluster_stop
    rm -rf "$STATE"
}

# Prints one run of ingest: rows per second, flushes, and the jobs committed by compactors and by the data
# node during the run.
ingest_run() {
    local place=$1 where=$2 name line
    remote_cluster 1 "--compaction $place --compaction-every 250ms --memory-limit $INGEST_MEMORY" ""
    case $where in
    idle) chrt -a -i -p 0 "$(pid_of compactor-1)" ;;
    pinned)
        for name in meta-1 data-1; do taskset -a -c -p 0 "$(pid_of "$name")"; done >/dev/null
        taskset -a -c -p 1 "$(pid_of compactor-1)" >/dev/null
        ;;
    esac
    local -a on=()
    [ "$where" != pinned ] || on=(taskset -c 0)
    line=$("${on[@]}" "$TIDEWATER" bench ingest --rows "$INGEST_ROWS" --regions "$INGEST_REGIONS" \
        --table ingest --output json --meta "$(meta_addrs)" 2>"$WORK/ingest.err") ||
        fail "$(cat "$WORK/ingest.err")"
    printf '%s %s %s %s\n' "$(number rows_per_second <<<"$line")" "$(metric data-1 tidewater_flushes_total)" \
        "$(metric data-1 tidewater_compaction_jobs_total '"committed"')" \
        "$(metric data-1 tidewater_compaction_jobs_total '"committed_here"')"
    remote_cluster_stop
}

# Measures the ingest of one data node with compaction off, local and remote.
remote_ingest() {
    local round kind runs=$WORK/ingest-runs
    : >"$runs"
    say "ingest of one data node, $INGEST_ROWS rows into $INGEST_REGIONS regions, $REMOTE_ROUNDS rounds in turn:"
    say "\$ tidewater data --compaction off|local|remote --compaction-every 250ms --memory-limit $INGEST_MEMORY"
    say "\$ tidewater bench ingest --rows $INGEST_ROWS --regions $INGEST_REGIONS"
    for round in $(seq "$REMOTE_ROUNDS"); do
        for kind in $INGEST_KINDS; do
            printf '%s %s\n' "$kind" "$(ingest_run "${kind%/*}" "${kind#*/}")" >>"$runs"
            # The measurement takes long: print intermediate results.
            say "    $round $(tail -n 1 "$runs")" >&2
        done
    done
    ! grep -q "/shared " "$runs" || say "    both cores for all:"
    ingest_line "$runs" off/shared off/shared "off"
    ingest_line "$runs" local/shared off/shared "local"
    ingest_line "$runs" remote/shared off/shared "remote, the compactor on the same cores"
    ingest_line "$runs" remote/idle off/shared "remote, the compactor with SCHED_IDLE"
    ! grep -q "/pinned " "$runs" || say "    one core for client, meta and data node:"
    ingest_line "$runs" off/pinned off/pinned "off"
    ingest_line "$runs" local/pinned off/pinned "local"
    ingest_line "$runs" remote/pinned off/pinned "remote, the compactor on the other core"
}

# Prints the median rate of one kind of run, its ratio to the rate without compaction, and the number of
# jobs.
ingest_line() {
    local runs=$1 kind=$2 base=$3 name=$4 median low high without _
    # INGEST_KINDS may exclude this kind.
    grep -q "^$kind " "$runs" && grep -q "^$base " "$runs" || return 0
    read -r median low high < <(grep "^$kind " "$runs" | cut -d' ' -f2 | median)
    read -r without _ _ < <(grep "^$base " "$runs" | cut -d' ' -f2 | median)
    printf '    %-44s %9.0f rows/s (%.0f to %.0f), ratio %s; flushes %s, jobs committed by the compactor %s, by the data node %s\n' \
        "$name" "$median" "$low" "$high" "$(ratio "$median" "$without" 3)" \
        "$(column "$runs" "$kind" 3)" "$(column "$runs" "$kind" 4)" "$(column "$runs" "$kind" 5)"
}

# Prints a column of all runs of a kind, joined by plus signs.
column() { grep "^$2 " "$1" | cut -d' ' -f"$3" | paste -sd+ | sed 's/+/ + /g'; }

# overlapping_table NAME REGIONS FILES ROWS: fills a table with FILES overlapping files in each region.
overlapping_table() {
    local file each=$(($4 / $3))
    for file in $(seq 0 $(($3 - 1))); do
        tw bench ingest --table "$1" --regions "$2" --rows "$each" --first $((file * each)) >/dev/null 2>&1
        flush_all "$1"
    done
}

# Prints the number of files and the bytes of all regions of a table.
files_of() {
    local region
    for region in $(regions_of "$1"); do tw region files "$region" --output json; done |
        awk '{ line = line $0 }
            END {
                while (match(line, /"(size|bytes)": *[0-9]+/)) {
                    part = substr(line, RSTART, RLENGTH); sub(/.*: */, "", part)
                    files++; bytes += part; line = substr(line, RSTART + RLENGTH)
                }
                printf "%d files, %d MiB", files, bytes / 1048576
            }'
}

# Prints the processor time of the compactors in seconds.
compactor_time() {
    local n pid ticks=0
    for n in $(seq "$COMPACTORS"); do
        pid=$(pid_of "compactor-$n") || continue
        ticks=$((ticks + $(sed 's/.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 }')))
    done
    ratio "$ticks" "$(getconf CLK_TCK)"
}

# jobs_run COMPACTORS TABLE: runs `region compact --remote` for each region. Runs one command per slot
# concurrently, because a command without a free slot fails. Prints the seconds from the first start to
# the last end, the processor time of the compactors, and the number of jobs of each.
jobs_run() {
    local begun before
    before=$(compactor_time)
    begun=$(seconds_now)
    regions_of "$2" | xargs -P "$1" -I R "$TIDEWATER" region compact R --remote --output json \
        --meta "$(meta_addrs)" >"$WORK/jobs"
    awk -v a="$(seconds_now)" -v b="$begun" -v c="$(compactor_time)" -v d="$before" \
        'BEGIN { printf "%.2f %.2f", a - b, c - d }'
    grep -o '"node_id": *[0-9]*' "$WORK/jobs" | sort | uniq -c | awk '{ printf "%s%s", (NR > 1 ? "+" : " "), $1 }'
    echo
}

# jobs_start_second PINNED: starts the second compactor, pinned to a core if PINNED is not empty.
jobs_start_second() {
    node_start compactor-2 --slots 1 && node_ready compactor-2
    [ -z "$1" ] || taskset -a -c -p 1 "$(pid_of compactor-2)" >/dev/null
    sleep 3
}

# Measures twelve jobs on one and on two compactors of one slot each. The tables are clones of one table,
# so they have the same files.
remote_jobs() {
    local round pinned one two
    say "twelve jobs, one region each, on one and on two compactors of one slot each, $REMOTE_ROUNDS rounds in turn:"
    remote_cluster 2 "--compaction off" "--slots 1"
    overlapping_table jobs 12 4 "$JOB_ROWS"
    say "    $(files_of jobs) in 12 regions"
    say "\$ tidewater region compact R --remote"
    for pinned in "" pinned; do
        [ -z "$pinned" ] || taskset -a -c -p 0 "$(pid_of compactor-1)" >/dev/null
        : >"$WORK/one"
        : >"$WORK/two"
        for round in $(seq "$REMOTE_ROUNDS"); do
            tw table clone jobs "one$pinned$round" >/dev/null
            tw table clone jobs "two$pinned$round" >/dev/null
            node_signal TERM compactor-2
            sleep 3
            jobs_run 1 "one$pinned$round" >>"$WORK/one"
            jobs_start_second "$pinned"
            jobs_run 2 "two$pinned$round" >>"$WORK/two"
        done
        read -r one _ _ < <(cut -d' ' -f1 "$WORK/one" | median)
        read -r two _ _ < <(cut -d' ' -f1 "$WORK/two" | median)
        say "    ${pinned:+a core for each compactor: }one: $one s, two: $two s, ratio $(ratio "$two" "$one")"
        say "        one: $(jobs_line "$WORK/one")"
        say "        two: $(jobs_line "$WORK/two")"
    done
    remote_cluster_stop
}

jobs_line() { awk '{ printf "%s%s s (%s s of processor time, jobs %s)", (NR > 1 ? ", " : ""), $1, $2, $3 }' "$1"; }

# Measures the compaction of one region of 8 overlapping files on a compactor and on the data node.
remote_merge() {
    local round place line remote_time local_time
    say "compaction of $ROWS rows in 8 overlapping files, one region, on a compactor and on the data node, $REMOTE_ROUNDS rounds in turn:"
    remote_cluster 1 "--compaction off" ""
    overlapping_table merge 1 8 "$ROWS"
    say "    $(files_of merge)"
    say "\$ tidewater region compact R --remote|--local"
    : >"$WORK/remote-runs"
    : >"$WORK/local-runs"
    for round in $(seq "$REMOTE_ROUNDS"); do
        for place in remote local; do
            tw table clone merge "${place}_$round" >/dev/null
            line=$(tw region compact "$(regions_of "${place}_$round")" "--$place" --output json)
            number seconds <<<"$line" >>"$WORK/$place-runs"
        done
    done
    read -r remote_time _ _ < <(median <"$WORK/remote-runs")
    read -r local_time _ _ < <(median <"$WORK/local-runs")
    printf '    on a compactor: %.2f s, on the data node: %.2f s; ratio of times %s\n' \
        "$remote_time" "$local_time" "$(ratio "$remote_time" "$local_time")"
    say "    peak memory of the compactor: $(peak_mib compactor-1) MiB (--memory-limit: 512 MiB)"
    remote_cluster_stop
}

# Measures the memory of a compaction of more than 2 GiB with a limit of 512 MiB, with incompressible rows
# of 2,000 bytes.
remote_memory() {
    local file python region before
    python=$("$ROOT/scripts/lib/python.sh")
    say "compaction of a region of $MEMORY_FILES overlapping loads of $((MEMORY_BYTES >> 20)) MiB each, rows of 2,000 bytes:"
    remote_cluster 1 "--compaction off --memory-limit 2GiB" "--memory-limit 512MiB"
    mkdir -p "$STATE/wide"
    "$python" "$ROOT/scripts/lib/wide_rows.py" "$STATE/wide" "$MEMORY_FILES" "$MEMORY_BYTES" 2000
    tw table create wide --columns "id int64, noise binary" --primary-key id --append-only >/dev/null
    for file in "$STATE"/wide/*.parquet; do
        tw load wide "$file" --bulk --unchecked >/dev/null
        rm "$file"
    done
    say "    $(files_of wide)"
    region=$(regions_of wide)
    before=$(peak_mib compactor-1)
    say "\$ tidewater compactor --memory-limit 512MiB; tidewater region compact R --remote"
    tw region compact "$region" --remote 2>/dev/null | sed 's/^/    /'
    say "    peak memory of the compactor: $(peak_mib compactor-1) MiB ($before MiB before the compaction)"
    remote_cluster_stop
}

remote() {
    REMOTE_ROUNDS=${ROUNDS:-3}
    INGEST_KINDS=${INGEST_KINDS:-off/shared local/shared remote/shared remote/idle off/pinned local/pinned remote/pinned}
    INGEST_ROWS=${INGEST_ROWS:-20000000} INGEST_REGIONS=${INGEST_REGIONS:-1} INGEST_MEMORY=${INGEST_MEMORY:-768MiB}
    JOB_ROWS=${JOB_ROWS:-12000000} MEMORY_FILES=4 MEMORY_BYTES=$((560 << 20))
    local part
    for part in ${PARTS:-ingest jobs merge memory}; do "remote_$part"; done
}
