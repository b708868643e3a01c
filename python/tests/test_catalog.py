"""Catalogs that follow changes, without a cluster."""

import random
import types

import pytest

from tidewater._proto import catalog_pb2, error_pb2, meta_pb2, schema_pb2
from tidewater.calls import Call
from tidewater.catalog import Catalog
from tidewater.client import Client
from tidewater.errors import FailedAttempt, Refused
from tidewater.reads import Read
from tidewater.routing import Routing, schema_needed


def table(table_id, name, version=1, state=catalog_pb2.TABLE_STATE_ACTIVE):
    column = schema_pb2.Column(id=1, name="k", type="int64")
    schema = schema_pb2.TableSchema(version=version, columns=[column], primary_key=[1])
    return catalog_pb2.Table(table_id=table_id, name=name, state=state, schema=schema)


def route(route_id, table_id, start, group_id=1):
    return catalog_pb2.Route(route_id=route_id, start=table_id.to_bytes(4, "big") + start, group_id=group_id)


def node(node_id, address):
    return catalog_pb2.Node(node_id=node_id, address=address)


class Model:
    """The catalog of the meta service."""

    def __init__(self):
        self.snapshot = catalog_pb2.CatalogSnapshot(cluster_id="c", incarnation=1, revision=5, catalog_version=2)
        self.snapshot.tables.extend([table(1, "a"), table(2, "b")])
        self.snapshot.routes.extend([route(11, 1, b""), route(12, 1, b"m"), route(13, 2, b"")])
        self.snapshot.nodes.append(node(21, "one:1"))
        self.snapshot.groups.append(catalog_pb2.Group(group_id=1, leader=21, voters=[21]))

    def change(self, **changes):
        """Makes a change and returns its delta."""
        snapshot = self.snapshot
        delta = catalog_pb2.CatalogDelta(
            revision=snapshot.revision + 1, previous_catalog_version=snapshot.catalog_version, **changes
        )
        routes_change = bool(delta.route_upserts or delta.route_deletes)
        delta.catalog_version = snapshot.catalog_version + routes_change
        for records, upserts, deletes, key in (
            (snapshot.tables, delta.table_upserts, delta.table_deletes, "table_id"),
            (snapshot.routes, delta.route_upserts, delta.route_deletes, "route_id"),
            (snapshot.groups, delta.group_upserts, [], "group_id"),
            (snapshot.nodes, delta.node_upserts, delta.node_deletes, "node_id"),
        ):
            kept = {getattr(record, key): record for record in records}
            for gone in deletes:
                kept.pop(gone, None)
            kept.update({getattr(record, key): record for record in upserts})
            kept = [type(record).FromString(record.SerializeToString()) for record in kept.values()]
            del records[:]
            records.extend(kept)
        snapshot.revision, snapshot.catalog_version = delta.revision, delta.catalog_version
        return delta


def page(revision, *deltas, **more):
    return meta_pb2.GetCatalogChangesResponse(revision=revision, deltas=deltas, **more)


def described(catalog):
    tables = {
        name: (info.table_id, info.schema_version, [(r.region_id, r.group_id, r.start) for r in info.routes])
        for name, info in catalog.tables.items()
    }
    return tables, catalog.addresses, catalog.candidates(1), catalog.revision, catalog.version


