"""Calls about read holds and frontiers of tables. The leader of the meta nodes answers them."""

from __future__ import annotations

import operator
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from ._proto import storage_pb2, storage_pb2_grpc
from .calls import Call, call_meta
from .errors import BadInput

# Seconds that one attempt to acquire a hold may take: the first hold of a table alters it and asks its regions.
_ACQUIRE_SECONDS = 40
# Holds of one page; a hold may have 1,000 tables.
_PAGE = 250
# Shortest and longest lease that the cluster grants, in seconds.
SHORTEST_LEASE, LONGEST_LEASE = 10, 30 * 24 * 3_600
# Length and end of the lease of a hold that does not expire.
_NEVER = 2**64 - 1
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class HoldInfo:
    """A read hold of the cluster, from `Client.holds`."""

    name: str
    # Text for people.
    holder: str
    # Names, in the order of their ids.
    tables: tuple[str, ...]
    # The tables can be read as of this epoch and later complete ones.
    epoch: int
    # By the clock of the cluster.
    acquired: datetime
    # Length of the lease, and the time until it ends, in seconds; None: the hold of an export, which does not expire.
    lease: float | None
    left: float | None
    # End of the lease by the clock of the cluster; None as above.
    lease_end: datetime | None


@dataclass(frozen=True)
class Frontiers:
    """Epochs of a table that can be read, from `Client.frontiers`."""

    table: str
    # Oldest epoch that can be read: an estimate until the first hold or policy of the table, and after a truncation.
    since: int
    # Epoch of the last barrier: not complete yet. Earlier ones may be incomplete in groups that lag.
    upper: int
    # Number of holds, and the one at the oldest epoch; None: there is none.
    holds: int
    oldest_hold: str | None
    oldest_hold_epoch: int | None
    capabilities: int
    # Name that the table had when it was dropped; None: it is not dropped.
    dropped_name: str | None


def checked_epoch(epoch: int) -> int:
    """An epoch that can be sent; BadInput if it is not a number of 64 bits."""
    try:
        number = operator.index(epoch)
    except TypeError as error:
        raise BadInput(f"an epoch is an integer, not a {type(epoch).__name__}: {epoch!r}") from error
    if not 0 <= number < 2**64:
        raise BadInput(f"epoch {number} is not between 0 and 2**64 - 1")
    return number


def acquire_request(
    name: str, tables: Iterable, lease: float, epoch: int | None, holder: str
) -> storage_pb2.AcquireReadHoldRequest:
    """A request with an id of its own, so that its repetitions acquire one hold."""
    if not SHORTEST_LEASE <= lease <= LONGEST_LEASE:
        raise BadInput(f"hold {name!r}: a lease of {lease!r} s is not between {SHORTEST_LEASE} s and 30 days")
    return storage_pb2.AcquireReadHoldRequest(
        request_id=str(uuid.uuid4()),
        name=name,
        holder=holder,
        tables=table_names([tables] if isinstance(tables, str) or hasattr(tables, "name") else tables),
        # 0: the earliest one that all tables can be read at.
        epoch=0 if epoch is None else checked_epoch(epoch),
        lease_ms=round(lease * 1_000),
    )


def table_names(tables: Iterable) -> list[str]:
    """Names of tables, which are given by their names or as `Table`."""
    names = [getattr(table, "name", table) for table in tables]
    for name in names:
        if not isinstance(name, str):
            raise BadInput(f"a table is given by its name or as Table, not as {type(name).__name__}")
    return names


def acquire(client, request: storage_pb2.AcquireReadHoldRequest) -> storage_pb2.ReadHold:
    """Acquires a hold."""
    call = Call(client, f"acquiring hold {request.name!r}", longest=_ACQUIRE_SECONDS)
    return _call(call, "AcquireReadHold", request, write=True).hold


def renew(call: Call, name: str) -> bool:
    """Begins the lease of a hold anew; False: there is no such hold."""
    request = storage_pb2.RenewReadHoldsRequest(names=[name])
    return not _call(call, "RenewReadHolds", request, write=True).missing


def downgrade(client, name: str, epoch: int) -> int:
    """Moves a hold to a later epoch, and returns its epoch. HoldNotFound."""
    request = storage_pb2.DowngradeReadHoldRequest(name=name, epoch=epoch)
    call = Call(client, f"downgrading hold {name!r}")
    return _call(call, "DowngradeReadHold", request, write=True).hold.epoch


def release(client, name: str) -> None:
    """Releases a hold. A name that is no hold has no effect."""
    call = Call(client, f"releasing hold {name!r}")
    _call(call, "ReleaseReadHolds", storage_pb2.ReleaseReadHoldsRequest(names=[name]), write=True)


def holds(client, table: str) -> list[HoldInfo]:
    """Lists the holds of a table by name; all for an empty name."""
    found, after = [], ""
    while True:
        request = storage_pb2.ListReadHoldsRequest(table=table, after=after, limit=_PAGE)
        page = _call(Call(client, "listing the holds"), "ListReadHolds", request, write=False)
        found += [_hold_info(listed) for listed in page.holds if listed.hold.name > after]
        # A page that does not advance is the last one, or it would be read again and again.
        if not page.more or not page.holds or page.holds[-1].hold.name <= after:
            return found
        after = page.holds[-1].hold.name


def frontiers(client, tables: Iterable) -> dict[str, Frontiers]:
    """Returns the frontiers of tables, or of all without names, by name."""
    request = storage_pb2.GetCollectionFrontiersRequest(tables=table_names(tables))
    answer = _call(Call(client, "reading the frontiers"), "GetCollectionFrontiers", request, write=False)
    return {of.table: _frontiers(of) for of in answer.collections}


def _call(call: Call, method: str, request, *, write: bool):
    def invoke(channel, timeout):
        return getattr(storage_pb2_grpc.StorageAdminStub(channel), method)(request, timeout=timeout)

    return call_meta(call, invoke, write=write)


def _hold_info(listed: storage_pb2.ListedHold) -> HoldInfo:
    hold = listed.hold
    expires = hold.lease_end_ms != _NEVER
    return HoldInfo(
        name=hold.name,
        holder=hold.holder,
        tables=tuple(listed.tables),
        epoch=hold.epoch,
        acquired=_time(hold.acquired_ms),
        lease=hold.lease_ms / 1_000 if expires else None,
        left=listed.left_ms / 1_000 if expires else None,
        lease_end=_time(hold.lease_end_ms) if expires else None,
    )


def _frontiers(of: storage_pb2.CollectionFrontiers) -> Frontiers:
    held = of.HasField("least")
    return Frontiers(
        table=of.table,
        since=of.since,
        upper=of.upper,
        holds=of.holds,
        oldest_hold=of.least.name if held else None,
        oldest_hold_epoch=of.least.epoch if held else None,
        capabilities=of.capabilities,
        dropped_name=of.dropped_name or None,
    )


def _time(ms: int) -> datetime:
    return _UNIX_EPOCH + timedelta(milliseconds=ms)
