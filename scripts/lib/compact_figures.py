"""Compares `tidewater bench compact` with a sort and write of the same rows by DuckDB.

Usage: compact_figures.py TIDEWATER DIR LAYOUT ROWS FILES. The two programs run alternately, three times,
each run in its own process. The figures are those of the fastest run of each. The ratio is Tidewater's
rate divided by DuckDB's.
"""

import json
import os
import shutil
import subprocess
import sys

ROUNDS = 3

DUCKDB = """
import duckdb, json, resource, sys, time
source, target = sys.argv[1:]
con = duckdb.connect()
con.execute("SET threads TO %d" % len(__import__("os").sched_getaffinity(0)))
# The progress bar would precede the result on standard output.
con.execute("SET enable_progress_bar = false")
begun = time.monotonic()
con.execute(
    "COPY (SELECT * EXCLUDE (_tw_seq, _tw_epoch, _tw_op) FROM read_parquet(?) "
    "ORDER BY host, zone, ts) TO '%s' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, "
    "ROW_GROUP_SIZE 131072)" % target,
    [source],
)
seconds = time.monotonic() - begun
rows = con.execute("SELECT count(*) FROM read_parquet(?)", [target]).fetchone()[0]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"rows": rows, "seconds": seconds, "peak_memory_bytes": peak}))
"""

SAME = """
import duckdb, sys
ours, theirs = sys.argv[1:]
con = duckdb.connect()
total = "SELECT count(*), count(DISTINCT (host, zone, ts)), round(sum(v1), 3), round(sum(v10), 3) FROM read_parquet(?)"
a, b = (con.execute(total, [path]).fetchone() for path in (ours, theirs))
sys.exit(0 if a == b else "the rows differ: %s, %s" % (a, b))
"""


def run_json(*command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    tidewater, work, layout, rows, files = sys.argv[1:]
    base = [tidewater, "bench", "compact", "--layout", layout, "--rows", rows, "--files", files]
    fresh = os.path.join(work, "fresh")
    subprocess.run([*base, "--dir", fresh, "--prepare"], check=True)
    inputs = os.path.join(fresh, "t1", "*", "data", "*.parquet")
    ours, theirs = [], []
    for number in range(ROUNDS):
        copy, sorted_file = os.path.join(work, "copy"), os.path.join(work, "sorted.parquet")
        shutil.copytree(fresh, copy)
        before = set(os.listdir(data(copy)))
        ours.append(run_json(*base, "--dir", copy, "--output", "json"))
        theirs.append(run_json(sys.executable, "-c", DUCKDB, inputs, sorted_file))
        if number == 0:
            for name in before:
                os.remove(os.path.join(data(copy), name))
            compacted = os.path.join(data(copy), "*.parquet")
            subprocess.run([sys.executable, "-c", SAME, compacted, sorted_file], check=True)
        shutil.rmtree(copy)
        os.remove(sorted_file)
    shutil.rmtree(fresh)
    line = "%-10s %9.2f s  %5.2f M rows/s  peak memory %5d MiB"
    best = []
    for name, runs in (("tidewater", ours), ("duckdb", theirs)):
        fastest = min(runs, key=lambda run: run["seconds"])
        best.append(fastest["seconds"])
        rate = fastest["rows"] / fastest["seconds"] / 1e6
        print(line % (name, fastest["seconds"], rate, fastest["peak_memory_bytes"] >> 20))
    memory = min(run["peak_memory_bytes"] for run in ours) / min(r["peak_memory_bytes"] for r in theirs)
    print("ratio      %9.2f of DuckDB's rate, %.2f of its memory" % (best[1] / best[0], memory))


def data(region):
    table = os.path.join(region, "t1")
    return os.path.join(table, os.listdir(table)[0], "data")


main()
