"""Rows and conditions of calls: checked, converted and encoded."""

import datetime

import pyarrow as pa

from ._proto import data_pb2
from .errors import BadInput, NotFound, Refused

_CONTINUATION = b"\xff\xff\xff\xff"
_OPERATORS = {
    "=": data_pb2.COMPARE_OP_EQ,
    "!=": data_pb2.COMPARE_OP_NE,
    "<": data_pb2.COMPARE_OP_LT,
    "<=": data_pb2.COMPARE_OP_LE,
    ">": data_pb2.COMPARE_OP_GT,
    ">=": data_pb2.COMPARE_OP_GE,
    "in": data_pb2.COMPARE_OP_IN,
    "is null": data_pb2.COMPARE_OP_IS_NULL,
    "is not null": data_pb2.COMPARE_OP_IS_NOT_NULL,
}


def fit(info, schema, data):
    """The data as a table of exactly this schema; BadInput names what does not fit."""
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    elif not isinstance(data, pa.Table):
        if not hasattr(data, "columns"):
            raise BadInput(f"cannot write a {type(data).__name__}; pass a pyarrow Table or a pandas DataFrame")
        try:
            data = pa.Table.from_pandas(data, preserve_index=False)
        except (pa.ArrowException, TypeError) as error:
            raise BadInput(f"table {info.name!r}: {error}") from error
    missing = [name for name in schema.names if name not in data.column_names]
    extra = [name for name in data.column_names if name not in schema.names]
    if missing or extra or len(set(data.column_names)) != data.num_columns:
        parts = [f"missing columns {missing}"] if missing else []
        parts += [f"unknown columns {extra}"] if extra else []
        raise BadInput(f"table {info.name!r}: {' and '.join(parts) or 'a column appears twice'}")
    columns = []
    for wanted in schema:
        column = data.column(wanted.name)
        try:
            column = column.cast(wanted.type)
        except (pa.ArrowException, ValueError) as error:
            raise BadInput(
                f"table {info.name!r}: column {wanted.name!r} is {column.type}, expected {wanted.type}: {error}"
            ) from error
        if not wanted.nullable and column.null_count:
            raise BadInput(f"table {info.name!r}: column {wanted.name!r} must not be null, but contains nulls")
        columns.append(column)
    return pa.table(columns, schema=schema)


def key_table(info, keys):
    """Keys as a table of the key columns, from a list of dicts; other data is returned as it is."""
    if not isinstance(keys, list):
        return keys
    columns = []
    for wanted in info.key_schema:
        try:
            values = [key[wanted.name] for key in keys]
        except (KeyError, TypeError) as error:
            raise BadInput(f"each key needs the columns {info.key_names}") from error
        try:
            columns.append(pa.array(values, wanted.type))
        except (pa.ArrowException, TypeError):
            try:
                # Texts of times, dates and numbers.
                columns.append(pa.array(values).cast(wanted.type))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise BadInput(f"key column {wanted.name!r} is {wanted.type}: {error}") from error
    return pa.table(columns, schema=info.key_schema)


def column_ids(info, columns):
    """Ids of the columns of these names; of all columns when None."""
    names = info.schema.names if columns is None else list(columns)
    if not names:
        raise BadInput("name at least one column")
    try:
        return [info.column_id(name) for name in names]
    except KeyError as error:
        raise NotFound(error.args[0]) from error


def predicates(info, where):
    """Conditions in the form of the data service."""
    found = []
    for condition in where:
        name, operator, *rest = condition
        op = _OPERATORS.get(operator)
        if op is None or len(rest) != (0 if operator.startswith("is ") else 1):
            raise BadInput(f"condition {condition!r}: use (column, operator, value), operators {', '.join(_OPERATORS)}")
        values = rest[0] if operator == "in" else rest
        found.append(
            data_pb2.Predicate(
                column_id=column_ids(info, [name])[0], op=op, values=[_text(value) for value in values]
            )
        )
    return found


def _text(value):
    """A value in the canonical text of its type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return str(value)


def encode(rows):
    """One record batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return sink.getvalue().to_pybytes()


def decode(encoded):
    """The record batches of an Arrow IPC stream."""
    if not encoded.startswith(_CONTINUATION):
        raise Refused("the server is older than this client: it answers without a schema; upgrade it", "unsupported")
    with pa.ipc.open_stream(encoded) as reader:
        return list(reader)
