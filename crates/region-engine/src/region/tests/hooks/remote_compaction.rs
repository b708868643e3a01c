//! M2: hooks are told the same of a compaction, wherever it is carried out.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::TimeUnit;
use futures::TryStreamExt;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{ColumnId, Epoch, FileId, SchemaVersion, Sequence};
use tidewater_common::schema::{ColumnType, TableOptions, TableSchema, WriteMode};

use super::elsewhere::*;
use super::told::*;
use super::world::*;
use crate::compaction::{Attempt, OpenCompactionRegionRequest, Scope};
use crate::hooks::{ManifestKind, Plugins, RegionHookRef};
use crate::manifest::{ActionKind, Author};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{Region, RegionSpec, RowsWrite, ScanOptions};

#[derive(Debug, Clone, Copy)]
struct Case {
    mode: WriteMode,
    hashed: bool,
    /// Rows have a time and expire.
    timed: bool,
    /// A first compaction leaves a run beneath, so that deletes stay.
    beneath: bool,
    scope: Scope,
    since: Epoch,
}

const CASE: Case = Case {
    mode: WriteMode::Upsert,
    hashed: false,
    timed: false,
    beneath: false,
    scope: Scope::Whole,
    since: Epoch(100),
};

const ID: ColumnId = ColumnId(1);
const AT: ColumnId = ColumnId(2);
const TEXT: ColumnId = ColumnId(3);
const HOUR: i64 = 3_600_000;

fn timed_spec(mode: WriteMode) -> RegionSpec {
    let columns = vec![
        column(ID, "id", ColumnType::Int64, false),
        column(AT, "at", ColumnType::Timestamp(TimeUnit::Millisecond, None), false),
        column(TEXT, "text", ColumnType::Utf8, false),
    ];
    let key = vec![ID, AT];
    let schema = TableSchema::new(SchemaVersion(1), columns, key, Some(AT), ColumnId(4)).unwrap();
    let options = TableOptions { write_mode: mode, hash: None, ttl_ms: Some(3 * HOUR as u64) };
    RegionSpec { schema, options, ..spec(mode, false) }
}

/// Rows of all ages up to five hours. `added`: with a column that was added.
fn timed_rows(region: &Region, ids: std::ops::Range<i64>, op: RowOp, added: bool) -> RecordBatch {
    let schema = region.shape().schema.clone();
    let now = FixedClock.now_ms() as i64;
    let times = ids.clone().map(|id| now - (id % 6) * HOUR);
    let texts = ids.clone().map(|id| format!("{id} of {}", ids.start));
    let count = ids.clone().count();
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone())),
        Arc::new(TimestampMillisecondArray::from_iter_values(times)),
    ];
    if op == RowOp::Delete {
        return RecordBatch::try_new(schema.key_arrow(), arrays).unwrap();
    }
    arrays.push(Arc::new(StringArray::from_iter_values(texts)));
    if added {
        arrays.push(Arc::new(Int64Array::from_value(WRITTEN, count)));
    }
    RecordBatch::try_new(schema.arrow(), arrays).unwrap()
}

/// A region with a past, taken up by a new owner.
struct Grown {
    storage: Storage,
    region: Arc<Region>,
}

impl Case {
    /// The same each time, but for ids.
    async fn grown(self, hook: Arc<Listener>) -> Grown {
        let (storage, spec) = match self.timed {
            true => self.timed_past().await,
            false => self.past().await,
        };
        let plugins = Plugins::default();
        plugins.insert(hook.clone() as RegionHookRef).unwrap();
        let env = env(storage.clone()).with_plugins(plugins);
        let region = Region::new(env, spec, Sequence(0), Sequence(0)).unwrap();
        region.take_ownership(owner(9), GROUP).await.unwrap();
        hook.forget();
        Grown { storage, region }
    }

