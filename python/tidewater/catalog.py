"""The routing information of the catalog at one revision."""

import bisect
import re

import pyarrow as pa

from ._proto import catalog_pb2, schema_pb2
from .keys import KeyCodec

_SIMPLE = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "utf8": pa.string(),
    "binary": pa.binary(),
    "date32": pa.date32(),
}


def arrow_type(text):
    """The Arrow type of a column type's canonical text."""
    if text in _SIMPLE:
        return _SIMPLE[text]
    if match := re.fullmatch(r"timestamp\((s|ms|us|ns)(?:, *(.+))?\)", text):
        return pa.timestamp(match[1], tz=match[2])
    if match := re.fullmatch(r"decimal128\((\d+), *(-?\d+)\)", text):
        return pa.decimal128(int(match[1]), int(match[2]))
    raise ValueError(f"the column type {text!r} is unknown to this release of the client; upgrade it")


class Route:
    """A region of a table: its range of row keys and the group that serves it."""

    def __init__(self, wire):
        # The table id precedes the row key.
        self.region_id = wire.route_id
        self.group_id = wire.group_id
        self.start = wire.start[4:]
        self.global_end = wire.end if wire.HasField("end") else None

    def end(self, table_id):
        """First row key after the range; None when the region is the table's last."""
        prefix = table_id.to_bytes(4, "big")
        if self.global_end is None or not self.global_end.startswith(prefix):
            return None
        return self.global_end[4:] or None


class TableInfo:
    """Schema, keys and routes of one table."""

    def __init__(self, wire, routes):
        self.table_id = wire.table_id
        self.name = wire.name
        self.schema_version = wire.schema.version
        self.columns = list(wire.schema.columns)
        self.by_id = {column.id: column for column in self.columns}
        fields = {
            column.id: pa.field(column.name, arrow_type(column.type), nullable=column.nullable)
            for column in self.columns
        }
        self.schema = pa.schema([fields[column.id] for column in self.columns])
        self.key_names = [self.by_id[key].name for key in wire.schema.primary_key]
        self.key_schema = pa.schema([fields[key] for key in wire.schema.primary_key])
        self.refreshable = wire.options.refreshable
        # Epoch as of which a refreshable table is read; 0: it is empty.
        self.published_epoch = wire.published_epoch
        self.append_only = wire.options.write_mode == schema_pb2.WRITE_MODE_APPEND_ONLY
        hashed, vnodes = None, 0
        if wire.options.HasField("hash"):
            keys = list(wire.schema.primary_key)
            hashed = [keys.index(column) for column in wire.options.hash.columns]
            vnodes = wire.options.hash.vnode_count
        self.codec = KeyCodec(list(self.key_schema), hashed, vnodes)
        self.routes = sorted((Route(route) for route in routes), key=lambda route: route.start)
        self._starts = [route.start for route in self.routes]

    @property
    def is_empty(self):
        """Whether the table is refreshable and was never refreshed."""
        return self.refreshable and self.published_epoch == 0

    @property
    def as_of(self):
        """The epoch that reads name; None: they read the newest rows."""
        return self.published_epoch if self.refreshable else None

    def column_id(self, name):
        """The id of a column; KeyError with the known names when there is none."""
        for column in self.columns:
            if column.name == name:
                return column.id
        known = ", ".join(column.name for column in self.columns)
        raise KeyError(f"table {self.name!r} has no column {name!r}; it has {known}")

    def route_for(self, key):
        """The route of a row key, None when the table has none for it."""
        at = bisect.bisect_right(self._starts, key) - 1
        return self.routes[at] if at >= 0 else None


class Catalog:
    """Tables by name, and addresses of groups' leaders. Never changed once it is built."""

    def __init__(self, snapshot):
        self.cluster_id = snapshot.cluster_id
        self.incarnation = snapshot.incarnation
        self.revision = snapshot.revision
        self.version = snapshot.catalog_version
        self.tables = {}
        self.addresses = {node.node_id: node.address for node in snapshot.nodes}
        self.groups = {group.group_id: group for group in snapshot.groups}
        self._tables = {table.table_id: table for table in snapshot.tables}
        # Routes by table, then by region.
        self._routes = {}
        self._table_of = {}
        for route in snapshot.routes:
            self._put_route(route)
        for table in snapshot.tables:
            self._show(table.table_id)

    def follow(self, page):
        """The catalog after a page of changes; None when the whole catalog has to be read."""
        if page.snapshot_needed:
            return None
        following = self._copy()
        touched = set()
        for delta in page.deltas:
            if delta.revision <= following.revision:
                continue
            if (delta.revision, delta.previous_catalog_version) != (following.revision + 1, following.version):
                return None
            touched |= following._apply(delta)
        if following.revision == self.revision and page.revision > self.revision:
            # The next page would be the same.
            return None
        for table_id in touched:
            following._show(table_id)
        return following

    def _copy(self):
        copied = object.__new__(Catalog)
        copied.__dict__ = dict(self.__dict__)
        for name in ("tables", "addresses", "groups", "_tables", "_routes", "_table_of"):
            setattr(copied, name, dict(getattr(self, name)))
        return copied

    def _apply(self, delta):
        """Applies a change and returns the ids of the tables that it touches."""
        touched = set(delta.table_deletes)
        for table_id in delta.table_deletes:
            self._hide(table_id)
            self._tables.pop(table_id, None)
        for table in delta.table_upserts:
            self._hide(table.table_id)
            self._tables[table.table_id] = table
            touched.add(table.table_id)
        for region in [*delta.route_deletes, *(route.route_id for route in delta.route_upserts)]:
            table_id = self._table_of.pop(region, None)
            if table_id is not None:
                # Earlier catalogs share the routes of a table.
                self._routes[table_id] = {key: route for key, route in self._routes[table_id].items() if key != region}
                touched.add(table_id)
        for route in delta.route_upserts:
            touched.add(self._put_route(route, shared=True))
        for node_id in delta.node_deletes:
            self.addresses.pop(node_id, None)
        self.addresses.update({node.node_id: node.address for node in delta.node_upserts})
        self.groups.update({group.group_id: group for group in delta.group_upserts})
        self.revision, self.version = delta.revision, delta.catalog_version
        return touched

    def _put_route(self, route, shared=False):
        table_id = int.from_bytes(route.start[:4], "big")
        routes = self._routes.get(table_id, {})
        self._routes[table_id] = routes = dict(routes) if shared else routes
        routes[route.route_id] = route
        self._table_of[route.route_id] = table_id
        return table_id

    def _hide(self, table_id):
        """Removes the name of a table, unless a later table has it."""
        wire = self._tables.get(table_id)
        if wire is not None and wire.name in self.tables and self.tables[wire.name].table_id == table_id:
            del self.tables[wire.name]

    def _show(self, table_id):
        """Describes an active table by its present columns and routes."""
        wire = self._tables.get(table_id)
        if wire is not None and wire.state == catalog_pb2.TABLE_STATE_ACTIVE:
            self.tables[wire.name] = TableInfo(wire, self._routes.get(table_id, {}).values())

    def candidates(self, group_id):
        """Addresses of a group's nodes, the last known leader first."""
        group = self.groups.get(group_id)
        if group is None:
            return []
        nodes = [group.leader, *group.voters, *group.first_members]
        ordered = dict.fromkeys(node for node in nodes if node)
        return [self.addresses[node] for node in ordered if node in self.addresses]
