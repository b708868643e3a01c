//! Least and greatest value of a column. Floats are in the order of [`total_order`]: NaN is above all.
//!
//! [`total_order`]: crate::query::total_order

use arrow::array::{Array, ArrayRef, new_empty_array, new_null_array};
use arrow::compute::{SortOptions, concat, sort_to_indices, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::query::total_order::comparable;

/// Least or greatest value of the values that are not NULL.
#[derive(Debug, Clone)]
pub(super) struct Extreme {
    descending: bool,
    /// The value so far; empty without a value.
    value: ArrayRef,
}

impl Extreme {
    pub(super) fn least(data_type: &DataType) -> Self {
        Self { descending: false, value: new_empty_array(data_type) }
    }

    pub(super) fn greatest(data_type: &DataType) -> Self {
        Self { descending: true, value: new_empty_array(data_type) }
    }

    /// Adds the values of an array.
    pub(super) fn add(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        let candidate = self.extreme_of(array)?;
        let both = concat(&[self.value.as_ref(), candidate.as_ref()])?;
        self.value = self.extreme_of(&both)?;
        Ok(())
    }

    /// Returns the value as an array of one value; NULL without a value.
    pub(super) fn value(&self) -> ArrayRef {
        if self.value.is_empty() {
            return new_null_array(self.value.data_type(), 1);
        }
        self.value.clone()
    }

    /// Returns a copy of the extreme of an array; an empty array without values.
    fn extreme_of(&self, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let options = SortOptions { descending: self.descending, nulls_first: false };
        let first = sort_to_indices(&comparable(array), Some(options), Some(1))?;
        let value = take(array, &first, None)?;
        Ok(if value.null_count() > 0 { new_empty_array(value.data_type()) } else { value })
    }
}
