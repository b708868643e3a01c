//! Stored rows, files and times of a table: sums over the regions whose owners reported.

use serde::Serialize;
use tidewater_client::admin::TableRegion;
use tidewater_client::catalog::TableInfo;
use tidewater_common::schema::{ColumnType, WriteMode};
use tidewater_proto::v1::RegionTimes;

use crate::output::amount::{bytes_text, grouped};
use tidewater_readers::value::instants::time_text;

/// Stored rows and files of a table. The JSON field names are stable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Stored {
    /// Regions of the table.
    pub(super) regions: usize,
    /// Regions whose owners reported: the numbers below are their sums.
    reported_regions: usize,
    files: u64,
    /// Size of the files.
    bytes: u64,
    /// Row versions in files and in memory.
    rows: u64,
    /// True if each row version is a row that a scan returns.
    rows_exact: bool,
    /// Row versions that are only in memory and in the log.
    unflushed_rows: u64,
    unflushed_bytes: u64,
    /// Least time of the row versions; null without a time column or without times.
    oldest_time: Option<String>,
    newest_time: Option<String>,
    /// Regions whose owners reported their times.
    times_of_regions: usize,
    unreported_regions: Vec<UnreportedRegion>,
    #[serde(skip)]
    has_time_column: bool,
}

/// A region whose owner did not report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct UnreportedRegion {
    region_id: u64,
    reason: String,
}

impl Stored {
    /// Sums the reports of a table's regions.
    pub(super) fn of(table: &TableInfo, regions: &[TableRegion]) -> Self {
        let column = table.schema.time_column().and_then(|id| table.schema.column(id));
        let is_exact =
            table.options.write_mode == WriteMode::AppendOnly && table.options.ttl_ms.is_none();
        Self::sum(column.map(|column| &column.data_type), is_exact, regions)
    }

    fn sum(time_type: Option<&ColumnType>, is_exact: bool, regions: &[TableRegion]) -> Self {
        let mut stored = Self {
            regions: regions.len(),
            has_time_column: time_type.is_some(),
            ..Self::default()
        };
        let mut times = RegionTimes::default();
        for region in regions {
            let report = match &region.report {
                Ok(report) => report,
                Err(reason) => {
                    stored.unreported_regions.push(UnreportedRegion {
                        region_id: region.region.get(),
                        reason: reason.clone(),
                    });
                    continue;
                }
            };
            stored.reported_regions += 1;
            stored.files += u64::from(report.files);
            stored.bytes += report.bytes;
            stored.rows += report.rows;
            stored.unflushed_rows += report.memtable_rows;
            stored.unflushed_bytes += report.memtable_bytes;
            if let Some(found) = report.times {
                stored.times_of_regions += 1;
                times = RegionTimes {
                    least: times.least.into_iter().chain(found.least).min(),
                    greatest: times.greatest.into_iter().chain(found.greatest).max(),
                };
            }
        }
        stored.rows_exact = is_exact && stored.unreported_regions.is_empty();
        if let Some(data_type) = time_type {
            // A number that is out of the range of dates is shown as it is.
            let text = |units: i64| {
                time_text(&data_type.arrow(), units).unwrap_or_else(|_| units.to_string())
            };
            stored.oldest_time = times.least.map(text);
            stored.newest_time = times.greatest.map(text);
        }
        stored
    }

