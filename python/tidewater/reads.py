"""Reads of one table: the newest rows, or those of one epoch."""

from __future__ import annotations

import grpc
import pyarrow as pa

from ._proto import data_pb2, error_pb2
from .errors import NotFound, Refused, attempt_of
from .holds import Hold
from .pieces import cut
from .rows import decode, encode
from .storage import checked_epoch


class Reads:
    """Reads of a table. Each read has the rows of one epoch if it names one."""

    def __init__(self, routing):
        self._routing = routing

    def begin(self, as_of: int | Hold | None = None) -> Read:
        """Begins a read. HoldLost if the hold is lost.

        as_of: an epoch; the one of a hold; None: the newest rows, of a refreshable table those that are published now.
        """
        info = self._routing.info()
        if as_of is None and info.refreshable:
            # No change of the catalog tells this client of a later publication.
            self._routing.client.refresh()
            info = self._routing.info()
        if as_of is None:
            return Read(self._routing, info, info.as_of, waits=False)
        if isinstance(as_of, Hold):
            return Read(self._routing, info, as_of.epoch, waits=True)
        return Read(self._routing, info, checked_epoch(as_of), waits=False)


class Read:
    """One read.

    info: the table as of the begin.
    epoch: the epoch that all requests name; None: the newest rows.
    """

    def __init__(self, routing, info, epoch: int | None, *, waits: bool):
        """waits: the epoch has begun, and is waited for until it is complete."""
        self._routing = routing
        self._waits = waits
        self.info = info
        self.epoch = epoch

    @property
    def is_empty(self) -> bool:
        """Whether the table has no rows because it is refreshable and was never refreshed."""
        return self.info.is_empty and self.epoch == 0

    def scan(self, request: data_pb2.ScanRequest, limit: int | None = None) -> tuple[list[pa.RecordBatch], int]:
        """Scans the regions one after the other. Returns the batches, and the number of rows of a count."""
        request.rows_format = data_pb2.ROWS_FORMAT_STREAM
        if self.epoch is not None:
            request.as_of = self.epoch
        batches, count, left = [], 0, limit
        start = b""
        while start is not None and (left is None or left > 0):
            if left is not None:
                request.limit = left
            found, counted, start = self._scan_region(request, start)
            batches += found
            count += counted
            if left is not None:
                left -= sum(batch.num_rows for batch in found)
        return batches, count

    def _scan_region(self, request, start):
        """Scans the rest of the region with the row key `start`. Returns also the first row key after it; None: it is
        the last region. The next key is looked up by then, because regions are split and merged."""
        call = self._routing.call("scanning")
        client = self._routing.client
        while True:
            info = self._present_info()
            route = _route_for(info, start)
            end = route.end(info.table_id)
            request.group_id, request.region_id = route.group_id, route.region_id
            request.catalog_version = client.catalog().version
            request.schema_version = info.schema_version
            request.start = start
            if end is None:
                request.ClearField("end")
            else:
                request.end = end
            address = self._routing.address(call, route.group_id)
            batches, count, done = [], 0, False
            try:
                # The stream as a whole may take longer than one attempt of a write.
                for answer in client.data(address).Scan(request, timeout=client.deadline):
                    count += answer.row_count
                    done |= answer.done
                    if answer.rows:
                        batches += decode(answer.rows)
            except grpc.RpcError as error:
                self._failed(call, attempt_of(error), route)
                continue
            if done:
                client.learn_leader(route.group_id, address)
                return batches, count, end
            call.wait()

    def get(self, piece, columns: list[int]) -> list[pa.RecordBatch]:
        """Reads the rows with the keys of a piece."""
        call = self._routing.call("reading keys of")
        client = self._routing.client
        encoded = encode(piece.rows)
        while True:
            info = self._present_info()
            route = _route_for(info, piece.first_key)
            end = route.end(info.table_id)
            if end is not None and piece.last_key >= end:
                # A split since the piece was cut.
                parts = cut(info, piece.rows, piece.rows.num_rows)
                return [batch for part in parts for batch in self.get(part, columns)]
            request = data_pb2.GetRequest(
                group_id=route.group_id,
                region_id=route.region_id,
                catalog_version=client.catalog().version,
                schema_version=info.schema_version,
                keys=encoded,
                projection=columns,
                as_of=self.epoch,
                rows_format=data_pb2.ROWS_FORMAT_STREAM,
            )
            address = self._routing.address(call, route.group_id)
            try:
                answer = client.data(address).Get(request, timeout=call.timeout())
            except grpc.RpcError as error:
                self._failed(call, attempt_of(error), route)
                continue
            client.learn_leader(route.group_id, address)
            return decode(answer.rows)

    def _failed(self, call, attempt, route):
        """Records a failed attempt, and waits before the next one."""
        if self._waits and attempt.detail.reason == error_pb2.REASON_EPOCH_INCOMPLETE:
            call.made += 1
            call.last = attempt
            call.wait()
            return
        call.note(attempt, write=False, group_id=route.group_id)
        if attempt.detail.reason == error_pb2.REASON_EPOCH_REQUIRED:
            # A repetition would name the same epoch, and another epoch would mix the rows of two refreshes.
            raise attempt.error() from attempt
        call.wait()
        if attempt.retry == error_pb2.RETRY_REFRESH_CATALOG:
            self._routing.refresh(call, attempt, route)

    def _present_info(self):
        """The description of the table in the present catalog. Rows of two tables of the same name are not mixed."""
        info = self._routing.info()
        if info.table_id != self.info.table_id:
            raise NotFound(f"table {info.name!r} was dropped during the read, and created again")
        return info


def _route_for(info, key):
    route = info.route_for(key)
    if route is None:
        raise Refused(f"table {info.name!r} has no route for some keys", "region_not_found")
    return route
