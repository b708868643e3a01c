//! Conversion of one key column's value to and from its memcomparable bytes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray,
    StringArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use memcomparable::{Deserializer, Serializer};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::KeyError;
use crate::schema::ColumnType;

/// Appends the value in `row` of `array`, which must be of type `data_type` and not null there.
pub(super) fn encode(
    data_type: &ColumnType,
    array: &dyn Array,
    row: usize,
    out: &mut Vec<u8>,
) -> Result<(), KeyError> {
    let mut serializer = Serializer::new(&mut *out);
    let to = &mut serializer;
    let result = match data_type {
        ColumnType::Bool => array.as_boolean().value(row).serialize(to),
        ColumnType::Int8 => number::<Int8Type>(array, row).serialize(to),
        ColumnType::Int16 => number::<Int16Type>(array, row).serialize(to),
        ColumnType::Int32 => number::<Int32Type>(array, row).serialize(to),
        ColumnType::Int64 => number::<Int64Type>(array, row).serialize(to),
        ColumnType::UInt8 => number::<UInt8Type>(array, row).serialize(to),
        ColumnType::UInt16 => number::<UInt16Type>(array, row).serialize(to),
        ColumnType::UInt32 => number::<UInt32Type>(array, row).serialize(to),
        ColumnType::UInt64 => number::<UInt64Type>(array, row).serialize(to),
        ColumnType::Date32 => number::<Date32Type>(array, row).serialize(to),
        ColumnType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => number::<TimestampSecondType>(array, row).serialize(to),
            TimeUnit::Millisecond => number::<TimestampMillisecondType>(array, row).serialize(to),
            TimeUnit::Microsecond => number::<TimestampMicrosecondType>(array, row).serialize(to),
            TimeUnit::Nanosecond => number::<TimestampNanosecondType>(array, row).serialize(to),
        },
        ColumnType::Decimal128(..) => number::<Decimal128Type>(array, row).serialize(to),
        ColumnType::Utf8 => array.as_string::<i32>().value(row).serialize(to),
        ColumnType::Binary => {
            serde::Serializer::serialize_bytes(to, array.as_binary::<i32>().value(row))
        }
        ColumnType::Float32 | ColumnType::Float64 => {
            return Err(KeyError::TypeNotAllowed(data_type.clone()));
        }
    };
    result.map_err(|error| KeyError::Malformed(error.to_string()))
}

/// Bytes that [`encode`] appends for any value; `None` if they depend on the value.
pub(super) fn fixed_width(data_type: &ColumnType) -> Option<usize> {
    Some(match data_type {
        ColumnType::Bool | ColumnType::Int8 | ColumnType::UInt8 => 1,
        ColumnType::Int16 | ColumnType::UInt16 => 2,
        ColumnType::Int32 | ColumnType::UInt32 | ColumnType::Date32 | ColumnType::Float32 => 4,
        ColumnType::Int64
        | ColumnType::UInt64
        | ColumnType::Timestamp(..)
        | ColumnType::Float64 => 8,
        ColumnType::Decimal128(..) => 16,
        ColumnType::Utf8 | ColumnType::Binary => return None,
    })
}

/// Bytes that [`encode`] appends for a string of this many bytes: see [`byte_string`].
pub(super) fn string_width(bytes: usize) -> usize {
    1 + 9 * bytes.div_ceil(8)
}

fn number<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> T::Native {
    array.as_primitive::<T>().value(row)
}

