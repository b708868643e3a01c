"""Writes flights through the client while the caller kills a leader, then compares everything that comes back.

    flights.py META FILE.csv(.gz|.zip)

Prints `written N` after each batch and `equal N` at the end.
"""

import sys
import zipfile

import pyarrow as pa
import pyarrow.csv

import tidewater

BATCH = 2_000 if "sample" in sys.argv[2] else 20_000


def read(path, schema):
    options = pa.csv.ConvertOptions(
        column_types=schema, null_values=["", "NA"], strings_can_be_null=True, include_columns=schema.names
    )
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
            return pa.csv.read_csv(file, convert_options=options)
    return pa.csv.read_csv(path, convert_options=options)


def main(meta, path):
    with tidewater.connect(meta) as db:
        table = db.table("flights")
        flights = read(path, table.schema).cast(table.schema)
        for at in range(0, flights.num_rows, BATCH):
            table.write(flights.slice(at, BATCH))
            print("written", min(at + BATCH, flights.num_rows), flush=True)
        order = [(name, "ascending") for name in ("time_hour", "carrier", "flight")]
        back = table.scan().sort_by(order)
        assert back.equals(flights.sort_by(order)), "the rows differ"
        assert table.count() == flights.num_rows
        first = flights.slice(0, 1).select(["time_hour", "carrier", "flight"])
        assert table.get(first).equals(flights.slice(0, 1)), "the first row differs"
        print("equal", back.num_rows, flush=True)


main(*sys.argv[1:])
