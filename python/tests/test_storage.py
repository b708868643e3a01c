"""Calls about holds to meta nodes of the test."""

import concurrent.futures
import datetime
import types

import grpc
import pytest

import tidewater
from tidewater import errors
from tidewater._proto import error_pb2, status_pb2, storage_pb2, storage_pb2_grpc
from tidewater.client import Client

LEASE_MS = 60_000


class Node(storage_pb2_grpc.StorageAdminServicer):
    """A meta node, whose next calls fail as scripted."""

    def __init__(self, server):
        self.failures = []
        self.requests = []
        self.pages = []
        storage_pb2_grpc.add_StorageAdminServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"

    def _record(self, request, context):
        self.requests.append(request)
        if not self.failures:
            return
        failure = self.failures.pop(0)
        if failure is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
        status = status_pb2.Status()
        status.details.add(type_url="type/tidewater.v1.ErrorDetail", value=failure.SerializeToString())
        context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
        context.abort(grpc.StatusCode.ABORTED, "refused")

    def AcquireReadHold(self, request, context):
        self._record(request, context)
        held = storage_pb2.ReadHold(name=request.name, epoch=request.epoch or 5, lease_ms=LEASE_MS)
        return storage_pb2.AcquireReadHoldResponse(hold=held)

    def DowngradeReadHold(self, request, context):
        self._record(request, context)
        return storage_pb2.DowngradeReadHoldResponse(hold=storage_pb2.ReadHold(epoch=request.epoch))

    def ReleaseReadHolds(self, request, context):
        self._record(request, context)
        return storage_pb2.ReleaseReadHoldsResponse(released=1)

    def ListReadHolds(self, request, context):
        self._record(request, context)
        return self.pages.pop(0)

    def GetCollectionFrontiers(self, request, context):
        self._record(request, context)
        of = [
            storage_pb2.CollectionFrontiers(table="t", since=3, upper=9, holds=1, least={"name": "h", "epoch": 3}),
            storage_pb2.CollectionFrontiers(table="_tw_dropped_2", dropped_name="u", capabilities=2),
        ]
        return storage_pb2.GetCollectionFrontiersResponse(collections=of)


@pytest.fixture
def cluster():
    """Two meta nodes, and a client that knows the first one."""
    servers = [grpc.server(concurrent.futures.ThreadPoolExecutor(2)) for _ in range(2)]
    first, second = (Node(server) for server in servers)
    for server in servers:
        server.start()
    with Client([first.address], 60, 20) as db:
        yield types.SimpleNamespace(db=db, first=first, second=second)
    for server in servers:
        server.stop(None)


def refusal(reason, retry=error_pb2.RETRY_STOP, **more):
    return error_pb2.ErrorDetail(reason=reason, retry=retry, **more)


def test_repeated_request_acquires_one_hold(cluster):
    cluster.first.failures = [None, None]
    hold = cluster.db.hold("h", ["t", types.SimpleNamespace(name="u")], lease=20)
    assert (hold.epoch, hold.tables) == (5, ("t", "u"))
    sent = cluster.first.requests
    assert len(sent) == 3
    assert len({request.SerializeToString() for request in sent}) == 1
    assert (sent[0].lease_ms, list(sent[0].tables)) == (20_000, ["t", "u"])
    hold.release()
    second = cluster.db.hold("h", "t", epoch=7)
    assert second.epoch == 7
    assert cluster.first.requests[-1].request_id != sent[0].request_id
    second.release()


def test_leader_is_found_and_remembered(cluster):
    not_leader = refusal(
        error_pb2.REASON_NOT_LEADER,
        error_pb2.RETRY_FIND_LEADER,
        leader_hint=error_pb2.LeaderHint(node_id=2, address=cluster.second.address),
    )
    cluster.first.failures = [not_leader]
    for _ in range(2):
        cluster.db.frontiers("t")
    assert (len(cluster.first.requests), len(cluster.second.requests)) == (1, 2)


@pytest.mark.parametrize(
    "reason, kind",
    [
        (error_pb2.REASON_EPOCH_BELOW_SINCE, errors.EpochBelowSince),
        (error_pb2.REASON_EPOCH_INCOMPLETE, errors.EpochIncomplete),
        (error_pb2.REASON_HELD, errors.Held),
        (error_pb2.REASON_HOLD_EXISTS, errors.HoldExists),
        (error_pb2.REASON_HOLD_NOT_FOUND, errors.HoldNotFound),
        (error_pb2.REASON_TABLE_NOT_FOUND, errors.NotFound),
        (error_pb2.REASON_TABLE_BUSY, errors.Refused),
        # Of a newer release.
        (9_999, errors.Refused),
    ],
)
def test_refusals_are_typed(cluster, reason, kind):
    cluster.first.failures = [refusal(reason)]
    with pytest.raises(errors.Error, match="refused") as caught:
        cluster.db.hold("h", "t")
    assert type(caught.value) is kind
    if isinstance(caught.value, errors.Refused):
        name = "reason_9999" if reason == 9_999 else error_pb2.Reason.Name(reason)[len("REASON_") :].lower()
        assert caught.value.reason == name


