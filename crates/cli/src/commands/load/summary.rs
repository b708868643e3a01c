//! Summary of a load.

use serde::Serialize;
use tidewater_client::WriteReport;

use crate::output::amount::{grouped, seconds_text};

/// Outcome of the rows of a load. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    table: String,
    /// Rows that were written.
    pub(super) acknowledged: u64,
    /// Rows that were not written.
    failed: u64,
    /// Rows that may have been written.
    unknown: u64,
    /// Bad rows that were skipped.
    skipped: u64,
    seconds: f64,
    rows_per_second: f64,
}

impl Summary {
    pub(super) fn new(table: &str, report: &WriteReport, skipped: u64, seconds: f64) -> Self {
        Self {
            table: table.to_owned(),
            acknowledged: report.acknowledged,
            failed: report.failed,
            unknown: report.unknown,
            skipped,
            seconds,
            rows_per_second: (report.acknowledged as f64 / seconds.max(1e-3)).round(),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}: {} rows acknowledged in {} ({} rows/s)",
            self.table,
            grouped(self.acknowledged),
            seconds_text(self.seconds),
            grouped(self.rows_per_second as u64)
        );
        for (rows, outcome) in [
            (self.failed, "not written"),
            (self.unknown, "with unknown outcome: they may have been written"),
            (self.skipped, "skipped because they are bad"),
        ] {
            if rows > 0 {
                text.push_str(&format!("\n{} rows {outcome}", grouped(rows)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lists_each_outcome_separately() {
        let report =
            WriteReport { acknowledged: 1_000, failed: 2, unknown: 3, ..WriteReport::default() };
        let summary = Summary::new("t", &report, 4, 2.0);
        assert_eq!(
            summary.text(),
            "t: 1,000 rows acknowledged in 2.0 s (500 rows/s)\n2 rows not written\n\
             3 rows with unknown outcome: they may have been written\n\
             4 rows skipped because they are bad"
        );
        assert_eq!(
            serde_json::to_string(&summary).unwrap(),
            r#"{"table":"t","acknowledged":1000,"failed":2,"unknown":3,"skipped":4,"seconds":2.0,"rows_per_second":500.0}"#
        );
    }
}
