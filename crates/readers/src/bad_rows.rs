//! Limit of bad rows that a load skips.

use super::error::{LoadError, RowError};

/// Bad rows kept for the report; the others are only counted.
const MAX_KEPT: usize = 20;

/// Counts bad rows up to a limit.
#[derive(Debug)]
pub struct BadRows {
    allowed: u64,
    count: u64,
    kept: Vec<RowError>,
}

impl BadRows {
    /// Creates a counter that skips `allowed` bad rows; the next one ends the load.
    pub fn new(allowed: u64) -> Self {
        Self { allowed, count: 0, kept: Vec::new() }
    }

    /// Counts a bad row.
    ///
    /// # Errors
    ///
    /// When the limit is exceeded, which ends the load.
    pub fn report(&mut self, row: RowError) -> Result<(), LoadError> {
        if self.allowed == 0 {
            return Err(LoadError::Row(Box::new(row)));
        }
        if self.count == self.allowed {
            return Err(LoadError::TooManyBad { row: Box::new(row), skipped: self.count });
        }
        self.count += 1;
        if self.kept.len() < MAX_KEPT {
            self.kept.push(row);
        }
        Ok(())
    }

    /// Number of skipped rows.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// First skipped rows of the load, at most 20.
    pub fn kept(&self) -> &[RowError] {
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::{RowFault, RowPosition};
    use super::*;

    fn row(line: u64) -> RowError {
        RowError {
            file: "f.csv".into(),
            position: RowPosition::Line(line),
            fault: RowFault::CellCount { found: 1, expected: 2 },
        }
    }

    #[test]
    fn first_bad_row_ends_a_load_without_limit() {
        let mut bad = BadRows::new(0);
        assert!(matches!(bad.report(row(7)), Err(LoadError::Row(found)) if *found == row(7)));
    }

    #[test]
    fn bad_row_beyond_the_limit_ends_the_load() {
        let mut bad = BadRows::new(2);
        bad.report(row(1)).unwrap();
        bad.report(row(2)).unwrap();
        let error = bad.report(row(3)).unwrap_err();
        assert!(matches!(error, LoadError::TooManyBad { skipped: 2, .. }), "{error}");
        assert_eq!(bad.count(), 2);
    }

    #[test]
    fn number_of_kept_bad_rows_is_bounded() {
        let mut bad = BadRows::new(1_000);
        for line in 0..1_000 {
            bad.report(row(line)).unwrap();
        }
        assert_eq!((bad.count(), bad.kept().len()), (1_000, MAX_KEPT));
    }
}
