//! Predicates: comparisons of a column with constants that are given as text.

use arrow::array::{Array, ArrayRef, BooleanArray, Scalar};
use arrow::compute::kernels::cmp;
use arrow::compute::{and, is_not_null, is_null, not, or};
use tidewater_common::ids::ColumnId;
use tidewater_common::schema::{Column, TableSchema};

use crate::EngineError;
use crate::expiry::Expiry;
use crate::file_meta::FileMeta;
use crate::row_versions::RowVersions;

/// Comparison operator of a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// Equal to the value.
    Eq,
    /// Not null and not equal to the value.
    Ne,
    /// Less than the value.
    Lt,
    /// At most the value.
    Le,
    /// Greater than the value.
    Gt,
    /// At least the value.
    Ge,
    /// Equal to one of the values; false when there are none.
    In,
    /// Null; takes no value.
    IsNull,
    /// Not null; takes no value.
    IsNotNull,
}

/// One term of a conjunction. A comparison with null never holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate {
    /// Id of the column.
    pub column: ColumnId,
    /// Operator.
    pub op: CompareOp,
    /// Operands, in the canonical text of the column's type; binary as hexadecimal digits.
    pub values: Vec<String>,
}

/// A conjunction that is bound to a schema: all values have the types of their columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    terms: Vec<Term>,
    /// Hides expired rows. Evaluated like a term on a non-key column: after the newest version was
    /// found.
    expiry: Option<Expiry>,
}

/// One predicate with its parsed values; none is null.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    pub(crate) column: ColumnId,
    pub(crate) op: CompareOp,
    pub(crate) values: Vec<Scalar<ArrayRef>>,
}

impl Filter {
    /// Binds predicates to a schema.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] for an unknown column, a value that does not parse as its type, or
    /// a wrong number of values.
    pub(crate) fn bind(schema: &TableSchema, terms: &[Predicate]) -> Result<Self, EngineError> {
        let terms = terms
            .iter()
            .map(|predicate| {
                let column = schema.column(predicate.column).ok_or_else(|| {
                    bad(format!(
                        "a predicate names column id {}, which the table does not have",
                        predicate.column
                    ))
                })?;
                let allowed = match predicate.op {
                    CompareOp::In => true,
                    CompareOp::IsNull | CompareOp::IsNotNull => predicate.values.is_empty(),
                    _ => predicate.values.len() == 1,
                };
                if !allowed {
                    return Err(bad(format!(
                        "the predicate {:?} on column {:?} has {} values",
                        predicate.op,
                        column.name,
                        predicate.values.len()
                    )));
                }
                let values = predicate
                    .values
                    .iter()
                    .map(|text| parse(column, text))
                    .collect::<Result<_, _>>()?;
                Ok(Term { column: column.id, op: predicate.op, values })
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Self { terms, expiry: None })
    }

    /// Adds the expiry of rows to the filter.
    pub(crate) fn with_expiry(self, expiry: Option<Expiry>) -> Self {
        Self { expiry, ..self }
    }

    /// Returns true if the filter depends on the sequences of single rows of a file.
    pub(crate) fn needs_sequences(&self, file: &FileMeta) -> bool {
        self.expiry.as_ref().is_some_and(|expiry| expiry.needs_sequences(file))
    }

    /// Returns whether every row passes.
    pub(crate) fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.expiry.is_none()
    }

    /// Returns the terms, in the order given.
    pub(crate) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Returns the columns that the filter reads.
    pub(crate) fn columns(&self) -> impl Iterator<Item = ColumnId> + '_ {
        self.terms.iter().map(|term| term.column).chain(self.expiry.iter().map(Expiry::column))
    }

    /// Returns the rows for which all terms hold.
    pub(crate) fn apply(&self, rows: RowVersions) -> Result<RowVersions, EngineError> {
        let mut mask: Option<BooleanArray> = None;
        if let Some(expiry) = &self.expiry {
            mask = expiry.expired(&rows)?.map(|expired| not(&expired)).transpose()?;
        }
        for term in &self.terms {
            let Some(position) = rows.ids().iter().position(|id| *id == term.column) else {
                return Err(EngineError::Internal {
                    detail: format!("the filter's column {} was not read", term.column),
                });
            };
            let holds = term.evaluate(&rows.arrays()[position])?;
            mask = Some(match mask {
                None => holds,
                Some(before) => and(&before, &holds)?,
            });
        }
        match mask {
            None => Ok(rows),
            Some(mask) => Ok(rows.filter(&mask)?),
        }
    }
}

impl Term {
    /// Returns true for each row for which the term holds, never null.
    fn evaluate(&self, array: &ArrayRef) -> Result<BooleanArray, EngineError> {
        let holds = match (self.op, self.values.first()) {
            (CompareOp::IsNull, _) => is_null(array)?,
            (CompareOp::IsNotNull, _) => is_not_null(array)?,
            (CompareOp::Eq, Some(value)) => cmp::eq(array, value)?,
            (CompareOp::Ne, Some(value)) => cmp::neq(array, value)?,
            (CompareOp::Lt, Some(value)) => cmp::lt(array, value)?,
            (CompareOp::Le, Some(value)) => cmp::lt_eq(array, value)?,
            (CompareOp::Gt, Some(value)) => cmp::gt(array, value)?,
            (CompareOp::Ge, Some(value)) => cmp::gt_eq(array, value)?,
            (CompareOp::In, _) => {
                let mut any = BooleanArray::from(vec![false; array.len()]);
                for value in &self.values {
                    any = or(&any, &nulls_to_false(cmp::eq(array, value)?))?;
                }
                any
            }
            (_, None) => return Err(bad("a comparison without a value".to_owned())),
        };
        Ok(nulls_to_false(holds))
    }
}

fn nulls_to_false(mask: BooleanArray) -> BooleanArray {
    match mask.nulls() {
        None => mask,
        Some(nulls) => BooleanArray::new(mask.values() & nulls.inner(), None),
    }
}

/// Parses a value of the column's type from its canonical text.
fn parse(column: &Column, text: &str) -> Result<Scalar<ArrayRef>, EngineError> {
    column
        .data_type
        .operand(text)
        .map_err(|error| bad(format!("column {:?}: {error}", column.name)))
}

fn bad(detail: String) -> EngineError {
    EngineError::BadRows { detail }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
