//! What writers were told, compared with what a scan shows.
//!
//! Every row of an append-only table is named by (writer, serial) and sent in one write. A write is
//! *acknowledged*, *failed* (it has not happened and never will), or *unknown*.

use std::collections::HashMap;
use std::fmt;

use crate::{HarnessError, Result};

/// What a writer was told about one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has happened.
    Acknowledged,
    /// It has not happened and never will; why.
    Failed(String),
    /// It may have happened, or may still; why.
    Unknown(String),
}

/// One write: `rows` rows with consecutive serials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Whose it is.
    pub writer: i64,
    /// Serial of its first row.
    pub first: i64,
    /// Number of rows.
    pub rows: i64,
    /// What the writer was told.
    pub outcome: Outcome,
}

/// A row by its name.
pub type RowName = (i64, i64);

/// The oracle's findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rows acknowledged.
    pub acknowledged: usize,
    /// Rows whose write failed.
    pub failed: usize,
    /// Rows whose write is unknown.
    pub unknown: usize,
    /// Rows of unknown writes that are there: either is right.
    pub unknown_present: usize,
    /// Acknowledged and not there.
    pub missing: Vec<RowName>,
    /// There and never sent.
    pub never_sent: Vec<RowName>,
    /// There though the writer was told that it failed.
    pub failed_present: Vec<RowName>,
    /// There more than once.
    pub doubled: Vec<RowName>,
    /// Unknown writes of which a part is there: a write is all or nothing within a region.
    pub torn: Vec<RowName>,
}

impl Verdict {
    /// Compares all attempts with all rows of the final scan.
    pub fn of(attempts: &[Attempt], scanned: impl IntoIterator<Item = RowName>) -> Self {
        let mut seen: HashMap<RowName, u32> = HashMap::new();
        for row in scanned {
            *seen.entry(row).or_default() += 1;
        }
        let mut verdict = Self {
            doubled: seen.iter().filter(|(_, times)| **times > 1).map(|(row, _)| *row).collect(),
            ..Self::default()
        };
        for attempt in attempts {
            verdict.judge(attempt, &mut seen);
        }
        verdict.never_sent = seen.into_keys().collect();
        for rows in [&mut verdict.doubled, &mut verdict.never_sent] {
            rows.sort_unstable();
        }
        verdict
    }

    fn judge(&mut self, attempt: &Attempt, seen: &mut HashMap<RowName, u32>) {
        let names = (attempt.first..attempt.first + attempt.rows).map(|s| (attempt.writer, s));
        let (present, absent): (Vec<_>, Vec<_>) =
            names.partition(|name| seen.remove(name).is_some());
        let rows = present.len() + absent.len();
        match attempt.outcome {
            Outcome::Acknowledged => {
                self.acknowledged += rows;
                self.missing.extend(absent);
            }
            Outcome::Failed(_) => {
                self.failed += rows;
                self.failed_present.extend(present);
            }
            Outcome::Unknown(_) => {
                self.unknown += rows;
                self.unknown_present += present.len();
                if !present.is_empty() {
                    self.torn.extend(absent);
                }
            }
        }
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        let wrong =
            [&self.missing, &self.never_sent, &self.failed_present, &self.doubled, &self.torn];
        wrong.iter().all(|rows| rows.is_empty())
    }

    /// Nothing is wrong.
    ///
    /// # Errors
    /// [`HarnessError::Violated`] with the verdict.
    pub fn ok(self) -> Result<Self> {
        if self.is_clean() {
            Ok(self)
        } else {
            Err(HarnessError::violated(format!("the oracle found: {self}")))
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows acknowledged, {} failed, {} unknown ({} of them there)",
            self.acknowledged, self.failed, self.unknown, self.unknown_present
        )?;
        for (what, rows) in [
            ("acknowledged and MISSING", &self.missing),
            ("NEVER SENT and there", &self.never_sent),
            ("FAILED and there", &self.failed_present),
            ("there TWICE", &self.doubled),
            ("TORN: missing from a write of which other rows are there", &self.torn),
        ] {
            if !rows.is_empty() {
                let some = &rows[..rows.len().min(8)];
                write!(f, "; {} {what}, such as (writer, serial) {some:?}", rows.len())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(first: i64, rows: i64, outcome: Outcome) -> Attempt {
        Attempt { writer: 1, first, rows, outcome }
    }

    fn history() -> Vec<Attempt> {
        vec![
            attempt(1, 2, Outcome::Acknowledged),
            attempt(3, 2, Outcome::Failed("no".into())),
            attempt(5, 2, Outcome::Unknown("cut".into())),
        ]
    }

    #[test]
    fn a_right_scan_passes_whatever_became_of_unknown_writes() {
        for scan in [vec![(1, 1), (1, 2)], vec![(1, 1), (1, 2), (1, 5), (1, 6)]] {
            let verdict = Verdict::of(&history(), scan).ok().unwrap();
            assert_eq!((verdict.acknowledged, verdict.failed, verdict.unknown), (2, 2, 2));
        }
    }

    #[test]
    fn each_wrong_scan_is_found_out() {
        let cases = [
            ("lost", vec![(1, 1)], "acknowledged and MISSING"),
            ("invented", vec![(1, 1), (1, 2), (9, 9)], "NEVER SENT"),
            ("risen", vec![(1, 1), (1, 2), (1, 3), (1, 4)], "FAILED and there"),
            ("twice", vec![(1, 1), (1, 2), (1, 2)], "TWICE"),
            ("torn", vec![(1, 1), (1, 2), (1, 6)], "TORN"),
        ];
        for (name, scan, word) in cases {
            let error = Verdict::of(&history(), scan).ok().unwrap_err().to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
    }
}
