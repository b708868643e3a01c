"""One table: write, delete, scan, get, count."""

import datetime
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pyarrow as pa

from ._proto import data_pb2, error_pb2
from .errors import BadInput, NotFound, Refused, attempt_of

_PIECE_ROWS = 50_000
_PIECE_BYTES = 4 << 20
_GET_KEYS = 1_000
_REGIONS_AT_ONCE = 8
# Seconds after which a call is repeated although the catalog lacks the schema version of its refusal.
_SCHEMA_WAIT = 8
_CONTINUATION = b"\xff\xff\xff\xff"
_OPERATORS = {
    "=": data_pb2.COMPARE_OP_EQ,
    "!=": data_pb2.COMPARE_OP_NE,
    "<": data_pb2.COMPARE_OP_LT,
    "<=": data_pb2.COMPARE_OP_LE,
    ">": data_pb2.COMPARE_OP_GT,
    ">=": data_pb2.COMPARE_OP_GE,
    "in": data_pb2.COMPARE_OP_IN,
    "is null": data_pb2.COMPARE_OP_IS_NULL,
    "is not null": data_pb2.COMPARE_OP_IS_NOT_NULL,
}


@dataclass(frozen=True)
class WriteReport:
    """Result of a write: rows acknowledged."""

    rows: int


@dataclass
class _Stream:
    """One producer's writes to one region. At most one of them is in flight."""

    producer: bytes = field(default_factory=lambda: uuid.uuid4().bytes)
    # Serial of the next write; 1 is the empty opening write.
    next: int = 1
    opening: int = 0


@dataclass(frozen=True)
class _Identity:
    """What makes two requests the same write."""

    producer: bytes
    serial: int
    origin: int
    opening: int


@dataclass
class _Piece:
    """Rows of one region, in key order."""

    rows: pa.Table
    first_key: bytes
    last_key: bytes


