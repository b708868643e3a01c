"""Rows with a column of every kind of time, for the cluster test that reads data files with other programs.

    read_times.py prepare CSV       writes the rows
    read_times.py check FILES...    reads the data files with DuckDB, pyarrow, Polars and PyIceberg's reader, and
                                    compares values and types with the rows; prints the number of rows of each

The columns of the table are COLUMNS, with field ids from 1 on.
"""

import csv
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue, GreaterThanOrEqual
from pyiceberg.io.pyarrow import ArrowScan, PyArrowFileIO
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField, TimestampType, TimestamptzType

ROWS = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Name, unit of the table's column in microseconds, zoned.
COLUMNS = [
    ("sec", 1_000_000, False),
    ("milli", 1_000, False),
    ("micro", 1, False),
    ("sec_utc", 1_000_000, True),
    ("milli_offset", 1_000, True),
    ("micro_paris", 1, True),
]
NAMES = ["id"] + [name for name, _, _ in COLUMNS]


def rows():
    """Returns the key and the times in microseconds, from 1653 to 2286; some are null."""
    for number in range(ROWS):
        value = (number - ROWS // 2) * 19_999_123_457_891
        times = [value // unit * unit for _, unit, _ in COLUMNS]
        yield [number] + [None if number % 7 == column else time for column, time in enumerate(times)]


def prepare(path):
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(NAMES)
        for number, *times in rows():
            texts = ["" if t is None else (EPOCH + timedelta(microseconds=t)).isoformat() for t in times]
            out.writerow([number] + texts)


def arrow_type(zoned):
    return pa.timestamp("us", tz="UTC") if zoned else pa.timestamp("us")


def numbers(table):
    """Returns the rows of an Arrow table as numbers, in order of the key."""
    columns = [table.column(name).cast(pa.int64()).to_pylist() for name in NAMES]
    return sorted(map(list, zip(*columns)))


def with_duckdb(files):
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    types = dict(db.execute("SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet(?))", [files]).fetchall())
    for name, _, zoned in COLUMNS:
        assert types[name] == ("TIMESTAMP WITH TIME ZONE" if zoned else "TIMESTAMP"), types
    times = ", ".join(f"epoch_us({name})" for name, _, _ in COLUMNS)
    # A predicate in microseconds is compared with the statistics.
    everything = f"SELECT id, {times} FROM read_parquet(?) WHERE milli IS NULL OR milli >= '1600-01-01' ORDER BY id"
    return [list(row) for row in db.execute(everything, [files]).fetchall()]


def with_pyarrow(files):
    table = pa.concat_tables(pq.read_table(file) for file in files)
    for name, _, zoned in COLUMNS:
        assert table.schema.field(name).type == arrow_type(zoned), table.schema
    return numbers(table)


def with_polars(files):
    frame = polars.scan_parquet(files).filter(polars.col("id") >= 0).collect()
    for name, _, zoned in COLUMNS:
        assert frame.schema[name] == polars.Datetime("us", "UTC" if zoned else None), frame.schema
    return numbers(frame.to_arrow())


def with_pyiceberg(files):
    fields = [NestedField(1, "id", LongType(), required=True)]
    for at, (name, _, zoned) in enumerate(COLUMNS):
        fields.append(NestedField(at + 2, name, TimestamptzType() if zoned else TimestampType(), required=False))
    schema = Schema(*fields)
    metadata = new_table_metadata(
        schema, UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, location="file:///nowhere"
    )

    def task(file):
        found = pq.read_metadata(file)
        data = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=f"file://{file}",
            file_format=FileFormat.PARQUET,
            partition=Record(),
            record_count=found.num_rows,
            file_size_in_bytes=Path(file).stat().st_size,
        )
        data.spec_id = 0
        return FileScanTask(data)

    tasks = [task(file) for file in files]
    after = GreaterThanOrEqual("milli", "1970-01-01T00:00:00")
    some = ArrowScan(metadata, PyArrowFileIO(), metadata.schema(), after).to_table(tasks)
    expected = sum(1 for row in rows() if row[2] is not None and row[2] >= 0)
    assert some.num_rows == expected, (some.num_rows, expected)
    table = ArrowScan(metadata, PyArrowFileIO(), metadata.schema(), AlwaysTrue()).to_table(tasks)
    for name, _, zoned in COLUMNS:
        assert table.schema.field(name).type == arrow_type(zoned), table.schema
    return numbers(table)


def check(files):
    wanted = sorted(rows())
    for file in files:
        ids = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in pq.read_schema(file)}
        assert max(ids.values()) <= 2_147_483_447, ids
        assert {"_tw_seq", "_tw_epoch", "_tw_op"} < set(ids), ids
    counts = {}
    for reader in [with_duckdb, with_pyarrow, with_polars, with_pyiceberg]:
        found = reader(files)
        for row, expected in zip(found, wanted):
            assert row == expected, (reader.__name__, row, expected)
        assert len(found) == len(wanted), (reader.__name__, len(found))
        counts[reader.__name__.removeprefix("with_")] = len(found)
    print(json.dumps(counts))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", path]:
            prepare(path)
        case ["check", *files] if files:
            check(files)
        case _:
            raise SystemExit(__doc__)
