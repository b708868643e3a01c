//! Order of floats as in PostgreSQL: -0 equals 0, and NaN is above all other values.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

/// Positive NaN, which Arrow's total order places above infinity.
const NAN_32: f32 = f32::from_bits(0x7fc0_0000);
const NAN_64: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// Returns an array that Arrow's kernels order in this way. Only for comparisons: it loses the sign of
/// zeros and the payload of NaN. Arrays of other types are returned unchanged.
pub(crate) fn comparable(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let value = |value: f32| if value.is_nan() { NAN_32 } else { value + 0.0 };
            Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(value))
        }
        DataType::Float64 => {
            let value = |value: f64| if value.is_nan() { NAN_64 } else { value + 0.0 };
            Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(value))
        }
        _ => Arc::clone(array),
    }
}
