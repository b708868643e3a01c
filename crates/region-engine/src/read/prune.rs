//! Whether stretches of rows may hold one that a predicate admits: a pure decision from what
//! statistics say. Wherever they say nothing, or cannot be believed, the answer is yes.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Scalar};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;

use super::filter::{CompareOp, Term};

/// What is known of one column in some stretches of rows (files, row groups, pages): an entry each.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// At or below every value of the stretch; null: not known. Cut short or exact.
    pub(crate) mins: ArrayRef,
    /// At or above every value of the stretch; null: not known.
    pub(crate) maxes: ArrayRef,
    /// How many rows are null, where that is known.
    pub(crate) nulls: Vec<Option<u64>>,
    /// How many rows there are.
    pub(crate) rows: Vec<u64>,
    /// No value is NaN. Statistics pass over NaN, but predicates do not: it is above all numbers, or
    /// below them, by its sign.
    pub(crate) nan_free: bool,
}

/// For each stretch, whether one of its rows may fulfil the term.
pub(crate) fn admits(term: &Term, bounds: &Bounds) -> Vec<bool> {
    let stretches = bounds.rows.len();
    let may_compare = match term.op {
        CompareOp::IsNull | CompareOp::IsNotNull => None,
        _ => comparisons(term, bounds),
    }
    .filter(|answers| answers.len() == stretches);
    (0..stretches)
        .map(|index| {
            let rows = bounds.rows[index];
            let nulls = bounds.nulls.get(index).copied().flatten().filter(|nulls| *nulls <= rows);
            match term.op {
                CompareOp::IsNull => nulls != Some(0),
                // A comparison holds for no null.
                CompareOp::IsNotNull => nulls != Some(rows),
                _ => nulls != Some(rows) && may_compare.as_ref().is_none_or(|all| all[index]),
            }
        })
        .collect()
}

/// `None`: the bounds say nothing about this term.
fn comparisons(term: &Term, bounds: &Bounds) -> Option<Vec<bool>> {
    let data_type = bounds.mins.data_type();
    let float = matches!(data_type, DataType::Float32 | DataType::Float64);
    let of_type = |value: &Scalar<ArrayRef>| value.clone().into_inner().data_type() == data_type;
    if (float && !bounds.nan_free)
        || bounds.maxes.data_type() != data_type
        || !term.values.iter().all(of_type)
    {
        return None;
    }
    let mins = believable(&bounds.mins, -0.0);
    let maxes = believable(&bounds.maxes, 0.0);
    compare(term, &mins, &maxes, bounds.rows.len()).ok()
}

fn compare(
    term: &Term,
    mins: &ArrayRef,
    maxes: &ArrayRef,
    stretches: usize,
) -> Result<Vec<bool>, ArrowError> {
    if term.op == CompareOp::In {
        let mut any = vec![false; stretches];
        for value in &term.values {
            let one = around(mins, maxes, value)?;
            any.iter_mut().zip(one).for_each(|(any, one)| *any |= one);
        }
        return Ok(any);
    }
    let Some(value) = term.values.first() else { return Ok(vec![true; stretches]) };
    Ok(match term.op {
        CompareOp::Eq => around(mins, maxes, value)?,
        CompareOp::Ne => {
            // All values lie between the two, exact or not: are they equal, so is every value.
            let (low, high) = (cmp::eq(mins, value)?, cmp::eq(maxes, value)?);
            (0..stretches).map(|i| !(certainly(&low, i) && certainly(&high, i))).collect()
        }
        CompareOp::Lt => possibly(&cmp::lt(mins, value)?),
        CompareOp::Le => possibly(&cmp::lt_eq(mins, value)?),
        CompareOp::Gt => possibly(&cmp::gt(maxes, value)?),
        CompareOp::Ge => possibly(&cmp::gt_eq(maxes, value)?),
        CompareOp::In | CompareOp::IsNull | CompareOp::IsNotNull => vec![true; stretches],
    })
}

/// Whether the value may lie between the bounds.
fn around(
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

/// Bounds of floats without those that are NaN, which bound nothing, and with zeros of the sign that
/// admits both: writers are free to store either.
fn believable(array: &ArrayRef, zero: f32) -> ArrayRef {
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
