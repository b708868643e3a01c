//! S2: for every interleaving of writes, flushes, merges, snapshots and owner changes, a region shows
//! the same rows as a sorted map of all writes.

mod gc_account;
mod late_jobs;
mod steps;
mod time_to_live;

use std::sync::Arc;

use proptest::prelude::*;
use tidewater_common::ids::{Epoch, Incarnation, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{SchemaChange, WriteMode};

use self::late_jobs::{PendingJob, begin_job, commit_late, run_cancelled_job, run_job_twice};
use self::steps::*;
use super::fixture::*;
use super::remote_compactor;
use crate::compaction::Scope;
use crate::histories::histories;
use crate::index::Bloom;
use crate::memtable::RunImage;
use crate::read::memory::ScanMemory;
use crate::region::{Publication, PublicationContent};
use crate::storage::Storage;
use crate::{CompareOp, EngineError, Predicate, Region, RegionSpec, RowOrder, ScanOptions};

fn row(fixture: &RegionFixture, number: u8, value: Option<i64>, position: usize) -> Row {
    (key(number), value, format!("{}/{position}", fixture.log.len()))
}

/// Returns rows with distinct keys and with notes that no write has.
fn bulk_rows(fixture: &mut RegionFixture, mut numbers: Vec<u8>) -> Vec<Row> {
    numbers.sort_unstable();
    numbers.dedup();
    fixture.serial += 1;
    let note = |number| format!("bulk {}/{number}", fixture.serial);
    numbers.into_iter().map(|number| (key(number), Some(i64::from(number)), note(number))).collect()
}

async fn stage(fixture: &mut RegionFixture, numbers: Vec<u8>) {
    let rows = bulk_rows(fixture, numbers);
    if fixture.staged.is_none() {
        let area = fixture.open_area();
        fixture.staged = Some((area, fixture.spec.schema.version(), Vec::new()));
    }
    fixture.region.record_obligations().await.unwrap();
    let Some((area, version, staged)) = &fixture.staged else { return };
    // An area gets at most 9 files: their sequences stay below that of the next write.
    if *version != fixture.spec.schema.version() || staged.len() == 9 {
        return;
    }
    let files = fixture.bulk_files(&rows).await;
    let area = *area;
    let before = fixture.region.stats().files;
    fixture.region.stage_files(area, &files).await.unwrap();
    assert_eq!(fixture.region.stats().files, before);
    if let Some((_, _, staged)) = &mut fixture.staged {
        staged.push(rows);
    }
}

/// Publishes or abandons the open area. The log publishes an area only under the schema against which
/// its files were checked.
async fn close_area(fixture: &mut RegionFixture, publish: bool) {
    let Some((area, version, files)) = fixture.staged.take() else { return };
    if publish && version == fixture.spec.schema.version() {
        fixture.publish(area, PublicationContent::Area { table: None }, &files);
        fixture.region.record_obligations().await.unwrap();
    } else {
        fixture.abandon(area);
    }
}

/// A region that has adopted all files of another region, with its expected rows.
#[derive(Debug)]
struct RegionCopy {
    spec: RegionSpec,
    rows: Vec<Row>,
}

/// First sequence of a copy's log.
const BASE: u64 = 1_000_000;

impl RegionCopy {
    /// Opens the copy in another process.
    fn region(&self, fixture: &RegionFixture) -> Arc<Region> {
        Region::new(fixture.env(), self.spec.clone(), Sequence(BASE), Sequence(0)).unwrap()
    }

    async fn check(&self, fixture: &RegionFixture) {
        let region = self.region(fixture);
        region.load().await.unwrap();
        assert_eq!(scan(&region, &all()).await.unwrap(), self.rows);
    }
}

async fn copy(fixture: &mut RegionFixture) -> RegionCopy {
    fixture.region.flush().await.unwrap();
    fixture.serial += 1;
    let region_id = RegionId(fixture.spec.region_id.get() + 1_000);
    let spec =
        RegionSpec { region_id, incarnation: Incarnation(fixture.serial), ..fixture.spec.clone() };
    let copied = RegionCopy { spec, rows: fixture.expected_rows() };
    let copy = copied.region(fixture);
    copy.take_ownership(owner(1), GROUP).await.unwrap();
    let staged = copy.copy_from(fixture.region.dir, DEADLINE).await.unwrap();
    let publication =
        Publication { area: staged.area, epoch: Epoch(0), content: PublicationContent::Copies };
    copy.publish(cause(Sequence(BASE + 10)), publication).unwrap();
    copy.record_obligations().await.unwrap();
    assert_eq!(scan(&copy, &all()).await.unwrap(), copied.rows);
    copied
}

async fn run_step(fixture: &mut RegionFixture, step: Step, pending: &mut PendingJob) {
    let append_only = fixture.spec.options.write_mode == WriteMode::AppendOnly;
    match step {
        Step::Put(rows) => {
            let rows: Vec<Row> = rows
                .into_iter()
                .enumerate()
                .map(|(position, (number, value))| row(fixture, number, value, position))
                .collect();
            fixture.put(&rows);
        }
        Step::Burst(rows) => {
            for (number, value) in rows {
                let row = row(fixture, number, value, 0);
                fixture.put(&[row]);
            }
        }
        Step::Delete(_) if append_only => {}
        Step::Delete(numbers) => {
            fixture.delete(&numbers.into_iter().map(key).collect::<Vec<_>>());
        }
        Step::BeginEpoch(kept) => fixture.begin_epoch(kept),
        Step::Flush => {
            let report = fixture.region.flush().await.unwrap();
            assert!(report.flushed_sequence.get() >= fixture.last_write());
            assert_eq!(fixture.region.stats().memtable_bytes, 0);
        }
        Step::MergeRuns => fixture.region.merge_runs().await.unwrap(),
        Step::Compact(scope, site) => {
            match site {
                CompactionSite::Local => {
                    fixture.compact(scope).await;
                }
                CompactionSite::Remote => {
                    remote_compactor::compact_remotely(fixture, scope).await;
                }
            }
            // Otherwise versions of epochs that can be read are left.
            if scope == Scope::Whole && fixture.since == fixture.epoch {
                let files = fixture.region.files();
                assert!(files.iter().all(|file| file.deletes == 0), "{files:#?}");
                let more = fixture.compact(Scope::Whole).await;
                assert!(more.is_none(), "{more:?}");
            }
        }
        Step::CompactTwice(scope) => run_job_twice(fixture, scope).await,
        Step::CancelJob(scope, wakes) => run_cancelled_job(fixture, scope, wakes).await,
        Step::BeginJob(scope, site) => *pending = begin_job(fixture, scope, site).await,
        Step::CommitJob => commit_late(fixture, pending.take()).await,
        Step::Truncate => fixture.truncate(),
        Step::AddColumn => {
            let name = format!("extra{}", fixture.spec.schema.next_column_id());
            fixture.alter(&[added(&name)]);
        }
        Step::DropColumn => {
            let Some(last) = fixture.spec.schema.columns().get(4) else { return };
            let name = last.name.clone();
            fixture.alter(&[SchemaChange::DropColumn { name }]);
        }
        Step::RecordObligations => {
            fixture.region.record_obligations().await.unwrap();
            assert_eq!(fixture.region.obligations(), []);
        }
        Step::Adopt { numbers, next_owner } => {
            let rows = bulk_rows(fixture, numbers);
            fixture.adopt(&rows).await;
            if next_owner {
                fixture.reopen().await.unwrap();
            }
            fixture.region.record_obligations().await.unwrap();
        }
        Step::Stage(numbers) => stage(fixture, numbers).await,
        Step::PublishArea => close_area(fixture, true).await,
        Step::AbandonArea => close_area(fixture, false).await,
        Step::Copy => drop(copy(fixture).await),
        Step::BuildIndexes => drop(fixture.region.build_indexes(&Bloom).await.unwrap()),
        Step::Follow => follow(fixture).await,
        Step::Reopen => fixture.reopen().await.unwrap(),
        Step::Failover { snapshot_at } => failover(fixture, snapshot_at).await,
        Step::Scan { start, end, limit, batch_rows, above } => {
            check_scan(fixture, &key(start), end.map(key), limit, batch_rows, above).await;
        }
        Step::Get(numbers) => check_get(fixture, &numbers).await,
    }
    fixture.check().await;
}

/// Checks a follower. Its runs may straddle the flushed sequence: rows in files must not show twice.
async fn follow(fixture: &RegionFixture) {
    let follower = fixture.log_replica();
    fixture.replay(&follower);
    follower.merge_runs().await.unwrap();
    follower.load().await.unwrap();
    assert_eq!(scan(&follower, &all()).await.unwrap(), fixture.expected_rows());
    fixture.check_epochs_of(&follower).await;
}

async fn failover(fixture: &mut RegionFixture, snapshot_at: prop::sample::Index) {
    // The replica gets the run images of a snapshot of the owner, then the log after the snapshot.
    let images: Vec<RunImage> = fixture
        .region
        .unflushed()
        .iter()
        .map(|image| RunImage::decode(&image.encode().unwrap()).unwrap())
        .collect();
    let replica = if snapshot_at.index(2) == 0 {
        let replica = fixture.snapshot_replica();
        replica.restore(images);
        replica
    } else {
        let replica = fixture.log_replica();
        fixture.replay(&replica);
        replica
    };
    fixture.term += 1;
    replica.take_ownership(owner(fixture.term), GROUP).await.unwrap();
    // The old owner is fenced at its next commit, or has nothing to commit.
    let old = std::mem::replace(&mut fixture.region, replica);
    let unflushed = old.stats().memtable_rows > 0 || !old.obligations().is_empty();
    match old.flush().await {
        Err(EngineError::Fenced { .. } | EngineError::NotOwner { .. }) => {}
        other => assert!(!unflushed, "{other:?}"),
    }
}

async fn check_scan(
    fixture: &RegionFixture,
    start: &Key,
    end: Option<Key>,
    limit: Option<u64>,
    batch_rows: usize,
    above: Option<i64>,
) {
    let range = KeyRange {
        start: row_key(&fixture.spec, start),
        end: end.as_ref().map(|end| row_key(&fixture.spec, end)),
    };
    let predicates: Vec<Predicate> = above
        .map(|value| Predicate {
            column: VALUE,
            op: CompareOp::Gt,
            values: vec![value.to_string()],
        })
        .into_iter()
        .collect();
    let options = ScanOptions { range: range.clone(), predicates, limit, batch_rows, ..all() };
    let expected: Vec<Row> = fixture
        .expected()
        .into_iter()
        .filter(|(key, row)| {
            range.contains(key) && above.is_none_or(|above| row.1.is_some_and(|v| v > above))
        })
        .map(|(_, row)| row)
        .take(limit.map_or(usize::MAX, |limit| limit as usize))
        .collect();
    assert_eq!(scan(&fixture.region, &options).await.unwrap(), expected);
    // Little memory, so that files are read in parts of pages.
    let account = ScanMemory::new(1 << 20).account();
    let bounded = ScanOptions { account, ..options.clone() };
    assert_eq!(scan(&fixture.region, &bounded).await.unwrap(), expected);
    let any_order = ScanOptions { order: RowOrder::Any, limit: None, ..options.clone() };
    if limit.is_none() {
        let by_text = |rows: &[Row]| {
            let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        };
        let found = scan(&fixture.region, &any_order).await.unwrap();
        assert_eq!(by_text(&found), by_text(&expected));
    }
    assert_eq!(fixture.region.count(&options).await.unwrap(), expected.len() as u64);
}

async fn check_get(fixture: &RegionFixture, numbers: &[u8]) {
    let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
    let batch = key_batch(&keys, &fixture.spec);
    let found = fixture.region.get(&batch, &all().projection).await.unwrap();
    let expected: Vec<Row> =
        fixture.expected_rows().into_iter().filter(|row| keys.contains(&row.0)).collect();
    assert_eq!(rows_of(&found), expected);
}

fn check(steps: Vec<Step>, mode: WriteMode, hashed: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut fixture = RegionFixture::new(Storage::memory(), mode, hashed).await;
        let mut pending = None;
        for step in steps {
            run_step(&mut fixture, step, &mut pending).await;
        }
        commit_late(&fixture, pending).await;
        fixture.check().await;
        fixture.region.flush().await.unwrap();
        fixture.check().await;
        fixture.reopen().await.unwrap();
        fixture.check().await;
    });
}

