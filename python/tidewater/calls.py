"""Calls that are repeated until they succeed, fail for good, or reach their deadline."""

import random
import time

import grpc

from ._proto import error_pb2
from .errors import FailedAttempt, OutcomeUnknown, Unavailable, attempt_of

# Wait before the second attempt and longest wait, in seconds, before jitter.
_BACKOFF = (0.01, 0.25)
# Attempts after answers that are more likely faults than passing states.
_FEW = 5


class Call:
    """One operation: its deadline, its attempts, and whether one of them may have taken effect."""

    def __init__(self, client, what, *, seconds=None, longest=None):
        """seconds: limit of the operation, the deadline of the client when None.
        longest: limit of one attempt in seconds, that of the client when None."""
        self.client = client
        self.what = what
        self.seconds = client.deadline if seconds is None else seconds
        self.longest = client.attempt_timeout if longest is None else longest
        self.until = time.monotonic() + self.seconds
        # Begin of the last attempt at a meta node.
        self.begun = 0.0
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
        return min(left, self.longest)

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
        raise Unavailable(f"{self.what}: no success within {self.seconds:g} s{last}") from self.last


def call_meta(call, invoke, *, write):
    """Calls the meta nodes in turn, a hinted leader first, until one answers. The next call begins with that node.

    invoke: makes one attempt with a channel and a timeout in seconds.
    write: an attempt without an answer may have taken effect.
    """
    client = call.client
    while True:
        for address in call.meta_order(client.meta_addresses()):
            try:
                timeout = call.timeout()
                call.begun = time.monotonic()
                answer = invoke(client.channel(address), timeout)
            except grpc.RpcError as error:
                call.note(attempt_of(error), write=write)
            else:
                client.learn_meta(address)
                return answer
        call.wait()
