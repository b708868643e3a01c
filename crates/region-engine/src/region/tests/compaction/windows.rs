//! Compaction windows of a table, over weeks of constant ingest: files belong to one window each, old windows are not
//! rewritten, and expired ones are dropped as files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{TimeUnit, TimestampMillisecondType};
use futures::TryStreamExt;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{ColumnId, Epoch, FileId, SchemaVersion, Sequence};
use tidewater_common::schema::{ColumnType, TableOptions, TableSchema, WriteMode};

use crate::compaction::{Attempt, CompactionReason, Scope};
use crate::env::{EngineOptions, RegionEnv};
use crate::region::tests::fixture::{GROUP, ManualClock, column, env_with, owner, spec};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{Region, RegionSpec, RowsWrite, ScanOptions};

const KIND: ColumnId = ColumnId(1);
const AT: ColumnId = ColumnId(2);
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const TTL: u64 = 14 * DAY;
/// Delay with which compactions expire rows.
const DELAY: u64 = HOUR / 6;
/// Time between two flushes.
const FLUSH_INTERVAL: u64 = 4 * HOUR;
const FLUSHES_PER_DAY: u64 = DAY / FLUSH_INTERVAL;
/// Most files of a window: its flushes, of which a few are not compacted yet.
const MAX_WINDOW_FILES: usize = 6;

/// An append-only table with the key (kind, time), which is compacted by days.
struct EventTable {
    region: Arc<Region>,
    spec: RegionSpec,
    clock: Arc<ManualClock>,
    sequence: u64,
    times: Vec<i64>,
    /// Reasons of its compactions.
    reasons: BTreeSet<&'static str>,
}

impl EventTable {
    async fn new() -> Self {
        let columns = vec![
            column(KIND, "kind", ColumnType::Int64, false),
            column(AT, "at", ColumnType::Timestamp(TimeUnit::Millisecond, None), false),
        ];
        let key = vec![KIND, AT];
        let schema =
            TableSchema::new(SchemaVersion(1), columns, key, Some(AT), ColumnId(3)).unwrap();
        let options = TableOptions {
            ttl_ms: Some(TTL),
            compaction_window: Some(Duration::from_millis(DAY)),
            ..TableOptions::append_only()
        };
        let spec = RegionSpec { schema, options, ..spec(WriteMode::AppendOnly, false) };
        let clock = Arc::<ManualClock>::default();
        let env = env_with(Storage::memory(), clock.clone());
        // A run of a day is one file.
        let options = EngineOptions { target_file_bytes: 1 << 20, ..env.options.clone() };
        let env = RegionEnv { options, ..env };
        let region = Region::new(env, spec.clone(), Sequence(0), Sequence(0)).unwrap();
        region.take_ownership(owner(1), GROUP).await.unwrap();
        Self { region, spec, clock, sequence: 0, times: Vec::new(), reasons: BTreeSet::new() }
    }

    fn now(&self) -> i64 {
        self.clock.now_ms().cast_signed()
    }

    /// Time passes until the next flush, which has three rows of each of three kinds. The first flush of a day has rows
    /// of the day before.
    async fn ingest(&mut self) {
        self.clock.advance(FLUSH_INTERVAL);
        let ages = [FLUSH_INTERVAL, FLUSH_INTERVAL / 2, FLUSH_INTERVAL / 8].map(u64::cast_signed);
        let times: Vec<i64> = (0..3).flat_map(|_| ages).map(|age| self.now() - age).collect();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![0, 0, 0, 1, 1, 1, 2, 2, 2])),
            Arc::new(TimestampMillisecondArray::from(times.clone())),
        ];
        let batch = RecordBatch::try_new(self.spec.schema.arrow(), arrays).unwrap();
        self.sequence += 10;
        let sequence = Sequence(self.sequence);
        self.region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch }).unwrap();
        self.region.flush().await.unwrap();
        self.times.extend(times);
    }

    /// Compacts all files that are due. Returns the number of files that expired.
    async fn compact(&mut self) -> usize {
        let mut expired = 0;
        let attempt = Attempt::default();
        while let Some(report) = self.region.compact(Scope::Due, Epoch(0), &attempt).await.unwrap()
        {
            self.reasons.insert(report.why.as_str());
            if report.why == CompactionReason::Expired {
                assert_eq!((report.files_out, report.done.rows_read), (0, 0), "{report:?}");
                expired += report.files_in;
            }
        }
        expired
    }

    /// Returns the files of each day.
    fn files(&self) -> BTreeMap<i64, BTreeSet<FileId>> {
        let mut files: BTreeMap<i64, BTreeSet<FileId>> = BTreeMap::new();
        for file in self.region.files() {
            let newest = file.time.unwrap().max;
            files.entry(newest.div_euclid(DAY.cast_signed())).or_default().insert(file.file_id);
        }
        files
    }

    async fn check_rows(&self) {
        let limit = self.now() - TTL.cast_signed();
        let mut expected: Vec<i64> =
            self.times.iter().copied().filter(|time| *time >= limit).collect();
        expected.sort_unstable();
        let batches: Vec<RecordBatch> =
            self.region.scan(&ScanOptions::all(vec![AT])).unwrap().try_collect().await.unwrap();
        let mut found: Vec<i64> = Vec::new();
        for batch in &batches {
            let times = batch.column(0).as_primitive::<TimestampMillisecondType>().values();
            found.extend(times.iter().copied());
        }
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn old_windows_are_not_rewritten_until_they_expire() {
    let mut table = EventTable::new().await;
    let mut settled: BTreeMap<i64, BTreeSet<FileId>> = BTreeMap::new();
    let mut expired = 0;
    for flush in 1..=35 * FLUSHES_PER_DAY {
        table.ingest().await;
        expired += table.compact().await;
        let files = table.files();
        let today = table.now().div_euclid(DAY.cast_signed());
        for (window, files) in &files {
            assert!(files.len() <= MAX_WINDOW_FILES, "day {window}: {files:?}");
            // It ended two days ago: one day later, its files were merged into one run.
            if window + 3 <= today {
                let before = settled.entry(*window).or_insert_with(|| files.clone());
                assert_eq!(files, before, "day {window} of {today} was rewritten");
            }
        }
        let limit = table.now() - TTL.cast_signed() - DELAY.cast_signed();
        assert!(table.region.files().iter().all(|file| file.time.unwrap().max >= limit));
        if flush.is_multiple_of(FLUSHES_PER_DAY) {
            table.check_rows().await;
        }
    }
    assert!(settled.len() > 30 && settled.values().all(|files| files.len() == 1), "{settled:?}");
    // Rows of 35 days were written, and those of the last 14 are left.
    assert!((20..=22).contains(&expired), "{expired} files expired");
    assert!(table.files().len() <= 16);
    assert_eq!(table.reasons, BTreeSet::from(["expired", "tier", "window"]));
    assert_eq!(table.region.manifest.state().window_ms, None, "it is an option of the table");
}
