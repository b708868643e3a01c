"""Writes of one table: each takes effect once, however often an attempt is repeated."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc

from ._proto import data_pb2, error_pb2
from .errors import Refused, attempt_of
from .pieces import cut, piece_rows
from .rows import encode

_REGIONS_AT_ONCE = 8


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


class Writes:
    """Sends the writes of a table. Safe to use from several threads."""

    def __init__(self, routing):
        self._routing = routing
        self._streams = {}
        self._locks = {}
        self._lock = threading.Lock()

    def apply(self, op, info, rows):
        """Writes or deletes rows."""
        ordered = info.codec.sort(rows, info.key_names)
        by_region = {}
        for piece in cut(info, ordered, piece_rows(ordered)):
            by_region.setdefault(info.route_for(piece.first_key).region_id, []).append(piece)

        def send_all(pieces):
            for piece in pieces:
                self._send(op, info, piece)

        with ThreadPoolExecutor(min(len(by_region), _REGIONS_AT_ONCE)) as pool:
            # Waits for all regions before an error of one of them is raised.
            results = [pool.submit(send_all, pieces) for pieces in by_region.values()]
        for result in results:
            result.result()

    def _send(self, op, info, piece):
        call = self._routing.call("writing to")
        with self._region_lock(info.route_for(piece.first_key).region_id):
            self._send_locked(op, info, piece, call, None)

    def _send_locked(self, op, encoded_for, piece, call, identity):
        encoded = encode(piece.rows)
        client = self._routing.client
        while True:
            info = self._routing.info()
            route = info.route_for(piece.first_key)
            end = route.end(info.table_id)
            if end is not None and piece.last_key >= end:
                # A split since the piece was cut. The same write goes to each child.
                for part in cut(info, piece.rows, piece.rows.num_rows):
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
                catalog_version=client.catalog().version,
                schema_version=encoded_for.schema_version,
                producer_id=stream.producer if opening else identity.producer,
                serial=1 if opening else identity.serial,
                origin_region_id=route.region_id if opening else identity.origin,
                op=op,
                row_count=0 if opening else piece.rows.num_rows,
                rows=b"" if opening else encoded,
                opening=0 if opening else identity.opening,
            )
            address = self._routing.address(call, route.group_id)
            try:
                answer = client.data(address).Write(request, timeout=call.timeout())
            except grpc.RpcError as error:
                identity = self._failed(call, attempt_of(error), route, encoded_for, opening, identity)
                continue
            client.learn_leader(route.group_id, address)
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
                self._routing.refresh(call, attempt, route)
                if self._routing.info().schema_version != encoded_for.schema_version:
                    if call.maybe_done:
                        call.fail()
                    raise Refused(
                        f"the columns of table {self._routing.name!r} changed during the write; write again",
                        "schema_version_stale",
                    )
        except Exception:
            # The serial is spent: a later write must not pass for a repetition of this one.
            self._streams.pop(route.region_id, None)
            raise
        return identity

    def _region_lock(self, region_id):
        with self._lock:
            return self._locks.setdefault(region_id, threading.Lock())
