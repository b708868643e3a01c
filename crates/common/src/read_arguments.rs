//! Limits of the arguments of a read. Without them, a request of some kilobytes makes a node hold and
//! evaluate a thousand times as much: each repetition of a column is a copy of its values, and each
//! value of a list is compared with every row.

use std::collections::HashSet;

use tidewater_proto::v1::Predicate;

use crate::ids::ColumnId;
use crate::schema::MAX_COLUMNS;

/// Maximum number of values in all predicates of a read together.
pub const MAX_VALUES: usize = 10_000;
/// Maximum bytes of the values in all predicates of a read together.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Maximum number of predicates of a read.
pub const MAX_PREDICATES: usize = 1_000;

/// Maximum bytes of the request of a scan: more than any that is within the other limits.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;

/// An argument of a read that a node does not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadArgumentError {
    /// A column occurs twice in the projection.
    #[error("column id {0} is named twice: name each column once")]
    RepeatedColumn(ColumnId),
    /// More columns than a table has.
    #[error("a read of more than {MAX_COLUMNS} columns (maximum): name each column once")]
    Columns,
    /// The predicates have too many values.
    #[error(
        "the conditions have more than {MAX_VALUES} values (maximum): split the list and read once \
         for each part"
    )]
    Values,
    /// The values of the predicates are too long.
    #[error(
        "the values of the conditions take more than {MAX_VALUE_BYTES} bytes (maximum): split the \
         list and read once for each part"
    )]
    ValueBytes,
    /// Too many predicates.
    #[error("a read with more than {MAX_PREDICATES} conditions (maximum): combine them")]
    Predicates,
}

/// Checks that a projection names each column once.
///
/// # Errors
/// [`ReadArgumentError::RepeatedColumn`], [`ReadArgumentError::Columns`].
pub fn check_projection(columns: &[u32]) -> Result<(), ReadArgumentError> {
    if columns.len() > MAX_COLUMNS {
        return Err(ReadArgumentError::Columns);
    }
    let mut seen = HashSet::new();
    match columns.iter().find(|column| !seen.insert(**column)) {
        None => Ok(()),
        Some(repeated) => Err(ReadArgumentError::RepeatedColumn(ColumnId(*repeated))),
    }
}

/// Checks that predicates are within the limits; returns the bytes of their values.
///
/// # Errors
/// [`ReadArgumentError::Predicates`], [`ReadArgumentError::Values`], [`ReadArgumentError::ValueBytes`].
pub fn check_predicates(predicates: &[Predicate]) -> Result<usize, ReadArgumentError> {
    let mut total = ValueCount::default();
    if predicates.len() > MAX_PREDICATES {
        return Err(ReadArgumentError::Predicates);
    }
    for value in predicates.iter().flat_map(|predicate| &predicate.values) {
        total.add(value)?;
    }
    Ok(total.bytes)
}

/// Number and bytes of the values of a read's predicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValueCount {
    values: usize,
    bytes: usize,
}

impl ValueCount {
    /// Adds a value.
    ///
    /// # Errors
    /// [`ReadArgumentError::Values`], [`ReadArgumentError::ValueBytes`] above the limits.
    pub fn add(&mut self, value: &str) -> Result<(), ReadArgumentError> {
        self.values += 1;
        self.bytes = self.bytes.saturating_add(value.len());
        if self.values > MAX_VALUES {
            return Err(ReadArgumentError::Values);
        }
        if self.bytes > MAX_VALUE_BYTES {
            return Err(ReadArgumentError::ValueBytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projection_names_each_column_once() {
        let cases: &[(&[u32], Option<u32>)] =
            &[(&[], None), (&[3, 1, 2], None), (&[1, 1], Some(1)), (&[4, 2, 3, 2, 4], Some(2))];
        for (columns, repeated) in cases {
            let expected = repeated.map(|id| ReadArgumentError::RepeatedColumn(ColumnId(id)));
            assert_eq!(check_projection(columns).err(), expected, "{columns:?}");
        }
        let columns: Vec<u32> = (0..=1_024).collect();
        assert_eq!(check_projection(&columns[1..]), Ok(()));
        assert_eq!(check_projection(&columns), Err(ReadArgumentError::Columns));
    }

    #[test]
    fn predicates_are_limited_in_number_values_and_bytes() {
        let list = |values: usize, bytes: usize| Predicate {
            values: vec!["v".repeat(bytes); values],
            ..Predicate::default()
        };
        let cases = [
            (vec![], Ok(0)),
            (vec![list(MAX_VALUES, 3)], Ok(3 * MAX_VALUES)),
            (vec![list(MAX_VALUES + 1, 1)], Err(ReadArgumentError::Values)),
            // The limit is for all predicates together.
            (vec![list(MAX_VALUES, 1), list(1, 1)], Err(ReadArgumentError::Values)),
            (vec![list(1, MAX_VALUE_BYTES)], Ok(MAX_VALUE_BYTES)),
            (vec![list(1, MAX_VALUE_BYTES + 1)], Err(ReadArgumentError::ValueBytes)),
            (vec![list(0, 0); MAX_PREDICATES], Ok(0)),
            (vec![list(0, 0); MAX_PREDICATES + 1], Err(ReadArgumentError::Predicates)),
        ];
        for (predicates, expected) in cases {
            assert_eq!(check_predicates(&predicates), expected);
        }
    }
}
