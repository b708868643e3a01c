//! Passes of a request to compact all files of a region (pure).
//!
//! The first pass determines the files: those of its state. Rows that are written later do not prolong
//! the request. Each pass is a job of its own and its commit remains, so the next request
//! continues from the result of one that ended early.

use super::select::{Remainder, Scope};
use crate::region::CompactionReport;

/// State of a request between its passes.
#[derive(Debug)]
pub struct CompactionPasses {
    scope: Scope,
    /// Runs that the last pass left.
    runs: usize,
    total: Option<CompactionReport>,
}

impl CompactionPasses {
    /// Creates the state of a request that has made no pass.
    pub fn new(scope: Scope) -> Self {
        Self { scope, runs: usize::MAX, total: None }
    }

    /// Returns the scope of the next pass.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the number of completed passes.
    pub fn completed(&self) -> u32 {
        self.total.as_ref().map_or(0, |total| total.passes)
    }

    /// Records a committed pass. Returns whether another one follows: files are left, and the pass has
    /// reduced the number of runs.
    pub fn record(&mut self, report: CompactionReport) -> bool {
        let remainder = report.remainder;
        self.total = Some(match self.total.take() {
            Some(total) => total.followed_by(report),
            None => report,
        });
        let Some(Remainder { runs, through }) = remainder.filter(|left| left.runs < self.runs)
        else {
            return false;
        };
        self.runs = runs;
        self.scope = Scope::Through(through);
        true
    }

    /// Returns the report on all passes; `None`: there was nothing to compact.
    pub fn total(self) -> Option<CompactionReport> {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{JobId, ManifestVersion, Sequence};
    use uuid::Uuid;

    use super::*;
    use crate::compaction::{CompactionReason, ProgressSnapshot};

    fn report(number: u32, left: Option<usize>) -> CompactionReport {
        CompactionReport {
            job_id: JobId(Uuid::from_u128(number.into())),
            why: CompactionReason::Asked,
            manifest_version: ManifestVersion(number.into()),
            files_in: 4,
            bytes_in: 100,
            files_out: 1,
            done: ProgressSnapshot { rows_read: 10, ..ProgressSnapshot::default() },
            passes: 1,
            remainder: left.map(|runs| Remainder { runs, through: Sequence(77) }),
        }
    }

    #[test]
    fn passes_continue_while_runs_become_fewer() {
        // Runs that each pass leaves, and the number of passes.
        let cases: [(&[Option<usize>], u32); 5] = [
            (&[None], 1),
            (&[Some(9), Some(5), Some(2), None], 4),
            // A pass without effect on the number of runs is the last.
            (&[Some(9), Some(9), Some(2)], 2),
            (&[Some(9), Some(12), None], 2),
            (&[Some(2), None], 2),
        ];
        for (left, expected) in cases {
            let mut passes = CompactionPasses::new(Scope::Whole);
            let mut reports = (1..).zip(left).map(|(number, left)| report(number, *left));
            while passes.record(reports.next().unwrap()) {
                assert_eq!(passes.scope(), Scope::Through(Sequence(77)));
            }
            assert_eq!(passes.completed(), expected, "{left:?}");
            let total = passes.total().unwrap();
            let passes = expected as usize;
            assert_eq!((total.files_in, total.files_out), (4 * passes, passes));
            assert_eq!(
                (total.done.rows_read, total.manifest_version.get()),
                (10 * u64::from(expected), u64::from(expected))
            );
        }
        assert_eq!(CompactionPasses::new(Scope::Whole).total(), None);
    }
}
