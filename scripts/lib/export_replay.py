"""Replays the steps of an export with DuckDB, and compares the result with a table.

    export_replay.py PREFIX EPOCH TABLE.csv KEY[,KEY..]
    export_replay.py PREFIX EPOCH TABLE.csv --append-only

PREFIX: directory of the export. EPOCH: its frontier, or an epoch before it; later steps are left out. TABLE.csv: the
table as of the epoch, with a header; empty cells are missing values. KEY: columns of the primary key, of which a later version
replaces the earlier ones. --append-only: no version replaces another one. Prints the compared rows, and the steps, versions
and deletes that give them, as JSON. Fails with the first rows that differ.
"""

import json
import sys
from pathlib import Path

import duckdb


def steps(prefix, epoch):
    """Completed steps up to an epoch, in order."""
    found = [json.loads(path.read_text()) for path in sorted((prefix / "_steps").glob("*.json"))]
    export = json.loads((prefix / "_export.json").read_text())["export"]
    last = None
    for step in found:
        assert step["format"] == 1 and step["export"] == export, step
        # Between two steps with objects there may be steps without a change.
        assert (step["after"] is None) == (last is None) and (step["after"] or 0) >= (last or 0), step
        last = step["as_of"]
    return [step for step in found if step["as_of"] <= epoch]


def read_versions(db, prefix, taken):
    """Creates the table `versions` with the rows of the files that steps name; returns the number of its rows."""
    paths = []
    for step in taken:
        files = [prefix / file["path"] for file in step["files"]]
        missing = [str(file) for file in files if not file.is_file()]
        assert not missing, f"step {step['step']} names missing files: {missing}"
        if files:
            names = [str(file) for file in files]
            epochs = "SELECT min(_tw_epoch), max(_tw_epoch) FROM read_parquet($1, union_by_name = true)"
            first, last = db.execute(epochs, [names]).fetchone()
            after = -1 if step["after"] is None else step["after"]
            assert after < first and last <= step["as_of"], f"epochs {first} to {last} in {step}"
            paths += names
    if not paths:
        return 0
    db.execute("CREATE TABLE versions AS SELECT * FROM read_parquet($1, union_by_name = true)", [paths])
    counted = db.execute("SELECT count(*) FROM versions").fetchone()[0]
    named = sum(file["rows"] for step in taken for file in step["files"])
    assert counted == named, f"files have {counted} rows, and their steps name {named}"
    return counted


def replay(db, keys):
    """Creates the table `replayed`; `keys`: None for an append-only table. Returns the number of deletes."""
    deletes = db.execute("SELECT count(*) FROM versions WHERE _tw_op = 1").fetchone()[0]
    current = "versions"
    if keys is None:
        assert deletes == 0, f"{deletes} deletes in an append-only table"
    else:
        repeated = db.execute(
            f"SELECT count(*) FROM (SELECT {keys}, _tw_epoch FROM versions GROUP BY ALL HAVING count(*) > 1)"
        ).fetchone()[0]
        assert repeated == 0, f"{repeated} keys have several versions of one epoch"
        current = f"""(SELECT * FROM versions
            QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY _tw_epoch DESC) = 1)"""
    db.execute(
        f"CREATE TABLE replayed AS SELECT * EXCLUDE (_tw_op, _tw_epoch) FROM {current} WHERE _tw_op = 0"
    )
    return deletes


def compare(db, table):
    """Compares the replayed rows with a table; returns their number."""
    db.execute("CREATE TABLE expected AS SELECT * FROM replayed LIMIT 0")
    read = f"read_csv('{table}', header = true, nullstr = '', all_varchar = true)"
    exported = {column for column, *_ in db.execute("DESCRIBE replayed").fetchall()}
    columns = [column for column, *_ in db.execute(f"DESCRIBE FROM {read}").fetchall()]
    for column in set(columns) - exported:
        # Added to the table since the last step.
        written = db.execute(f"SELECT count({column}) FROM {read}").fetchone()[0]
        assert written == 0, f"{written} rows have a value in column {column}, which the export lacks"
    listed = ", ".join(column for column in columns if column in exported)
    db.execute(f"INSERT INTO expected BY NAME SELECT {listed} FROM {read}")
    for one, other, text in (
        ("expected", "replayed", "rows of the table that the export lacks or has otherwise"),
        ("replayed", "expected", "rows of the export that the table lacks or has otherwise"),
    ):
        rows = db.execute(f"SELECT * FROM {one} EXCEPT ALL SELECT * FROM {other}").fetchall()
        assert not rows, f"{len(rows)} {text}: {rows[:3]}"
    return db.execute("SELECT count(*) FROM replayed").fetchone()[0]


def main():
    prefix, epoch, table, keys = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    taken = steps(prefix, epoch)
    assert taken, f"no step up to epoch {epoch}"
    db = duckdb.connect()
    versions, deletes, rows = read_versions(db, prefix, taken), 0, 0
    if versions:
        deletes = replay(db, None if keys == "--append-only" else keys)
        rows = compare(db, table)
    else:
        lines = len(Path(table).read_text().splitlines())
        assert lines <= 1, f"the steps have no files, and the table has {lines - 1} rows"
    print(json.dumps({"rows": rows, "steps": len(taken), "versions": versions, "deletes": deletes}))


if __name__ == "__main__":
    main()
