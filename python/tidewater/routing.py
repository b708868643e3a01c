"""Routing of calls about one table: its description, the leaders of its groups, and refreshes of the catalog."""

import random
import time

from ._proto import error_pb2
from .calls import Call
from .errors import NotFound

# Seconds after which a call is repeated although the catalog lacks the schema version of its refusal.
_SCHEMA_WAIT = 8


class Routing:
    """Finds the owners of a table's regions."""

    def __init__(self, client, name):
        self.client = client
        self.name = name

    def info(self):
        """The description of the table in the catalog as last read."""
        info = self.client.catalog().tables.get(self.name)
        if info is None:
            raise NotFound(f"there is no table {self.name!r}")
        return info

    def call(self, what):
        """Begins an operation on the table."""
        return Call(self.client, f"{what} table {self.name!r}")

    def address(self, call, group_id):
        """The address of the next attempt at the leader of a group."""
        while True:
            address = self.client.leader(group_id, call.turn)
            if address is not None and (call.turn == 0 or call.turn % 3):
                return address
            # Three nodes in turn did not answer as leader: the catalog may know more by now.
            call.turn += 1
            call.timeout()
            self.client.refresh()
            if address is None:
                call.wait()

    def refresh(self, call, attempt, route):
        """Refreshes the catalog. While a table is altered, its regions are ahead of the catalog: waits for it."""
        needed = schema_needed(attempt.detail, self.info().table_id, route.region_id)
        until = time.monotonic() + _SCHEMA_WAIT
        pause = 0.05
        while True:
            self.client.refresh()
            if self.info().schema_version >= needed or time.monotonic() >= until:
                return
            # Raises at the deadline.
            call.timeout()
            time.sleep(pause * (0.5 + random.random() / 2))
            pause = min(2 * pause, 1.0)


def schema_needed(detail, table_id, region_id):
    """The schema version that a refusal asks for; 0 when it names none, or another table or region."""
    hint = detail.catalog_hint
    if detail.reason != error_pb2.REASON_SCHEMA_VERSION_STALE:
        return 0
    if (hint.table_id, hint.region_id) != (table_id, region_id):
        return 0
    return hint.schema_version
