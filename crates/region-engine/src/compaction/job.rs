//! A compaction job as a plain value.

use tidewater_common::ids::{Epoch, JobId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};

use super::compactor::Limits;
use super::cut::parts;
use super::pick::Why;
use super::runs::{Ranged, sorted_runs};
use crate::expiry::Expiry;
use crate::file_meta::{FileMeta, hull};
use crate::layout::RegionDir;
use crate::read::BATCH_BYTES;
use crate::sst::decode::Pace;
use crate::sst::format::ROW_GROUP_BYTES;

/// All there is to know to merge some files of a region, wherever their store can be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionJob {
    /// Names the job; UUIDv7.
    pub job_id: JobId,
    /// The region; outputs go into its directory.
    pub dir: RegionDir,
    /// Columns and keys that the outputs shall have.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// What is merged, each within its clip.
    pub inputs: Vec<FileMeta>,
    /// What a delete among the inputs may have to hide, outside of them.
    pub older: Vec<OlderRows>,
    /// Versions at or below it but the newest of each key are left out.
    pub since: Epoch,
    /// The time by which rows expire, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Outputs get ids that are no older, milliseconds since the Unix epoch.
    pub gc_floor_ms: u64,
    /// What the outputs are like.
    pub output: OutputOptions,
    /// The time window in use, in milliseconds; for the record.
    pub window_ms: Option<u64>,
    /// Why these files.
    pub why: Why,
}

/// What the outputs of a job are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputOptions {
    /// Their level.
    pub level: u32,
    /// Bytes at which a file ends and the next one begins.
    pub target_file_bytes: usize,
}

/// Rows outside of a job that may be older than a delete among its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderRows {
    /// First key.
    pub low: Vec<u8>,
    /// Last key.
    pub high: Vec<u8>,
    /// Their sequences are at or above it.
    pub min_sequence: Sequence,
}

/// Bytes that a sub-job takes beside its inputs, where the store is slow: the row group being written
/// (32 MiB, encoded or not) and the batch that goes into it (8); what the encoder has handed on (three
/// pieces of 4) and the upload holds (four parts of 8 on their way, one that fills up).
const BESIDE: u64 = 96 << 20;
/// Rows of an open file that are decoded: the unit that is merged, the one before it as long as rows of
/// that wait to be written, the one decoded ahead.
const UNITS: u64 = 3;
/// How many times their bytes in a file rows are taken to have in memory, up to what a row group may have.
const INFLATION: u64 = 8;
/// A sub-job below this part of a file's target size is not worth it.
const LEAST_PART: u64 = 4;

/// A file with the keys that it shows.
struct Shown<'a>((&'a [u8], &'a [u8]));

impl<'a> Ranged for Shown<'a> {
    type Key = &'a [u8];
    fn low(&self) -> &&'a [u8] {
        &self.0.0
    }
    fn high(&self) -> &&'a [u8] {
        &self.0.1
    }
}

impl CompactionJob {
    /// Bytes of memory that one sub-job takes at most: of each sorted run of the inputs, one file is open.
    pub fn sub_job_bytes(&self) -> u64 {
        let shown: Vec<(Shown<'_>, u64)> = self
            .read()
            .filter_map(|file| Some((Shown(file.shown_keys()?), open_bytes(file))))
            .collect();
        let (files, bytes): (Vec<Shown<'_>>, Vec<u64>) = shown.into_iter().unzip();
        let all: Vec<usize> = (0..files.len()).collect();
        let largest = |run: Vec<usize>| run.into_iter().map(|index| bytes[index]).max();
        let runs = sorted_runs(&files, &all).into_iter();
        runs.filter_map(largest).sum::<u64>().saturating_add(BESIDE)
    }

    /// Sub-jobs that run at once within these limits: no more than are worth it, and always one.
    pub fn sub_jobs(&self, limits: Limits) -> usize {
        let worth_it = self.output.target_file_bytes as u64 / LEAST_PART;
        let Limits { parallelism, memory_bytes } = limits;
        parts(parallelism, self.bytes_read(), worth_it, memory_bytes, self.sub_job_bytes())
    }

    /// The part of the key space that the outputs may show: what the inputs show together.
    pub fn clip(&self) -> KeyRange {
        hull(self.inputs.iter())
    }

    /// Whether rows that a delete of the inputs hides, or that an expired row outlived, may lie
    /// outside of them within a range.
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

    /// The inputs that are read: those of which every row has expired only go.
    pub(crate) fn read(&self) -> impl Iterator<Item = &FileMeta> {
        let expiry = Expiry::new(&self.schema, &self.options, self.now_ms);
        let expired = move |file: &FileMeta| {
            expiry.as_ref().is_some_and(|expiry| expiry.covers_file(file.time))
        };
        self.inputs.iter().filter(move |file| !expired(file))
    }

    /// Bytes of the inputs that are read: no more is written.
    pub fn bytes_read(&self) -> u64 {
        self.read().map(|file| file.size).sum()
    }

    /// Bytes of the inputs.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.size).sum()
    }

    /// Row versions of the inputs, clipped ones included.
    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|file| file.rows).sum()
    }
}

