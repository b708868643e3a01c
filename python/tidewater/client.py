"""Connection to a cluster: its channels, its catalog and its tables."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import grpc

from . import holds, storage
from ._proto import data_pb2_grpc, meta_pb2, meta_pb2_grpc
from .calls import Call, call_meta
from .catalog import Catalog
from .errors import BadInput, NotFound, Unavailable, attempt_of
from .holds import Hold
from .storage import Frontiers, HoldInfo
from .table import Table

_MESSAGE_BYTES = 64 << 20
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
]
# Pages of changes of the catalog before all of it is read.
_PAGES = 16


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

    def frontiers(self, *tables: str | Table) -> dict[str, Frontiers]:
        """The epochs that tables can be read as of, by name; of all tables without arguments."""
        return storage.frontiers(self, tables)

    def hold(
        self,
        name: str,
        tables: str | Table | Iterable[str | Table],
        lease: float = 60.0,
        *,
        epoch: int | None = None,
        holder: str | None = None,
    ) -> Hold:
        """Acquires a read hold: the tables remain readable as of its epoch. It is renewed in the background; use it
        with `with`, or release it.

        name: identifies the hold in the cluster.
        tables: at most 1,000 names or `Table`.
        lease: seconds after which the hold ends unless it is renewed, 10 to 30 days.
        epoch: the epoch to hold; None: the earliest one that all tables can be read as of.
        holder: text for people; None: user@host.

        Raises BadInput, NotFound (a table), HoldExists, EpochBelowSince, Refused, Unavailable, and OutcomeUnknown:
        the hold may have been acquired, and then ends with its lease.
        """
        return holds.acquire(self, name, tables, lease=lease, epoch=epoch, holder=holder)

    def holds(self, table: str | Table | None = None) -> list[HoldInfo]:
        """The read holds of a table, or all, by name."""
        [name] = storage.table_names(["" if table is None else table])
        return storage.holds(self, name)

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

        def read(channel, timeout):
            stub = meta_pb2_grpc.MetaStub(channel)
            changed = self._changed(stub, call, known) if known else None
            return changed or Catalog(stub.GetCatalog(meta_pb2.GetCatalogRequest(), timeout=timeout))

        return call_meta(call, read, write=False)

    def _changed(self, stub, call, known):
        """The newest catalog, made from the known one; None when that is not possible."""
        for _ in range(_PAGES):
            request = meta_pb2.GetCatalogChangesRequest(
                cluster_id=known.cluster_id, incarnation=known.incarnation, revision=known.revision
            )
            try:
                page = stub.GetCatalogChanges(request, timeout=call.timeout())
            except grpc.RpcError as error:
                if attempt_of(error).reason != "unsupported":
                    raise
                # A meta node of an older release.
                return None
            known = known.follow(page)
            if known is None or known.revision >= page.revision:
                return known
        return None

    def meta_addresses(self):
        """Addresses of the meta nodes, the last one that has answered first."""
        return self._meta

    def learn_meta(self, address):
        """Remembers a meta node that has answered."""
        self._meta = list(dict.fromkeys([address, *self._meta]))

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
