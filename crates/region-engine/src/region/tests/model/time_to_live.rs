//! S2 for tables with a time to live: for every interleaving of writes, deletes, flushes, compactions,
//! owner changes, changes of the time to live and jumps of the owner's wall clock, a region shows the
//! newest versions that have not expired. Nothing expires early, and nothing shows again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{Int64Type, TimeUnit, TimestampMillisecondType};
use futures::TryStreamExt;
use proptest::prelude::*;
use tidewater_common::clock::{Clock, ClusterClock, MonotonicClock};
use tidewater_common::ids::{ColumnId, Epoch, RegionId, SchemaVersion, Sequence};
use tidewater_common::schema::{ColumnType, TableOptions, TableSchema, WriteMode};

use super::super::fixture::*;
use crate::compaction::{Attempt, Scope};
use crate::histories::histories;
use crate::region::{Publication, PublicationContent};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{EngineError, Region, RegionSpec, RowsWrite, ScanOptions};

const ID: ColumnId = ColumnId(1);
const AT: ColumnId = ColumnId(2);
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const YEAR: i64 = 365 * 24 * HOUR as i64;
const BOUND: u64 = 10 * MINUTE;
/// Delay with which compactions expire rows.
const DELAY: u64 = 10 * MINUTE;

#[derive(Debug, Clone)]
enum Step {
    /// Rows: ids and hours.
    Put(Vec<(u8, u8)>),
    Delete(Vec<(u8, u8)>),
    Flush,
    Compact(Scope),
    /// A new time to live in hours.
    Alter(Option<u64>),
    /// Real time passes.
    Advance(u64),
    /// The owner's wall clock differs from real time by this many milliseconds from now on.
    SetWallClock(i64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let rows = || prop::collection::vec((0u8..3, 0u8..8), 1..6);
    let offsets = [-YEAR, -3_600_000, -300_000, 0, 300_000, 3_600_000, YEAR];
    prop_oneof![
        5 => rows().prop_map(Step::Put),
        2 => rows().prop_map(Step::Delete),
        4 => Just(Step::Flush),
        3 => Just(Step::Compact(Scope::Due)),
        1 => Just(Step::Compact(Scope::Whole)),
        2 => prop::sample::select(vec![None, Some(1), Some(2), Some(24)]).prop_map(Step::Alter),
        2 => (1u64..90).prop_map(Step::Advance),
        2 => prop::sample::select(offsets.to_vec()).prop_map(Step::SetWallClock),
        1 => Just(Step::Reopen),
    ]
}

/// Real time, and the clocks of the owner that derive from it.
#[derive(Debug)]
struct TestTime {
    real_ms: AtomicU64,
    wall_ms: AtomicU64,
}

#[derive(Debug)]
struct WallClock(Arc<TestTime>);

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        self.0.wall_ms.load(Ordering::Relaxed)
    }
}

impl MonotonicClock for WallClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.real_ms.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    sequence: u64,
    op: RowOp,
    id: i64,
    at: i64,
}

#[derive(Debug, Clone)]
enum LogEntry {
    Write(RowsWrite),
    Alter(Sequence, TableSchema, TableOptions),
}

struct TtlModel {
    time: Arc<TestTime>,
    storage: Storage,
    region: Arc<Region>,
    first_spec: RegionSpec,
    spec: RegionSpec,
    log: Vec<LogEntry>,
    versions: Vec<Version>,
    term: u64,
    offset_ms: i64,
    /// Latest time before which any compaction may have expired rows.
    greatest_cutoff: i64,
}

fn at(hour: u8) -> i64 {
    FixedClock.now_ms() as i64 + (i64::from(hour) - 4) * HOUR as i64
}

impl TtlModel {
    async fn new(mode: WriteMode, time_in_key: bool) -> Self {
        let data_type = ColumnType::Timestamp(TimeUnit::Millisecond, None);
        let columns = vec![
            column(ID, "id", ColumnType::Int64, false),
            column(AT, "at", data_type, !time_in_key && mode == WriteMode::Upsert),
        ];
        let key = if time_in_key { vec![ID, AT] } else { vec![ID] };
        let schema =
            TableSchema::new(SchemaVersion(1), columns, key, Some(AT), ColumnId(3)).unwrap();
        let options =
            TableOptions { write_mode: mode, ttl_ms: Some(2 * HOUR), ..TableOptions::upsert() };
        let spec = RegionSpec { schema, options, ..spec(mode, false) };
        let now = FixedClock.now_ms();
        let time = Arc::new(TestTime { real_ms: now.into(), wall_ms: now.into() });
        let storage = Storage::memory();
        let region = open(&storage, &time, &spec);
        region.take_ownership(owner(1), GROUP).await.unwrap();
        Self {
            time,
            storage,
            region,
            first_spec: spec.clone(),
            spec,
            log: Vec::new(),
            versions: Vec::new(),
            term: 1,
            offset_ms: 0,
            greatest_cutoff: i64::MIN,
        }
    }