/// Bytes of memory that an open file takes at most: two stretches as they are stored, since the next
/// one is read while the last unit of the one before is decoded; and units of decoded rows. See
/// [`Pace`](crate::sst::decode::Pace): of narrow rows these are small parts of a row group, and of wide
/// ones a stretch is a whole one.
fn open_bytes(file: &FileMeta) -> u64 {
    let groups = u64::from(file.row_groups.max(1));
    let (stored, rows) = (file.size / groups, (file.rows / groups).max(1));
    let decoded = stored.saturating_mul(INFLATION).min(ROW_GROUP_BYTES as u64);
    let part = |bytes: u64, part: usize| bytes.saturating_mul(rows.min(part as u64)) / rows;
    let stretch = part(stored, Pace::MERGED.stretch_rows);
    let unit = part(decoded, Pace::MERGED.unit_rows).min(BATCH_BYTES as u64);
    2 * stretch + UNITS * unit
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use tidewater_common::ids::{ColumnId, SchemaVersion};
    use tidewater_common::schema::{Column, ColumnType};
    use uuid::Uuid;

    use super::*;
    use crate::file_meta::TimeRange;
    use crate::manifest::samples::{DIR, file, schema};

    /// Keys (both ends inclusive), bytes, row groups.
    type Input = (u8, u8, u64, u32);

    fn job(inputs: &[Input]) -> CompactionJob {
        let input = |(number, input): (u64, &Input)| {
            let (low, high, size, row_groups) = *input;
            // A stretch is a row group, and a unit as well.
            let rows = Pace::MERGED.unit_rows as u64 * u64::from(row_groups.max(1));
            let (min_key, max_key) = (vec![low], vec![high]);
            FileMeta { min_key, max_key, size, rows, row_groups, ..file(number) }
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
            gc_floor_ms: 0,
            output: OutputOptions { level: 1, target_file_bytes: 1 },
            window_ms: None,
            why: Why::Tier,
        }
    }

    #[test]
    fn a_sub_job_takes_an_open_file_of_each_run_of_its_inputs() {
        let mib = 1 << 20;
        let cases: [(&[Input], u64); 6] = [
            (&[], 0),
            (&[(1, 9, 100 * mib, 10)], 20 + 24),
            // Files that follow each other are open one after another: the largest counts.
            (&[(1, 2, 10 * mib, 1), (3, 4, 40 * mib, 2), (5, 6, 15 * mib, 1)], 40 + 24),
            // Those that overlap are open at once. Both ends are inclusive.
            (&[(1, 9, 10 * mib, 1), (1, 9, 40 * mib, 2), (9, 9, 15 * mib, 1)], 90 + 3 * 24),
            // Two runs: of each its largest.
            (
                &[(1, 4, 5 * mib, 1), (6, 9, 7 * mib, 1), (2, 5, mib, 1), (7, 8, 3 * mib, 1)],
                20 + 2 * 24,
            ),
            // What has no row group is not divided by their number.
            (&[(1, 9, 3 * mib, 0)], 6 + 24),
        ];
        for (inputs, expected) in cases {
            assert_eq!(job(inputs).sub_job_bytes(), BESIDE + expected * mib, "{inputs:?}");
        }
        // However many there are.
        let many: Vec<Input> = (0..=255).map(|key| (key, key, 2 * mib, 1)).collect();
        assert_eq!(job(&many).sub_job_bytes(), BESIDE + 28 * mib);
        let stacked: Vec<Input> = (0..=255).map(|_| (1, 2, 2 * mib, 1)).collect();
        assert_eq!(job(&stacked).sub_job_bytes(), BESIDE + 256 * 28 * mib);
    }

    #[test]
    fn what_a_clip_hides_takes_no_memory() {
        let mut job = job(&[(1, 9, 10, 1), (1, 9, 30, 1)]);
        job.inputs[1].clip = KeyRange::new(vec![10], None);
        assert_eq!(job.sub_job_bytes(), BESIDE + 20 + UNITS * INFLATION * 10);
        // Clips that lie apart make one run of files that overlap.
        job.inputs[0].clip = KeyRange::new(vec![], Some(vec![4]));
        job.inputs[1].clip = KeyRange::new(vec![5], None);
        assert_eq!(job.sub_job_bytes(), BESIDE + 60 + UNITS * INFLATION * 30);
    }

    #[test]
    fn files_that_have_expired_take_nothing() {
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
        assert_eq!(job.sub_job_bytes(), BESIDE + 2 * 30 + UNITS * INFLATION * 30);
    }

    #[test]
    fn of_narrow_rows_a_part_of_a_row_group_is_open() {
        let mib = 1 << 20;
        let rows = |stretches: usize, size| FileMeta {
            rows: (stretches * Pace::MERGED.stretch_rows) as u64,
            row_groups: 1,
            size,
            ..file(1)
        };
        // 32 MiB decoded, whatever the file makes of it.
        assert_eq!(open_bytes(&rows(8, 16 * mib)), 2 * 2 * mib + UNITS * 4 * mib);
        // What is small in a file is small in memory.
        assert_eq!(open_bytes(&rows(8, mib)), 2 * mib / 8 + UNITS * mib);
        assert_eq!(open_bytes(&rows(0, 10)), 20 + UNITS * 80);
    }
}
