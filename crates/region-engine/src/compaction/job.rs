//! Compaction jobs as plain values.

use tidewater_common::ids::{Epoch, JobId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};

use super::cut::sub_job_count;
use super::estimate::{open_bytes, sub_job_bytes};
use super::options::CompactionLimits;
use super::pick::CompactionReason;
use super::runs::Ranged;
use crate::expiry::Expiry;
use crate::file_meta::{FileMeta, hull};
use crate::layout::RegionDir;
use crate::manifest::ExpiryMarks;

/// All information needed to compact some files of a region wherever the store is reachable.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionJob {
    /// Id of the job; UUIDv7.
    pub job_id: JobId,
    /// The region; outputs go into its directory.
    pub dir: RegionDir,
    /// Columns and keys of the outputs.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// The input files, each within its clip.
    pub inputs: Vec<FileMeta>,
    /// Rows outside of the inputs that a delete among the inputs may have to hide.
    pub older: Vec<OlderRows>,
    /// Versions at or below this epoch are dropped, except the newest of each key.
    pub since: Epoch,
    /// The current time for expiry of rows, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Rows that earlier commits have expired for good.
    pub expired: ExpiryMarks,
    /// Ids of outputs are at least this old, milliseconds since the Unix epoch.
    pub gc_floor_ms: u64,
    /// Level and target size of the outputs.
    pub output: OutputOptions,
    /// The time window in use, in milliseconds; recorded in the manifest.
    pub window_ms: Option<u64>,
    /// Reason of the choice of files.
    pub why: CompactionReason,
}

/// Level and target size of a job's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputOptions {
    /// Level of the outputs.
    pub level: u32,
    /// Size in bytes at which a file ends and the next one begins.
    pub target_file_bytes: usize,
}

/// Rows outside of a job that may be older than a delete among its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderRows {
    /// First key.
    pub low: Vec<u8>,
    /// Last key.
    pub high: Vec<u8>,
    /// Lower bound of their sequences.
    pub min_sequence: Sequence,
}

/// A sub-job below this fraction of a file's target size is not worthwhile.
const LEAST_PART: u64 = 4;

/// The range of keys that a file shows within its clip.
struct ShownRange<'a>((&'a [u8], &'a [u8]));

impl<'a> Ranged for ShownRange<'a> {
    type Key = &'a [u8];
    fn low(&self) -> &&'a [u8] {
        &self.0.0
    }
    fn high(&self) -> &&'a [u8] {
        &self.0.1
    }
}

