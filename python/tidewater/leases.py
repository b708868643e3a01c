"""Renewals of a hold in the background: when, and until when the hold is known to exist.

The lease of the holder counts from the begin of a successful attempt, by its own monotonic clock, so that it ends
before that of the cluster. A renewal begins after a third of it. Failures are repeated until it ends.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

NOT_FOUND = "hold_not_found"
NOT_RENEWED = "not_renewed"
RELEASED = "released"


@dataclass(frozen=True)
class Lease:
    """Lease of a hold, as its holder knows it. Times are in seconds of one monotonic clock."""

    length: float
    # Begin of the last successful attempt.
    renewed: float

    @property
    def next_renewal(self) -> float:
        """Begin of the next renewal."""
        return self.renewed + self.length / 3

    @property
    def end(self) -> float:
        """From here on, the hold is lost."""
        return self.renewed + self.length

    @property
    def attempt_seconds(self) -> float:
        """Limit of an attempt: a frozen node leaves time for several others."""
        return self.length / 6

    def pause(self, failures: int, chance: float) -> float:
        """Seconds before the next renewal after failed ones: exponential backoff. chance: 0 to 1, for the jitter."""
        full = min(self.length / 12, self.length / 60 * 2 ** min(failures, 16))
        return full / 2 + chance * full / 2


class Renewals:
    """Renews a hold in a thread until it is lost or stopped, and knows whether it is lost."""

    def __init__(
        self,
        renew: Callable[[Lease], float | None],
        lease: Lease,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ):
        """renew: renews the lease, and returns the begin of the attempt that has succeeded; None: there is no such
        hold. wait: waits for these seconds, less if the renewals are stopped, and returns whether they are."""
        self._renew = renew
        self._lease = lease
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._loss: str | None = None
        self._lock = threading.Lock()
        # Last error of a renewal.
        self.failure: Exception | None = None

    def start(self, name: str) -> None:
        """Starts the thread. It does not keep the process alive."""
        threading.Thread(target=self.run, name=f"tidewater hold {name}", daemon=True).start()

    def stop(self) -> None:
        """Ends the renewals. The hold ends with its lease."""
        self._stopped.set()

    @property
    def loss(self) -> str | None:
        """Reason of the loss of the hold; None: it is not lost. The end of the lease is a loss, also before the thread
        has recorded it."""
        with self._lock:
            if self._loss is None and self._clock() >= self._lease.end:
                self._loss = NOT_RENEWED
            return self._loss

    def record_loss(self, reason: str) -> None:
        """Records a loss, which is final, unless one is known."""
        with self._lock:
            self._loss = self._loss or reason

    def run(self) -> None:
        """Renews the hold until it is lost or stopped."""
        failures = 0
        while self.loss is None:
            lease = self._lease
            if failures:
                seconds = lease.pause(failures, random.random())
            else:
                seconds = lease.next_renewal - self._clock()
            if self._wait(max(0.0, min(seconds, lease.end - self._clock()))):
                return
            if self.loss is None:
                failures = 0 if self._renew_once(lease) else failures + 1

    def _renew_once(self, lease: Lease) -> bool:
        """Makes one renewal. Returns whether it has succeeded."""
        try:
            begun = self._renew(lease)
        except Exception as error:  # Of any kind: the thread must not end before the lease.
            self.failure = error
            return False
        if begun is None:
            self.record_loss(NOT_FOUND)
        elif self.loss is None:
            # A lease that has ended stays lost: the hold may not have existed in between.
            with self._lock:
                self._lease = replace(lease, renewed=begun)
        return True
