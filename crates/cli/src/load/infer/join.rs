//! Smallest type that represents the values of two types without loss.

use arrow::datatypes::TimeUnit;
use tidewater_common::schema::ColumnType;

/// Returns the common type of a column in two files; `None` if there is none.
///
/// Integers of 64 bits and floats have the type float64: the reader rejects a row whose integer is not
/// exact as a float.
pub(crate) fn join(one: &ColumnType, two: &ColumnType) -> Option<ColumnType> {
    use ColumnType::{Decimal128, Float32, Float64, Timestamp};
    if one == two {
        return Some(one.clone());
    }
    match (one, two) {
        (Timestamp(a, zone), Timestamp(b, other)) if zone.is_some() == other.is_some() => {
            Some(Timestamp(finer(*a, *b), zone.clone()))
        }
        (Decimal128(a, a_scale), Decimal128(b, b_scale)) => {
            let scale = (*a_scale).max(*b_scale);
            let whole =
                (i16::from(*a) - i16::from(*a_scale)).max(i16::from(*b) - i16::from(*b_scale));
            let precision = u8::try_from(whole + i16::from(scale)).ok()?;
            (precision <= 38).then_some(Decimal128(precision, scale))
        }
        (Float32, Float64) | (Float64, Float32) => Some(Float64),
        (Float32 | Float64, other) | (other, Float32 | Float64) => integer(other).map(|_| Float64),
        _ => join_integers(integer(one)?, integer(two)?),
    }
}

fn finer(one: TimeUnit, two: TimeUnit) -> TimeUnit {
    let units =
        [TimeUnit::Nanosecond, TimeUnit::Microsecond, TimeUnit::Millisecond, TimeUnit::Second];
    units.into_iter().find(|unit| *unit == one || *unit == two).unwrap_or(one)
}

/// Sign and bits of an integer type.
fn integer(data_type: &ColumnType) -> Option<(bool, u8)> {
    Some(match data_type {
        ColumnType::Int8 => (true, 8),
        ColumnType::Int16 => (true, 16),
        ColumnType::Int32 => (true, 32),
        ColumnType::Int64 => (true, 64),
        ColumnType::UInt8 => (false, 8),
        ColumnType::UInt16 => (false, 16),
        ColumnType::UInt32 => (false, 32),
        ColumnType::UInt64 => (false, 64),
        _ => return None,
    })
}

fn join_integers(one: (bool, u8), two: (bool, u8)) -> Option<ColumnType> {
    let signed = one.0 || two.0;
    // An unsigned type needs twice the bits with a sign.
    let bits = |(has_sign, bits): (bool, u8)| if signed && !has_sign { bits * 2 } else { bits };
    Some(match (signed, bits(one).max(bits(two))) {
        (true, 8) => ColumnType::Int8,
        (true, 16) => ColumnType::Int16,
        (true, 32) => ColumnType::Int32,
        (true, 64) => ColumnType::Int64,
        (false, 8) => ColumnType::UInt8,
        (false, 16) => ColumnType::UInt16,
        (false, 32) => ColumnType::UInt32,
        (false, 64) => ColumnType::UInt64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_join_without_loss() {
        for (one, two, expected) in [
            ("utf8", "utf8", Some("utf8")),
            ("int8", "int64", Some("int64")),
            ("uint8", "uint32", Some("uint32")),
            ("int8", "uint8", Some("int16")),
            ("int64", "uint32", Some("int64")),
            ("int64", "uint64", None),
            ("int32", "float32", Some("float64")),
            ("int64", "float64", Some("float64")),
            ("float32", "float64", Some("float64")),
            ("timestamp(s, UTC)", "timestamp(us, UTC)", Some("timestamp(us, UTC)")),
            ("timestamp(ms)", "timestamp(ns)", Some("timestamp(ns)")),
            ("timestamp(ms)", "timestamp(ms, UTC)", None),
            ("decimal128(10, 2)", "decimal128(9, 4)", Some("decimal128(12, 4)")),
            ("decimal128(38, 0)", "decimal128(38, 10)", None),
            ("int64", "utf8", None),
            ("date32", "timestamp(s)", None),
            ("bool", "int8", None),
        ] {
            let parse = |text: &str| text.parse::<ColumnType>().unwrap();
            let expected = expected.map(parse);
            assert_eq!(join(&parse(one), &parse(two)), expected, "{one}, {two}");
            assert_eq!(join(&parse(two), &parse(one)), expected, "{two}, {one}");
        }
    }
}
