"""Compares reads of one table by Tidewater's engine and by DuckDB, from the same files; prints ratios.

    scan_figures.py PROGRAM DIR ROWS
"""

import json
import subprocess
import sys

program, directory, rows = sys.argv[1:4]

# Each figure runs in its own process, which has its own peak memory.
DUCKDB = r'''
import glob, json, statistics, sys, time
import duckdb
kind, directory = sys.argv[1:3]
files = sorted(glob.glob(directory + "/**/*.parquet", recursive=True))
db = duckdb.connect()
db.execute("set threads to 2")
db.execute("set enable_progress_bar to false")
table = f"read_parquet({files!r})"
sums = " + ".join(f"sum(v{n})" for n in range(10))
everything = f"select count(*), {sums}, max(host), max(zone), max(ts) from "
# The newest version of each key, as the scan of the engine returns it.
newest = f"(select * from {table} qualify row_number() over (partition by host, zone, ts order by _tw_seq desc) = 1)"
def timed(query):
    began = time.perf_counter()
    answer = db.execute(query).fetchall()
    return time.perf_counter() - began, answer
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
if kind == "full":
    runs = [timed(everything + table) for _ in range(5)]
elif kind == "newest":
    runs = [timed(everything + newest) for _ in range(3)]
elif kind == "filtered":
    runs = [timed(everything + table + " where host >= 'host_200' and host < 'host_204'") for _ in range(5)]
else:
    total = db.execute(f"select count(*) from {table}").fetchone()[0]
    per_host = total // 400
    runs = []
    for n in range(60):
        row = n * 7919317 % (total // 10)
        host, ts = row // per_host, 1700000000000 + row % per_host * 1000
        runs.append(timed(
            f"select * from {table} where host = 'host_{host:03}' and zone = 'eu-{host % 4}'"
            f" and ts = make_timestamp_ms({ts})"))
    assert all(len(answer) == 1 for _, answer in runs)
    runs = runs[10:]
figures = {"seconds": statistics.median(seconds for seconds, _ in runs), "peak_mib": peak()}
if kind != "point":
    figures |= {"rows": runs[0][1][0][0], "sum": runs[0][1][0][1]}
print(json.dumps(figures))
'''


def run(*command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def ours(kind):
    return run(program, kind, directory)


def theirs(kind):
    return run(sys.executable, "-c", DUCKDB, kind, directory)


def same(mine, duckdb):
    assert mine["rows"] == duckdb["rows"], (mine, duckdb)
    assert abs(mine["sum"] - duckdb["sum"]) <= 1e-6 * max(1, abs(duckdb["sum"])) + 1e-2, (mine, duckdb)


def scanned(name, mine, duckdb):
    def share(unit):
        return mine[unit] / (mine[unit] + mine[unit + "_pruned"])

    print(
        f"{name}: {mine['seconds'] * 1e3:.1f} ms, DuckDB {duckdb['seconds'] * 1e3:.1f} ms:"
        f" {mine['seconds'] / duckdb['seconds']:.2f} x; {mine['rows'] / mine['seconds'] / 1e6:.1f} M rows/s,"
        f" {share('bytes'):.1%} of the bytes and {share('pages'):.1%} of the pages read;"
        f" peak {mine['peak_mib']} MiB, DuckDB {duckdb['peak_mib']} MiB"
    )


made = run(program, "prepare", directory, rows)
print(
    f"{made['rows']} rows of 13 columns, compacted from {made['rows_in']} versions, in {made['files']} files,"
    f" {made['bytes'] / 2**20:.0f} MiB"
)
for kind, name in (("full", "full scan"), ("filtered", "filtered scan, 1 % of the rows")):
    mine, duckdb = ours(kind), theirs(kind)
    same(mine, duckdb)
    scanned(name, mine, duckdb)
mine, duckdb = ours("point"), theirs("point")
print(
    f"warm point read: median {mine['median_us']:.0f} us, 99 % below {mine['p99_us']:.0f} us;"
    f" DuckDB {duckdb['seconds'] * 1e6:.0f} us: {mine['median_us'] / duckdb['seconds'] / 1e6:.3f} x;"
    f" peak {mine['peak_mib']} MiB, DuckDB {duckdb['peak_mib']} MiB"
)
written = run(program, "rewrite", directory)["rows"]
print(f"after {written} of the rows were rewritten to another file:")
mine, duckdb = ours("full"), theirs("newest")
same(mine, duckdb)
scanned("full scan, merged; DuckDB selects the newest versions", mine, duckdb)
duckdb = theirs("full")
assert duckdb["rows"] == mine["rows"] + written, (mine, duckdb)
scanned("full scan, merged; DuckDB reads all versions", mine, duckdb)