class Table:
    """A table of a cluster, from `Client.table`. Safe to use from several threads."""

    def __init__(self, client, name):
        self._client = client
        self.name = name
        self._streams = {}
        self._locks = {}
        self._lock = threading.Lock()

    @property
    def schema(self):
        """Arrow schema of the table."""
        return self._info().schema

    def write(self, data):
        """Writes a pyarrow Table or RecordBatch, or a pandas DataFrame; upserts by primary key.

        Each row takes effect once, however often an attempt is repeated. Columns are matched by name.
        Raises BadInput (nothing was sent), Refused or Unavailable (the failed part has not taken effect),
        OutcomeUnknown (it may have).
        """
        info = self._info()
        rows = _fit(info, info.schema, data)
        return self._apply(data_pb2.ROW_OP_PUT, info, rows)

    def delete(self, keys):
        """Deletes rows by primary key: a list of dicts, a pyarrow Table or a DataFrame of the key columns."""
        info = self._info()
        return self._apply(data_pb2.ROW_OP_DELETE, info, _fit(info, info.key_schema, _key_table(info, keys)))

    def scan(self, columns=None, where=(), limit=None):
        """Reads rows as a pyarrow Table, in key order of each region. A refreshable table has the rows of one refresh.

        columns: names; all when None.
        where: conditions that all have to hold, e.g. [("distance", ">", 2000), ("origin", "in", ["JFK"])].
        limit: rows at most.
        """
        info = self._read_info()
        ids = _column_ids(info, columns)
        schema = pa.schema([info.schema.field(info.by_id[column].name) for column in ids])
        predicates = _predicates(info, where)
        if info.is_empty:
            return schema.empty_table()
        batches, left = [], limit
        for index in range(len(info.routes)):
            if left is not None and left <= 0:
                break
            request = data_pb2.ScanRequest(projection=ids, predicates=predicates, as_of=info.as_of)
            if left is not None:
                request.limit = left
            found, _ = self._scan_region(index, request)
            batches += found
            if left is not None:
                left -= sum(batch.num_rows for batch in found)
        result = pa.Table.from_batches(batches, schema) if batches else schema.empty_table()
        return result if limit is None else result.slice(0, limit)

    def count(self, where=()):
        """Number of rows for which all conditions hold."""
        info = self._read_info()
        predicates = _predicates(info, where)
        total = 0
        if info.is_empty:
            return total
        for index in range(len(info.routes)):
            request = data_pb2.ScanRequest(predicates=predicates, count_only=True, as_of=info.as_of)
            total += self._scan_region(index, request)[1]
        return total

    def get(self, keys, columns=None):
        """Reads the rows of these keys: a list of dicts, a pyarrow Table or a DataFrame of the key columns.
        Keys without a row are left out."""
        info = self._read_info()
        ids = _column_ids(info, columns)
        schema = pa.schema([info.schema.field(info.by_id[column].name) for column in ids])
        wanted = info.codec.sort(_fit(info, info.key_schema, _key_table(info, keys)), info.key_names)
        tables = [schema.empty_table()]
        if info.is_empty:
            return tables[0]
        for piece in _cut(info, wanted, _GET_KEYS):
            tables.append(self._get(piece, ids, info.as_of))
        return pa.concat_tables(tables)

    # Writes

    def _apply(self, op, info, rows):
        if rows.num_rows == 0:
            return WriteReport(0)
        ordered = info.codec.sort(rows, info.key_names)
        by_region = {}
        for piece in _cut(info, ordered, _piece_rows(ordered)):
            by_region.setdefault(info.route_for(piece.first_key).region_id, []).append(piece)

        def send_all(pieces):
            for piece in pieces:
                self._send(op, info, piece)

        with ThreadPoolExecutor(min(len(by_region), _REGIONS_AT_ONCE)) as pool:
            # Waits for all regions before an error of one of them is raised.
            results = [pool.submit(send_all, pieces) for pieces in by_region.values()]
        for result in results:
            result.result()
        return WriteReport(rows.num_rows)

    def _send(self, op, info, piece):
        call = self._call("writing to")
        with self._region_lock(info.route_for(piece.first_key).region_id):
            self._send_locked(op, info, piece, call, None)

    def _send_locked(self, op, encoded_for, piece, call, identity):
        encoded = _encode(piece.rows)
        while True:
            info = self._info()
            route = info.route_for(piece.first_key)
            end = route.end(info.table_id)
            if end is not None and piece.last_key >= end:
                # A split since the piece was cut. The same write goes to each child.
                for part in _cut(info, piece.rows, piece.rows.num_rows):
                    self._send_locked(op, encoded_for, part, call, identity if call.maybe_done else None)
                return
            if identity and identity.origin != route.region_id and not call.maybe_done:
                self._streams.pop(identity.origin, None)
                identity = None
            stream = self._streams.setdefault(route.region_id, _Stream())
            opening = identity is None and stream.next == 1
            if identity is None and not opening:
                identity = _Identity(stream.producer, stream.next, route.region_id, stream.opening)
            request = data_pb2.WriteRequest(
                group_id=route.group_id,
                region_id=route.region_id,
                catalog_version=self._client.catalog().version,
                schema_version=encoded_for.schema_version,
                producer_id=stream.producer if opening else identity.producer,
                serial=1 if opening else identity.serial,
                origin_region_id=route.region_id if opening else identity.origin,
                op=op,
                row_count=0 if opening else piece.rows.num_rows,
                rows=b"" if opening else encoded,
                opening=0 if opening else identity.opening,
            )
            address = self._address(call, route.group_id)
            try:
                answer = self._client.data(address).Write(request, timeout=call.timeout())
            except grpc.RpcError as error:
                identity = self._failed(call, attempt_of(error), route, encoded_for, opening, identity)
                continue
            self._client.learn_leader(route.group_id, address)
            if opening:
                stream.next, stream.opening = 2, answer.sequence
                continue
            if stream.producer == identity.producer and stream.next == identity.serial:
                stream.next += 1
            return

    def _failed(self, call, attempt, route, encoded_for, opening, identity):
        """Records a failed attempt of a write and returns the identity of the next one."""
        retry = attempt.retry
        if retry == error_pb2.RETRY_NEW_PRODUCER and (opening or not call.maybe_done):
            self._streams.pop(route.region_id, None)
            identity = None
        elif retry == error_pb2.RETRY_NEW_PRODUCER:
            call.last = attempt
            self._streams.pop(identity.origin, None)
            call.fail()
        try:
            # An opening write has no rows, so that none of them can have taken effect.
            call.note(attempt, write=not opening, group_id=route.group_id)
            call.wait()
            if retry == error_pb2.RETRY_REFRESH_CATALOG:
                self._refresh(call, attempt, route)
                if self._info().schema_version != encoded_for.schema_version:
                    if call.maybe_done:
                        call.fail()
                    raise Refused(
                        f"the columns of table {self.name!r} changed during the write; write again",
                        "schema_version_stale",
                    )
        except Exception:
            # The serial is spent: a later write must not pass for a repetition of this one.
            self._streams.pop(route.region_id, None)
            raise
        return identity

    # Reads

    def _read_info(self):
        """The description of the table for one read. A refreshable table is read as of the epoch that is published
        now: no change of the catalog tells this client of a later one."""
        info = self._info()
        if info.refreshable:
            self._client.refresh()
            info = self._info()
        return info

    def _scan_region(self, index, request):
        call = self._call("scanning")
        while True:
            info = self._info()
            if index >= len(info.routes):
                return [], 0
            route = info.routes[index]
            request.group_id, request.region_id = route.group_id, route.region_id
            request.catalog_version = self._client.catalog().version
            request.schema_version = info.schema_version
            request.rows_format = data_pb2.ROWS_FORMAT_STREAM
            address = self._address(call, route.group_id)
            batches, count, done = [], 0, False
            try:
                # The stream as a whole may take longer than one attempt of a write.
                for answer in self._client.data(address).Scan(request, timeout=self._client.deadline):
                    count += answer.row_count
                    done |= answer.done
                    if answer.rows:
                        batches += _decode(answer.rows)
            except grpc.RpcError as error:
                self._read_failed(call, attempt_of(error), route)
                continue
            if done:
                self._client.learn_leader(route.group_id, address)
                return batches, count
            call.wait()

    def _get(self, piece, ids, as_of):
        call = self._call("reading keys of")
        encoded = _encode(piece.rows)
        while True:
            info = self._info()
            route = info.route_for(piece.first_key)
            request = data_pb2.GetRequest(
                group_id=route.group_id,
                region_id=route.region_id,
                catalog_version=self._client.catalog().version,
                schema_version=info.schema_version,
                keys=encoded,
                projection=ids,
                as_of=as_of,
                rows_format=data_pb2.ROWS_FORMAT_STREAM,
            )
            address = self._address(call, route.group_id)
            try:
                answer = self._client.data(address).Get(request, timeout=call.timeout())
            except grpc.RpcError as error:
                self._read_failed(call, attempt_of(error), route)
                continue
            self._client.learn_leader(route.group_id, address)
            return pa.Table.from_batches(_decode(answer.rows))

    def _read_failed(self, call, attempt, route):
        call.note(attempt, write=False, group_id=route.group_id)
        if attempt.detail.reason == error_pb2.REASON_EPOCH_REQUIRED:
            # A repetition would name the same epoch, and another epoch would mix the rows of two refreshes.
            raise attempt.error() from attempt
        call.wait()
        if attempt.retry == error_pb2.RETRY_REFRESH_CATALOG:
            self._refresh(call, attempt, route)

    # Shared

    def _call(self, what):
        from .client import Call

        return Call(self._client, f"{what} table {self.name!r}")

    def _refresh(self, call, attempt, route):
        """Refreshes the catalog. While a table is altered, its regions are ahead of the catalog: waits for it."""
        needed = schema_needed(attempt.detail, self._info().table_id, route.region_id)
        until = time.monotonic() + _SCHEMA_WAIT
        pause = 0.05
        while True:
            self._client.refresh()
            if self._info().schema_version >= needed or time.monotonic() >= until:
                return
            # Raises at the deadline.
            call.timeout()
            time.sleep(pause * (0.5 + random.random() / 2))
            pause = min(2 * pause, 1.0)

    def _info(self):
        info = self._client.catalog().tables.get(self.name)
        if info is None:
            raise NotFound(f"there is no table {self.name!r}")
        return info

    def _address(self, call, group_id):
        while True:
            address = self._client.leader(group_id, call.turn)
            if address is not None and (call.turn == 0 or call.turn % 3):
                return address
            # Three nodes in turn did not answer as leader: the catalog may know more by now.
            call.turn += 1
            call.timeout()
            self._client.refresh()
            if address is None:
                call.wait()

    def _region_lock(self, region_id):
        with self._lock:
            return self._locks.setdefault(region_id, threading.Lock())