    fn real_ms(&self) -> u64 {
        self.time.real_ms.load(Ordering::Relaxed)
    }

    fn set_wall_clock(&self) {
        let wall = self.real_ms().saturating_add_signed(self.offset_ms);
        self.time.wall_ms.store(wall, Ordering::Relaxed);
    }

    fn clock_differs(&self) -> bool {
        self.offset_ms.unsigned_abs() > BOUND
    }

    /// Time by which rows expire: neither the wall clock nor replicated time may be behind it.
    fn expiry_ms(&self) -> u64 {
        self.real_ms().saturating_add_signed(self.offset_ms.min(0))
    }

    fn next_sequence(&self) -> u64 {
        (self.log.len() as u64 + 1) * 10
    }

    fn write(&mut self, op: RowOp, rows: &[(u8, u8)]) {
        let key_columns = self.spec.schema.primary_key().len();
        let append_only = self.spec.options.write_mode == WriteMode::AppendOnly;
        let mut rows: Vec<(i64, i64)> =
            rows.iter().map(|(id, hour)| (i64::from(*id), at(*hour))).collect();
        rows.sort_unstable();
        if !append_only {
            rows.dedup_by_key(|(id, at)| if key_columns == 1 { (*id, 0) } else { (*id, *at) });
        }
        let sequence = self.next_sequence();
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))),
        ];
        let schema = match op {
            RowOp::Put => self.spec.schema.arrow(),
            RowOp::Delete => self.spec.schema.key_arrow(),
        };
        arrays.truncate(schema.fields().len());
        let batch = RecordBatch::try_new(schema, arrays).unwrap();
        let write = RowsWrite { sequence: Sequence(sequence), epoch: Epoch(0), op, batch };
        self.region.apply(write.clone()).unwrap();
        self.log.push(LogEntry::Write(write));
        self.versions.extend(rows.iter().map(|(id, at)| Version {
            sequence,
            op,
            id: *id,
            at: *at,
        }));
    }

    /// Accepts an error of a commit only while the clock differs, and success only while it does not.
    fn check_commit<T>(&self, result: Result<T, EngineError>) {
        match result {
            Ok(_) => {}
            Err(EngineError::ClockDiffers { .. }) => assert!(self.clock_differs()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn compact(&mut self, scope: Scope) {
        if !self.clock_differs() {
            let now = self.expiry_ms() - DELAY;
            let recorded =
                self.region.manifest.state().table.as_ref().and_then(|t| t.options.ttl_ms);
            for ttl in [recorded, self.spec.options.ttl_ms].into_iter().flatten() {
                self.greatest_cutoff = self.greatest_cutoff.max(now as i64 - ttl as i64);
            }
        }
        let done = self.region.compact(scope, Epoch(0), &Attempt::default()).await;
        if self.clock_differs() {
            assert!(matches!(done, Err(EngineError::ClockDiffers { .. })), "{done:?}");
        }
        self.check_commit(done);
    }

    fn alter(&mut self, hours: Option<u64>) {
        let sequence = Sequence(self.next_sequence());
        self.spec.options.ttl_ms = hours.map(|hours| hours * HOUR);
        self.spec.schema = self.spec.schema.altered(&[]).unwrap();
        let RegionSpec { schema, options, .. } = self.spec.clone();
        self.region.alter(cause(sequence), schema.clone(), options.clone()).unwrap();
        self.log.push(LogEntry::Alter(sequence, schema, options));
    }

    /// Another process opens the region and replays the log. Its wall clock is right.
    async fn reopen(&mut self) {
        self.offset_ms = 0;
        self.set_wall_clock();
        self.term += 1;
        self.region = open(&self.storage, &self.time, &self.first_spec);
        self.region.load().await.unwrap();
        for entry in &self.log {
            match entry {
                LogEntry::Write(write) => self.region.apply(write.clone()).unwrap(),
                LogEntry::Alter(sequence, schema, options) => {
                    self.region.alter(cause(*sequence), schema.clone(), options.clone()).unwrap();
                }
            }
        }
        self.region.take_ownership(owner(self.term), GROUP).await.unwrap();
    }

    async fn run(&mut self, step: Step) {
        let append_only = self.spec.options.write_mode == WriteMode::AppendOnly;
        match step {
            Step::Put(rows) => self.write(RowOp::Put, &rows),
            Step::Delete(_) if append_only => {}
            Step::Delete(rows) => self.write(RowOp::Delete, &rows),
            Step::Flush => {
                let flushed = self.region.flush().await;
                self.check_commit(flushed);
            }
            Step::Compact(scope) => self.compact(scope).await,
            Step::Alter(hours) => self.alter(hours),
            Step::Advance(minutes) => {
                self.time.real_ms.fetch_add(minutes * MINUTE, Ordering::Relaxed);
                self.set_wall_clock();
            }
            Step::SetWallClock(offset_ms) => {
                self.offset_ms = offset_ms;
                self.set_wall_clock();
            }
            Step::Reopen => self.reopen().await,
        }
        self.check().await;
    }

    /// The newest versions that have not expired, by the time to live of now or by a commit.
    fn expected(&self) -> Vec<(i64, i64)> {
        let by_id = self.spec.schema.primary_key().len() == 1;
        let append_only = self.spec.options.write_mode == WriteMode::AppendOnly;
        let same_key = |a: &Version, b: &Version| a.id == b.id && (by_id || a.at == b.at);
        let is_newest = |version: &&Version| {
            let newer =
                |other: &Version| other.sequence > version.sequence && same_key(version, other);
            append_only || !self.versions.iter().any(newer)
        };
        let limit = self.spec.options.ttl_ms.map(|ttl| self.expiry_ms() as i64 - ttl as i64);
        let marks = self.region.manifest.state().expired.clone();
        for mark in marks.iter() {
            assert!(mark.before_ms <= self.greatest_cutoff, "{mark:?}: rows expired early");
            assert!(mark.through <= self.region.flushed_sequence(), "{mark:?}");
        }
        let lives = |version: &&Version| {
            let marked = |mark: &crate::manifest::ExpiryMark| {
                version.at < mark.before_ms && version.sequence <= mark.through.get()
            };
            version.op == RowOp::Put
                && limit.is_none_or(|limit| version.at >= limit)
                && !marks.iter().any(marked)
        };
        let newest = self.versions.iter().filter(is_newest).filter(lives);
        let mut rows: Vec<(i64, i64)> = newest.map(|version| (version.id, version.at)).collect();
        rows.sort_unstable();
        rows
    }

    async fn check(&self) {
        let expected = self.expected();
        let batches: Vec<RecordBatch> =
            self.region.scan(&ScanOptions::all(vec![ID, AT])).unwrap().try_collect().await.unwrap();
        let mut found: Vec<(i64, i64)> = Vec::new();
        for batch in &batches {
            let ids = batch.column(0).as_primitive::<Int64Type>().values();
            let times = batch.column(1).as_primitive::<TimestampMillisecondType>().values();
            found.extend(ids.iter().copied().zip(times.iter().copied()));
        }
        found.sort_unstable();
        assert_eq!(found, expected);
        let count = self.region.count(&ScanOptions::all(vec![])).await.unwrap();
        assert_eq!(count, expected.len() as u64);
    }
}

fn open(storage: &Storage, time: &Arc<TestTime>, spec: &RegionSpec) -> Arc<Region> {
    let wall = Arc::new(WallClock(time.clone()));
    let clock = ClusterClock::new(wall.clone(), wall, Duration::from_millis(BOUND));
    let now = time.real_ms.load(Ordering::Relaxed);
    clock.record(now, now);
    let env = env_with(storage.clone(), Arc::new(clock));
    Region::new(env, spec.clone(), Sequence(0), Sequence(0)).unwrap()
}

fn check(steps: Vec<Step>, mode: WriteMode, time_in_key: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut model = TtlModel::new(mode, time_in_key).await;
        for step in steps {
            model.run(step).await;
        }
        // With the right clock, everything that waited for it is committed.
        model.run(Step::SetWallClock(0)).await;
        model.run(Step::Flush).await;
        model.run(Step::Alter(None)).await;
        model.run(Step::Reopen).await;
    });
}