def test_followed_catalog_equals_the_whole_one():
    for seed in range(50):
        chosen = random.Random(seed)
        model = Model()
        followed = first = Catalog(model.snapshot)
        before = described(first)
        dropping = catalog_pb2.TABLE_STATE_DROPPING
        changes = [
            {"table_upserts": [table(1, "a", version=2)]},
            {"table_upserts": [table(2, "b", state=dropping)], "route_deletes": [13]},
            {"table_upserts": [table(2, "b", state=dropping), table(3, "b")], "route_upserts": [route(14, 3, b"")]},
            {"table_upserts": [table(2, "b", state=dropping), table(4, "b")], "table_deletes": [3]},
            {"table_deletes": [2]},
            {"route_upserts": [route(12, 1, b"p"), route(15, 1, b"m")]},
            {"route_upserts": [route(12, 1, b"p", group_id=2)]},
            {"route_deletes": [15], "route_upserts": [route(12, 1, b"m")]},
            {"node_upserts": [node(21, "two:1"), node(22, "three:1")]},
            {"node_deletes": [22]},
            {"group_upserts": [catalog_pb2.Group(group_id=1, leader=22, voters=[21, 22])]},
        ]
        deltas = [model.change(**changes[at]) for at in sorted(chosen.sample(range(len(changes)), 8))]
        cut = chosen.randrange(9)
        for part in (deltas[:cut], deltas[cut:]):
            followed = followed.follow(page(model.snapshot.revision, *part)) if part else followed
        assert described(followed) == described(Catalog(model.snapshot)), seed
        assert described(first) == before, seed


@pytest.mark.parametrize(
    "revisions, newest, expected",
    [
        ([], 5, 5),
        ([6, 7], 7, 7),
        # More pages follow; changes that are known already.
        ([6], 9, 6),
        ([4, 5, 6], 6, 6),
        ([], 4, 5),
        # A gap, no progress, a server without the changes.
        ([7], 7, None),
        ([6, 8], 8, None),
        ([], 2**64 - 1, None),
        (None, 6, None),
    ],
)
def test_changes_without_gap_are_followed(revisions, newest, expected):
    known = Catalog(Model().snapshot)
    deltas = [
        catalog_pb2.CatalogDelta(revision=revision, previous_catalog_version=2, catalog_version=2)
        for revision in revisions or []
    ]
    followed = known.follow(page(newest, *deltas, snapshot_needed=revisions is None))
    assert (followed and followed.revision) == expected


def test_hint_counts_for_its_own_region_only():
    def needed(reason=error_pb2.REASON_SCHEMA_VERSION_STALE, **hint):
        detail = error_pb2.ErrorDetail(reason=reason, catalog_hint=error_pb2.CatalogHint(**hint))
        return schema_needed(detail, 7, 100)

    assert needed(table_id=7, region_id=100, schema_version=3) == 3
    assert needed(table_id=8, region_id=100, schema_version=3) == 0
    assert needed(table_id=7, region_id=101, schema_version=3) == 0
    assert needed() == 0
    assert needed(error_pb2.REASON_REGION_NOT_FOUND, table_id=7, region_id=100, schema_version=3) == 0


def test_read_ends_when_its_epoch_is_not_readable():
    client = Client(["127.0.0.1:1"], 5, 1)
    detail = error_pb2.ErrorDetail(
        reason=error_pb2.REASON_EPOCH_REQUIRED, retry=error_pb2.RETRY_REFRESH_CATALOG
    )
    attempt = FailedAttempt("its latest published epoch is 9", detail, False)
    with pytest.raises(Refused, match="epoch is 9") as caught:
        read = Read(Routing(client, "a"), None, 9, waits=False)
        read._failed(Call(client, "scanning"), attempt, types.SimpleNamespace(group_id=1))
    assert caught.value.reason == "epoch_required"


class Stub:
    """A meta node with scripted answers."""

    def __init__(self, *pages):
        self.pages = list(pages)
        self.asked = []

    def GetCatalogChanges(self, request, timeout):
        self.asked.append(request.revision)
        return self.pages.pop(0)


def test_pages_are_read_until_the_newest_revision():
    model = Model()
    known = Catalog(model.snapshot)
    first, second = model.change(node_deletes=[21]), model.change(table_deletes=[2])
    stub = Stub(page(7, first), page(7, second))
    client = Client(["127.0.0.1:1"], 1, 1)
    call = types.SimpleNamespace(timeout=lambda: 1)
    assert client._changed(stub, call, known).revision == 7
    assert stub.asked == [5, 6]
    endless = Stub(*(page(10_000, model.change(node_deletes=[21])) for _ in range(100)))
    assert client._changed(endless, call, Catalog(Model().snapshot)) is None
