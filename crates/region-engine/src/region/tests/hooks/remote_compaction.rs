//! M2: hooks receive the same calls for a local and a remote compaction.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::TimeUnit;
use futures::TryStreamExt;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{ColumnId, Epoch, FileId, SchemaVersion, Sequence};
use tidewater_common::schema::{ColumnType, TableOptions, TableSchema, WriteMode};

use super::recorded_calls::*;
use crate::compaction::{Attempt, OpenCompactionRegionRequest, Scope};
use crate::hooks::{ManifestKind, Plugins, RegionHookRef};
use crate::manifest::{ActionKind, Author};
use crate::region::tests::fixture::*;
use crate::region::tests::remote_compactor::*;
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{Region, RegionSpec, RowsWrite, ScanOptions};

#[derive(Debug, Clone, Copy)]
struct Case {
    mode: WriteMode,
    hashed: bool,
    /// True if rows have a time and expire.
    timed: bool,
    /// True if an earlier compaction leaves an older run, so that deletes stay.
    older_run: bool,
    scope: Scope,
    since: Epoch,
}

const CASE: Case = Case {
    mode: WriteMode::Upsert,
    hashed: false,
    timed: false,
    older_run: false,
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
    let options =
        TableOptions { write_mode: mode, ttl_ms: Some(3 * HOUR as u64), ..TableOptions::upsert() };
    RegionSpec { schema, options, ..spec(mode, false) }
}

/// Returns rows with ages of up to five hours. `added`: whether they have the added column.
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

/// A region with files and schema changes, opened by a new owner.
struct GrownRegion {
    storage: Storage,
    region: Arc<Region>,
}

impl Case {
    /// Creates the region; deterministic except for ids.
    async fn grown(self, hook: Arc<CallRecorder>) -> GrownRegion {
        let (storage, spec) = if self.timed { self.timed_past().await } else { self.past().await };
        let plugins = Plugins::default();
        plugins.insert(hook.clone() as RegionHookRef).unwrap();
        let env = env(storage.clone()).with_plugins(plugins);
        let region = Region::new(env, spec, Sequence(0), Sequence(0)).unwrap();
        region.take_ownership(owner(9), GROUP).await.unwrap();
        hook.forget();
        GrownRegion { storage, region }
    }

    async fn past(self) -> (Storage, RegionSpec) {
        let mut fixture = RegionFixture::new(Storage::memory(), self.mode, self.hashed).await;
        let spec = fixture.spec.clone();
        let name = |n| ["a", "b", "c"][n as usize % 3].to_owned();
        let flushed = async |fixture: &mut RegionFixture, from: i32, to: i32| {
            fixture.epoch += 2;
            let note = |n| format!("{n} of {from} in {}", fixture.epoch);
            let row = |n| ((name(n), n), (n % 5 > 0).then_some(i64::from(n)), note(n));
            fixture.put(&(from..to).map(row).collect::<Vec<_>>());
            if self.mode == WriteMode::Upsert {
                fixture.delete(&(from..to).step_by(7).map(|n| (name(n), n)).collect::<Vec<_>>());
            }
            fixture.region.flush().await.unwrap();
        };
        flushed(&mut fixture, 0, 300).await;
        flushed(&mut fixture, 200, 500).await;
        if self.older_run {
            fixture.compact(Scope::Due).await.unwrap();
        }
        flushed(&mut fixture, 100, 400).await;
        fixture.alter(&[added("more")]);
        fixture.region.record_obligations().await.unwrap();
        flushed(&mut fixture, 50, 350).await;
        flushed(&mut fixture, 150, 450).await;
        (fixture.storage, spec)
    }

    async fn timed_past(self) -> (Storage, RegionSpec) {
        let storage = Storage::memory();
        let spec = timed_spec(self.mode);
        let env = env(storage.clone());
        let region = Region::new(env, spec.clone(), Sequence(0), Sequence(0)).unwrap();
        region.take_ownership(owner(1), GROUP).await.unwrap();
        let mut sequence = 0;
        for (ids, altered) in [(0..300, false), (200..500, false), (100..400, true)] {
            if altered {
                let schema = spec.schema.altered(&[added("more")]).unwrap();
                region.alter(cause(Sequence(sequence + 5)), schema, spec.options.clone()).unwrap();
                region.record_obligations().await.unwrap();
            }
            let puts = timed_rows(&region, ids.clone(), RowOp::Put, altered);
            let deletes = timed_rows(&region, ids.start..ids.start + 20, RowOp::Delete, altered);
            for (op, batch) in [(RowOp::Put, puts), (RowOp::Delete, deletes)] {
                if op == RowOp::Delete && self.mode == WriteMode::AppendOnly {
                    continue;
                }
                sequence += 10;
                let epoch = Epoch(sequence / 10);
                let sequence = Sequence(sequence);
                region.apply(RowsWrite { sequence, epoch, op, batch }).unwrap();
            }
            region.flush().await.unwrap();
        }
        (storage, spec)
    }
}

impl GrownRegion {
    async fn rows(&self) -> RecordBatch {
        let schema = self.region.shape().schema.clone();
        let columns = schema.columns().iter().map(|column| column.id).collect();
        let stream = self.region.scan(&ScanOptions::all(columns)).unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        concat_batches(&batches[0].schema(), &batches).unwrap()
    }
}

