"""Client of the Tidewater table store: Arrow tables in, Arrow tables out.

    import tidewater
    db = tidewater.connect("127.0.0.1:7400")
    flights = db.table("flights")
    flights.write(pyarrow_table)
    flights.scan(columns=["carrier", "distance"], where=[("distance", ">", 2000)])
    flights.get([{"time_hour": "2013-01-01T10:00:00Z", "carrier": "UA", "flight": 1545}])
    with db.hold("nightly", ["flights"]) as hold:
        flights.scan(as_of=hold)
"""

from .client import Client, connect
from .errors import (
    BadInput,
    EpochBelowSince,
    EpochIncomplete,
    Error,
    Held,
    HoldExists,
    HoldLost,
    HoldNotFound,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from .holds import Hold
from .storage import Frontiers, HoldInfo
from .table import Table, WriteReport

__all__ = [
    "BadInput",
    "Client",
    "EpochBelowSince",
    "EpochIncomplete",
    "Error",
    "Frontiers",
    "Held",
    "Hold",
    "HoldExists",
    "HoldInfo",
    "HoldLost",
    "HoldNotFound",
    "NotFound",
    "OutcomeUnknown",
    "Refused",
    "Table",
    "Unavailable",
    "WriteReport",
    "connect",
]
