"""Replays the steps of an export with DuckDB, and compares the result with a table.

    export_replay.py PREFIX EPOCH TABLE.csv KEY[,KEY..]

PREFIX: directory of the export. EPOCH: its frontier, or an epoch before it; later steps are left out. TABLE.csv: the
table as of the epoch, with a header; empty cells are missing values. Prints the rows and steps that were compared, and fails
with the first rows that differ.
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


def main():
    prefix, epoch, table, keys = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    taken = steps(prefix, epoch)
    files = [file for step in taken for file in step["files"]]
    missing = [file["path"] for file in files if not (prefix / file["path"]).is_file()]
    assert not missing, f"steps name missing files: {missing}"
    db = duckdb.connect()
    paths = [str(prefix / file["path"]) for file in files]
    db.execute("CREATE TABLE versions AS SELECT * FROM read_parquet($1, union_by_name = true)", [paths])
    counted = db.execute("SELECT count(*) FROM versions").fetchone()[0]
    assert counted == sum(file["rows"] for file in files), "files have other rows than their steps name"
    repeated = db.execute(
        f"SELECT count(*) FROM (SELECT {keys}, _tw_epoch FROM versions GROUP BY ALL HAVING count(*) > 1)"
    ).fetchone()[0]
    assert repeated == 0, f"{repeated} keys have several versions of one epoch"
    db.execute(
        f"""CREATE TABLE replayed AS SELECT * EXCLUDE (_tw_op, _tw_epoch) FROM (
            SELECT * FROM versions QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY _tw_epoch DESC) = 1
        ) WHERE _tw_op = 0"""
    )
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
    rows = db.execute("SELECT count(*) FROM replayed").fetchone()[0]
    deletes = db.execute("SELECT count(*) FROM versions WHERE _tw_op = 1").fetchone()[0]
    print(f"{rows} rows equal after {len(taken)} steps with {counted} versions, {deletes} of them deletes")


if __name__ == "__main__":
    main()
