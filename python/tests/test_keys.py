"""Golden row keys; `crates/common/src/keys/tests.rs` has the same values."""

import datetime
import decimal

import pyarrow as pa
import pytest

from tidewater.catalog import arrow_type
from tidewater.keys import KeyCodec, encode_value, raw_values

GOLDEN = [
    (pa.bool_(), True, "01"),
    (pa.int8(), -1, "7f"),
    (pa.int16(), 1, "8001"),
    (pa.int32(), -2, "7ffffffe"),
    (pa.int64(), 258, "8000000000000102"),
    (pa.uint8(), 200, "c8"),
    (pa.uint16(), 513, "0201"),
    (pa.uint32(), 7, "00000007"),
    (pa.uint64(), 2**64 - 1, "ffffffffffffffff"),
    (pa.date32(), datetime.date(2013, 1, 1), "80003d5a"),
    (pa.string(), "", "00"),
]


@pytest.mark.parametrize("kind, value, expected", GOLDEN)
def test_values_encode_to_golden_bytes(kind, value, expected):
    (raw,) = raw_values(pa.chunked_array([pa.array([value], kind)]))
    assert encode_value(kind, raw).hex() == expected


def test_decimals_encode_unscaled():
    kind = pa.decimal128(10, 2)
    (raw,) = raw_values(pa.chunked_array([pa.array([decimal.Decimal("-1.50")], kind)]))
    assert raw == -150


@pytest.mark.parametrize(
    "kind, values",
    [
        (pa.string(), ["", "a", "a\0", "abcdefgh", "abcdefghi", "b", "é"]),
        (pa.binary(), [b"", b"\0", b"\0\0", b"\xff" * 8, b"\xff" * 9]),
        (pa.int64(), [-(2**63), -1, 0, 1, 2**63 - 1]),
        (pa.bool_(), [False, True]),
    ],
)
def test_bytes_order_like_values(kind, values):
    encoded = [encode_value(kind, value) for value in values]
    assert encoded == sorted(encoded)


def test_sort_keeps_the_order_of_equal_keys():
    codec = KeyCodec([pa.field("k", pa.int64())])
    rows = pa.table({"k": [2, 1, 2, 1], "v": ["a", "b", "c", "d"]})
    assert codec.sort(rows, ["k"]).column("v").to_pylist() == ["b", "d", "a", "c"]


def test_hashed_rows_sort_by_vnode_first():
    codec = KeyCodec([pa.field("k", pa.int64())], [0], 16)
    rows = codec.sort(pa.table({"k": list(range(100))}), ["k"])
    columns = [rows.column("k")]
    keys = [codec.key(columns, row) for row in range(100)]
    assert keys == sorted(keys)


def test_column_types_have_arrow_types():
    assert arrow_type("timestamp(us, Europe/Berlin)") == pa.timestamp("us", "Europe/Berlin")
    assert arrow_type("decimal128(12, 3)") == pa.decimal128(12, 3)
    with pytest.raises(ValueError, match="upgrade"):
        arrow_type("tensor")
