"""Reads Parquet files of the flights table with DuckDB and with pyarrow.

    sst_figures.py FILE...

The files must be those that `tidewater region files` lists. Other files in the directories may have been
replaced by a compaction and await garbage collection.

Prints one JSON object with [rows, sum of distance, rows without dep_time] of each reader.
"""

import json
import sys

import duckdb
import pyarrow.compute as pc
import pyarrow.parquet as pq

files = sys.argv[1:]
tables = [pq.read_table(file) for file in files]
by_pyarrow = [
    sum(table.num_rows for table in tables),
    sum(pc.sum(table["distance"]).as_py() for table in tables),
    sum(table["dep_time"].null_count for table in tables),
]
query = f"select count(*), sum(distance), count(*) - count(dep_time) from read_parquet({files!r})"
by_duckdb = [int(figure) for figure in duckdb.sql(query).fetchall()[0]]
print(json.dumps({"files": len(files), "pyarrow": by_pyarrow, "duckdb": by_duckdb}))
