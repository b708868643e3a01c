"""Read holds against the cluster of `test_cluster.py`, which keeps no history. TIDEWATER_BIN releases holds."""

import datetime
import os
import subprocess
import time

import pytest

import tidewater
from test_cluster import pairs, refresh_mirror


def until(condition, seconds=60):
    """Repeats a check until it returns something, which is returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.1)
    return found


def listed(db, name):
    return next((hold for hold in db.holds() if hold.name == name), None)


def release_by_command(name):
    command = [os.environ["TIDEWATER_BIN"], "hold", "release", name, "--meta", os.environ["TIDEWATER_META"]]
    subprocess.run(command, check=True, capture_output=True)


def test_held_epoch_has_the_rows_before_a_change(db):
    keys, names = range(1_000), ["pairs", "spread"]
    tables = [db.table(name) for name in names]
    for table in tables:
        table.write(pairs(keys, "old"))
    old = pairs(keys, "old")
    rows = [("k", ">=", 0), ("k", "<", 1_000)]
    with db.hold("before", tables) as hold:
        for table in tables:
            # Afterwards the epoch is complete: later writes are in later epochs.
            assert table.count(rows, as_of=hold) == 1_000
            table.write(pairs(range(500), "new"))
            table.delete([{"k": key} for key in range(900, 1_000)])
        for table in tables:
            for as_of in (hold, hold.epoch):
                assert table.scan(where=rows, as_of=as_of).sort_by("k").equals(old)
                assert table.get([{"k": 7}, {"k": 950}], as_of=as_of).sort_by("k").equals(pairs([7, 950], "old"))
                assert table.count([*rows, ("v", "=", "old7")], as_of=as_of) == 1
            assert table.count(rows) == 900
            assert table.get([{"k": 7}, {"k": 950}]).to_pylist() == [{"k": 7, "v": "new7"}]
            assert table.scan(where=[("k", "=", 7)]).column("v").to_pylist() == ["new7"]
        of = db.frontiers(*tables)
        assert list(of) == names
        assert of["spread"].since == of["spread"].oldest_hold_epoch == hold.epoch < of["spread"].upper
        assert of["pairs"].oldest_hold == "before"
        assert set(names) < set(db.frontiers())


def test_downgraded_hold_keeps_later_epochs_only(db):
    table = db.table("pairs")
    with db.hold("moving", "pairs", holder="tests") as hold:
        first = hold.epoch
        info = listed(db, "moving")
        assert (info.tables, info.epoch, info.holder, info.lease) == (("pairs",), first, "tests", 60)
        assert listed(db, "moving") in db.holds("pairs")
        assert "moving" not in [other.name for other in db.holds("spread")]
        upper = until(lambda: (upper := db.frontiers("pairs")["pairs"].upper) > first and upper)
        with pytest.raises(tidewater.Refused, match="has not begun"):
            hold.downgrade(upper + (60_000 << 16))
        hold.downgrade(upper)
        assert hold.epoch == listed(db, "moving").epoch == upper
        with pytest.raises(tidewater.Refused, match="cannot move back"):
            hold.downgrade(first)

        def refused():
            try:
                table.count(as_of=first)
            except tidewater.EpochBelowSince as error:
                return error.reason

        assert until(refused) == "epoch_below_since"
        assert table.count(as_of=hold) == table.count()


def test_held_refresh_is_read_after_the_next_one(db):
    table = db.table("mirror")
    refresh_mirror({key: "first" for key in range(1_000)})
    with db.hold("refreshed", [table, "pairs"]) as hold:
        refresh_mirror({key: "second" for key in range(1, 1_001)})
        assert set(table.scan(as_of=hold).column("v").to_pylist()) == {"first"}
        assert table.get([{"k": 0}, {"k": 1_000}], as_of=hold.epoch).to_pylist() == [{"k": 0, "v": "first"}]
        assert table.count([("v", "=", "second")]) == 1_000
        with pytest.raises(tidewater.Refused, match="after its latest publication") as caught:
            table.count(as_of=2**63)
        assert caught.value.reason == "epoch_required"


def test_wrong_epochs_and_holds_have_their_errors(db):
    table = db.table("pairs")
    with pytest.raises(tidewater.EpochIncomplete):
        table.count(as_of=2**64 - 1)
    with pytest.raises(tidewater.EpochBelowSince):
        db.hold("old", "pairs", epoch=1)
    with pytest.raises(tidewater.NotFound, match="nope"):
        db.hold("other", ["pairs", "nope"])
    with pytest.raises(tidewater.NotFound, match="nope"):
        db.frontiers("nope")
    with db.hold("taken", "pairs"):
        with pytest.raises(tidewater.HoldExists, match="taken"):
            db.hold("taken", "spread")
    assert listed(db, "taken") is None
    # The name is free again.
    db.hold("taken", "spread").release()


def test_hold_outlives_its_first_lease_until_it_is_lost(db):
    table = db.table("pairs")
    with db.hold("short", table, lease=10) as hold:
        first_end = listed(db, "short").lease_end

        def cluster_time():
            info = listed(db, "short")
            return info.lease_end - datetime.timedelta(seconds=info.left)

        until(lambda: cluster_time() > first_end)
        rows = table.count()
        assert table.count(as_of=hold) == rows
        release_by_command("short")
        assert until(lambda: hold.loss) == "hold_not_found"
        for use in (lambda: table.scan(as_of=hold), lambda: hold.epoch, lambda: hold.downgrade(hold.epoch)):
            with pytest.raises(tidewater.HoldLost, match="does not exist any more"):
                use()


def test_lease_ends_after_its_client_is_closed(db):
    other = tidewater.connect(db._meta, deadline=5)
    hold = other.hold("left", "pairs", lease=10)
    other.close()
    assert until(lambda: hold.loss) == "not_renewed"
    with pytest.raises(tidewater.HoldLost, match="not renewed within its lease"):
        hold.epoch
    until(lambda: listed(db, "left") is None)
