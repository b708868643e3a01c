//! Builder of one column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, PrimitiveBuilder,
    StringBuilder, TimestampMicrosecondBuilder, TimestampMillisecondBuilder,
    TimestampNanosecondBuilder, TimestampSecondBuilder,
};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use tidewater_common::schema::ColumnType;

use super::cell_error::{CellError, ParseError};
use super::{decimal, number, time};

/// Builds an array from texts.
#[derive(Debug)]
pub(crate) struct ColumnBuilder {
    data_type: ColumnType,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBuilder),
    Int8(PrimitiveBuilder<Int8Type>),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    UInt8(PrimitiveBuilder<UInt8Type>),
    UInt16(PrimitiveBuilder<UInt16Type>),
    UInt32(PrimitiveBuilder<UInt32Type>),
    UInt64(PrimitiveBuilder<UInt64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Utf8(StringBuilder),
    /// The vector is scratch space for one value.
    Binary(BinaryBuilder, Vec<u8>),
    Date32(Date32Builder),
    Seconds(TimestampSecondBuilder),
    Millis(TimestampMillisecondBuilder),
    Micros(TimestampMicrosecondBuilder),
    Nanos(TimestampNanosecondBuilder),
    Decimal(Decimal128Builder, u8, i8),
}

impl ColumnBuilder {
    /// Creates an empty column with capacity for `rows`.
    pub(crate) fn new(data_type: &ColumnType, rows: usize) -> Self {
        Self { data_type: data_type.clone(), values: empty(data_type, rows) }
    }

    /// Returns true if the column stores texts unchanged, so that an empty text is a value.
    pub(crate) fn keeps_text(&self) -> bool {
        matches!(self.values, Values::Utf8(_))
    }

    /// Appends one value. Appends nothing on an error.
    pub(crate) fn append_text(&mut self, text: &str) -> Result<(), CellError> {
        let trimmed = text.trim_ascii();
        let appended = match &mut self.values {
            Values::Utf8(builder) => {
                builder.append_value(text);
                Ok(())
            }
            Values::Bool(builder) => number::boolean(trimmed).map(|v| builder.append_value(v)),
            Values::Int8(builder) => number::integer(trimmed).map(|v| builder.append_value(v)),
            Values::Int16(builder) => number::integer(trimmed).map(|v| builder.append_value(v)),
            Values::Int32(builder) => number::integer(trimmed).map(|v| builder.append_value(v)),
            Values::Int64(builder) => number::integer(trimmed).map(|v| builder.append_value(v)),
            Values::UInt8(builder) => number::integer(trimmed).map(|v| builder.append_value(v)),
            Values::UInt16(builder) => number::integer(trimmed).map(|v| builder.append_value(v)),
            Values::UInt32(builder) => number::integer(trimmed).map(|v| builder.append_value(v)),
            Values::UInt64(builder) => number::integer(trimmed).map(|v| builder.append_value(v)),
            Values::Float32(builder) => number::float32(trimmed).map(|v| builder.append_value(v)),
            Values::Float64(builder) => number::float64(trimmed).map(|v| builder.append_value(v)),
            Values::Binary(builder, scratch) => {
                number::hexadecimal(trimmed, scratch).map(|()| builder.append_value(&scratch))
            }
            Values::Date32(builder) => time::date(trimmed).map(|v| builder.append_value(v)),
            Values::Seconds(builder) => {
                time::timestamp(trimmed, TimeUnit::Second).map(|v| builder.append_value(v))
            }
            Values::Millis(builder) => {
                time::timestamp(trimmed, TimeUnit::Millisecond).map(|v| builder.append_value(v))
            }
            Values::Micros(builder) => {
                time::timestamp(trimmed, TimeUnit::Microsecond).map(|v| builder.append_value(v))
            }
            Values::Nanos(builder) => {
                time::timestamp(trimmed, TimeUnit::Nanosecond).map(|v| builder.append_value(v))
            }
            Values::Decimal(builder, precision, scale) => {
                decimal::decimal(trimmed, *precision, *scale).map(|v| builder.append_value(v))
            }
        };
        appended.map_err(|error: ParseError| CellError::value(text, &self.data_type, error))
    }

    /// Appends a null, even if the column is not null: [`RowsBuilder`](super::rows::RowsBuilder) removes
    /// such rows before the array is used.
    pub(crate) fn append_null(&mut self) {
        match &mut self.values {
            Values::Bool(builder) => builder.append_null(),
            Values::Int8(builder) => builder.append_null(),
            Values::Int16(builder) => builder.append_null(),
            Values::Int32(builder) => builder.append_null(),
            Values::Int64(builder) => builder.append_null(),
            Values::UInt8(builder) => builder.append_null(),
            Values::UInt16(builder) => builder.append_null(),
            Values::UInt32(builder) => builder.append_null(),
            Values::UInt64(builder) => builder.append_null(),
            Values::Float32(builder) => builder.append_null(),
            Values::Float64(builder) => builder.append_null(),
            Values::Utf8(builder) => builder.append_null(),
            Values::Binary(builder, _) => builder.append_null(),
            Values::Date32(builder) => builder.append_null(),
            Values::Seconds(builder) => builder.append_null(),
            Values::Millis(builder) => builder.append_null(),
            Values::Micros(builder) => builder.append_null(),
            Values::Nanos(builder) => builder.append_null(),
            Values::Decimal(builder, ..) => builder.append_null(),
        }
    }