    /// Returns the lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let of = self.of_regions(self.reported_regions);
        let note = if self.rows_exact {
            "exact"
        } else {
            "as stored: overwritten, deleted and expired rows count until compaction"
        };
        let files = if self.files == 1 { "file" } else { "files" };
        let mut lines = vec![
            format!("rows         {}{of}, {note}", grouped(self.rows)),
            format!(
                "size         {} in {} {files}{of}",
                bytes_text(self.bytes),
                grouped(self.files)
            ),
            format!(
                "unflushed    {} rows, {}{of}",
                grouped(self.unflushed_rows),
                bytes_text(self.unflushed_bytes)
            ),
        ];
        if self.has_time_column {
            let of = self.of_regions(self.times_of_regions);
            lines.push(match (&self.oldest_time, &self.newest_time) {
                (Some(oldest), Some(newest)) => format!("times        {oldest} to {newest}{of}"),
                _ => format!("times        none{of}"),
            });
        }
        lines.extend(
            self.unreported_regions.iter().map(|region| {
                format!("missing      region {}: {}", region.region_id, region.reason)
            }),
        );
        lines
    }

    fn of_regions(&self, reported: usize) -> String {
        if reported == self.regions {
            return String::new();
        }
        format!(" (of {reported} of {} regions)", self.regions)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use tidewater_common::ids::RegionId;
    use tidewater_proto::v1::RegionInfo;

    use super::*;

    fn region(id: u64, rows: u64, times: Option<(i64, i64)>) -> TableRegion {
        let times =
            RegionTimes { least: times.map(|times| times.0), greatest: times.map(|times| times.1) };
        let report = RegionInfo {
            files: 2,
            bytes: 3 << 20,
            rows,
            memtable_rows: 1,
            memtable_bytes: 100,
            times: Some(times),
            ..RegionInfo::default()
        };
        TableRegion { region: RegionId(id), report: Ok(report) }
    }

    fn silent(id: u64) -> TableRegion {
        TableRegion { region: RegionId(id), report: Err("node 12 did not answer".to_owned()) }
    }

    fn seconds() -> ColumnType {
        ColumnType::Timestamp(TimeUnit::Second, None)
    }

    #[test]
    fn reports_of_all_regions_are_summed() {
        let regions =
            [region(1, 1_000, Some((60, 120))), region(2, 34, None), region(3, 0, Some((0, 61)))];
        let stored = Stored::sum(Some(&seconds()), true, &regions);
        assert_eq!(
            stored.lines(),
            [
                "rows         1,034, exact",
                "size         9.0 MiB in 6 files",
                "unflushed    3 rows, 300 B",
                "times        1970-01-01T00:00:00 to 1970-01-01T00:02:00",
            ]
        );
    }

    #[test]
    fn sums_without_all_regions_name_their_number() {
        let regions = [region(1, 1_000, Some((60, 120))), silent(2)];
        let stored = Stored::sum(Some(&seconds()), true, &regions);
        assert!(!stored.rows_exact);
        assert_eq!(
            stored.lines(),
            [
                "rows         1,000 (of 1 of 2 regions), as stored: overwritten, deleted and expired rows \
             count until compaction",
                "size         3.0 MiB in 2 files (of 1 of 2 regions)",
                "unflushed    1 rows, 100 B (of 1 of 2 regions)",
                "times        1970-01-01T00:01:00 to 1970-01-01T00:02:00 (of 1 of 2 regions)",
                "missing      region 2: node 12 did not answer",
            ]
        );
    }

    // A data node of an older release reports no times.
    #[test]
    fn times_name_the_number_of_their_regions() {
        let mut old = region(2, 5, None);
        if let Ok(report) = &mut old.report {
            report.times = None;
        }
        let stored = Stored::sum(Some(&seconds()), false, &[region(1, 5, Some((1, 1))), old]);
        let times = "times        1970-01-01T00:00:01 to 1970-01-01T00:00:01 (of 1 of 2 regions)";
        assert_eq!(stored.lines().last().map(String::as_str), Some(times));
        assert!(stored.lines()[0].starts_with("rows         10, as stored"));
    }

    #[test]
    fn tables_without_time_column_have_no_times() {
        let stored = Stored::sum(None, false, &[region(1, 5, None)]);
        assert_eq!(stored.lines().len(), 3);
        let json = serde_json::to_string(&stored).unwrap();
        assert_eq!(
            json,
            r#"{"regions":1,"reported_regions":1,"files":2,"bytes":3145728,"rows":5,"rows_exact":false,"unflushed_rows":1,"unflushed_bytes":100,"oldest_time":null,"newest_time":null,"times_of_regions":1,"unreported_regions":[]}"#
        );
    }
}
