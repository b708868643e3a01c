"""Batches of flights with updates and deletes, for the cluster test that compares a table with DuckDB.

    flights_beside_duckdb.py prepare FLIGHTS DIR SEED    writes batches and plan.json, a list of steps
    flights_beside_duckdb.py check DIR                   applies the same steps in SQL, and compares the
                                                         result with each checkpoint (DIR/N.csv)

A step is one of: put (files), delete (keys), bulk (files), atomic (files), flush, compact, add_column (name,
default), drop_column (name), truncate, checkpoint (file).
"""

import csv
import gzip
import io
import json
import random
import sys
import zipfile
from pathlib import Path

import duckdb

BATCHES = 200
CHECKPOINTS = 20
BATCH_ROWS = 400
DELETES = 40
KEY = ["time_hour", "carrier", "flight"]
COLUMNS = KEY + ["origin", "dest", "distance", "dep_time", "tailnum"]
TYPES = {"time_hour": "TIMESTAMP", "flight": "BIGINT", "distance": "BIGINT", "dep_time": "BIGINT"}


def flights(path):
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
    else:
        text = gzip.open(path, "rt").read() if path.endswith(".gz") else Path(path).read_text()
    seen = {}
    for row in csv.DictReader(io.StringIO(text)):
        row["time_hour"] = row["time_hour"].replace(" ", "T").removesuffix("Z")
        seen[tuple(row[name] for name in KEY)] = {name: row[name] for name in COLUMNS}
        if len(seen) == 20_000:
            break
    return list(seen.values())


def write(path, rows, extra):
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS + extra)
        for row in rows:
            out.writerow([row[name] for name in COLUMNS] + [row[name] for name in extra])


def prepare(source, directory, seed):
    choose = random.Random(seed)
    rows = flights(source)
    steps, extra, columns = [], [], 0

    def batch(number, part=0):
        """Writes a batch of adjacent rows, so that batches overlap, with some new values as updates."""
        at = choose.randrange(len(rows) - BATCH_ROWS)
        picked = [dict(row) for row in rows[at : at + BATCH_ROWS]]
        if choose.random() < 0.3:
            # Duplicate keys: the last row wins.
            picked += [dict(row) for row in choose.sample(picked, 20)]
        named = extra if choose.random() < 0.6 else []
        for row in picked:
            if choose.random() < 0.7:
                row["distance"] = str(choose.randrange(100_000))
                row["tailnum"] = f"B{number}"
            if choose.random() < 0.1:
                row["dep_time"] = "NA"
            for name in named:
                row[name] = str(choose.randrange(1_000))
        name = f"batch_{number}_{part}.csv"
        write(directory / name, picked, named)
        return name

    for number in range(BATCHES):
        kind = choose.choices(["put", "delete", "bulk", "atomic"], [10, 3, 2, 2])[0]
        if kind == "delete":
            at = choose.randrange(len(rows) - 4 * DELETES)
            some = choose.sample(rows[at : at + 4 * DELETES], DELETES)
            steps.append({"step": "delete", "keys": [[row[name] for name in KEY] for row in some]})
        else:
            parts = choose.randrange(1, 4) if kind == "atomic" else 1
            files = [batch(number, part) for part in range(parts)]
            steps.append({"step": kind, "files": files})
        between = ["flush", "compact", "add_column", "drop_column", "truncate", None]
        match choose.choices(between, [20, 10, 4, 3, 2, 60])[0]:
            case "add_column":
                columns += 1
                name = f"extra_{columns}"
                extra.append(name)
                default = str(columns) if choose.random() < 0.5 else None
                steps.append({"step": "add_column", "name": name, "default": default})
            case "drop_column" if extra:
                name = extra.pop(choose.randrange(len(extra)))
                steps.append({"step": "drop_column", "name": name})
            case "drop_column" | None:
                pass
            case step:
                steps.append({"step": step})
        if (number + 1) % (BATCHES // CHECKPOINTS) == 0:
            steps.append({"step": "checkpoint", "file": f"{number + 1}.csv"})
    (directory / "plan.json").write_text(json.dumps(steps))


def replace(db, directory, name, extra):
    """Replaces the rows with the keys of a file by its rows. Columns that the file lacks are null."""
    given = open(directory / name).readline().strip().split(",")
    typed = {column: TYPES.get(column, "VARCHAR") for column in given}
    typed |= {column: "BIGINT" for column in given if column in extra}
    path = str(directory / name)
    db.execute(
        "CREATE OR REPLACE TEMP TABLE batch AS SELECT *, row_number() OVER () AS position"
        f" FROM read_csv('{path}', header=true, nullstr=['NA', ''], parallel=false, columns={typed})"
    )
    keys = ", ".join(KEY)
    db.execute(
        f"DELETE FROM batch WHERE position NOT IN (SELECT max(position) FROM batch GROUP BY {keys})"
    )
    same = " AND ".join(f"t.{name} = batch.{name}" for name in KEY)
    db.execute(f"DELETE FROM t USING batch WHERE {same}")
    lacking = "".join(f", NULL AS {name}" for name in extra if name not in given)
    db.execute(f"INSERT INTO t BY NAME SELECT * EXCLUDE (position){lacking} FROM batch")


def compare(db, directory, name, extra):
    columns = COLUMNS + extra
    typed = {column: TYPES.get(column, "VARCHAR") for column in COLUMNS}
    typed |= {column: "BIGINT" for column in extra}
    listed = ", ".join(columns)
    theirs = f"SELECT {listed} FROM read_csv('{directory / name}', header=true, columns={typed})"
    ours = f"SELECT {listed} FROM t"
    rows = db.execute(f"SELECT count(*) FROM ({theirs})").fetchone()[0]
    for problem, left, right in [("lacks rows", ours, theirs), ("has extra rows", theirs, ours)]:
        found = db.execute(f"({left}) EXCEPT ALL ({right}) LIMIT 3").fetchall()
        if found:
            raise SystemExit(f"checkpoint {name}: the cluster {problem}: {found}")
    return rows


def check(directory):
    db = duckdb.connect()
    columns = ", ".join(f"{name} {TYPES.get(name, 'VARCHAR')}" for name in COLUMNS)
    db.execute(f"CREATE TABLE t ({columns})")
    extra, counts, done = [], [], 0
    for step in json.loads((directory / "plan.json").read_text()):
        match step["step"]:
            case "put" | "bulk" | "atomic":
                done += 1
                for name in step["files"]:
                    replace(db, directory, name, extra)
            case "delete":
                done += 1
                for key in step["keys"]:
                    db.execute("DELETE FROM t WHERE time_hour = ? AND carrier = ? AND flight = ?", key)
            case "truncate":
                db.execute("DELETE FROM t")
            case "add_column":
                default = f" DEFAULT {step['default']}" if step["default"] else ""
                db.execute(f"ALTER TABLE t ADD COLUMN {step['name']} BIGINT{default}")
                extra.append(step["name"])
            case "drop_column":
                db.execute(f"ALTER TABLE t DROP COLUMN {step['name']}")
                extra.remove(step["name"])
            case "checkpoint":
                counts.append(compare(db, directory, step["file"], extra))
    print(json.dumps({"batches": done, "checkpoints": len(counts), "rows": counts}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", source, directory, seed]:
            prepare(source, Path(directory), int(seed))
        case ["check", directory]:
            check(Path(directory))
        case _:
            raise SystemExit(__doc__)