def schema_needed(detail, table_id, region_id):
    """The schema version that a refusal asks for; 0 when it names none, or another table or region."""
    hint = detail.catalog_hint
    if detail.reason != error_pb2.REASON_SCHEMA_VERSION_STALE:
        return 0
    if (hint.table_id, hint.region_id) != (table_id, region_id):
        return 0
    return hint.schema_version


def _fit(info, schema, data):
    """The data as a table of exactly this schema; BadInput names what does not fit."""
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    elif not isinstance(data, pa.Table):
        if not hasattr(data, "columns"):
            raise BadInput(f"cannot write a {type(data).__name__}; pass a pyarrow Table or a pandas DataFrame")
        try:
            data = pa.Table.from_pandas(data, preserve_index=False)
        except (pa.ArrowException, TypeError) as error:
            raise BadInput(f"table {info.name!r}: {error}") from error
    missing = [name for name in schema.names if name not in data.column_names]
    extra = [name for name in data.column_names if name not in schema.names]
    if missing or extra or len(set(data.column_names)) != data.num_columns:
        parts = [f"missing columns {missing}"] if missing else []
        parts += [f"unknown columns {extra}"] if extra else []
        raise BadInput(f"table {info.name!r}: {' and '.join(parts) or 'a column appears twice'}")
    columns = []
    for wanted in schema:
        column = data.column(wanted.name)
        try:
            column = column.cast(wanted.type)
        except (pa.ArrowException, ValueError) as error:
            raise BadInput(
                f"table {info.name!r}: column {wanted.name!r} is {column.type}, expected {wanted.type}: {error}"
            ) from error
        if not wanted.nullable and column.null_count:
            raise BadInput(f"table {info.name!r}: column {wanted.name!r} must not be null, but contains nulls")
        columns.append(column)
    return pa.table(columns, schema=schema)


