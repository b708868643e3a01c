//! The rows that a scan of the table may return.

use std::collections::{BTreeMap, BTreeSet};

/// Rows of a batch, whose numbers begin at 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Batch {
    /// Number of rows that were sent.
    sent: i64,
    /// Rows that must be present: all of an acknowledged batch.
    present: BTreeSet<i64>,
    /// Rows are present together, or none.
    is_atomic: bool,
}

impl Batch {
    fn is_settled(&self) -> bool {
        self.present.len() as u64 == self.sent.unsigned_abs()
    }
}

/// Contents of the table, as far as its operator knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    batches: BTreeMap<i64, Batch>,
    /// A truncation with an unknown outcome was the last operation.
    is_maybe_truncated: bool,
}

impl Contents {
    /// Adds a batch that was acknowledged.
    pub(super) fn add(&mut self, batch: i64, rows: i64) {
        let present = (0..rows).collect();
        self.batches.insert(batch, Batch { sent: rows, present, is_atomic: false });
    }

    /// Adds a batch with an unknown outcome.
    pub(super) fn add_unknown(&mut self, batch: i64, rows: i64, is_atomic: bool) {
        let unknown = Batch { sent: rows, present: BTreeSet::new(), is_atomic };
        self.batches.insert(batch, unknown);
    }

    /// Deletes all rows. Those of batches with an unknown outcome may appear later.
    pub(super) fn truncate(&mut self) {
        self.batches.retain(|_, batch| !batch.is_settled());
        self.batches.values_mut().for_each(|batch| batch.present.clear());
    }

    /// Deletes all rows, or not: a scan that returns none of them shows that they are deleted.
    pub(super) fn truncate_maybe(&mut self) {
        self.is_maybe_truncated = true;
    }

    /// Number of batches.
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Number of batches whose outcome is unknown.
    pub(super) fn unknown(&self) -> usize {
        self.batches.values().filter(|batch| !batch.is_settled()).count()
    }

    /// Compares the contents with all rows of a scan, and records the rows that it has of batches with unknown outcomes.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn check(&mut self, scanned: &[(i64, i64)]) -> Result<(), String> {
        let settled = |batch: &i64| self.batches.get(batch).is_some_and(Batch::is_settled);
        if std::mem::take(&mut self.is_maybe_truncated)
            && !scanned.iter().any(|(batch, _)| settled(batch))
        {
            self.truncate();
        }
        let mut found: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
        for (batch, number) in scanned {
            if !found.entry(*batch).or_default().insert(*number) {
                return Err(format!("row {number} of batch {batch} is present twice"));
            }
        }
        for (batch, rows) in &found {
            let sent = self.batches.get(batch).map_or(0, |batch| batch.sent);
            if let Some(row) = rows.iter().find(|row| !(0..sent).contains(*row)) {
                return Err(format!("row {row} of batch {batch} was never sent, or was deleted"));
            }
        }
        for (batch, expected) in &mut self.batches {
            let rows = found.remove(batch).unwrap_or_default();
            let missing = expected.present.difference(&rows).count();
            if missing > 0 {
                let of = expected.present.len();
                return Err(format!("{missing} of {of} rows of batch {batch} are missing"));
            }
            let some = !rows.is_empty() && rows.len() as u64 != expected.sent.unsigned_abs();
            if expected.is_atomic && some {
                return Err(format!("{} of {} rows of batch {batch}", rows.len(), expected.sent));
            }
            expected.present = rows;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(batch: i64, numbers: std::ops::Range<i64>) -> Vec<(i64, i64)> {
        numbers.map(|number| (batch, number)).collect()
    }

    fn contents() -> Contents {
        let mut contents = Contents::default();
        contents.add(1, 3);
        contents.add_unknown(2, 4, false);
        contents.add_unknown(3, 2, true);
        contents
    }

    #[test]
    fn unknown_outcomes_are_learnt_from_scans() {
        let mut contents = contents();
        contents.check(&rows(1, 0..3)).unwrap();
        contents.check(&[rows(1, 0..3), rows(2, 1..3)].concat()).unwrap();
        assert_eq!(contents.unknown(), 2);
        let back = contents.check(&[rows(1, 0..3), rows(2, 2..3)].concat());
        assert!(back.unwrap_err().contains("1 of 2 rows of batch 2 are missing"));
        contents.check(&[rows(1, 0..3), rows(2, 0..4), rows(3, 0..2)].concat()).unwrap();
        assert_eq!(contents.unknown(), 0);
    }

    #[test]
    fn truncation_of_unknown_outcome_deletes_all_or_nothing() {
        for (scan, is_valid) in
            [(vec![], true), (rows(1, 0..3), true), (rows(1, 0..2), false), (rows(2, 0..4), true)]
        {
            let mut contents = contents();
            contents.truncate_maybe();
            assert_eq!(contents.check(&scan).is_ok(), is_valid, "{scan:?}");
        }
    }

    #[test]
    fn each_violation_is_found() {
        for (scan, text) in [
            (rows(1, 0..2), "1 of 3 rows of batch 1 are missing"),
            ([rows(1, 0..3), rows(1, 2..3)].concat(), "present twice"),
            ([rows(1, 0..3), rows(2, 3..5)].concat(), "row 4 of batch 2 was never sent"),
            ([rows(1, 0..3), rows(9, 0..1)].concat(), "row 0 of batch 9 was never sent"),
            ([rows(1, 0..3), rows(3, 0..1)].concat(), "1 of 2 rows of batch 3"),
        ] {
            let found = contents().check(&scan).unwrap_err();
            assert!(found.contains(text), "{found}");
        }
    }

    #[test]
    fn truncated_rows_must_not_return() {
        let mut contents = contents();
        contents.truncate();
        assert_eq!((contents.len(), contents.unknown()), (2, 2));
        contents.check(&rows(2, 0..4)).unwrap();
        assert!(contents.check(&rows(1, 0..1)).unwrap_err().contains("was deleted"));
        contents.truncate();
        assert_eq!(contents.len(), 1);
        contents.check(&[]).unwrap();
    }
}