impl CompactionJob {
    /// Returns the maximum bytes of memory of one sub-job: one file of each sorted run of the
    /// inputs is open. 0 if no input is read.
    pub fn sub_job_bytes(&self) -> u64 {
        let shown: Vec<(ShownRange<'_>, u64)> = self
            .read()
            .filter_map(|file| Some((ShownRange(file.shown_keys()?), open_bytes(file))))
            .collect();
        let (files, bytes): (Vec<ShownRange<'_>>, Vec<u64>) = shown.into_iter().unzip();
        let all: Vec<usize> = (0..files.len()).collect();
        sub_job_bytes(&files, &all, |index| bytes[index])
    }

    /// Returns the number of concurrent sub-jobs within these limits: only worthwhile ones, and at
    /// least one.
    pub fn sub_jobs(&self, limits: CompactionLimits) -> usize {
        let least_bytes = self.output.target_file_bytes as u64 / LEAST_PART;
        let CompactionLimits { parallelism, memory_bytes } = limits;
        sub_job_count(
            parallelism,
            self.bytes_read(),
            least_bytes,
            memory_bytes,
            self.sub_job_bytes(),
        )
    }

    /// Returns the part of the key space that the outputs may show: the hull of the inputs' clips.
    pub fn clip(&self) -> KeyRange {
        hull(self.inputs.iter())
    }

    /// Returns `true` if rows outside of the inputs and within a range may be hidden by a delete or
    /// a newer expired row of the inputs.
    pub fn may_hide(&self, range: &KeyRange) -> bool {
        let newest = self
            .inputs
            .iter()
            .filter(|file| range.intersects_inclusive(&file.min_key, &file.max_key))
            .map(FileMeta::max_sequence)
            .max()
            .unwrap_or_default();
        self.older.iter().any(|older| {
            older.min_sequence < newest && range.intersects_inclusive(&older.low, &older.high)
        })
    }

    /// Returns the expiry of the inputs' rows.
    pub(crate) fn expiry(&self) -> Option<Expiry> {
        Expiry::new(&self.schema, &self.options, self.now_ms, &self.expired)
    }

    /// Returns the inputs that are read. Inputs whose rows have all expired are only removed.
    pub(crate) fn read(&self) -> impl Iterator<Item = &FileMeta> {
        let expiry = self.expiry();
        let expired = move |file: &FileMeta| {
            expiry.as_ref().is_some_and(|expiry| expiry.covers_file(file.time, file.max_sequence()))
        };
        self.inputs.iter().filter(move |file| !expired(file))
    }

    /// Returns the bytes of the inputs that are read, which bound the bytes written.
    pub fn bytes_read(&self) -> u64 {
        self.read().map(|file| file.size).sum()
    }

    /// Returns the bytes of all inputs.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.size).sum()
    }

    /// Returns the row versions of the inputs, clipped ones included.
    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|file| file.rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use tidewater_common::ids::{ColumnId, SchemaVersion};
    use tidewater_common::schema::{Column, ColumnType};
    use uuid::Uuid;

    use super::*;
    use crate::compaction::estimate::{INFLATION, OVERHEAD, UNITS};
    use crate::file_meta::TimeRange;
    use crate::manifest::samples::{DIR, file, schema};
    use crate::sst::decode::Pace;

    /// Keys (both ends inclusive), bytes, row groups.
    type Input = (u8, u8, u64, u32);

    fn job(inputs: &[Input]) -> CompactionJob {
        let input = |(number, input): (u64, &Input)| {
            let (low, high, size, row_groups) = *input;
            // A stretch is a row group, and so is a unit.
            let rows = Pace::MERGED.unit_rows as u64 * u64::from(row_groups.max(1));
            FileMeta {
                min_key: vec![low],
                max_key: vec![high],
                size,
                rows,
                row_groups,
                ..file(number)
            }
        };
        CompactionJob {
            job_id: JobId(Uuid::from_u128(1)),
            dir: DIR,
            schema: schema(1),
            options: TableOptions::append_only(),
            inputs: (1..).zip(inputs).map(input).collect(),
            older: Vec::new(),
            since: Epoch(0),
            now_ms: 0,
            expired: ExpiryMarks::default(),
            gc_floor_ms: 0,
            output: OutputOptions { level: 1, target_file_bytes: 1 },
            window_ms: None,
            why: CompactionReason::Tier,
        }
    }

    #[test]
    fn sub_job_memory_counts_one_file_per_run() {
        let mib = 1 << 20;
        assert_eq!(job(&[]).sub_job_bytes(), 0, "nothing is read");
        let cases: [(&[Input], u64); 5] = [
            (&[(1, 9, 100 * mib, 10)], 20 + 24),
            // Consecutive files are open one after another: the largest counts.
            (&[(1, 2, 10 * mib, 1), (3, 4, 40 * mib, 2), (5, 6, 15 * mib, 1)], 40 + 24),
            // Overlapping files are open concurrently. Both ends are inclusive.
            (&[(1, 9, 10 * mib, 1), (1, 9, 40 * mib, 2), (9, 9, 15 * mib, 1)], 90 + 3 * 24),
            // Two runs: the largest file of each counts.
            (
                &[(1, 4, 5 * mib, 1), (6, 9, 7 * mib, 1), (2, 5, mib, 1), (7, 8, 3 * mib, 1)],
                20 + 2 * 24,
            ),
            // A file without row groups is not divided by their number.
            (&[(1, 9, 3 * mib, 0)], 6 + 24),
        ];
        for (inputs, expected) in cases {
            assert_eq!(job(inputs).sub_job_bytes(), OVERHEAD + expected * mib, "{inputs:?}");
        }
        // Any number of inputs.
        let many: Vec<Input> = (0..=255).map(|key| (key, key, 2 * mib, 1)).collect();
        assert_eq!(job(&many).sub_job_bytes(), OVERHEAD + 28 * mib);
        let stacked: Vec<Input> = (0..=255).map(|_| (1, 2, 2 * mib, 1)).collect();
        assert_eq!(job(&stacked).sub_job_bytes(), OVERHEAD + 256 * 28 * mib);
    }

    #[test]
    fn clipped_rows_are_not_counted_as_memory() {
        let mut job = job(&[(1, 9, 10, 1), (1, 9, 30, 1)]);
        job.inputs[1].clip = KeyRange::new(vec![10], None);
        assert_eq!(job.sub_job_bytes(), OVERHEAD + 20 + UNITS * INFLATION * 10);
        // Disjoint clips put overlapping files into one run.
        job.inputs[0].clip = KeyRange::new(vec![], Some(vec![4]));
        job.inputs[1].clip = KeyRange::new(vec![5], None);
        assert_eq!(job.sub_job_bytes(), OVERHEAD + 60 + UNITS * INFLATION * 30);
    }

    #[test]
    fn expired_files_are_not_counted() {
        let mut job = job(&[(1, 9, 10, 1), (1, 9, 30, 1), (1, 9, 500, 1)]);
        let time = Column {
            id: ColumnId(9),
            name: "time".into(),
            data_type: ColumnType::Timestamp(TimeUnit::Millisecond, None),
            nullable: false,
            default: None,
        };
        let columns = job.schema.columns().iter().cloned().chain([time]).collect();
        let key = job.schema.primary_key().to_vec();
        let time = Some(ColumnId(9));
        job.schema = TableSchema::new(SchemaVersion(1), columns, key, time, ColumnId(10)).unwrap();
        for (file, max) in job.inputs.iter_mut().zip([999, 1_000, 5]) {
            file.time = Some(TimeRange { min: 0, max });
        }
        assert_eq!((job.bytes_read(), job.bytes()), (540, 540), "without a time to live");
        job.options.ttl_ms = Some(4_000);
        job.now_ms = 5_000;
        assert_eq!((job.bytes_read(), job.bytes()), (30, 540));
        assert_eq!(job.sub_job_bytes(), OVERHEAD + 2 * 30 + UNITS * INFLATION * 30);
    }
}