proptest! {
    #![proptest_config(histories(150))]

    #[test]
    fn upsert_region_with_ttl_matches_model(steps in prop::collection::vec(step(), 1..40)) {
        check(steps, WriteMode::Upsert, true);
    }

    #[test]
    fn upsert_region_with_ttl_outside_key_matches_model(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        check(steps, WriteMode::Upsert, false);
    }

    #[test]
    fn append_only_region_with_ttl_matches_model(steps in prop::collection::vec(step(), 1..40)) {
        check(steps, WriteMode::AppendOnly, true);
    }
}

/// Finding E-C4 of the review: the delete expires with its file, the row that it hid does not.
#[tokio::test]
async fn deleted_row_stays_deleted_after_ttl_is_raised() {
    let mut model = TtlModel::new(WriteMode::Upsert, true).await;
    model.run(Step::Put(vec![(1, 1), (1, 7)])).await;
    model.run(Step::Flush).await;
    model.run(Step::Delete(vec![(1, 1)])).await;
    model.run(Step::Flush).await;
    // The delete's time, 3 hours ago, is beyond the time to live of 2 hours.
    model.run(Step::Compact(Scope::Due)).await;
    model.run(Step::Alter(Some(24))).await;
    assert_eq!(model.expected(), [(1, at(7))]);
    model.run(Step::Reopen).await;
    // History that is loaded after the change is shown.
    model.run(Step::Put(vec![(2, 0)])).await;
    model.run(Step::Flush).await;
    model.run(Step::Compact(Scope::Whole)).await;
    assert_eq!(model.expected(), [(1, at(7)), (2, at(0))]);
}