    async fn past(self) -> (Storage, RegionSpec) {
        let mut world = World::new(Storage::memory(), self.mode, self.hashed).await;
        let spec = world.spec.clone();
        let name = |n| ["a", "b", "c"][n as usize % 3].to_owned();
        let flushed = async |world: &mut World, from: i32, to: i32| {
            world.epoch += 2;
            let note = |n| format!("{n} of {from} in {}", world.epoch);
            let row = |n| ((name(n), n), (n % 5 > 0).then_some(i64::from(n)), note(n));
            world.put(&(from..to).map(row).collect::<Vec<_>>());
            if self.mode == WriteMode::Upsert {
                world.delete(&(from..to).step_by(7).map(|n| (name(n), n)).collect::<Vec<_>>());
            }
            world.region.flush().await.unwrap();
        };
        flushed(&mut world, 0, 300).await;
        flushed(&mut world, 200, 500).await;
        if self.beneath {
            world.compact(Scope::Due).await.unwrap();
        }
        flushed(&mut world, 100, 400).await;
        world.alter(&[added("more")]);
        world.region.settle().await.unwrap();
        flushed(&mut world, 50, 350).await;
        flushed(&mut world, 150, 450).await;
        (world.storage, spec)
    }

    async fn timed_past(self) -> (Storage, RegionSpec) {
        let (storage, spec) = (Storage::memory(), timed_spec(self.mode));
        let env = env(storage.clone());
        let region = Region::new(env, spec.clone(), Sequence(0), Sequence(0)).unwrap();
        region.take_ownership(owner(1), GROUP).await.unwrap();
        let mut sequence = 0;
        for (ids, altered) in [(0..300, false), (200..500, false), (100..400, true)] {
            if altered {
                let schema = spec.schema.altered(&[added("more")]).unwrap();
                region.alter(cause(Sequence(sequence + 5)), schema, spec.options.clone()).unwrap();
                region.settle().await.unwrap();
            }
            let puts = timed_rows(&region, ids.clone(), RowOp::Put, altered);
            let deletes = timed_rows(&region, ids.start..ids.start + 20, RowOp::Delete, altered);
            for (op, batch) in [(RowOp::Put, puts), (RowOp::Delete, deletes)] {
                if op == RowOp::Delete && self.mode == WriteMode::AppendOnly {
                    continue;
                }
                sequence += 10;
                let (sequence, epoch) = (Sequence(sequence), Epoch(sequence / 10));
                region.apply(RowsWrite { sequence, epoch, op, batch }).unwrap();
            }
            region.flush().await.unwrap();
        }
        (storage, spec)
    }
}

impl Grown {
    async fn rows(&self) -> RecordBatch {
        let schema = self.region.shape().schema.clone();
        let columns = schema.columns().iter().map(|column| column.id).collect();
        let stream = self.region.scan(&ScanOptions::all(columns)).unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        concat_batches(&batches[0].schema(), &batches).unwrap()
    }
}

