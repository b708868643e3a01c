//! Outcome of the rows of a writer.

use tidewater_common::refusal::Refusal;

use crate::error::ClientError;

/// Most causes that a report keeps. The first ones are the most informative.
const MAX_CAUSES: usize = 16;

/// Number of rows by outcome. Each row is counted in exactly one of the first three fields.
#[derive(Debug, Clone, Default)]
pub struct WriteReport {
    /// Rows that took effect, once.
    pub acknowledged: u64,
    /// Rows that have not taken effect and never will.
    pub failed: u64,
    /// Rows that may have taken effect, or may still do so.
    pub unknown: u64,
    /// Acknowledged rows with an earlier attempt whose effect was unknown.
    pub repeated: u64,
    /// Last error of each of the first 16 pieces that failed or are unknown.
    pub causes: Vec<Refusal>,
}

impl WriteReport {
    /// Returns `true` if every row took effect.
    pub fn is_whole(&self) -> bool {
        self.failed == 0 && self.unknown == 0
    }

    /// Returns the number of settled rows.
    pub fn rows(&self) -> u64 {
        self.acknowledged + self.failed + self.unknown
    }

    /// Adds another report to this one.
    pub fn add(&mut self, other: WriteReport) {
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.repeated += other.repeated;
        let room = MAX_CAUSES.saturating_sub(self.causes.len());
        self.causes.extend(other.causes.into_iter().take(room));
    }

    pub(crate) fn add_cause(&mut self, cause: Refusal) {
        if self.causes.len() < MAX_CAUSES {
            self.causes.push(cause);
        }
    }

    /// Returns the report, or an error unless every row took effect.
    ///
    /// # Errors
    /// [`ClientError::Failed`] when no row has taken effect and none will;
    /// [`ClientError::Unknown`] when the outcome of rows is unknown; [`ClientError::Partial`] otherwise.
    pub fn into_result(self, table: &str) -> Result<WriteReport, ClientError> {
        if self.is_whole() {
            return Ok(self);
        }
        let table = table.to_owned();
        let acknowledged = self.acknowledged;
        let failed = self.failed;
        let unknown = self.unknown;
        let cause = Box::new(self.causes.into_iter().next().unwrap_or_else(|| {
            Refusal::new(tidewater_proto::v1::Reason::Unspecified, "no cause was recorded")
        }));
        Err(match (acknowledged, unknown) {
            (_, 1..) => ClientError::Unknown { table, acknowledged, failed, unknown, cause },
            (0, 0) => ClientError::Failed { table, rows: failed, cause },
            (1.., 0) => ClientError::Partial { table, acknowledged, failed, cause },
        })
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::Reason;

    use super::*;

    fn report(acknowledged: u64, failed: u64, unknown: u64) -> WriteReport {
        let causes = vec![Refusal::new(Reason::Overloaded, "full")];
        WriteReport { acknowledged, failed, unknown, repeated: 0, causes }
    }

    #[test]
    fn report_becomes_an_error_unless_all_rows_took_effect() {
        assert!(report(3, 0, 0).into_result("t").is_ok());
        assert!(report(0, 0, 0).into_result("t").is_ok());
        let cases = [
            (report(0, 3, 0), "Failed", false),
            (report(1, 2, 0), "Partial", true),
            (report(0, 0, 3), "Unknown", true),
            (report(0, 2, 1), "Unknown", true),
            (report(2, 0, 1), "Unknown", true),
        ];
        for (report, variant, maybe_done) in cases {
            let error = report.into_result("t").unwrap_err();
            assert!(format!("{error:?}").starts_with(variant), "{error:?}");
            assert_eq!(error.maybe_done(), maybe_done, "{error:?}");
        }
    }

    #[test]
    fn report_keeps_a_bounded_number_of_causes() {
        let mut all = WriteReport::default();
        for _ in 0..100 {
            all.add(report(0, 1, 0));
        }
        assert_eq!((all.failed, all.causes.len()), (100, MAX_CAUSES));
    }
}
