//! How many bad rows are passed over.

use super::error::{LoadError, RowError};

/// Rows reported in full; of the others only the number is kept.
const KEPT: usize = 20;

/// Counts bad rows against an allowance.
#[derive(Debug)]
pub(crate) struct BadRows {
    allowed: u64,
    count: u64,
    kept: Vec<RowError>,
}

impl BadRows {
    /// `allowed` rows are passed over; the next one ends the load.
    pub(crate) fn new(allowed: u64) -> Self {
        Self { allowed, count: 0, kept: Vec::new() }
    }

    /// Passes over a row, or says that it was one too many.
    pub(crate) fn report(&mut self, row: RowError) -> Result<(), LoadError> {
        if self.allowed == 0 {
            return Err(LoadError::Row(Box::new(row)));
        }
        if self.count == self.allowed {
            return Err(LoadError::TooManyBad { row: Box::new(row), skipped: self.count });
        }
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(row);
        }
        Ok(())
    }

    /// Rows passed over.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Rows passed over and not yet shown, at most 20 over the whole load.
    pub(crate) fn kept(&self) -> &[RowError] {
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::{Place, RowFault};
    use super::*;

    fn row(line: u64) -> RowError {
        RowError {
            file: "f.csv".into(),
            place: Place::Line(line),
            fault: RowFault::CellCount { found: 1, expected: 2 },
        }
    }

    #[test]
    fn the_first_bad_row_ends_a_load_without_allowance() {
        let mut bad = BadRows::new(0);
        assert!(matches!(bad.report(row(7)), Err(LoadError::Row(found)) if *found == row(7)));
    }

    #[test]
    fn one_row_too_many_ends_the_load() {
        let mut bad = BadRows::new(2);
        bad.report(row(1)).unwrap();
        bad.report(row(2)).unwrap();
        let error = bad.report(row(3)).unwrap_err();
        assert!(matches!(error, LoadError::TooManyBad { skipped: 2, .. }), "{error}");
        assert_eq!(bad.count(), 2);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut bad = BadRows::new(1_000);
        for line in 0..1_000 {
            bad.report(row(line)).unwrap();
        }
        assert_eq!((bad.count(), bad.kept().len()), (1_000, KEPT));
    }
}