def test_refusal_after_a_lost_answer_leaves_the_outcome_unknown(cluster):
    cluster.first.failures = [None, refusal(error_pb2.REASON_HOLD_EXISTS)]
    with pytest.raises(errors.OutcomeUnknown, match="acquiring hold 'h'"):
        cluster.db.hold("h", "t")


def test_hold_moves_to_later_epochs(cluster):
    with cluster.db.hold("h", "t") as hold:
        hold.downgrade(8)
        assert hold.epoch == 8
        # A move with unknown outcome may have dropped rows.
        cluster.first.failures = [None, refusal(error_pb2.REASON_INTERNAL)]
        with pytest.raises(errors.OutcomeUnknown):
            hold.downgrade(9)
        assert hold.epoch == 9
        cluster.first.failures = [refusal(error_pb2.REASON_INVALID_ARGUMENT)]
        with pytest.raises(errors.Refused):
            hold.downgrade(7)
        assert hold.epoch == 9
        cluster.first.failures = [refusal(error_pb2.REASON_HOLD_NOT_FOUND)]
        with pytest.raises(errors.HoldLost) as caught:
            hold.downgrade(10)
        assert caught.value.reason == hold.loss == "hold_not_found"
    assert not any(isinstance(request, storage_pb2.ReleaseReadHoldsRequest) for request in cluster.first.requests)


def test_released_hold_is_not_used(cluster):
    with cluster.db.hold("h", "t") as hold:
        pass
    for use in (lambda: hold.epoch, lambda: hold.downgrade(8)):
        with pytest.raises(errors.HoldLost, match="it was released") as caught:
            use()
        assert caught.value.reason == "released"
    released = len(cluster.first.requests)
    hold.release()
    assert len(cluster.first.requests) == released == 2


def test_failed_release_is_repeated_by_another_call(cluster):
    hold = cluster.db.hold("h", "t")
    cluster.first.failures = [refusal(error_pb2.REASON_HELD)]
    with pytest.raises(errors.Held):
        hold.release()
    with pytest.raises(errors.HoldLost):
        hold.epoch
    hold.release()
    assert [list(request.names) for request in cluster.first.requests[1:]] == [["h"], ["h"]]


def test_error_of_the_body_precedes_that_of_the_release(cluster):
    with pytest.raises(KeyError):
        with cluster.db.hold("h", "t"):
            cluster.first.failures = [refusal(error_pb2.REASON_HELD)]
            raise KeyError("body")


def test_holds_of_all_pages_are_listed(cluster):
    def listed(name, **more):
        hold = storage_pb2.ReadHold(name=name, epoch=4, acquired_ms=1_500, **more)
        return storage_pb2.ListedHold(hold=hold, tables=["t"], left_ms=30_500)

    def page(*holds, more):
        return storage_pb2.ListReadHoldsResponse(holds=holds, more=more)

    never = 2**64 - 1
    first, last = listed("a", lease_ms=60_000, lease_end_ms=61_500), listed("b", lease_ms=never, lease_end_ms=never)
    # The third page does not advance.
    cluster.first.pages = [page(first, more=True), page(last, more=True), page(last, more=True)]
    one, other = cluster.db.holds("t")
    assert (one.name, one.tables, one.epoch, one.lease, one.left) == ("a", ("t",), 4, 60, 30.5)
    assert one.lease_end - one.acquired == datetime.timedelta(minutes=1)
    assert (other.name, other.lease, other.left, other.lease_end) == ("b", None, None, None)
    assert [(request.table, request.after) for request in cluster.first.requests] == [("t", ""), ("t", "a"), ("t", "b")]


def test_frontiers_are_returned_by_name(cluster):
    found = cluster.db.frontiers("t", types.SimpleNamespace(name="_tw_dropped_2"))
    assert list(cluster.first.requests[0].tables) == ["t", "_tw_dropped_2"]
    assert found["t"] == tidewater.Frontiers("t", 3, 9, 1, "h", 3, 0, None)
    assert found["_tw_dropped_2"].dropped_name == "u"
    assert found["_tw_dropped_2"].oldest_hold is None


def test_wrong_holds_are_refused_before_sending(cluster):
    for arguments in ({"lease": 9.9}, {"lease": 2_592_001}, {"epoch": -1}, {"epoch": 2.5}, {"tables": [7]}):
        with pytest.raises(errors.BadInput):
            cluster.db.hold(**{"name": "h", "tables": "t", **arguments})
    assert cluster.first.requests == []