/// Splits the 5,120 histories into 16 tests, which run in parallel.
macro_rules! tests_of_histories {
    ($($name:ident: $mode:ident, $hashed:literal, $keys:literal;)*) => {
        proptest! {
            #![proptest_config(histories(160))]
            $(
                #[test]
                fn $name(steps in steps($keys)) {
                    check(steps, WriteMode::$mode, $hashed);
                }
            )*
        }
    };
}

tests_of_histories! {
    upsert_region_of_3_keys_matches_model: Upsert, false, 3;
    upsert_region_of_9_keys_matches_model: Upsert, false, 9;
    upsert_region_of_60_keys_matches_model: Upsert, false, 60;
    upsert_region_of_200_keys_matches_model: Upsert, false, 200;
    hashed_upsert_region_of_3_keys_matches_model: Upsert, true, 3;
    hashed_upsert_region_of_9_keys_matches_model: Upsert, true, 9;
    hashed_upsert_region_of_60_keys_matches_model: Upsert, true, 60;
    hashed_upsert_region_of_200_keys_matches_model: Upsert, true, 200;
    append_only_region_of_3_keys_matches_model: AppendOnly, false, 3;
    append_only_region_of_9_keys_matches_model: AppendOnly, false, 9;
    append_only_region_of_60_keys_matches_model: AppendOnly, false, 60;
    append_only_region_of_200_keys_matches_model: AppendOnly, false, 200;
    hashed_append_only_region_of_3_keys_matches_model: AppendOnly, true, 3;
    hashed_append_only_region_of_9_keys_matches_model: AppendOnly, true, 9;
    hashed_append_only_region_of_60_keys_matches_model: AppendOnly, true, 60;
    hashed_append_only_region_of_200_keys_matches_model: AppendOnly, true, 200;
}