def _key_table(info, keys):
    if not isinstance(keys, list):
        return keys
    columns = []
    for wanted in info.key_schema:
        try:
            values = [key[wanted.name] for key in keys]
        except (KeyError, TypeError) as error:
            raise BadInput(f"each key needs the columns {info.key_names}") from error
        try:
            columns.append(pa.array(values, wanted.type))
        except (pa.ArrowException, TypeError):
            try:
                # Texts of times, dates and numbers.
                columns.append(pa.array(values).cast(wanted.type))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise BadInput(f"key column {wanted.name!r} is {wanted.type}: {error}") from error
    return pa.table(columns, schema=info.key_schema)


def _column_ids(info, columns):
    names = info.schema.names if columns is None else list(columns)
    if not names:
        raise BadInput("name at least one column")
    try:
        return [info.column_id(name) for name in names]
    except KeyError as error:
        raise NotFound(error.args[0]) from error


def _predicates(info, where):
    predicates = []
    for condition in where:
        name, operator, *rest = condition
        op = _OPERATORS.get(operator)
        if op is None or len(rest) != (0 if operator.startswith("is ") else 1):
            raise BadInput(f"condition {condition!r}: use (column, operator, value), operators {', '.join(_OPERATORS)}")
        values = rest[0] if operator == "in" else rest
        predicates.append(
            data_pb2.Predicate(
                column_id=_column_ids(info, [name])[0], op=op, values=[_text(value) for value in values]
            )
        )
    return predicates


def _text(value):
    """A value in the canonical text of its type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return str(value)


def _piece_rows(rows):
    per_row = max(1, rows.nbytes // max(1, rows.num_rows))
    return max(1, min(_PIECE_ROWS, _PIECE_BYTES // per_row))


def _cut(info, ordered, most):
    """Cuts rows in key order along the routes, and into pieces of at most `most` rows."""
    columns = [ordered.column(name) for name in info.key_names]
    pieces, at = [], 0
    while at < ordered.num_rows:
        first = info.codec.key(columns, at)
        route = info.route_for(first)
        if route is None:
            raise Refused(f"table {info.name!r} has no route for some keys", "region_not_found")
        end = _first_at_or_above(info, columns, at, ordered.num_rows, route.end(info.table_id))
        while at < end:
            to = min(end, at + most)
            rows = ordered.slice(at, to - at)
            pieces.append(_Piece(rows, info.codec.key(columns, at), info.codec.key(columns, to - 1)))
            at = to
    return pieces


def _first_at_or_above(info, columns, low, high, bound):
    if bound is None:
        return high
    while low < high:
        middle = (low + high) // 2
        if info.codec.key(columns, middle) < bound:
            low = middle + 1
        else:
            high = middle
    return low


def _encode(rows):
    """One record batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return sink.getvalue().to_pybytes()


def _decode(encoded):
    if not encoded.startswith(_CONTINUATION):
        raise Refused("the server is older than this client: it answers without a schema; upgrade it", "unsupported")
    with pa.ipc.open_stream(encoded) as reader:
        return list(reader)
