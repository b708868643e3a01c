"""Against a cluster with the tables `pairs` (k int64, v utf8; key k), `spread` (the same columns, distributed by
hash over several regions), `log` (append-only, n int64; key n) and the refreshable table `mirror` (the columns of
`pairs`, in two regions). TIDEWATER_BIN refreshes it from the CSV objects in TIDEWATER_SOURCE."""

import concurrent.futures
import datetime
import os
import pathlib
import socket
import subprocess

import grpc
import pyarrow as pa
import pytest

import tidewater
from tidewater._proto import data_pb2


PAIRS = pa.schema([pa.field("k", pa.int64(), nullable=False), pa.field("v", pa.string())])


def pairs(keys, text="v"):
    return pa.table({"k": list(keys), "v": [f"{text}{key}" for key in keys]}, schema=PAIRS)


@pytest.mark.parametrize("name", ["pairs", "spread"])
def test_rows_come_back(db, name):
    table = db.table(name)
    assert table.write(pairs(range(10_000))).rows == 10_000
    back = table.scan().sort_by("k")
    assert back.equals(pairs(range(10_000)))
    assert table.count() == 10_000
    found = table.get([{"k": 17}, {"k": 9_999}, {"k": 70_000}]).sort_by("k")
    assert found.equals(pairs([17, 9_999]))
    table.write(pairs([17], "new"))
    assert table.get([{"k": 17}]).to_pylist() == [{"k": 17, "v": "new17"}]
    table.delete([{"k": 17}])
    assert table.get([{"k": 17}]).num_rows == 0
    table.write(pairs([17]))


def test_scans_filter_project_and_limit(db):
    table = db.table("pairs")
    table.write(pairs(range(10_000)))
    narrow = table.scan(columns=["v"], where=[("k", ">=", 10), ("k", "<", 13)])
    assert narrow.to_pydict() == {"v": ["v10", "v11", "v12"]}
    assert table.scan(limit=5).num_rows == 5
    assert table.scan(where=[("v", "in", ["v1", "v2"])]).num_rows == 2
    assert table.count(where=[("v", "is null")]) == 0
    assert table.scan(where=[("k", "<", 0)]).schema == table.schema


def test_dataframes_are_written(db):
    pandas = pytest.importorskip("pandas")
    table = db.table("pairs")
    table.write(pandas.DataFrame({"v": ["pandas"], "k": [123_456]}))
    assert table.get([{"k": 123_456}]).to_pylist() == [{"k": 123_456, "v": "pandas"}]
    table.delete(pandas.DataFrame({"k": [123_456]}))


def test_threads_share_a_table(db):
    table = db.table("log")
    before = table.count()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        rows = [pa.table({"n": list(range(100))}) for _ in range(20)]
        assert sum(report.rows for report in pool.map(table.write, rows)) == 2_000
    assert table.count() == before + 2_000


@pytest.mark.parametrize(
    "data, words",
    [
        (pa.table({"k": [1]}), "missing columns ['v']"),
        (pa.table({"k": [1], "v": ["a"], "w": [1]}), "unknown columns ['w']"),
        (pa.table({"k": ["one"], "v": ["a"]}), "column 'k' is string, expected int64"),
        (pa.table({"k": [None], "v": ["a"]}, schema=pa.schema([("k", pa.int64()), ("v", pa.string())])), "'k' must not be null"),
        (pa.table({"k": [[1]], "v": ["a"]}), "column 'k'"),
        ([1, 2], "pass a pyarrow Table"),
    ],
)
def test_wrong_rows_are_refused_before_sending(db, data, words):
    with pytest.raises(tidewater.BadInput) as raised:
        db.table("pairs").write(data)
    assert words in str(raised.value)


def test_wrong_conditions_and_keys_are_refused(db):
    table = db.table("pairs")
    for where in ([("k", "like", 1)], [("k", "is null", 1)], [("k", "=")]):
        with pytest.raises(tidewater.BadInput):
            table.scan(where=where)
    with pytest.raises(tidewater.NotFound, match="it has k, v"):
        table.scan(columns=["x"])
    with pytest.raises(tidewater.Refused, match="k"):
        table.scan(where=[("k", "=", "many")])
    with pytest.raises(tidewater.BadInput):
        table.get([{"v": "a"}])
    with pytest.raises(tidewater.BadInput):
        table.get([{"k": datetime.date(2013, 1, 1)}])
    with pytest.raises(tidewater.NotFound, match="nope"):
        db.table("nope")


def refresh_mirror(rows):
    lines = "".join(f"{key},{text}\n" for key, text in rows.items())
    pathlib.Path(os.environ["TIDEWATER_SOURCE"], "rows.csv").write_text(f"k,v\n{lines}")
    command = [os.environ["TIDEWATER_BIN"], "refresh", "start", "mirror", "--meta", os.environ["TIDEWATER_META"]]
    subprocess.run(command, check=True, capture_output=True)


def test_refreshable_table_is_read_as_of_its_last_refresh(db):
    table = db.table("mirror")
    assert (table.count(), table.scan().num_rows, table.get([{"k": 1}]).num_rows) == (0, 0, 0)
    for text in ("first", "second"):
        rows = {key: f"{text} {key}" for key in range(1_000)}
        refresh_mirror(rows)
        found = table.scan(limit=2_000).to_pylist()
        assert {row["k"]: row["v"] for row in found} == rows
        assert table.count([("v", "=", f"{text} 7")]) == 1
        assert table.get([{"k": 7}, {"k": 5_000}]).to_pylist() == [{"k": 7, "v": f"{text} 7"}]
    for change in (lambda: table.write(pairs([1])), lambda: table.delete([{"k": 1}])):
        with pytest.raises(tidewater.Refused, match="mirrors a source"):
            change()
    assert table.count() == 1_000


def test_closed_clients_refuse_calls(db):
    other = tidewater.connect(db._meta, deadline=2)
    table = other.table("pairs")
    other.close()
    with pytest.raises(tidewater.Unavailable, match="closed"):
        table.count()


def test_unreachable_clusters_are_unavailable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(tidewater.Unavailable, match="reading the catalog"):
            tidewater.connect(address, deadline=1)


def test_servers_of_another_version_are_named(db, monkeypatch):
    """A server that has no Tidewater service, and one that answers without a schema."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(tidewater.Refused, match="does not support"):
            tidewater.connect(f"127.0.0.1:{port}", deadline=5)
    finally:
        server.stop(None)
    # An older release ignores the format that the request names.
    monkeypatch.setattr(data_pb2, "ROWS_FORMAT_STREAM", data_pb2.ROWS_FORMAT_BATCH)
    with pytest.raises(tidewater.Refused, match="older than this client"):
        db.table("pairs").scan(limit=1)