#[tokio::test]
async fn follower_drops_flushed_runs_and_shows_same_rows() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let follower = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    follower.load().await.unwrap();
    for number in 0..20 {
        let rows: Vec<Row> = (0..10).map(|i| row(&fixture, number + i, Some(1), 0)).collect();
        fixture.put(&rows);
        follower.apply(fixture.log.last().unwrap().clone()).unwrap();
        if number == 12 {
            fixture.region.flush().await.unwrap();
        }
    }
    // One run straddles the flushed sequence: its flushed rows are masked.
    follower.merge_runs().await.unwrap();
    follower.load().await.unwrap();
    assert_eq!(follower.flushed_sequence(), fixture.region.flushed_sequence());
    assert_eq!(scan(&follower, &all()).await.unwrap(), fixture.expected_rows());
    assert_eq!(follower.stats().files, fixture.region.stats().files);
    let before = follower.stats().manifest_version;
    follower.load().await.unwrap();
    assert_eq!(follower.stats().manifest_version, before);
}

#[tokio::test]
async fn scan_shows_snapshot_of_its_call() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&[row(&fixture, 1, Some(1), 0), row(&fixture, 2, Some(2), 0)]);
    fixture.region.flush().await.unwrap();
    fixture.put(&[row(&fixture, 3, Some(3), 0)]);
    let expected = fixture.expected_rows();
    let stream = fixture.region.scan(&all()).unwrap();
    fixture.delete(&[key(1), key(2), key(3)]);
    fixture.region.flush().await.unwrap();
    let batches: Vec<_> = futures::TryStreamExt::try_collect::<Vec<_>>(stream).await.unwrap();
    let rows: Vec<Row> = batches.iter().flat_map(rows_of).collect();
    assert_eq!(rows, expected);
    fixture.check().await;
}

#[tokio::test]
async fn flush_drops_deletes_unless_older_files_exist() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&[row(&fixture, 1, Some(1), 0)]);
    fixture.delete(&[key(1)]);
    let report = fixture.region.flush().await.unwrap();
    assert_eq!((report.files, report.rows), (0, 0));
    fixture.put(&[row(&fixture, 2, Some(1), 0)]);
    fixture.region.flush().await.unwrap();
    fixture.delete(&[key(2)]);
    let report = fixture.region.flush().await.unwrap();
    assert_eq!((report.files, report.rows), (1, 1));
    fixture.check().await;
    let files = fixture.region.files();
    assert_eq!(files.iter().map(|file| file.deletes).sum::<u64>(), 1);
    assert_eq!(Arc::strong_count(&fixture.region), 1);
}
