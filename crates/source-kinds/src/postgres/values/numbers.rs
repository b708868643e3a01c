//! Integers and floats.

use arrow::array::ArrowPrimitiveType;
use arrow::datatypes::{
    Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use tidewater_common::schema::ColumnType;

use super::{ColumnBuilder, ValueError, fixed, fixed_column};

pub(super) fn int2(field: &[u8]) -> Result<i128, ValueError> {
    Ok(i16::from_be_bytes(fixed(field)?).into())
}

pub(super) fn int4(field: &[u8]) -> Result<i128, ValueError> {
    Ok(i32::from_be_bytes(fixed(field)?).into())
}

pub(super) fn int8(field: &[u8]) -> Result<i128, ValueError> {
    Ok(i64::from_be_bytes(fixed(field)?).into())
}

/// Returns the builder of a column whose fields are integers.
pub(super) fn integer<F>(read: F, to: &ColumnType) -> Option<Box<dyn ColumnBuilder>>
where
    F: Fn(&[u8]) -> Result<i128, ValueError> + Send + 'static,
{
    match *to {
        ColumnType::Int8 => narrow::<Int8Type, _>(read, to),
        ColumnType::Int16 => narrow::<Int16Type, _>(read, to),
        ColumnType::Int32 => narrow::<Int32Type, _>(read, to),
        ColumnType::Int64 => narrow::<Int64Type, _>(read, to),
        ColumnType::UInt8 => narrow::<UInt8Type, _>(read, to),
        ColumnType::UInt16 => narrow::<UInt16Type, _>(read, to),
        ColumnType::UInt32 => narrow::<UInt32Type, _>(read, to),
        ColumnType::UInt64 => narrow::<UInt64Type, _>(read, to),
        ColumnType::Float32 => fixed_column::<Float32Type, _>(to, move |field| {
            let value = read(field)?;
            let float = value as f32;
            if float as i128 == value { Ok(float) } else { Err(ValueError::does_not_fit(value)) }
        }),
        ColumnType::Float64 => fixed_column::<Float64Type, _>(to, move |field| {
            let value = read(field)?;
            let float = value as f64;
            if float as i128 == value { Ok(float) } else { Err(ValueError::does_not_fit(value)) }
        }),
        ColumnType::Decimal128(precision, scale) => {
            let unit = 10_i128.checked_pow(u32::try_from(scale).ok()?)?;
            let limit = 10_i128.checked_pow(precision.into())?;
            fixed_column::<Decimal128Type, _>(to, move |field| {
                let value = read(field)?;
                let scaled = value.checked_mul(unit).filter(|scaled| scaled.abs() < limit);
                scaled.ok_or_else(|| ValueError::does_not_fit(value))
            })
        }
        _ => None,
    }
}

fn narrow<T, F>(read: F, to: &ColumnType) -> Option<Box<dyn ColumnBuilder>>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i128>,
    F: Fn(&[u8]) -> Result<i128, ValueError> + Send + 'static,
{
    fixed_column::<T, _>(to, move |field| {
        let value = read(field)?;
        T::Native::try_from(value).map_err(|_| ValueError::does_not_fit(value))
    })
}

/// Returns the builder of a column whose fields are floats of 32 bits.
pub(super) fn float4_column(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    let read = |field: &[u8]| Ok(f32::from_be_bytes(fixed(field)?));
    match to {
        ColumnType::Float32 => fixed_column::<Float32Type, _>(to, read),
        ColumnType::Float64 => fixed_column::<Float64Type, _>(to, move |f| Ok(read(f)?.into())),
        _ => None,
    }
}

/// Returns the builder of a column whose fields are floats of 64 bits.
pub(super) fn float8_column(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    match to {
        ColumnType::Float64 => {
            fixed_column::<Float64Type, _>(to, |field| Ok(f64::from_be_bytes(fixed(field)?)))
        }
        _ => None,
    }
}
