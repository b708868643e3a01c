"""Pieces of rows: each is in one region, in key order."""

from dataclasses import dataclass

import pyarrow as pa

from .errors import Refused

_PIECE_ROWS = 50_000
_PIECE_BYTES = 4 << 20


@dataclass
class Piece:
    """Rows of one region, in key order."""

    rows: pa.Table
    first_key: bytes
    last_key: bytes


def piece_rows(rows):
    """Rows of a piece at most, so that its size is limited."""
    per_row = max(1, rows.nbytes // max(1, rows.num_rows))
    return max(1, min(_PIECE_ROWS, _PIECE_BYTES // per_row))


def cut(info, ordered, most):
    """Cuts rows in key order along the routes, and into pieces of at most `most` rows."""
    columns = [ordered.column(name) for name in info.key_names]
    pieces, at = [], 0
    while at < ordered.num_rows:
        first = info.codec.key(columns, at)
        route = info.route_for(first)
        if route is None:
            raise Refused(f"table {info.name!r} has no route for some keys", "region_not_found")
        end = _first_at_or_above(info, columns, at, ordered.num_rows, route.end(info.table_id))
        while at < end:
            to = min(end, at + most)
            rows = ordered.slice(at, to - at)
            pieces.append(Piece(rows, info.codec.key(columns, at), info.codec.key(columns, to - 1)))
            at = to
    return pieces


def _first_at_or_above(info, columns, low, high, bound):
    if bound is None:
        return high
    while low < high:
        middle = (low + high) // 2
        if info.codec.key(columns, middle) < bound:
            low = middle + 1
        else:
            high = middle
    return low
