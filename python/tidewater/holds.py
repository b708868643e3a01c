"""Read hold of a program, renewed in the background."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Iterable

from . import storage
from .calls import Call
from .errors import HoldLost, HoldNotFound, OutcomeUnknown
from .leases import NOT_FOUND, NOT_RENEWED, RELEASED, Lease, Renewals

_LOSSES = {
    NOT_FOUND: "it does not exist any more: it was released, or its lease has expired",
    NOT_RENEWED: "it was not renewed within its lease",
    RELEASED: "it was released",
}


class Hold:
    """A hold from `Client.hold`, renewed in the background at a third of its lease. Also a context manager, which
    releases it.

    Its tables can be read as of its epoch, and as of later complete ones, until it is lost. Pass it, or `hold.epoch`,
    as `as_of`: with the hold, a read waits until the epoch is complete, about a second after it has begun.

    `release` ends it at once. A hold to which the program does not refer any more is not renewed, and ends with its
    lease. The clock of the lease does not advance while the machine sleeps: a loss of that time is known after the next
    renewal.
    """

    def __init__(self, client, name: str, tables: tuple[str, ...], epoch: int, renewals: Renewals):
        self._client = client
        self._epoch = epoch
        self._renewals = renewals
        self._released = False
        self._lock = threading.Lock()
        # The thread does not refer to the hold.
        weakref.finalize(self, renewals.stop)
        self.name = name
        self.tables = tables

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.release()
        except Exception:
            # The hold ends with its lease; the first error is more useful.
            if kind is None:
                raise

    def __repr__(self) -> str:
        return f"<Hold {self.name!r} of {', '.join(self.tables)} at epoch {self._epoch}, {self.loss or 'kept'}>"

    @property
    def loss(self) -> str | None:
        """Reason of the loss of the hold, as in HoldLost; None: it is not lost. A loss is final."""
        return RELEASED if self._released else self._renewals.loss

    @property
    def epoch(self) -> int:
        """The epoch of the hold. HoldLost if the hold is lost."""
        loss = self.loss
        if loss is not None:
            cause = self._renewals.failure if loss == NOT_RENEWED else None
            raise HoldLost(f"hold {self.name!r} is lost: {_LOSSES[loss]}", loss) from cause
        return self._epoch

    def downgrade(self, epoch: int) -> None:
        """Moves the hold to a later epoch, so that rows of earlier ones may be dropped. After OutcomeUnknown, the hold
        is regarded as moved.

        Raises HoldLost, Refused (an earlier epoch, or one that has not begun), Unavailable, OutcomeUnknown.
        """
        epoch = storage.checked_epoch(epoch)
        # Raises if the hold is lost.
        _ = self.epoch
        try:
            self._move(storage.downgrade(self._client, self.name, epoch))
        except HoldNotFound as error:
            self._renewals.record_loss(NOT_FOUND)
            raise HoldLost(f"hold {self.name!r} is lost: {_LOSSES[NOT_FOUND]}", NOT_FOUND) from error
        except OutcomeUnknown:
            self._move(epoch)
            raise

    def _move(self, epoch: int) -> None:
        with self._lock:
            self._epoch = max(self._epoch, epoch)

    def release(self) -> None:
        """Releases the hold. No effect on one that is lost. After an error, the hold ends with its lease, or by another
        call."""
        self._released = True
        self._renewals.stop()
        # Another program may have acquired a hold of this name after the loss.
        if self._renewals.loss is None:
            storage.release(self._client, self.name)
            self._renewals.record_loss(RELEASED)


def acquire(client, name: str, tables: Iterable, *, lease: float, epoch: int | None, holder: str | None) -> Hold:
    """Acquires a hold, and renews it until it is lost, released or not referred to any more."""
    request = storage.acquire_request(name, tables, lease, epoch, this_holder() if holder is None else holder)
    # The lease may begin with the first attempt.
    begun = time.monotonic()
    held = storage.acquire(client, request)
    lease_seconds = min(held.lease_ms / 1_000, storage.LONGEST_LEASE)
    renewals = Renewals(lambda lease: _renew(client, name, lease), Lease(lease_seconds, begun))
    hold = Hold(client, name, tuple(request.tables), held.epoch, renewals)
    renewals.start(name)
    return hold


def _renew(client, name: str, lease: Lease) -> float | None:
    """Renews a hold. Returns the begin of the attempt that has succeeded; None: there is no such hold."""
    seconds = min(client.deadline, lease.end - time.monotonic())
    longest = min(client.attempt_timeout, lease.attempt_seconds)
    call = Call(client, f"renewing hold {name!r}", seconds=seconds, longest=longest)
    return call.begun if storage.renew(call, name) else None


def this_holder() -> str:
    """`user@host` of this process; empty if one of them is unknown."""
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    host = socket.gethostname()
    return f"{user}@{host}" if user.strip() and host.strip() else ""
