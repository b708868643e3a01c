# Sourced by scripts/bench: refreshes of a table beside REFRESH MATERIALIZED VIEW CONCURRENTLY of PostgreSQL.

REFRESH_ROWS=${REFRESH_ROWS:-1000000}
REFRESH_ROUNDS=${ROUNDS:-3}
MERGED_ROWS=${MERGED_ROWS:-10000000}
REFRESH_COLUMNS='id int64, name utf8, amount float64, at timestamp(us, UTC)'

# postgres_start DIR: starts a PostgreSQL server with its default settings below DIR; sets PG_PORT and PG_BIN.
postgres_start() {
    local _ as_user=()
    PG_BIN=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
    PG_DIR=$1 PG_PORT=$(free_port)
    mkdir -p "$PG_DIR"
    # The server refuses to run as root.
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$PG_DIR"
        chmod a+x "$WORK"
        as_user=(setpriv --reuid postgres --regid postgres --clear-groups)
    fi
    (
        cd "$PG_DIR"
        quietly "${as_user[@]}" "$PG_BIN/initdb" -D "$PG_DIR/data" --username=postgres --auth=trust \
            --encoding=UTF8 --locale=C --no-instructions
    )
    "${as_user[@]}" "$PG_BIN/postgres" -D "$PG_DIR/data" -p "$PG_PORT" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= >"$WORK/postgres.log" 2>&1 &
    PG_PID=$!
    for _ in $(seq 300); do
        ! sql 'select 1' >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    fail "PostgreSQL does not start; see $WORK/postgres.log"
}

postgres_stop() {
    kill -INT "$PG_PID" 2>/dev/null || true
    wait "$PG_PID" 2>/dev/null || true
}

sql() {
    "$PG_BIN/psql" -h 127.0.0.1 -p "$PG_PORT" -U postgres -d postgres -v ON_ERROR_STOP=1 -q -t -A -c "$1" </dev/null
}

# Writes the rows of the PostgreSQL table to the Parquet object of the other source.
export_parquet() {
    sql "set timezone = 'UTC'; copy source to stdout (format csv)" >"$STATE/rows.csv"
    "$REFRESH_PYTHON" - "$STATE" <<'PY'
import duckdb, sys
columns = "{'id': 'BIGINT', 'name': 'VARCHAR', 'amount': 'DOUBLE', 'at': 'TIMESTAMPTZ'}"
rows = f"SELECT * FROM read_csv('{sys.argv[1]}/rows.csv', header = false, columns = {columns})"
duckdb.execute(f"COPY ({rows}) TO '{sys.argv[1]}/rows.parquet' (FORMAT parquet)")
PY
    mv "$STATE/rows.parquet" "$STATE/sources/rows/0.parquet"
}

# seconds_of COMMAND...: prints the wall time of a command.
seconds_of() {
    local begun
    begun=$(seconds_now)
    quietly "$@"
    awk -v begun="$begun" -v ended="$(seconds_now)" 'BEGIN { printf "%.2f", ended - begun }'
}

# refresh_create TABLE KIND CONFIG: creates a table, as soon as the cluster has the feature level for it.
refresh_create() {
    local _
    for _ in $(seq 100); do
        ! tw refresh create "$1" --columns "$REFRESH_COLUMNS" --primary-key id --source "$2" --config "$3" \
            >/dev/null 2>&1 || return 0
        sleep 0.2
    done
    quietly tw refresh create "$1" --columns "$REFRESH_COLUMNS" --primary-key id --source "$2" --config "$3"
}

# refresh_round NAME STATEMENT: changes the source, and prints the times of the three refreshes in turn.
refresh_round() {
    local view query parquet
    sql "$2" >/dev/null
    export_parquet
    view=$(seconds_of sql 'refresh materialized view concurrently view')
    query=$(seconds_of tw refresh start from_query)
    parquet=$(seconds_of tw refresh start from_parquet)
    printf '    %-26s %12s %12s %7s %12s %7s\n' "$1" "$view" "$query" "$(ratio "$view" "$query" 1)" \
        "$parquet" "$(ratio "$view" "$parquet" 1)"
}

# refresh_cluster METAS DATAS: starts a cluster whose data nodes read the sources of the comparison.
refresh_cluster() {
    local name
    STATE=$WORK/refresh
    rm -rf "$STATE"
    mkdir -p "$STATE/sources/rows"
    cluster_create "$1" "$2" 0
    for name in $(node_names); do
        case $name in
        data-*) node_start "$name" --source-dir "$STATE/sources" --source-hosts 127.0.0.0/8 ;;
        *) node_start "$name" ;;
        esac
    done
    for name in $(node_names); do node_ready "$name"; done
    cluster_healthy
}