    /// Returns the array of all values and empties the builder.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Int8(builder) => Arc::new(builder.finish()),
            Values::Int16(builder) => Arc::new(builder.finish()),
            Values::Int32(builder) => Arc::new(builder.finish()),
            Values::Int64(builder) => Arc::new(builder.finish()),
            Values::UInt8(builder) => Arc::new(builder.finish()),
            Values::UInt16(builder) => Arc::new(builder.finish()),
            Values::UInt32(builder) => Arc::new(builder.finish()),
            Values::UInt64(builder) => Arc::new(builder.finish()),
            Values::Float32(builder) => Arc::new(builder.finish()),
            Values::Float64(builder) => Arc::new(builder.finish()),
            Values::Utf8(builder) => Arc::new(builder.finish()),
            Values::Binary(builder, _) => Arc::new(builder.finish()),
            Values::Date32(builder) => Arc::new(builder.finish()),
            Values::Seconds(builder) => Arc::new(builder.finish()),
            Values::Millis(builder) => Arc::new(builder.finish()),
            Values::Micros(builder) => Arc::new(builder.finish()),
            Values::Nanos(builder) => Arc::new(builder.finish()),
            Values::Decimal(builder, ..) => Arc::new(builder.finish()),
        }
    }
}

fn empty(data_type: &ColumnType, rows: usize) -> Values {
    let arrow: DataType = data_type.arrow();
    match data_type {
        ColumnType::Bool => Values::Bool(BooleanBuilder::with_capacity(rows)),
        ColumnType::Int8 => Values::Int8(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::Int16 => Values::Int16(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::Int32 => Values::Int32(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::Int64 => Values::Int64(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::UInt8 => Values::UInt8(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::UInt16 => Values::UInt16(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::UInt32 => Values::UInt32(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::UInt64 => Values::UInt64(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::Float32 => Values::Float32(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::Float64 => Values::Float64(PrimitiveBuilder::with_capacity(rows)),
        ColumnType::Utf8 => Values::Utf8(StringBuilder::with_capacity(rows, rows * 8)),
        ColumnType::Binary => {
            Values::Binary(BinaryBuilder::with_capacity(rows, rows * 8), Vec::new())
        }
        ColumnType::Date32 => Values::Date32(Date32Builder::with_capacity(rows)),
        ColumnType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => {
                Values::Seconds(TimestampSecondBuilder::with_capacity(rows).with_data_type(arrow))
            }
            TimeUnit::Millisecond => Values::Millis(
                TimestampMillisecondBuilder::with_capacity(rows).with_data_type(arrow),
            ),
            TimeUnit::Microsecond => Values::Micros(
                TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(arrow),
            ),
            TimeUnit::Nanosecond => {
                Values::Nanos(TimestampNanosecondBuilder::with_capacity(rows).with_data_type(arrow))
            }
        },
        ColumnType::Decimal128(precision, scale) => Values::Decimal(
            Decimal128Builder::with_capacity(rows).with_data_type(arrow),
            *precision,
            *scale,
        ),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use arrow::util::display::array_value_to_string;

    use super::*;

    const ALL: [(&str, &str, &str, &str); 20] = [
        // type, a value, its display text, an invalid text
        ("bool", "true", "true", "maybe"),
        ("int8", "-128", "-128", "128"),
        ("int16", "-32768", "-32768", "32768"),
        ("int32", "2147483647", "2147483647", "2147483648"),
        ("int64", " 42 ", "42", "4 2"),
        ("uint8", "255", "255", "-1"),
        ("uint16", "65535", "65535", "65536"),
        ("uint32", "4294967295", "4294967295", "x"),
        ("uint64", "18446744073709551615", "18446744073709551615", "18446744073709551616"),
        ("float32", "1.5", "1.5", "1e99"),
        ("float64", "-2.25", "-2.25", "1.2.3"),
        ("binary", "0x00ff", "00ff", "xyz"),
        ("date32", "2013-01-01", "2013-01-01", "2013-02-30"),
        ("timestamp(s)", "2013-01-01 10:00:00", "2013-01-01T10:00:00", "yesterday"),
        ("timestamp(ms)", "2013-01-01", "2013-01-01T00:00:00", "2013"),
        ("timestamp(us)", "2013-01-01T00:00Z", "2013-01-01T00:00:00", "10:00"),
        ("timestamp(ns)", "2013-01-01", "2013-01-01T00:00:00", "3000-01-01"),
        ("timestamp(ms, +00:00)", "2013-01-01T01:00:00+01:00", "2013-01-01T00:00:00Z", ""),
        ("decimal128(10, 2)", "12.5", "12.50", "12.555"),
        ("decimal128(38, 0)", "7", "7", "7.5"),
    ];

    #[test]
    fn every_column_type_rejects_invalid_values() {
        for (name, good, shown, bad) in ALL {
            let data_type: ColumnType = name.parse().unwrap();
            let mut builder = ColumnBuilder::new(&data_type, 2);
            builder.append_text(good).unwrap();
            let error = builder.append_text(bad).unwrap_err();
            assert!(matches!(error, CellError::Value { .. }), "{name}: {error}");
            builder.append_null();
            let array = builder.finish();
            assert_eq!(array.data_type(), &data_type.arrow(), "{name}");
            assert_eq!(array.len(), 2, "{name}: a rejected text appends nothing");
            assert_eq!(array_value_to_string(&array, 0).unwrap(), shown, "{name}");
            assert!(array.is_null(1), "{name}");
        }
    }

    #[test]
    fn text_column_keeps_texts_unchanged() {
        let mut builder = ColumnBuilder::new(&ColumnType::Utf8, 1);
        builder.append_text("  é ").unwrap();
        assert!(builder.keeps_text());
        assert_eq!(array_value_to_string(&builder.finish(), 0).unwrap(), "  é ");
    }
}
