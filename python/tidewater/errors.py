"""Errors of the client, and what a failed call means for its caller."""

import grpc

from ._proto import error_pb2, status_pb2


class Error(Exception):
    """Base of all errors of this package."""


class BadInput(Error, ValueError):
    """The arguments do not fit the table or the call; nothing was sent."""


class NotFound(Error, LookupError):
    """There is no table or column of that name."""


class HoldNotFound(NotFound):
    """There is no hold of that name: it was released, or its lease has expired."""


class HoldLost(Error):
    """The tables of a hold may not be readable as of its epoch any more. Rows that were read before are right.

    reason: `hold_not_found` (the cluster has no such hold), `not_renewed` (no renewal has succeeded within the lease),
    or `released` (by this program).
    """

    def __init__(self, message, reason):
        super().__init__(message)
        self.reason = reason


class Refused(Error):
    """The cluster refused the call. The call has not taken effect."""

    def __init__(self, message, reason):
        super().__init__(message)
        self.reason = reason


class EpochBelowSince(Refused):
    """Rows of the epoch may have been dropped: read or hold a later one."""


class EpochIncomplete(Refused):
    """Rows may still be written in the epoch. One that has begun is complete about a second later."""


class Held(Refused):
    """A read hold, a capability or an export does not permit the call."""


class HoldExists(Refused):
    """Another hold has the name."""


class Unavailable(Error):
    """The deadline passed before the call succeeded. The call has not taken effect."""


class OutcomeUnknown(Error):
    """The deadline passed and an attempt may have taken effect. Repeating the write as a whole is
    safe for tables with upsert semantics."""


# Errors by reason; others are Refused.
_NOT_FOUND = {"table_not_found": NotFound, "region_not_found": NotFound, "hold_not_found": HoldNotFound}
_REFUSED = {
    "epoch_below_since": EpochBelowSince,
    "epoch_incomplete": EpochIncomplete,
    "held": Held,
    "hold_exists": HoldExists,
}


class FailedAttempt(Exception):
    """One attempt of a call that failed, with the server's advice. Not raised to callers."""

    def __init__(self, message, detail, maybe_done):
        super().__init__(message)
        self.detail = detail
        self.maybe_done = maybe_done

    @property
    def retry(self):
        """What to do next, as the server's `Retry` enum says."""
        return self.detail.retry

    @property
    def reason(self):
        """The reason in lower case; `reason_N` for one of a newer release."""
        if self.detail.reason not in error_pb2.Reason.values():
            return f"reason_{self.detail.reason}"
        return error_pb2.Reason.Name(self.detail.reason).removeprefix("REASON_").lower()

    def error(self):
        """The error for the caller when no further attempt is made."""
        if kind := _NOT_FOUND.get(self.reason):
            return kind(str(self))
        return _REFUSED.get(self.reason, Refused)(str(self), self.reason)


def attempt_of(rpc_error):
    """Reads a gRPC error. One without Tidewater's detail came from the transport."""
    code, message = rpc_error.code(), rpc_error.details() or ""
    for key, value in rpc_error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for any_detail in status_pb2.Status.FromString(value).details:
            if any_detail.type_url.endswith("/tidewater.v1.ErrorDetail"):
                detail = error_pb2.ErrorDetail.FromString(any_detail.value)
                return FailedAttempt(message, detail, detail.maybe_applied)
    detail = error_pb2.ErrorDetail(retry=error_pb2.RETRY_FIND_LEADER)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        detail = error_pb2.ErrorDetail(reason=error_pb2.REASON_UNSUPPORTED, retry=error_pb2.RETRY_STOP)
        return FailedAttempt(f"the server does not support this call: {message}", detail, False)
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        detail = error_pb2.ErrorDetail(reason=error_pb2.REASON_INVALID_ARGUMENT, retry=error_pb2.RETRY_STOP)
        return FailedAttempt(message, detail, False)
    detail.reason = error_pb2.REASON_UNAVAILABLE
    return FailedAttempt(f"{code.name.lower()}: {message}", detail, True)
