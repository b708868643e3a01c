"""One table: write, delete, scan, get, count."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from ._proto import data_pb2
from .holds import Hold
from .pieces import cut
from .reads import Reads
from .routing import Routing
from .rows import column_ids, fit, key_table, predicates
from .writes import Writes

_GET_KEYS = 1_000


@dataclass(frozen=True)
class WriteReport:
    """Result of a write: rows acknowledged."""

    rows: int


class Table:
    """A table of a cluster, from `Client.table`. Safe to use from several threads.

    Reads with `as_of` have the rows of an epoch, which has to be complete: EpochIncomplete if it is not,
    EpochBelowSince if its rows may have been dropped. With a hold, they have the rows of its epoch, wait until it is
    complete, and raise HoldLost once the hold is lost. A refreshable table is read as of the last refresh that was
    published at or before the epoch.
    """

    def __init__(self, client, name):
        self.name = name
        self._routing = Routing(client, name)
        self._reads = Reads(self._routing)
        self._writes = Writes(self._routing)

    @property
    def schema(self):
        """Arrow schema of the table."""
        return self._routing.info().schema

    def write(self, data):
        """Writes a pyarrow Table or RecordBatch, or a pandas DataFrame; upserts by primary key.

        Each row takes effect once, however often an attempt is repeated. Columns are matched by name.
        Raises BadInput (nothing was sent), Refused or Unavailable (the failed part has not taken effect),
        OutcomeUnknown (it may have).
        """
        info = self._routing.info()
        return self._apply(data_pb2.ROW_OP_PUT, info, fit(info, info.schema, data))

    def delete(self, keys):
        """Deletes rows by primary key: a list of dicts, a pyarrow Table or a DataFrame of the key columns."""
        info = self._routing.info()
        return self._apply(data_pb2.ROW_OP_DELETE, info, fit(info, info.key_schema, key_table(info, keys)))

    def _apply(self, op, info, rows):
        if rows.num_rows:
            self._writes.apply(op, info, rows)
        return WriteReport(rows.num_rows)

    def scan(self, columns=None, where=(), limit=None, as_of: int | Hold | None = None):
        """Reads rows as a pyarrow Table, in key order of each region. A refreshable table has the rows of one refresh.

        columns: names; all when None.
        where: conditions that all have to hold, e.g. [("distance", ">", 2000), ("origin", "in", ["JFK"])].
        limit: rows at most.
        as_of: an epoch or a hold; the newest rows when None.
        """
        read = self._reads.begin(as_of)
        ids, schema = _projection(read.info, columns)
        request = data_pb2.ScanRequest(projection=ids, predicates=predicates(read.info, where))
        if read.is_empty:
            return schema.empty_table()
        batches, _ = read.scan(request, limit)
        result = pa.Table.from_batches(batches, schema) if batches else schema.empty_table()
        return result if limit is None else result.slice(0, limit)

    def count(self, where=(), as_of: int | Hold | None = None):
        """Number of rows for which all conditions hold.

        as_of: an epoch or a hold; the newest rows when None.
        """
        read = self._reads.begin(as_of)
        request = data_pb2.ScanRequest(predicates=predicates(read.info, where), count_only=True)
        return 0 if read.is_empty else read.scan(request)[1]

    def get(self, keys, columns=None, as_of: int | Hold | None = None):
        """Reads the rows of these keys: a list of dicts, a pyarrow Table or a DataFrame of the key columns.
        Keys without a row are left out.

        as_of: an epoch or a hold; the newest rows when None.
        """
        read = self._reads.begin(as_of)
        info = read.info
        ids, schema = _projection(info, columns)
        wanted = info.codec.sort(fit(info, info.key_schema, key_table(info, keys)), info.key_names)
        tables = [schema.empty_table()]
        if read.is_empty:
            return tables[0]
        for piece in cut(info, wanted, _GET_KEYS):
            tables.append(pa.Table.from_batches(read.get(piece, ids)))
        return pa.concat_tables(tables)


def _projection(info, columns):
    """The ids of the columns of a read, and the schema of its rows."""
    ids = column_ids(info, columns)
    return ids, pa.schema([info.schema.field(info.by_id[column].name) for column in ids])
