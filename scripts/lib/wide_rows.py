"""Writes Parquet files of incompressible rows, which are dealt to the files in turn.

Usage: wide_rows.py DIR FILES BYTES_EACH ROW_BYTES
"""

import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_BYTES = 16 << 20


def main():
    directory, files, each, row_bytes = sys.argv[1], *map(int, sys.argv[2:])
    schema = pa.schema([("id", pa.int64()), ("noise", pa.binary(row_bytes))])
    rows, batch = each // row_bytes, BATCH_BYTES // row_bytes
    for file in range(files):
        path = os.path.join(directory, f"{file}.parquet")
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for first in range(0, rows, batch):
                numbers = range(first, min(first + batch, rows))
                ids = pa.array([row * files + file for row in numbers], pa.int64())
                noise = pa.py_buffer(os.urandom(len(numbers) * row_bytes))
                noise = pa.Array.from_buffers(schema.field(1).type, len(numbers), [None, noise])
                writer.write_table(pa.Table.from_arrays([ids, noise], schema=schema))


main()