/// Reads one value off the front of `bytes` as an array of one row.
pub(super) fn decode(data_type: &ColumnType, bytes: &mut &[u8]) -> Result<ArrayRef, KeyError> {
    Ok(match data_type {
        ColumnType::Bool => Arc::new(BooleanArray::from(vec![fixed::<bool>(bytes, 1)?])),
        ColumnType::Int8 => primitive::<Int8Type>(bytes)?,
        ColumnType::Int16 => primitive::<Int16Type>(bytes)?,
        ColumnType::Int32 => primitive::<Int32Type>(bytes)?,
        ColumnType::Int64 => primitive::<Int64Type>(bytes)?,
        ColumnType::UInt8 => primitive::<UInt8Type>(bytes)?,
        ColumnType::UInt16 => primitive::<UInt16Type>(bytes)?,
        ColumnType::UInt32 => primitive::<UInt32Type>(bytes)?,
        ColumnType::UInt64 => primitive::<UInt64Type>(bytes)?,
        ColumnType::Date32 => primitive::<Date32Type>(bytes)?,
        ColumnType::Timestamp(unit, zone) => {
            let values = vec![fixed::<i64>(bytes, 8)?];
            match unit {
                TimeUnit::Second => {
                    Arc::new(TimestampSecondArray::from(values).with_timezone_opt(zone.clone()))
                }
                TimeUnit::Millisecond => Arc::new(
                    TimestampMillisecondArray::from(values).with_timezone_opt(zone.clone()),
                ),
                TimeUnit::Microsecond => Arc::new(
                    TimestampMicrosecondArray::from(values).with_timezone_opt(zone.clone()),
                ),
                TimeUnit::Nanosecond => {
                    Arc::new(TimestampNanosecondArray::from(values).with_timezone_opt(zone.clone()))
                }
            }
        }
        ColumnType::Decimal128(precision, scale) => Arc::new(
            Decimal128Array::from(vec![fixed::<i128>(bytes, 16)?])
                .with_precision_and_scale(*precision, *scale)
                .map_err(|error| KeyError::Malformed(error.to_string()))?,
        ),
        ColumnType::Utf8 => {
            let text = String::from_utf8(byte_string(bytes)?)
                .map_err(|error| KeyError::Malformed(error.to_string()))?;
            Arc::new(StringArray::from(vec![text]))
        }
        ColumnType::Binary => Arc::new(BinaryArray::from_vec(vec![byte_string(bytes)?.as_slice()])),
        ColumnType::Float32 | ColumnType::Float64 => {
            return Err(KeyError::TypeNotAllowed(data_type.clone()));
        }
    })
}

fn primitive<T>(bytes: &mut &[u8]) -> Result<ArrayRef, KeyError>
where
    T: ArrowPrimitiveType,
    T::Native: for<'de> Deserialize<'de>,
{
    let value = fixed::<T::Native>(bytes, size_of::<T::Native>())?;
    Ok(Arc::new(PrimitiveArray::<T>::from_value(value, 1)))
}

/// A value of known width. The width is checked first: the library would panic on a short input.
fn fixed<V: for<'de> Deserialize<'de>>(bytes: &mut &[u8], width: usize) -> Result<V, KeyError> {
    let (value, rest) = bytes.split_at_checked(width).ok_or(KeyError::Truncated)?;
    let value =
        memcomparable::from_slice(value).map_err(|error| KeyError::Malformed(error.to_string()))?;
    *bytes = rest;
    Ok(value)
}

/// Reads a string: a single 0 when empty, else 1 and groups of eight bytes and a length byte (9:
/// more follow). The groups are checked first: the library would panic on a short input.
fn byte_string(bytes: &mut &[u8]) -> Result<Vec<u8>, KeyError> {
    const GROUP: usize = 9;
    let width = match bytes.first() {
        None => return Err(KeyError::Truncated),
        Some(0) => 1,
        Some(_) => {
            let mut end = 1 + GROUP;
            while *bytes.get(end - 1).ok_or(KeyError::Truncated)? == 9 {
                end += GROUP;
            }
            end
        }
    };
    let (value, rest) = bytes.split_at_checked(width).ok_or(KeyError::Truncated)?;
    let mut deserializer = Deserializer::new(value);
    let decoded = serde::Deserializer::deserialize_byte_buf(&mut deserializer, ByteBuf)
        .map_err(|error| KeyError::Malformed(error.to_string()))?;
    *bytes = rest;
    Ok(decoded)
}

struct ByteBuf;

impl<'de> serde::de::Visitor<'de> for ByteBuf {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Err(serde::de::Error::custom("a byte string was expected"))
    }
}
