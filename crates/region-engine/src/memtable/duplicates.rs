//! Duplicate keys within one write: an upsert table keeps the last version.

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::error::ArrowError;

/// Returns a mask that keeps the last of adjacent rows with equal keys; `None` when all rows stay.
///
/// Works column by column and vectorized, because this runs on the apply path. The last key column
/// is first, because it most often differs between neighbours.
pub(crate) fn last_of_equal_keys(keys: &[ArrayRef]) -> Result<Option<BooleanArray>, ArrowError> {
    let Some(rows) = keys.first().map(|key| key.len()).filter(|rows| *rows > 1) else {
        return Ok(None);
    };
    let mut equal: Option<BooleanBuffer> = None;
    for key in keys.iter().rev() {
        let same = not_distinct(&key.slice(0, rows - 1), &key.slice(1, rows - 1))?;
        let all = match equal {
            None => same.values().clone(),
            Some(before) => &before & same.values(),
        };
        if all.count_set_bits() == 0 {
            return Ok(None);
        }
        equal = Some(all);
    }
    let Some(equal) = equal else { return Ok(None) };
    Ok(Some(BooleanArray::new(
        BooleanBuffer::collect_bool(rows, |row| row + 1 == rows || !equal.value(row)),
        None,
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};

    use super::*;

    fn kept(names: &[&str], numbers: &[i32]) -> Option<Vec<bool>> {
        let keys: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(names.to_vec())),
            Arc::new(Int32Array::from(numbers.to_vec())),
        ];
        last_of_equal_keys(&keys)
            .unwrap()
            .map(|mask| (0..mask.len()).map(|row| mask.value(row)).collect())
    }

    #[test]
    fn only_the_last_of_equal_neighbours_is_kept() {
        assert_eq!(kept(&[], &[]), None);
        assert_eq!(kept(&["a"], &[1]), None);
        assert_eq!(kept(&["a", "a", "b"], &[1, 2, 2]), None);
        assert_eq!(kept(&["a", "a", "b"], &[1, 1, 1]), Some(vec![false, true, true]));
        assert_eq!(
            kept(&["a", "b", "b", "b"], &[1, 1, 1, 1]),
            Some(vec![true, false, false, true])
        );
    }
}
