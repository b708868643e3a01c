//! Exit statuses of sorted scans and aggregates.

use super::{Exit, Failure};
use crate::query::aggregate::AggregateError;
use crate::query::sorter::SortError;

impl From<SortError> for Failure {
    fn from(error: SortError) -> Self {
        let exit = match error {
            SortError::Memory { .. } => Exit::Usage,
            SortError::Arrow(_) => Exit::Other,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<AggregateError> for Failure {
    fn from(error: AggregateError) -> Self {
        let exit = match error {
            AggregateError::Column(error) => return error.into(),
            AggregateError::NotANumber { .. } => Exit::Usage,
            AggregateError::Overflow(_) | AggregateError::Arrow { .. } => Exit::Other,
        };
        Self::new(exit, error.to_string())
    }
}
