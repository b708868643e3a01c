//! Decides from statistics whether row ranges may hold a row that matches a predicate (pure).
//! Without usable statistics the answer is yes.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Scalar};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;

use super::filter::{CompareOp, Term};

/// Statistics of one column for some row ranges (files, row groups, pages), an entry each.
#[derive(Debug, Clone)]
pub(crate) struct ColumnBounds {
    /// Lower bounds of the values, truncated or exact; null: unknown.
    pub(crate) mins: ArrayRef,
    /// Upper bounds of the values; null: unknown.
    pub(crate) maxes: ArrayRef,
    /// Number of nulls, where known.
    pub(crate) nulls: Vec<Option<u64>>,
    /// Number of rows.
    pub(crate) rows: Vec<u64>,
    /// True if no value is NaN. Statistics ignore NaN, but predicates do not: it sorts above or
    /// below all numbers, depending on its sign.
    pub(crate) nan_free: bool,
}

/// Returns for each row range whether one of its rows may match the term.
pub(crate) fn admits(term: &Term, bounds: &ColumnBounds) -> Vec<bool> {
    let ranges = bounds.rows.len();
    let may_compare = match term.op {
        CompareOp::IsNull | CompareOp::IsNotNull => None,
        _ => comparisons(term, bounds),
    }
    .filter(|results| results.len() == ranges);
    (0..ranges)
        .map(|index| {
            let rows = bounds.rows[index];
            let nulls = bounds.nulls.get(index).copied().flatten().filter(|nulls| *nulls <= rows);
            match term.op {
                CompareOp::IsNull => nulls != Some(0),
                // A comparison is false for nulls.
                CompareOp::IsNotNull => nulls != Some(rows),
                _ => nulls != Some(rows) && may_compare.as_ref().is_none_or(|all| all[index]),
            }
        })
        .collect()
}

/// Results of a comparison; `None`: the bounds are not usable for this term.
fn comparisons(term: &Term, bounds: &ColumnBounds) -> Option<Vec<bool>> {
    let data_type = bounds.mins.data_type();
    let float = matches!(data_type, DataType::Float32 | DataType::Float64);
    let of_type = |value: &Scalar<ArrayRef>| value.clone().into_inner().data_type() == data_type;
    if (float && !bounds.nan_free)
        || bounds.maxes.data_type() != data_type
        || !term.values.iter().all(of_type)
    {
        return None;
    }
    let mins = usable_bounds(&bounds.mins, -0.0);
    let maxes = usable_bounds(&bounds.maxes, 0.0);
    compare(term, &mins, &maxes, bounds.rows.len()).ok()
}

fn compare(
    term: &Term,
    mins: &ArrayRef,
    maxes: &ArrayRef,
    ranges: usize,
) -> Result<Vec<bool>, ArrowError> {
    if term.op == CompareOp::In {
        let mut any = vec![false; ranges];
        for value in &term.values {
            let found = may_contain(mins, maxes, value)?;
            any.iter_mut().zip(found).for_each(|(any, found)| *any |= found);
        }
        return Ok(any);
    }
    let Some(value) = term.values.first() else { return Ok(vec![true; ranges]) };
    Ok(match term.op {
        CompareOp::Eq => may_contain(mins, maxes, value)?,
        CompareOp::Ne => {
            // All values are between the bounds, exact or not. If both bounds equal the value, so
            // do all values.
            let low = cmp::eq(mins, value)?;
            let high = cmp::eq(maxes, value)?;
            (0..ranges).map(|i| !(certainly(&low, i) && certainly(&high, i))).collect()
        }
        CompareOp::Lt => possibly(&cmp::lt(mins, value)?),
        CompareOp::Le => possibly(&cmp::lt_eq(mins, value)?),
        CompareOp::Gt => possibly(&cmp::gt(maxes, value)?),
        CompareOp::Ge => possibly(&cmp::gt_eq(maxes, value)?),
        CompareOp::In | CompareOp::IsNull | CompareOp::IsNotNull => vec![true; ranges],
    })
}

/// Returns whether the value may be between the bounds.
fn may_contain(
    mins: &ArrayRef,
    maxes: &ArrayRef,
    value: &Scalar<ArrayRef>,
) -> Result<Vec<bool>, ArrowError> {
    let above = possibly(&cmp::lt_eq(mins, value)?);
    let below = possibly(&cmp::gt_eq(maxes, value)?);
    Ok(above.into_iter().zip(below).map(|(above, below)| above && below).collect())
}

fn possibly(mask: &BooleanArray) -> Vec<bool> {
    (0..mask.len()).map(|i| mask.is_null(i) || mask.value(i)).collect()
}

fn certainly(mask: &BooleanArray, index: usize) -> bool {
    mask.is_valid(index) && mask.value(index)
}

/// Removes bounds that are NaN, which bound nothing, and gives zeros the sign that admits both
/// zeros: writers may store either.
fn usable_bounds(array: &ArrayRef, zero: f32) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let known =
                |v: f32| if v == 0.0 { Some(zero) } else { Some(v).filter(|v| !v.is_nan()) };
            let values = array.as_primitive::<Float32Type>();
            let cleaned: arrow::array::Float32Array =
                values.iter().map(|value| value.and_then(known)).collect();
            std::sync::Arc::new(cleaned)
        }
        DataType::Float64 => {
            let zero = f64::from(zero);
            let known =
                |v: f64| if v == 0.0 { Some(zero) } else { Some(v).filter(|v| !v.is_nan()) };
            let values = array.as_primitive::<Float64Type>();
            let cleaned: arrow::array::Float64Array =
                values.iter().map(|value| value.and_then(known)).collect();
            std::sync::Arc::new(cleaned)
        }
        _ => array.clone(),
    }
}

#[cfg(test)]
#[path = "prune_tests.rs"]
mod tests;
