//! Sums and averages of numbers.
//!
//! Integers and decimals are added exactly, in 128 bits. Floats are added with Neumaier's compensation
//! (A. Neumaier, 1974), so that the error does not grow with the number of values. NaN and infinities
//! follow IEEE 754: a NaN makes the sum NaN.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::error::ArrowError;

/// The sum has more digits than a decimal can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SumOverflow;

/// Sum of the values that are not NULL.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sum {
    values: u64,
    total: Total,
}

#[derive(Debug, Clone, PartialEq)]
enum Total {
    /// Integers, or decimals in units of 10^-`scale`.
    Exact {
        total: i128,
        scale: i8,
    },
    Float {
        total: f64,
        correction: f64,
    },
}

impl Sum {
    /// Returns the empty sum of values of this type; `None` if the type has no sum.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        let total = match data_type {
            DataType::Float32 | DataType::Float64 => Total::Float { total: 0.0, correction: 0.0 },
            DataType::Decimal128(_, scale) => Total::Exact { total: 0, scale: *scale },
            other if other.is_integer() => Total::Exact { total: 0, scale: 0 },
            _ => return None,
        };
        Some(Self { values: 0, total })
    }

    /// Adds the values of an array of the sum's type.
    pub(super) fn add(&mut self, array: &ArrayRef) -> Result<(), SumOverflow> {
        self.values += (array.len() - array.null_count()) as u64;
        match array.data_type() {
            DataType::Int8 => self.add_exact::<Int8Type>(array.as_primitive()),
            DataType::Int16 => self.add_exact::<Int16Type>(array.as_primitive()),
            DataType::Int32 => self.add_exact::<Int32Type>(array.as_primitive()),
            DataType::Int64 => self.add_exact::<Int64Type>(array.as_primitive()),
            DataType::UInt8 => self.add_exact::<UInt8Type>(array.as_primitive()),
            DataType::UInt16 => self.add_exact::<UInt16Type>(array.as_primitive()),
            DataType::UInt32 => self.add_exact::<UInt32Type>(array.as_primitive()),
            DataType::UInt64 => self.add_exact::<UInt64Type>(array.as_primitive()),
            DataType::Decimal128(..) => self.add_exact::<Decimal128Type>(array.as_primitive()),
            DataType::Float32 => self.add_floats::<Float32Type>(array.as_primitive()),
            DataType::Float64 => self.add_floats::<Float64Type>(array.as_primitive()),
            // `of` returns no sum of these.
            _ => Ok(()),
        }
    }

    fn add_exact<T>(&mut self, array: &PrimitiveArray<T>) -> Result<(), SumOverflow>
    where
        T: ArrowPrimitiveType<Native: Into<i128>>,
    {
        let Total::Exact { total, .. } = &mut self.total else { return Ok(()) };
        for value in array.iter().flatten() {
            *total = total.checked_add(value.into()).ok_or(SumOverflow)?;
        }
        Ok(())
    }

    fn add_floats<T>(&mut self, array: &PrimitiveArray<T>) -> Result<(), SumOverflow>
    where
        T: ArrowPrimitiveType<Native: Into<f64>>,
    {
        let Total::Float { total, correction } = &mut self.total else { return Ok(()) };
        for value in array.iter().flatten() {
            let value: f64 = value.into();
            let next = *total + value;
            *correction += if total.abs() >= value.abs() {
                (*total - next) + value
            } else {
                (value - next) + *total
            };
            *total = next;
        }
        Ok(())
    }

    /// Returns the sum as an array of one value; NULL without values.
    pub(super) fn total(&self) -> Result<ArrayRef, SumError> {
        Ok(match self.total {
            Total::Exact { total, scale } => {
                if total.unsigned_abs() >= 10_u128.pow(DECIMAL128_MAX_PRECISION.into()) {
                    return Err(SumError::Overflow);
                }
                let total = (self.values > 0).then_some(total);
                let array = Decimal128Array::from(vec![total])
                    .with_precision_and_scale(DECIMAL128_MAX_PRECISION, scale)?;
                Arc::new(array)
            }
            Total::Float { total, correction } => {
                let total = (self.values > 0).then(|| compensated(total, correction));
                Arc::new(Float64Array::from(vec![total]))
            }
        })
    }

    /// Returns the average as an array of one float; NULL without values.
    pub(super) fn average(&self) -> ArrayRef {
        let total = match self.total {
            Total::Exact { total, scale } => total as f64 / 10_f64.powi(scale.into()),
            Total::Float { total, correction } => compensated(total, correction),
        };
        let average = (self.values > 0).then(|| total / self.values as f64);
        Arc::new(Float64Array::from(vec![average]))
    }
}

/// Returns the corrected sum. The correction of an infinite sum is NaN.
fn compensated(total: f64, correction: f64) -> f64 {
    if total.is_finite() { total + correction } else { total }
}

/// A sum that has no value.
#[derive(Debug)]
pub(super) enum SumError {
    Overflow,
    Arrow(ArrowError),
}

impl From<ArrowError> for SumError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}