# refreshes METAS DATAS: compares the refreshes in one run, each change of the source in turn.
refreshes() {
    local round
    refresh_cluster "$1" "$2"
    sql "set client_min_messages = warning; drop table if exists source cascade;
         create table source (id int8 primary key, name text not null, amount float8, at timestamptz);
         insert into source select id, 'name of row ' || id, id % 1000, timestamptz '2026-01-01Z' + id * interval '1 second'
           from generate_series(1, $REFRESH_ROWS) as id;
         create materialized view view as select * from source;
         create unique index on view (id);
         analyze"
    export_parquet
    refresh_create from_query postgres "{\"host\": \"127.0.0.1\", \"port\": $PG_PORT, \"database\": \"postgres\",
        \"user\": \"postgres\", \"query\": \"select * from source\"}"
    refresh_create from_parquet parquet "{\"url\": \"file://$STATE/sources/rows\"}"
    say "$REFRESH_ROWS rows, $2 data node(s); seconds, and ratios to the first column:"
    printf '    %-26s %12s %12s %7s %12s %7s\n' changed 'PostgreSQL' 'from query' ratio 'from Parquet' ratio
    printf '    %-26s %12s %12s %7s %12s\n' 'all rows are new' '-' "$(seconds_of tw refresh start from_query)" '-' \
        "$(seconds_of tw refresh start from_parquet)"
    for round in $(seq "$REFRESH_ROUNDS"); do
        refresh_round 'nothing' 'select 1'
        refresh_round '1 % of the rows' "update source set amount = amount + 1 where id % 100 = $round"
        refresh_round 'all rows' 'update source set amount = amount + 1'
    done
    say "    peak memory of the first data node: $(peak_mib data-1) MiB"
    cluster_stop
}

# Prints the number of barrier calls of the meta node, and their seconds.
barrier_calls() {
    curl -sf "http://$(addr_of meta-1)/metrics" |
        awk '$1 == "tidewater_barrier_call_seconds_count" { n = $2 } $1 == "tidewater_barrier_call_seconds_sum" { s = $2 }
            END { print n + 0, s + 0 }'
}

# merge_barriers ROWS DATAS: changes all rows of a table, and prints the times of the barriers while it is merged.
merge_barriers() {
    local before now state=
    TIDEWATER_BARRIER_INTERVAL=500ms refresh_cluster 1 "$2"
    refresh_create from_parquet parquet "{\"url\": \"file://$STATE/sources/rows\"}"
    numbered_rows "$1" 0
    quietly tw refresh start from_parquet
    numbered_rows "$1" 1
    quietly tw refresh start from_parquet --no-wait
    before=$(barrier_calls)
    while :; do
        sleep 0.1
        state=$(tw refresh status from_parquet --output json | grep -o '"state": *"[a-z]*"' | cut -d'"' -f4)
        now=$(barrier_calls)
        # The time of a call, if there was one since the last look.
        [ "$state" != merging ] || awk -v before="$before" -v now="$now" 'BEGIN {
            split(before, b, " "); split(now, n, " ")
            if (n[1] > b[1]) printf "%.1f\n", (n[2] - b[2]) / (n[1] - b[1]) * 1000 }' >>"$WORK/barrier-times"
        before=$now
        [ "$state" != idle ] || break
    done
    say "barriers during the merge of $1 rows, all changed, $2 data node(s): $(wc -l <"$WORK/barrier-times") looks with a" \
        "barrier; ms of a call: median, least, greatest: $(median <"$WORK/barrier-times")"
    rm -f "$WORK/barrier-times"
    cluster_stop
}

# numbered_rows COUNT VERSION: writes the Parquet object of the source.
numbered_rows() {
    "$REFRESH_PYTHON" - "$STATE" "$1" "$2" <<'PY'
import duckdb, sys
state, count, version = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows = f"SELECT range AS id, 'name of row ' || range AS name, (range + {version})::DOUBLE AS amount, "
rows += f"TIMESTAMPTZ '2026-01-01 00:00:00+00' + range * INTERVAL 1 SECOND AS at FROM range({count})"
duckdb.execute(f"COPY ({rows}) TO '{state}/rows.parquet' (FORMAT parquet)")
PY
    mv "$STATE/rows.parquet" "$STATE/sources/rows/0.parquet"
}
