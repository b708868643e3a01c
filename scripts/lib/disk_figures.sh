# Sourced by scripts/bench: bytes on the disk of a data node during and after an ingest.

# Rows between two lines of the table.
DISK_STEP=${DISK_STEP:-4000000}

mib_below() { du -sm --apparent-size "$1" 2>/dev/null | cut -f1; }

# Prints the number of bytes of the files whose names end in $2 below the directory $1, in MiB.
mib_of_files() {
    find "$1" -name "*$2" -printf '%s\n' 2>/dev/null | awk '{ sum += $1 } END { printf "%d", sum / 1048576 }'
}

# Prints the sizes of one directory: everything, tables of the log store, write-ahead log, snapshots.
disk_line() {
    printf ' %9s %9s %9s %9s' "$(mib_below "$1")" "$(mib_of_files "$1/log" .sst)" \
        "$(mib_of_files "$1/log" .log)" "$(mib_below "$1/snapshots")"
}

# disk_ingest ROWS DIRECTORY...: ingests rows, with a line of sizes after each step, then flushes and
# prints the sizes once more after each of six periods of ten seconds.
disk_ingest() {
    local rows=$1 first=0 dir seconds
    shift
    printf '    %-22s' 'MiB in each directory:'
    for dir in "$@"; do printf ' %9s %9s %9s %9s' all log wal snapshots; done
    echo
    while [ "$first" -lt "$rows" ]; do
        quietly tw bench ingest --rows "$DISK_STEP" --first "$first" --table disk
        first=$((first + DISK_STEP))
        printf '    %-22s' "$first rows"
        for dir in "$@"; do disk_line "$dir"; done
        echo
    done
    flush_all disk
    for seconds in 10 20 30 40 50 60; do
        sleep 10
        printf '    %-22s' "flushed, after $seconds s"
        for dir in "$@"; do disk_line "$dir"; done
        echo
    done
}

disk_standalone() {
    STATE=$WORK/disk-standalone
    standalone_start
    say "standalone, ${DISK_STANDALONE_ROWS:-12000000} rows:"
    disk_ingest "${DISK_STANDALONE_ROWS:-12000000}" "$STATE/data/data"
    say "    objects: $(mib_below "$STATE/data/objects") MiB"
    cluster_stop
}

disk_replicated() {
    local n dirs=()
    STATE=$WORK/disk-replicated
    cluster_create 1 3 0
    cluster_start
    cluster_healthy
    for n in $(seq "$DATAS"); do dirs+=("$STATE/nodes/data-$n"); done
    say "three data nodes, three replicas, ${DISK_REPLICATED_ROWS:-32000000} rows:"
    disk_ingest "${DISK_REPLICATED_ROWS:-32000000}" "${dirs[@]}"
    say "    objects: $(mib_below "$STATE/objects") MiB"
    cluster_stop
}
