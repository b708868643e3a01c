"""Reads of a table whose regions change between requests, without a cluster."""

import types

import grpc
import pytest

from tidewater import BadInput, EpochIncomplete, NotFound, Table
from tidewater._proto import catalog_pb2, data_pb2, error_pb2, schema_pb2, status_pb2
from tidewater.catalog import Catalog
from tidewater.holds import Hold
from tidewater.leases import Lease, Renewals

KEYS = [bytes([key]) for key in range(0, 200, 10)]


class RpcError(grpc.RpcError):
    """The error of a node."""

    def __init__(self, reason):
        detail = error_pb2.ErrorDetail(reason=reason, retry=error_pb2.RETRY_STOP)
        status = status_pb2.Status()
        status.details.add(type_url="type/tidewater.v1.ErrorDetail", value=detail.SerializeToString())
        self.metadata = [("grpc-status-details-bin", status.SerializeToString())]

    def code(self):
        return grpc.StatusCode.OUT_OF_RANGE

    def details(self):
        return "not complete"

    def trailing_metadata(self):
        return self.metadata


class Cluster:
    """A client of a cluster with a table, which counts rows with these keys."""

    def __init__(self, *starts, refreshable=False, published=0):
        self.deadline, self.attempt_timeout = 5, 1
        self.options = schema_pb2.TableOptions(refreshable=refreshable)
        self.published = published
        self.table_id = 1
        self.route(*starts)
        self.asked = []
        # Called after each scan of a region.
        self.then = []
        self.refusals = []

    def route(self, *starts):
        """Cuts the table into regions with these first keys."""
        column = schema_pb2.Column(id=1, name="k", type="binary")
        schema = schema_pb2.TableSchema(version=1, columns=[column], primary_key=[1])
        snapshot = catalog_pb2.CatalogSnapshot()
        snapshot.tables.add(
            table_id=self.table_id,
            name="t",
            state=catalog_pb2.TABLE_STATE_ACTIVE,
            schema=schema,
            options=self.options,
            published_epoch=self.published,
        )
        prefix = self.table_id.to_bytes(4, "big")
        ends = [*(prefix + start for start in starts[1:]), (self.table_id + 1).to_bytes(4, "big")]
        for number, (start, end) in enumerate(zip(starts, ends)):
            snapshot.routes.add(route_id=number + 1, start=prefix + start, end=end, group_id=1)
        self.now = Catalog(snapshot)

    def catalog(self):
        return self.now

    refresh = catalog

    def leader(self, group_id, turn):
        return "one:1"

    def learn_leader(self, group_id, address):
        pass

    def data(self, address):
        return types.SimpleNamespace(Scan=self.scan)

    def scan(self, request, timeout):
        end = request.end if request.HasField("end") else None
        self.asked.append((request.as_of if request.HasField("as_of") else None, request.start, end))
        if self.refusals:
            raise RpcError(self.refusals.pop(0))
        rows = sum(request.start <= key and (end is None or key < end) for key in KEYS)
        if self.then:
            self.then.pop(0)()
        return [data_pb2.ScanResponse(row_count=rows, done=True)]


def hold(epoch):
    return Hold(None, "h", ("t",), epoch, Renewals(lambda lease: None, Lease(60, 0), clock=lambda: 1))


def test_rows_are_counted_once_when_regions_change():
    for starts in ([b"", b"\x20", b"\x50"], [b""], [b"", b"\x10", b"\x30", b"\x50", b"\x70"], [b"", b"\x70"]):
        cluster = Cluster(b"", b"\x50")
        cluster.then = [lambda: cluster.route(*starts)]
        assert Table(cluster, "t").count(as_of=9) == len(KEYS)
        assert {epoch for epoch, _, _ in cluster.asked} == {9}
        assert cluster.asked[1][1] == b"\x50"


def test_table_that_is_created_again_ends_the_read():
    cluster = Cluster(b"", b"\x50")

    def create_again():
        cluster.table_id = 2
        cluster.route(b"", b"\x50")

    cluster.then = [create_again]
    with pytest.raises(NotFound, match="created again"):
        Table(cluster, "t").count()


def test_read_names_the_epoch_of_its_caller():
    for as_of, refreshable, expected in [
        (None, False, None),
        (9, False, 9),
        (0, False, 0),
        (hold(8), False, 8),
        (None, True, 7),
        (6, True, 6),
        (hold(8), True, 8),
    ]:
        cluster = Cluster(b"", refreshable=refreshable, published=7)
        Table(cluster, "t").count(as_of=as_of)
        assert [epoch for epoch, _, _ in cluster.asked] == [expected]


def test_table_without_refresh_is_empty():
    cluster = Cluster(b"", refreshable=True)
    assert Table(cluster, "t").count() == 0
    assert cluster.asked == []
    Table(cluster, "t").count(as_of=5)
    assert [epoch for epoch, _, _ in cluster.asked] == [5]


def test_epoch_of_a_hold_is_waited_for():
    incomplete = error_pb2.REASON_EPOCH_INCOMPLETE
    cluster = Cluster(b"")
    cluster.refusals = [incomplete] * 3
    assert Table(cluster, "t").count(as_of=hold(8)) == len(KEYS)
    assert len(cluster.asked) == 4
    cluster.refusals = [incomplete]
    with pytest.raises(EpochIncomplete, match="not complete"):
        Table(cluster, "t").count(as_of=8)
    assert len(cluster.asked) == 5


def test_wait_for_an_epoch_ends_at_the_deadline():
    cluster = Cluster(b"")
    cluster.deadline = 0.2
    cluster.refusals = [error_pb2.REASON_EPOCH_INCOMPLETE] * 100
    with pytest.raises(EpochIncomplete):
        Table(cluster, "t").count(as_of=hold(8))


def test_wrong_epochs_are_refused_before_sending():
    cluster = Cluster(b"")
    for as_of in (-1, 2**64, 1.5, "5m"):
        with pytest.raises(BadInput, match="epoch"):
            Table(cluster, "t").count(as_of=as_of)
    assert cluster.asked == []
