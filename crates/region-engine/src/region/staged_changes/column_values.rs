//! Comparison of the values of a column, by their bytes (pure).
//!
//! Null equals null. Floats are equal if their bits are: a NaN equals itself, and 0.0 differs from -0.0.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;

use crate::EngineError;

/// Rows that are compared at once before they are compared one by one. About a quarter of such blocks has a row that
/// differs if 1 % of all rows differ.
const BLOCK_ROWS: usize = 32;

/// Values of a column of a batch.
#[derive(Debug, Clone)]
pub(super) struct ColumnValues {
    values: Values,
    /// `None`: no value is null.
    nulls: Option<NullBuffer>,
}

#[derive(Debug, Clone)]
enum Values {
    Fixed { bytes: Buffer, width: usize },
    Bits(BooleanBuffer),
    Variable { offsets: OffsetBuffer<i32>, bytes: Buffer },
}

impl ColumnValues {
    /// Returns the values of a column.
    ///
    /// # Errors
    /// [`EngineError::Internal`] for a type that no column of a table has.
    pub(super) fn new(array: &ArrayRef) -> Result<Self, EngineError> {
        let values = match array.data_type() {
            DataType::Boolean => Values::Bits(array.as_boolean().values().clone()),
            DataType::Utf8 => {
                let texts = array.as_string::<i32>();
                Values::Variable { offsets: texts.offsets().clone(), bytes: texts.values().clone() }
            }
            DataType::Binary => {
                let texts = array.as_binary::<i32>();
                Values::Variable { offsets: texts.offsets().clone(), bytes: texts.values().clone() }
            }
            other => fixed(array, other)?,
        };
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
        Ok(Self { values, nulls })
    }

    /// Marks those of `differs` whose values differ: of the rows from `start` on here, and from `other_start` on in a
    /// column of the same type.
    pub(super) fn mark_differences(
        &self,
        start: usize,
        other: &Self,
        other_start: usize,
        differs: &mut [bool],
    ) {
        for (block, differs) in differs.chunks_mut(BLOCK_ROWS).enumerate() {
            let start = start + block * BLOCK_ROWS;
            let other_start = other_start + block * BLOCK_ROWS;
            if self.equals_all(start, other, other_start, differs.len()) {
                continue;
            }
            for (row, differs) in differs.iter_mut().enumerate() {
                *differs = *differs || !self.equals(start + row, other, other_start + row);
            }
        }
    }

    /// Returns true if these rows are equal, nulls and the bytes below them included; false if they may differ.
    fn equals_all(&self, start: usize, other: &Self, other_start: usize, count: usize) -> bool {
        let have_same_nulls = match (&self.nulls, &other.nulls) {
            (None, None) => true,
            (Some(own), Some(other)) => {
                own.inner().slice(start, count) == other.inner().slice(other_start, count)
            }
            // A block without nulls is compared row by row: such columns have few nulls or many.
            _ => false,
        };
        have_same_nulls && self.values.equal(start, &other.values, other_start, count)
    }

