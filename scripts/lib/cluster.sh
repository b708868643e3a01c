# Sourced: functions for the processes of a local cluster, with their state in one directory.
#
#   STATE/cluster.conf        numbers of nodes, object store
#   STATE/NODE.{addr,args,pid,out,log}
#   STATE/nodes/NODE          data directory
#
# A process belongs to the cluster if its pid file names it and its command line contains its address.

# Prints a free port, chosen by the system.
free_port() {
    python3 - <<'PY' 2>/dev/null || echo $((20000 + RANDOM % 10000))
import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])
PY
}

node_names() {
    local n
    for n in $(seq "$METAS"); do echo "meta-$n"; done
    for n in $(seq "$DATAS"); do echo "data-$n"; done
    for n in $(seq "$COMPACTORS"); do echo "compactor-$n"; done
}

addr_of() { cat "$STATE/$1.addr"; }

meta_addrs() {
    local n list=
    for n in $(seq "$METAS"); do list=$list,$(addr_of "meta-$n"); done
    printf '%s' "${list#,}"
}

# cluster_create METAS DATAS COMPACTORS [FIRST_PORT]: prepares a cluster without starting nodes.
# The ports are consecutive from FIRST_PORT, or free ports.
cluster_create() {
    METAS=$1 DATAS=$2 COMPACTORS=$3
    local port=${4:-} name
    mkdir -p "$STATE/nodes" "$STATE/objects"
    for name in $(node_names); do
        if [ -n "$port" ]; then
            echo "127.0.0.1:$port" >"$STATE/$name.addr"
            port=$((port + 1))
        else
            echo "127.0.0.1:$(free_port)" >"$STATE/$name.addr"
        fi
    done
    printf 'METAS=%s\nDATAS=%s\nCOMPACTORS=%s\n' "$METAS" "$DATAS" "$COMPACTORS" >"$STATE/cluster.conf"
}

cluster_load() {
    [ -f "$STATE/cluster.conf" ] || return 1
    # shellcheck source=/dev/null
    . "$STATE/cluster.conf"
}

pid_of() {
    local pid
    pid=$(cat "$STATE/$1.pid" 2>/dev/null) || return 1
    # The system may have reused the pid for another process.
    { tr '\0' ' ' <"/proc/$pid/cmdline" | grep -F -- "$(addr_of "$1")" >/dev/null; } 2>/dev/null && echo "$pid"
}

# node_start NODE [ARGUMENT...]: starts a node without waiting.
node_start() {
    local name=$1
    shift
    local role=${name%-*} number=${name##*-} n peers= args
    ! pid_of "$name" >/dev/null || return 0
    args=("$role" --listen "$(addr_of "$name")")
    if [ "$role" = compactor ]; then
        args+=(--event-dir "$STATE/nodes/$name/events")
    else
        args+=(--data-dir "$STATE/nodes/$name")
    fi
    if [ "$role" = meta ]; then
        for n in $(seq "$METAS"); do peers=$peers,$n=$(addr_of "meta-$n"); done
        args+=(--node-id "$number" --peers "${peers#,}")
        [ "$number" != 1 ] || [ -e "$STATE/bootstrapped" ] || args+=(--bootstrap)
    else
        args+=(--meta "$(meta_addrs)" --object-store "${OBJECT_STORE:-file://$STATE/objects}" --hook-dir "$STATE/hooks")
        mkdir -p "$STATE/hooks"
    fi
    : >"$STATE/$name.out"
    "$TIDEWATER" "${args[@]}" "$@" >>"$STATE/$name.out" 2>>"$STATE/$name.log" </dev/null &
    echo $! >"$STATE/$name.pid"
    disown
}

# node_ready NODE: waits up to one minute until a started node is ready.
node_ready() {
    local _
    for _ in $(seq 600); do
        if grep -q '^ready' "$STATE/$1.out"; then
            [ "$1" != meta-1 ] || touch "$STATE/bootstrapped"
            return 0
        fi
        pid_of "$1" >/dev/null || break
        sleep 0.1
    done
    printf 'error: %s is not ready; last lines of %s:\n' "$1" "$STATE/$1.log" >&2
    tail -n 20 "$STATE/$1.log" >&2
    return 1
}

# cluster_start: starts all stopped nodes, meta nodes first, and waits until they are ready.
cluster_start() {
    local role name
    for role in meta data compactor; do
        for name in $(node_names | grep "^$role-"); do node_start "$name"; done
        for name in $(node_names | grep "^$role-"); do node_ready "$name"; done
    done
}

# standalone_start [ARGUMENT...]: starts one process with all roles, and waits until it is healthy. Other functions know it
# as meta-1.
standalone_start() {
    mkdir -p "$STATE"
    METAS=1 DATAS=0 COMPACTORS=0
    echo "127.0.0.1:$(free_port)" >"$STATE/meta-1.addr"
    "$TIDEWATER" standalone --data-dir "$STATE/data" --listen "$(addr_of meta-1)" "$@" \
        >"$STATE/meta-1.out" 2>"$STATE/meta-1.log" &
    echo $! >"$STATE/meta-1.pid"
    disown
    node_ready meta-1
    cluster_healthy
}

# cluster_healthy: waits up to one minute until `cluster status` reports a healthy cluster.
cluster_healthy() {
    local _ status=
    for _ in $(seq 120); do
        status=$("$TIDEWATER" cluster status --output json --meta "$(meta_addrs)" 2>&1) || true
        case $status in *'"healthy":true'* | *'"healthy": true'*) return 0 ;; esac
        sleep 0.5
    done
    printf 'error: the cluster is not healthy: %s\n' "$status" >&2
    return 1
}

# node_signal SIGNAL NODE: sends a signal. If the signal ends the process, waits until it exits.
node_signal() {
    local pid _
    pid=$(pid_of "$2") || return 0
    kill -s "$1" "$pid" 2>/dev/null || return 0
    case $1 in STOP | CONT) return 0 ;; esac
    for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || {
            rm -f "$STATE/$2.pid"
            return 0
        }
        sleep 0.1
    done
    printf 'error: %s (process %s) does not exit\n' "$2" "$pid" >&2
    return 1
}

# cluster_stop: stops all nodes, meta nodes last, because data nodes call them while they stop.
cluster_stop() {
    local name
    for name in $(node_names | grep -v '^meta-') $(node_names | grep '^meta-'); do
        node_signal TERM "$name" || node_signal KILL "$name" || true
    done
}
