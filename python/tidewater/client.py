"""Connection to a cluster: channels, catalog, and calls that are repeated until they succeed."""

import random
import threading
import time

import grpc

from ._proto import data_pb2_grpc, error_pb2, meta_pb2, meta_pb2_grpc
from .catalog import Catalog
from .errors import BadInput, FailedAttempt, NotFound, OutcomeUnknown, Unavailable, attempt_of
from .table import Table

_MESSAGE_BYTES = 64 << 20
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
]
# Wait before the second attempt and longest wait, in seconds, before jitter.
_BACKOFF = (0.01, 0.25)
# Pages of changes of the catalog before all of it is read.
_PAGES = 16
# Attempts after answers that are more likely faults than passing states.
_FEW = 5


def connect(meta="127.0.0.1:7400", *, deadline=60.0, attempt_timeout=7.0):
    """Connects to the cluster of these meta nodes.

    meta: addresses host:port, a string separated by commas or a list; one that answers is enough.
    deadline: seconds that one operation may take with all its repetitions.
    attempt_timeout: seconds that one attempt may take.
    """
    addresses = meta.split(",") if isinstance(meta, str) else list(meta)
    client = Client([address.strip() for address in addresses], deadline, attempt_timeout)
    client.refresh()
    return client


class Client:
    """A cluster. Safe to use from several threads. Also a context manager."""

    def __init__(self, addresses, deadline, attempt_timeout):
        if not addresses or not all(addresses):
            raise BadInput("connect needs the address of at least one meta node, host:port")
        self.deadline = deadline
        self.attempt_timeout = attempt_timeout
        self._meta = addresses
        self._channels = {}
        self._leaders = {}
        self._catalog = None
        # Start of the read that returned the catalog.
        self._read_at = 0.0
        self._closed = False
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes all connections. Later calls raise Unavailable."""
        with self._lock:
            self._closed = True
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()

    def tables(self):
        """Names of all tables, sorted. Dropped tables whose rows are held are left out."""
        return sorted(name for name in self.refresh().tables if not name.startswith("_tw_dropped_"))

    def table(self, name):
        """The table of that name; NotFound when there is none."""
        if name not in self.catalog().tables and name not in self.refresh().tables:
            raise NotFound(f"there is no table {name!r}")
        return Table(self, name)

    def catalog(self):
        """The catalog as last read."""
        return self._catalog or self.refresh()

    def refresh(self):
        """Brings the catalog up to date. Threads that do so at the same time share a read."""
        asked = time.monotonic()
        if not self._refreshing.acquire(timeout=self.deadline):
            raise Unavailable(f"reading the catalog: no success within {self.deadline:g} s")
        try:
            # A read that began earlier may lack what the caller has to see.
            if self._catalog is None or self._read_at < asked:
                started = time.monotonic()
                self._catalog = self._read_catalog()
                self._read_at = started
            return self._catalog
        finally:
            self._refreshing.release()

    def _read_catalog(self):
        """Reads the changes since the known catalog, or all of it when they are not kept."""
        call = Call(self, "reading the catalog")
        known = self._catalog
        while True:
            for address in call.meta_order(self._meta):
                try:
                    stub = meta_pb2_grpc.MetaStub(self.channel(address))
                    read = self._changed(stub, call, known) if known else None
                    if read is None:
                        read = Catalog(stub.GetCatalog(meta_pb2.GetCatalogRequest(), timeout=call.timeout()))
                    self._meta = list(dict.fromkeys([address, *self._meta]))
                    return read
                except grpc.RpcError as error:
                    attempt = attempt_of(error)
                    if known and attempt.reason == "unsupported":
                        # A meta node of an older release.
                        known = None
                    else:
                        call.note(attempt, write=False)
            call.wait()

    def _changed(self, stub, call, known):
        """The newest catalog, made from the known one; None when that is not possible."""
        for _ in range(_PAGES):
            request = meta_pb2.GetCatalogChangesRequest(
                cluster_id=known.cluster_id, incarnation=known.incarnation, revision=known.revision
            )
            page = stub.GetCatalogChanges(request, timeout=call.timeout())
            known = known.follow(page)
            if known is None or known.revision >= page.revision:
                return known
        return None

    def channel(self, address):
        """The connection to an address, made on first use."""
        with self._lock:
            if self._closed:
                raise Unavailable("the client is closed")
            if address not in self._channels:
                self._channels[address] = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
            return self._channels[address]

    def leader(self, group_id, turn):
        """The address to call for a group: the known leader, else its nodes in turn."""
        known = self._leaders.get(group_id)
        candidates = self.catalog().candidates(group_id)
        if known:
            return known
        if not candidates:
            return None
        return candidates[turn % len(candidates)]

    def learn_leader(self, group_id, address):
        """Remembers, or with None forgets, the leader of a group."""
        if address:
            self._leaders[group_id] = address
        else:
            self._leaders.pop(group_id, None)

    def data(self, address):
        """The data service at an address."""
        return data_pb2_grpc.DataStub(self.channel(address))


class Call:
    """One operation: its deadline, its attempts, and whether one of them may have taken effect."""

    def __init__(self, client, what):
        self.client = client
        self.what = what
        self.until = time.monotonic() + client.deadline
        self.made = 0
        self.faults = 0
        self.turn = 0
        self.maybe_done = False
        self.last = None
        self._hinted = None

    def timeout(self):
        """Seconds for the next attempt."""
        left = self.until - time.monotonic()
        if left <= 0:
            self.fail()
        return min(left, self.client.attempt_timeout)

    def meta_order(self, addresses):
        """Meta nodes to ask, a hinted leader first."""
        hinted, self._hinted = self._hinted, None
        return list(dict.fromkeys(([hinted] if hinted else []) + list(addresses)))

    def note(self, attempt, *, write, group_id=None):
        """Records a failed attempt; raises when another one does not help."""
        self.made += 1
        self.last = attempt
        self.maybe_done |= write and attempt.maybe_done
        hint = attempt.detail.leader_hint.address
        retry = attempt.retry
        if group_id is None:
            self._hinted = hint or None
        elif retry == error_pb2.RETRY_FIND_LEADER:
            self.client.learn_leader(group_id, hint or None)
            self.turn += 1
        if retry == error_pb2.RETRY_REPEAT_FEW:
            self.faults += 1
        asked = attempt.detail.HasField("retry_after_ms")
        stop = retry in (error_pb2.RETRY_STOP, error_pb2.RETRY_UNSPECIFIED)
        stop |= retry == error_pb2.RETRY_REPEAT_IF_ASKED and not asked
        if stop or self.faults >= _FEW:
            self.fail()

    def wait(self):
        """Sleeps before the next attempt: exponential backoff with jitter, at least what the server asked for."""
        first, longest = _BACKOFF
        full = min(longest, first * 2 ** min(self.made, 16))
        seconds = full / 2 + random.random() * full / 2
        if self.last is not None and self.last.detail.HasField("retry_after_ms"):
            seconds = max(seconds, min(self.last.detail.retry_after_ms / 1000, 10 * longest))
        if time.monotonic() + seconds >= self.until:
            self.fail()
        time.sleep(seconds)

    def fail(self):
        """Raises the error that fits all attempts."""
        last = f": {self.last}" if self.last else ""
        if self.maybe_done:
            raise OutcomeUnknown(f"{self.what}: the outcome is unknown{last}") from self.last
        if isinstance(self.last, FailedAttempt) and self.last.retry in (
            error_pb2.RETRY_STOP,
            error_pb2.RETRY_REPEAT_FEW,
            error_pb2.RETRY_REPEAT_IF_ASKED,
        ):
            raise self.last.error() from self.last
        raise Unavailable(f"{self.what}: no success within {self.client.deadline:g} s{last}") from self.last