    fn equals(&self, row: usize, other: &Self, other_row: usize) -> bool {
        match (self.is_null(row), other.is_null(other_row)) {
            (true, true) => true,
            (false, false) => self.values.equal(row, &other.values, other_row, 1),
            _ => false,
        }
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

impl Values {
    fn equal(&self, start: usize, other: &Self, other_start: usize, count: usize) -> bool {
        match (self, other) {
            (Self::Fixed { bytes, width }, Self::Fixed { bytes: other, .. }) => {
                let of = |start: usize| start * width..(start + count) * width;
                bytes.as_slice().get(of(start)) == other.as_slice().get(of(other_start))
            }
            (Self::Bits(bits), Self::Bits(other)) => {
                (0..count).all(|row| bits.value(start + row) == other.value(other_start + row))
            }
            (
                Self::Variable { offsets, bytes },
                Self::Variable { offsets: other_offsets, bytes: other },
            ) => {
                let ends = &offsets[start..=start + count];
                let other_ends = &other_offsets[other_start..=other_start + count];
                let length = |ends: &[i32]| ends[count] - ends[0];
                let first = ends[0];
                let other_first = other_ends[0];
                length(ends) == length(other_ends)
                    && ends.iter().zip(other_ends).all(|(a, b)| a - first == b - other_first)
                    && part(bytes, ends) == part(other, other_ends)
            }
            // Columns of the same id have the same type.
            _ => false,
        }
    }
}

fn fixed(array: &ArrayRef, data_type: &DataType) -> Result<Values, EngineError> {
    let data = array.to_data();
    let (Some(width), Some(bytes)) = (data_type.primitive_width(), data.buffers().first()) else {
        let detail = format!("values of type {data_type} cannot be compared");
        return Err(EngineError::Internal { detail });
    };
    Ok(Values::Fixed { bytes: bytes.slice(data.offset() * width), width })
}

/// Returns the bytes from the first to the last of some offsets, which ascend and are not negative.
fn part<'a>(bytes: &'a Buffer, ends: &[i32]) -> Option<&'a [u8]> {
    let start = usize::try_from(*ends.first()?).ok()?;
    let end = usize::try_from(*ends.last()?).ok()?;
    bytes.as_slice().get(start..end)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int16Array, StringArray,
    };

    use super::*;

    fn differences(own: &ArrayRef, other: &ArrayRef) -> Vec<bool> {
        let count = own.len().min(other.len());
        let mut differs = vec![false; count];
        let own = ColumnValues::new(own).unwrap();
        own.mark_differences(0, &ColumnValues::new(other).unwrap(), 0, &mut differs);
        differs
    }

    /// Compares the arrays whole and from each row on, so that offsets of slices count.
    fn check(own: impl Array + 'static, other: impl Array + 'static, expected: &[bool]) {
        let own: ArrayRef = Arc::new(own);
        let other: ArrayRef = Arc::new(other);
        for start in 0..own.len() {
            let count = own.len() - start;
            let found = differences(&own.slice(start, count), &other.slice(start, count));
            assert_eq!(found, expected[start..], "{} from {start}", own.data_type());
        }
        assert_eq!(differences(&own, &own), vec![false; own.len()]);
        // Rows of different positions.
        let shifted = differences(&own.slice(1, own.len() - 1), &own);
        assert_eq!(shifted.len(), own.len() - 1);
    }

    #[test]
    fn nulls_equal_each_other_only() {
        let own = Int16Array::from(vec![Some(1), None, None, Some(0), Some(2)]);
        let other = Int16Array::from(vec![Some(1), None, Some(0), None, Some(3)]);
        check(own, other, &[false, false, true, true, true]);
        let own = StringArray::from(vec![Some("a"), None, Some(""), Some("bc"), Some("d")]);
        let other = StringArray::from(vec![Some("a"), Some(""), None, Some("cb"), Some("d")]);
        check(own, other, &[false, true, true, true, false]);
        let own = BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]);
        let other = BooleanArray::from(vec![Some(true), Some(false), None, Some(false)]);
        check(own, other, &[false, true, true, true]);
        // One side has no nulls.
        let own = Int16Array::from(vec![Some(1), None, Some(0)]);
        check(own, Int16Array::from(vec![1, 0, 0]), &[false, true, false]);
    }

    #[test]
    fn values_below_nulls_do_not_matter() {
        let nulls = Some(NullBuffer::from(vec![true, false]));
        let own = Int16Array::new(vec![1, 2].into(), nulls.clone());
        let other = Int16Array::new(vec![1, 3].into(), nulls);
        check(own, other, &[false, false]);
    }

    #[test]
    fn floats_are_equal_by_their_bits() {
        let nan = f64::from_bits(f64::NAN.to_bits() | 1);
        let own = Float64Array::from(vec![f64::NAN, f64::NAN, 0.0, -0.0, f64::INFINITY]);
        let other = Float64Array::from(vec![f64::NAN, nan, -0.0, -0.0, f64::INFINITY]);
        check(own, other, &[false, true, true, false, false]);
    }

    #[test]
    fn texts_with_the_same_bytes_differ_by_their_lengths() {
        let own = BinaryArray::from_vec(vec![b"ab", b"c", b"", b"x"]);
        let other = BinaryArray::from_vec(vec![b"a", b"bc", b"", b"x"]);
        check(own, other, &[true, true, false, false]);
    }

    #[test]
    fn single_differences_are_found_in_every_block() {
        let count = 3 * BLOCK_ROWS + 5;
        let decimals = |changed: Option<usize>| {
            let value = |row: usize| (row as i128) + i128::from(changed == Some(row)) * (1 << 90);
            Decimal128Array::from_iter_values((0..count).map(value))
        };
        let texts = |changed: Option<usize>| {
            let text =
                |row: usize| format!("{}{}", row, if changed == Some(row) { "'" } else { "" });
            StringArray::from_iter_values((0..count).map(text))
        };
        for changed in 0..count {
            let expected: Vec<bool> = (0..count).map(|row| row == changed).collect();
            let own: ArrayRef = Arc::new(decimals(None));
            let other: ArrayRef = Arc::new(decimals(Some(changed)));
            assert_eq!(differences(&own, &other), expected);
            let own: ArrayRef = Arc::new(texts(None));
            let other: ArrayRef = Arc::new(texts(Some(changed)));
            assert_eq!(differences(&own, &other), expected);
        }
    }
}
