//! Oracle: compares the outcomes of writes with the result of a scan.
//!
//! Every row of an append-only table is identified by (writer, serial) and sent in one write. A write is
//! *acknowledged*, *failed* (it has not taken effect and never will), or *unknown*.

use std::collections::HashMap;
use std::fmt;

use crate::{HarnessError, Result};

/// Outcome of one write, as its writer received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The write has taken effect.
    Acknowledged,
    /// The write has not taken effect and never will, with the reason.
    Failed(String),
    /// The write may have taken effect, or may still, with the reason.
    Unknown(String),
}

/// One write: `rows` rows with consecutive serials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the writer.
    pub writer: i64,
    /// Serial of the first row.
    pub first: i64,
    /// Number of rows.
    pub rows: i64,
    /// Outcome of the write.
    pub outcome: Outcome,
}

/// Writer and serial of a row.
pub type RowName = (i64, i64);

/// Findings of the oracle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of rows of acknowledged writes.
    pub acknowledged: usize,
    /// Number of rows of failed writes.
    pub failed: usize,
    /// Number of rows of unknown writes.
    pub unknown: usize,
    /// Number of rows of unknown writes that are present, which is no violation.
    pub unknown_present: usize,
    /// Acknowledged rows that are absent.
    pub missing: Vec<RowName>,
    /// Rows that are present but were never sent.
    pub never_sent: Vec<RowName>,
    /// Rows of failed writes that are present.
    pub failed_present: Vec<RowName>,
    /// Rows that are present more than once.
    pub doubled: Vec<RowName>,
    /// Absent rows of unknown writes of which other rows are present: a write is atomic within a region.
    pub torn: Vec<RowName>,
}

impl Verdict {
    /// Compares all attempts with all rows of the final scan.
    pub fn new(attempts: &[Attempt], scanned: impl IntoIterator<Item = RowName>) -> Self {
        let mut seen: HashMap<RowName, u32> = HashMap::new();
        for row in scanned {
            *seen.entry(row).or_default() += 1;
        }
        let mut verdict = Self {
            doubled: seen.iter().filter(|(_, times)| **times > 1).map(|(row, _)| *row).collect(),
            ..Self::default()
        };
        for attempt in attempts {
            verdict.add(attempt, &mut seen);
        }
        verdict.never_sent = seen.into_keys().collect();
        for rows in [&mut verdict.doubled, &mut verdict.never_sent] {
            rows.sort_unstable();
        }
        verdict
    }

    fn add(&mut self, attempt: &Attempt, seen: &mut HashMap<RowName, u32>) {
        let serials = attempt.first..attempt.first + attempt.rows;
        let names = serials.map(|serial| (attempt.writer, serial));
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

    /// Returns true if the verdict has no violations.
    pub fn is_clean(&self) -> bool {
        let violations =
            [&self.missing, &self.never_sent, &self.failed_present, &self.doubled, &self.torn];
        violations.iter().all(|rows| rows.is_empty())
    }

    /// Returns the verdict if it has no violations.
    ///
    /// # Errors
    /// [`HarnessError::Violated`] with the verdict otherwise.
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
            "{} rows acknowledged, {} failed, {} unknown ({} of them present)",
            self.acknowledged, self.failed, self.unknown, self.unknown_present
        )?;
        for (violation, rows) in [
            ("acknowledged and MISSING", &self.missing),
            ("NEVER SENT and present", &self.never_sent),
            ("FAILED and present", &self.failed_present),
            ("present TWICE", &self.doubled),
            ("TORN: missing from a write of which other rows are present", &self.torn),
        ] {
            if !rows.is_empty() {
                let examples = &rows[..rows.len().min(8)];
                let count = rows.len();
                write!(f, "; {count} {violation}, such as (writer, serial) {examples:?}")?;
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
    fn unknown_writes_may_be_present_or_absent() {
        for scan in [vec![(1, 1), (1, 2)], vec![(1, 1), (1, 2), (1, 5), (1, 6)]] {
            let verdict = Verdict::new(&history(), scan).ok().unwrap();
            assert_eq!((verdict.acknowledged, verdict.failed, verdict.unknown), (2, 2, 2));
        }
    }

    #[test]
    fn oracle_detects_each_violation() {
        let cases = [
            ("lost", vec![(1, 1)], "acknowledged and MISSING"),
            ("invented", vec![(1, 1), (1, 2), (9, 9)], "NEVER SENT"),
            ("failed", vec![(1, 1), (1, 2), (1, 3), (1, 4)], "FAILED and present"),
            ("twice", vec![(1, 1), (1, 2), (1, 2)], "TWICE"),
            ("torn", vec![(1, 1), (1, 2), (1, 6)], "TORN"),
        ];
        for (name, scan, word) in cases {
            let error = Verdict::new(&history(), scan).ok().unwrap_err().to_string();
            assert!(error.contains(word), "{name}: {error}");
        }
    }
}