/// Compacts a region locally, and a region with the same history on a compactor. Asserts that the hook
/// calls are the same, and returns them.
async fn compact_both(case: Case) -> CommonCalls {
    let local_hook = Arc::new(CallRecorder::default());
    let compactor_hook = Arc::new(CallRecorder::default());
    let data_node_hook = Arc::new(CallRecorder::default());
    let local = case.grown(local_hook.clone()).await;
    let remote = case.grown(data_node_hook.clone()).await;
    let before = remote.rows().await;
    let attempt = Attempt::default();
    let inputs = local.region.files();
    let report = local
        .region
        .compact(case.scope, case.since, &attempt)
        .await
        .unwrap()
        .expect("files to compact");
    let (common, specific) = local_hook.take(inputs);
    assert_eq!(specific.author, Author::Job(report.job_id));

    // The compactor's clock is ahead, and its schema is the region's first one.
    let clock = Arc::new(ManualClock::default());
    clock.advance(HOUR as u64);
    let env = env_with(remote.storage.clone(), clock.clone());
    let since = case.since;
    let planned = remote.region.plan_compaction(case.scope, since).await.unwrap().unwrap();
    let request = OpenCompactionRegionRequest { since, ..request(&remote.region, 9) };
    assert_eq!(request.schema.version(), SchemaVersion(1));
    let inputs = remote.region.files();
    let remote_job = RemoteJob::prepare_with(&env, compactor_hook.clone(), request, planned.plan())
        .await
        .unwrap();
    let committed = remote_job.run(&Attempt::default()).await.unwrap();
    let (remote_common, remote_specific) = compactor_hook.take(inputs);
    assert_eq!(remote_common, common, "{case:?}");
    assert_eq!(remote_specific.author, Author::Job(planned.plan().job_id));
    assert_eq!(remote_specific.time_ms, specific.time_ms + HOUR as u64);

    assert_eq!(committed.manifest_version, report.manifest_version);
    let outcome = planned.resolve_outcome().await.unwrap();
    assert_eq!(outcome, committed_outcome(&committed));
    remote.region.load().await.unwrap();
    assert!(data_node_hook.is_empty());
    let outputs: Vec<FileId> = committed.outputs.iter().map(|file| file.meta.file_id).collect();
    let live = remote.region.files();
    assert!(outputs.iter().all(|id| live.iter().any(|file| file.file_id == *id)));
    assert_eq!(remote.rows().await, before, "{case:?}");
    assert_eq!(local.rows().await, before, "{case:?}");
    common
}

fn total(calls: &CommonCalls, of: impl Fn(&File) -> u64) -> u64 {
    calls.files.iter().map(of).sum()
}

/// Checks that files of both schemas were compacted, by several sub-jobs and into more files than those.
fn check_shape(calls: &CommonCalls) {
    assert!(calls.files.len() > 3, "{}", calls.files.len());
    assert!(calls.files.iter().all(|file| file.meta.schema_version == SchemaVersion(2)));
    assert_eq!(calls.metadata.schema.version(), SchemaVersion(2));
    assert_eq!(calls.manifest, ManifestKind::Live);
}

#[tokio::test]
async fn hooks_see_same_upsert_compaction_locally_and_remotely() {
    for hashed in [false, true] {
        let calls = compact_both(Case { hashed, ..CASE }).await;
        check_shape(&calls);
        assert_eq!(total(&calls, |file| file.meta.deletes), 0);
        assert!(calls.files.iter().all(|file| file.meta.one_version_per_key));
    }
}

#[tokio::test]
async fn hooks_see_same_kept_deletes_locally_and_remotely() {
    let case = Case { older_run: true, scope: Scope::Due, ..CASE };
    let calls = compact_both(case).await;
    check_shape(&calls);
    assert_ne!(total(&calls, |file| file.meta.deletes), 0);
}

#[tokio::test]
async fn hooks_see_same_kept_versions_locally_and_remotely() {
    let calls = compact_both(Case { since: Epoch(5), ..CASE }).await;
    check_shape(&calls);
    assert!(calls.files.iter().any(|file| !file.meta.one_version_per_key));
    let ActionKind::Edit(edit) = &calls.actions[0].kind else { panic!("{calls:?}") };
    assert_eq!(edit.since, Some(Epoch(5)));
}

#[tokio::test]
async fn hooks_see_same_append_only_compaction_locally_and_remotely() {
    for hashed in [false, true] {
        let calls = compact_both(Case { mode: WriteMode::AppendOnly, hashed, ..CASE }).await;
        check_shape(&calls);
        assert_eq!(total(&calls, |file| file.rows), 1_500);
    }
}

#[tokio::test]
async fn hooks_see_same_row_expiry_locally_and_remotely() {
    for mode in [WriteMode::Upsert, WriteMode::AppendOnly] {
        for scope in [Scope::Whole, Scope::Due] {
            let calls = compact_both(Case { mode, scope, timed: true, ..CASE }).await;
            let ActionKind::Edit(edit) = &calls.actions[0].kind else { panic!("{calls:?}") };
            assert!(edit.window_ms.is_some());
            assert!(calls.files.iter().all(|file| file.time.is_some()));
            if scope == Scope::Whole {
                check_shape(&calls);
                // Of 900 some had expired.
                assert!(total(&calls, |file| file.rows) < 800);
            }
        }
    }
}
