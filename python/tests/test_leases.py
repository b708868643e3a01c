"""Leases and renewals of holds by a clock of the test, without a cluster."""

import gc
import threading
import time

import pytest

from tidewater.errors import HoldLost
from tidewater.holds import Hold
from tidewater.leases import Lease, Renewals

LEASE = Lease(60.0, 1_000.0)


class Clock:
    """A clock that moves only when the renewals wait, or a scripted renewal takes time."""

    def __init__(self, steps):
        """steps: duration and outcome of each renewal; an outcome is True, False (no such hold) or an error."""
        self.now = LEASE.renewed
        self.steps = list(steps)
        self.begun = []

    def wait(self, seconds):
        self.now += seconds
        return not self.steps

    def renew(self, lease):
        begun = self.now
        self.begun.append(begun - LEASE.renewed)
        seconds, outcome = self.steps.pop(0)
        self.now += seconds
        if isinstance(outcome, Exception):
            raise outcome
        return begun if outcome else None

    def run(self):
        renewals = Renewals(self.renew, LEASE, clock=lambda: self.now, wait=self.wait)
        renewals.run()
        return renewals


def test_lease_is_renewed_after_a_third():
    clock = Clock([(1, True)] * 4)
    assert clock.run().loss is None
    assert clock.begun == [20, 40, 60, 80]


def test_failed_renewals_are_repeated_until_one_succeeds():
    clock = Clock([(2, OSError("down")), (2, OSError("down")), (1, True), (1, True)])
    renewals = clock.run()
    assert renewals.loss is None
    assert str(renewals.failure) == "down"
    # The pauses have jitter.
    assert 22.5 <= clock.begun[1] < clock.begun[2] - 2 <= 29
    assert clock.begun[3] == pytest.approx(clock.begun[2] + 20)


def test_hold_is_lost_when_the_cluster_has_none():
    clock = Clock([(1, True), (1, False), (1, True)])
    assert clock.run().loss == "hold_not_found"
    assert len(clock.steps) == 1


@pytest.mark.parametrize(
    "steps",
    [
        [(1, OSError("down"))] * 1_000,
        # The answer arrives after the lease has ended.
        [(41, True), (1, True)],
        [(39, OSError("down")), (5, True), (1, True)],
    ],
)
def test_hold_is_lost_when_its_lease_ends(steps):
    clock = Clock(steps)
    renewals = clock.run()
    assert renewals.loss == "not_renewed"
    assert clock.steps
    assert clock.now < LEASE.end + 5
    assert max(clock.begun) < 60


def test_end_of_the_lease_is_a_loss_without_the_thread():
    now = LEASE.renewed
    renewals = Renewals(lambda lease: None, LEASE, clock=lambda: now)
    now = LEASE.end - 0.001
    assert renewals.loss is None
    now = LEASE.end
    assert renewals.loss == "not_renewed"
    # Final, and not replaced by another one.
    now = LEASE.renewed
    renewals.record_loss("hold_not_found")
    assert renewals.loss == "not_renewed"


def test_pauses_grow_with_failures():
    assert [LEASE.pause(failures, 1.0) for failures in (1, 2, 3, 100)] == [2, 4, 5, 5]
    assert LEASE.pause(1, 0.0) == 1


def test_use_of_a_lost_hold_is_an_error():
    now = LEASE.renewed
    renewals = Renewals(lambda lease: None, LEASE, clock=lambda: now)
    hold = Hold(None, "h", ("t",), 7, renewals)
    assert (hold.epoch, hold.loss) == (7, None)
    renewals.failure = OSError("down")
    now = LEASE.end
    for use in (lambda: hold.epoch, lambda: hold.downgrade(8)):
        with pytest.raises(HoldLost, match="'h' is lost: it was not renewed") as caught:
            use()
        assert caught.value.reason == "not_renewed"
        assert str(caught.value.__cause__) == "down"
    # Sends nothing: another hold may have the name.
    hold.release()


def test_dropped_hold_is_not_renewed():
    renewed = threading.Event()

    def renew(lease):
        renewed.set()

    # The first renewal is in 100 s.
    renewals = Renewals(renew, Lease(300.0, time.monotonic()))
    hold = Hold(None, "h", ("t",), 7, renewals)
    thread = threading.Thread(target=renewals.run, daemon=True)
    thread.start()
    del hold
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()
    assert not renewed.is_set()