/// Compacts a region here, and one with the same past elsewhere; what both have told alike.
async fn told_alike(case: Case) -> Same {
    let (locally, remotely) = (Arc::new(Listener::default()), Arc::new(Listener::default()));
    let on_the_data_node = Arc::new(Listener::default());
    let here = case.grown(locally.clone()).await;
    let there = case.grown(on_the_data_node.clone()).await;
    let before = there.rows().await;
    let attempt = Attempt::default();
    let inputs = here.region.files();
    let report = here
        .region
        .compact(case.scope, case.since, &attempt)
        .await
        .unwrap()
        .expect("files to merge");
    let (same, apart) = locally.take(inputs);
    assert_eq!(apart.author, Author::Job(report.job_id));

    // Its clock is ahead, and its schema is that with which the region began.
    let clock = Arc::new(HandClock::default());
    clock.forward(HOUR as u64);
    let env = env_with(there.storage.clone(), clock.clone());
    let since = case.since;
    let planned = there.region.plan_compaction(case.scope, since).await.unwrap().unwrap();
    let request = OpenCompactionRegionRequest { since, ..request(&there.region, 9) };
    assert_eq!(request.schema.version(), SchemaVersion(1));
    let inputs = there.region.files();
    let elsewhere =
        Elsewhere::prepared(&env, remotely.clone(), request, planned.plan()).await.unwrap();
    let committed = elsewhere.run(&Attempt::default()).await.unwrap();
    let (same_there, apart_there) = remotely.take(inputs);
    assert_eq!(same_there, same, "{case:?}");
    assert_eq!(apart_there.author, Author::Job(planned.plan().job_id));
    assert_eq!(apart_there.time_ms, apart.time_ms + HOUR as u64);

    assert_eq!(committed.manifest_version, report.manifest_version);
    let settled = planned.settle().await.unwrap();
    assert_eq!(settled, committed_as(&committed));
    there.region.load().await.unwrap();
    assert!(on_the_data_node.is_empty());
    let outputs: Vec<FileId> = committed.outputs.iter().map(|file| file.meta.file_id).collect();
    let live = there.region.files();
    assert!(outputs.iter().all(|id| live.iter().any(|file| file.file_id == *id)));
    assert_eq!(there.rows().await, before, "{case:?}");
    assert_eq!(here.rows().await, before, "{case:?}");
    same
}

fn total(same: &Same, of: impl Fn(&File) -> u64) -> u64 {
    same.files.iter().map(of).sum()
}

/// Files of both schemas were merged, by several sub-jobs into more files than those.
fn check_shape(same: &Same) {
    assert!(same.files.len() > 3, "{}", same.files.len());
    assert!(same.files.iter().all(|file| file.meta.schema_version == SchemaVersion(2)));
    assert_eq!(same.metadata.schema.version(), SchemaVersion(2));
    assert_eq!(same.manifest, ManifestKind::Live);
}

#[tokio::test]
async fn an_upsert_region_merged_to_one_run_is_told_alike() {
    for hashed in [false, true] {
        let same = told_alike(Case { hashed, ..CASE }).await;
        check_shape(&same);
        assert_eq!(total(&same, |file| file.meta.deletes), 0);
        assert!(same.files.iter().all(|file| file.meta.one_version_per_key));
    }
}

#[tokio::test]
async fn deletes_above_an_older_run_are_told_alike() {
    let case = Case { beneath: true, scope: Scope::Due, ..CASE };
    let same = told_alike(case).await;
    check_shape(&same);
    assert_ne!(total(&same, |file| file.meta.deletes), 0);
}

#[tokio::test]
async fn versions_that_are_kept_are_told_alike() {
    let same = told_alike(Case { since: Epoch(5), ..CASE }).await;
    check_shape(&same);
    assert!(same.files.iter().any(|file| !file.meta.one_version_per_key));
    let ActionKind::Edit(edit) = &same.actions[0].kind else { panic!("{same:?}") };
    assert_eq!(edit.since, Some(Epoch(5)));
}

#[tokio::test]
async fn an_append_only_region_is_told_alike() {
    for hashed in [false, true] {
        let same = told_alike(Case { mode: WriteMode::AppendOnly, hashed, ..CASE }).await;
        check_shape(&same);
        assert_eq!(total(&same, |file| file.rows), 1_500);
    }
}

#[tokio::test]
async fn rows_that_expire_are_told_alike() {
    for mode in [WriteMode::Upsert, WriteMode::AppendOnly] {
        for scope in [Scope::Whole, Scope::Due] {
            let same = told_alike(Case { mode, scope, timed: true, ..CASE }).await;
            let ActionKind::Edit(edit) = &same.actions[0].kind else { panic!("{same:?}") };
            assert!(edit.window_ms.is_some());
            assert!(same.files.iter().all(|file| file.time.is_some()));
            if scope == Scope::Whole {
                check_shape(&same);
                // Of 900 some had expired.
                assert!(total(&same, |file| file.rows) < 800);
            }
        }
    }
}
