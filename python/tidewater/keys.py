"""Row keys: the order-preserving bytes by which rows are routed.

The bytes equal those of the Rust client (`crates/common/src/keys`); a test of both compares golden values.
A key is the concatenation of its columns' values; in a table that is distributed by hash, a vnode of two
bytes precedes them: CRC-32 of the hashed columns' bytes, modulo the vnode count.
"""

import zlib

import pyarrow as pa
import pyarrow.compute as pc

_GROUP = 8


def encode_value(arrow_type, value):
    """Bytes of one value: `value` is a bool, an int (numbers, dates, times, unscaled decimals), str or bytes."""
    if pa.types.is_boolean(arrow_type):
        return b"\x01" if value else b"\x00"
    if pa.types.is_string(arrow_type):
        return _encode_bytes(value.encode())
    if pa.types.is_binary(arrow_type):
        return _encode_bytes(value)
    bits = arrow_type.bit_width
    if pa.types.is_unsigned_integer(arrow_type):
        return value.to_bytes(bits // 8, "big")
    # The sign bit is flipped, so that negative numbers come first.
    return (value + (1 << (bits - 1))).to_bytes(bits // 8, "big")


def _encode_bytes(value):
    if not value:
        return b"\x00"
    out = bytearray(b"\x01")
    for at in range(0, len(value), _GROUP):
        group = value[at : at + _GROUP]
        last = at + _GROUP >= len(value)
        out += group.ljust(_GROUP, b"\x00")
        out.append(len(group) if last else _GROUP + 1)
    return bytes(out)


def raw_values(column):
    """A column as values that `encode_value` takes."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()).to_pylist()
    if pa.types.is_date32(kind):
        return column.cast(pa.int32()).to_pylist()
    if pa.types.is_decimal(kind):
        return [int(value.scaleb(kind.scale)) for value in column.to_pylist()]
    return column.to_pylist()


class KeyCodec:
    """Builds and sorts the row keys of one table."""

    def __init__(self, key_fields, hash_positions=None, vnode_count=0):
        self.fields = key_fields
        self.hash_positions = hash_positions
        self.vnode_count = vnode_count

    def sort(self, table, key_names):
        """The table in key order; rows of equal keys keep their order. Also the vnodes, or None."""
        vnodes = self._vnodes([table.column(name) for name in key_names])
        order = [(name, "ascending") for name in key_names]
        keyed = table.append_column("__row", pa.array(range(table.num_rows), pa.int64()))
        if vnodes is not None:
            keyed = keyed.append_column("__vnode", pa.array(vnodes, pa.uint16()))
            order.insert(0, ("__vnode", "ascending"))
        indices = pc.sort_indices(keyed, sort_keys=[*order, ("__row", "ascending")])
        return table.take(indices).combine_chunks()

    def key(self, columns, row):
        """Key of one row; `columns` are the key columns in key order."""
        values = [raw_values(column.slice(row, 1))[0] for column in columns]
        encoded = [encode_value(field.type, value) for field, value in zip(self.fields, values)]
        return self._vnode_prefix(encoded) + b"".join(encoded)

    def _vnode_prefix(self, encoded):
        if self.hash_positions is None:
            return b""
        return self._vnode(encoded).to_bytes(2, "big")

    def _vnode(self, encoded):
        return zlib.crc32(b"".join(encoded[at] for at in self.hash_positions)) % self.vnode_count

    def _vnodes(self, columns):
        if self.hash_positions is None:
            return None
        raw = [raw_values(column) for column in columns]
        kinds = [field.type for field in self.fields]
        return [
            self._vnode([encode_value(kind, value) for kind, value in zip(kinds, row)])
            for row in zip(*raw)
        ]