/// Finding E-C3 of the review.
#[tokio::test]
async fn owner_ahead_of_cluster_expires_nothing() {
    let mut model = TtlModel::new(WriteMode::Upsert, true).await;
    model.run(Step::Put(vec![(1, 3), (2, 7)])).await;
    model.run(Step::Flush).await;
    model.run(Step::SetWallClock(YEAR)).await;
    assert!(model.region.compactions_due().is_empty());
    model.run(Step::Compact(Scope::Due)).await;
    model.run(Step::Put(vec![(3, 3)])).await;
    model.run(Step::Flush).await;
    assert_eq!(model.expected(), [(1, at(3)), (2, at(7)), (3, at(3))]);
    model.run(Step::SetWallClock(0)).await;
    model.run(Step::Flush).await;
    let state = model.region.manifest.state();
    assert_eq!(state.expired.expired_before_ms(), None);
    // E-C9: no delta is dated ahead of the cluster's time.
    assert_eq!(state.time_ms, model.real_ms());
}

#[tokio::test]
async fn rows_that_expired_stay_hidden_in_a_copy() {
    let mut model = TtlModel::new(WriteMode::Upsert, true).await;
    model.run(Step::Put(vec![(1, 1), (1, 7)])).await;
    model.run(Step::Flush).await;
    model.run(Step::Delete(vec![(1, 1)])).await;
    model.run(Step::Flush).await;
    model.run(Step::Compact(Scope::Due)).await;
    model.run(Step::Alter(None)).await;
    model.run(Step::Flush).await;
    let region_id = RegionId(model.spec.region_id.get() + 1);
    let spec = RegionSpec { region_id, ..model.spec.clone() };
    let env = env_with(model.storage.clone(), Arc::<ManualClock>::default());
    let copy = Region::new(env, spec, Sequence(1_000_000), Sequence(0)).unwrap();
    copy.take_ownership(owner(1), GROUP).await.unwrap();
    let staged = copy.copy_from(model.region.dir, DEADLINE).await.unwrap();
    let content = PublicationContent::Copies;
    let publication = Publication { area: staged.area, epoch: Epoch(0), content };
    copy.publish(cause(Sequence(1_000_010)), publication).unwrap();
    copy.record_obligations().await.unwrap();
    assert_eq!(copy.count(&ScanOptions::all(vec![])).await.unwrap(), 1);
}

/// Finding A4 of the review: the wall clock has no say in deadlines.
#[tokio::test]
async fn staging_area_is_open_until_replicated_deadline() {
    let model = TtlModel::new(WriteMode::Upsert, true).await;
    let now = model.real_ms();
    let wall = Arc::new(WallClock(model.time.clone()));
    let clock = ClusterClock::new(wall.clone(), wall, Duration::from_millis(BOUND));
    // After an outage of three days, before the clocks have agreed.
    clock.record(now - 72 * HOUR, 0);
    let env = env_with(model.storage.clone(), Arc::new(clock));
    let region = Region::new(env, model.spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(2), GROUP).await.unwrap();
    let area = new_area();
    region.open_unlogged_area(area, now - 48 * HOUR).await.unwrap();
    assert_eq!(region.stage_files(area, &[]).await.unwrap().files, 0);
    assert!(!region.staging_areas()[0].overdue);
}
