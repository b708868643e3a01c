//! S2: whatever the interleaving of writes, flushes, merges, snapshots and owners, a region shows
//! what a sorted map of all writes shows.

use std::sync::Arc;

use proptest::prelude::*;
use tidewater_common::ids::{Epoch, Incarnation, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{SchemaChange, WriteMode};

use super::elsewhere;
use super::jobs::{Begun, begin, cancelled, commit_late, twice};
use super::steps::*;
use super::world::*;
use crate::compaction::Scope;
use crate::histories::histories;
use crate::index::Bloom;
use crate::memtable::RunImage;
use crate::region::{Content, Publication};
use crate::storage::Storage;
use crate::{CompareOp, EngineError, Predicate, Region, RegionSpec, ScanOptions};

fn row(world: &World, number: u8, value: Option<i64>, position: usize) -> Row {
    (key(number), value, format!("{}/{position}", world.log.len()))
}

/// Rows with distinct keys, whose notes no write has.
pub(super) fn bulk_rows(world: &mut World, mut numbers: Vec<u8>) -> Vec<Row> {
    numbers.sort_unstable();
    numbers.dedup();
    world.serial += 1;
    let note = |number| format!("bulk {}/{number}", world.serial);
    numbers.into_iter().map(|number| (key(number), Some(i64::from(number)), note(number))).collect()
}

async fn stage(world: &mut World, numbers: Vec<u8>) {
    let rows = bulk_rows(world, numbers);
    if world.staged.is_none() {
        let area = world.open_area();
        world.staged = Some((area, world.spec.schema.version(), Vec::new()));
    }
    world.region.settle().await.unwrap();
    let Some((area, version, staged)) = &world.staged else { return };
    // The sequences of its files end before the next write's.
    if *version != world.spec.schema.version() || staged.len() == 9 {
        return;
    }
    let files = world.bulk_files(&rows).await;
    let area = *area;
    let before = world.region.stats().files;
    world.region.stage_files(area, &files).await.unwrap();
    assert_eq!(world.region.stats().files, before);
    if let Some((_, _, staged)) = &mut world.staged {
        staged.push(rows);
    }
}

/// The log publishes an area only under the schema that its files were checked against.
async fn end_area(world: &mut World, publish: bool) {
    let Some((area, version, files)) = world.staged.take() else { return };
    if publish && version == world.spec.schema.version() {
        world.publish(area, Content::Area { table: None }, &files);
        world.region.settle().await.unwrap();
    } else {
        world.abandon(area);
    }
}

/// A region that has taken over all files of another, and shows these rows.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) spec: RegionSpec,
    pub(super) rows: Vec<Row>,
}

/// Where the log of a copy begins.
const BASE: u64 = 1_000_000;

impl Copied {
    /// Taken up by another process.
    pub(super) fn region(&self, world: &World) -> Arc<Region> {
        Region::new(world.env(), self.spec.clone(), Sequence(BASE), Sequence(0)).unwrap()
    }

    pub(super) async fn check(&self, world: &World) {
        let region = self.region(world);
        region.load().await.unwrap();
        assert_eq!(scan(&region, &all()).await.unwrap(), self.rows);
    }
}

pub(super) async fn copy(world: &mut World) -> Copied {
    world.region.flush().await.unwrap();
    world.serial += 1;
    let region_id = RegionId(world.spec.region_id.get() + 1_000);
    let spec =
        RegionSpec { region_id, incarnation: Incarnation(world.serial), ..world.spec.clone() };
    let copied = Copied { spec, rows: world.expected_rows() };
    let copy = copied.region(world);
    copy.take_ownership(owner(1), GROUP).await.unwrap();
    let staged = copy.copy_from(world.region.dir, DEADLINE).await.unwrap();
    let publication = Publication { area: staged.area, epoch: Epoch(0), content: Content::Copies };
    copy.publish(cause(Sequence(BASE + 10)), publication).unwrap();
    copy.settle().await.unwrap();
    assert_eq!(scan(&copy, &all()).await.unwrap(), copied.rows);
    copied
}

pub(super) async fn take(world: &mut World, step: Step, begun: &mut Begun) {
    let append_only = world.spec.options.write_mode == WriteMode::AppendOnly;
    match step {
        Step::Put(rows) => {
            let rows: Vec<Row> = rows
                .into_iter()
                .enumerate()
                .map(|(position, (number, value))| row(world, number, value, position))
                .collect();
            world.put(&rows);
        }
        Step::Burst(rows) => {
            for (number, value) in rows {
                let row = row(world, number, value, 0);
                world.put(&[row]);
            }
        }
        Step::Delete(_) if append_only => {}
        Step::Delete(numbers) => {
            world.delete(&numbers.into_iter().map(key).collect::<Vec<_>>());
        }
        Step::Flush => {
            let report = world.region.flush().await.unwrap();
            assert!(report.flushed_sequence.get() >= world.last_write());
            assert_eq!(world.region.stats().memtable_bytes, 0);
        }
        Step::MergeRuns => world.region.merge_runs().await.unwrap(),
        Step::Compact(scope, place) => {
            match place {
                Place::Here => {
                    world.compact(scope).await;
                }
                Place::Elsewhere => {
                    elsewhere::compacted(world, scope).await;
                }
            }
            if scope == Scope::Whole {
                let files = world.region.files();
                assert!(files.iter().all(|file| file.deletes == 0), "{files:#?}");
                let more = world.compact(Scope::Whole).await;
                assert!(more.is_none(), "{more:?}");
            }
        }
        Step::CompactTwice(scope) => twice(world, scope).await,
        Step::CancelJob(scope, wakes) => cancelled(world, scope, wakes).await,
        Step::BeginJob(scope, place) => *begun = begin(world, scope, place).await,
        Step::CommitJob => commit_late(world, begun.take()).await,
        Step::Truncate => world.truncate(),
        Step::AddColumn => {
            let name = format!("extra{}", world.spec.schema.next_column_id());
            world.alter(&[added(&name)]);
        }
        Step::DropColumn => {
            let Some(last) = world.spec.schema.columns().get(4) else { return };
            let name = last.name.clone();
            world.alter(&[SchemaChange::DropColumn { name }]);
        }
        Step::Settle => {
            world.region.settle().await.unwrap();
            assert_eq!(world.region.obligations(), []);
        }
        Step::Adopt { numbers, next_owner } => {
            let rows = bulk_rows(world, numbers);
            world.adopt(&rows).await;
            if next_owner {
                world.reopen().await.unwrap();
            }
            world.region.settle().await.unwrap();
        }
        Step::Stage(numbers) => stage(world, numbers).await,
        Step::PublishArea => end_area(world, true).await,
        Step::AbandonArea => end_area(world, false).await,
        Step::Copy => drop(copy(world).await),
        Step::BuildIndexes => drop(world.region.build_indexes(&Bloom).await.unwrap()),
        Step::Follow => follow(world).await,
        Step::Reopen => world.reopen().await.unwrap(),
        Step::Failover { snapshot_at } => failover(world, snapshot_at).await,
        Step::Scan { start, end, limit, batch_rows, above } => {
            check_scan(world, &key(start), end.map(key), limit, batch_rows, above).await;
        }
        Step::Get(numbers) => check_get(world, &numbers).await,
    }
    world.check().await;
}

/// A run may straddle what the owner has flushed: rows that lie in files must not show twice.
async fn follow(world: &World) {
    let follower = world.log_replica();
    world.replay(&follower);
    follower.merge_runs().await.unwrap();
    follower.load().await.unwrap();
    assert_eq!(scan(&follower, &all()).await.unwrap(), world.expected_rows());
}

async fn failover(world: &mut World, snapshot_at: prop::sample::Index) {
    // The replica gets the images that the owner would put into a snapshot, then the log after it.
    let images: Vec<RunImage> = world
        .region
        .unflushed()
        .iter()
        .map(|image| RunImage::decode(&image.encode().unwrap()).unwrap())
        .collect();
    let replica = if snapshot_at.index(2) == 0 {
        let replica = world.snapshot_replica();
        replica.restore(images);
        replica
    } else {
        let replica = world.log_replica();
        world.replay(&replica);
        replica
    };
    world.term += 1;
    replica.take_ownership(owner(world.term), GROUP).await.unwrap();
    // The old owner finds out at its next commit, or has nothing to commit.
    let old = std::mem::replace(&mut world.region, replica);
    let unflushed = old.stats().memtable_rows > 0 || !old.obligations().is_empty();
    match old.flush().await {
        Err(EngineError::Fenced { .. } | EngineError::NotOwner { .. }) => {}
        other => assert!(!unflushed, "{other:?}"),
    }
}

async fn check_scan(
    world: &World,
    start: &Key,
    end: Option<Key>,
    limit: Option<u64>,
    batch_rows: usize,
    above: Option<i64>,
) {
    let range = KeyRange {
        start: row_key(&world.spec, start),
        end: end.as_ref().map(|end| row_key(&world.spec, end)),
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
    let expected: Vec<Row> = world
        .expected()
        .into_iter()
        .filter(|(key, row)| {
            range.contains(key) && above.is_none_or(|above| row.1.is_some_and(|v| v > above))
        })
        .map(|(_, row)| row)
        .take(limit.map_or(usize::MAX, |limit| limit as usize))
        .collect();
    assert_eq!(scan(&world.region, &options).await.unwrap(), expected);
    assert_eq!(world.region.count(&options).await.unwrap(), expected.len() as u64);
}

async fn check_get(world: &World, numbers: &[u8]) {
    let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
    let batch = key_batch(&keys, &world.spec);
    let found = world.region.get(&batch, &all().projection).await.unwrap();
    let expected: Vec<Row> =
        world.expected_rows().into_iter().filter(|row| keys.contains(&row.0)).collect();
    assert_eq!(rows_of(&found), expected);
}

fn check(steps: Vec<Step>, mode: WriteMode, hashed: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(Storage::memory(), mode, hashed).await;
        let mut begun = None;
        for step in steps {
            take(&mut world, step, &mut begun).await;
        }
        commit_late(&world, begun).await;
        world.check().await;
        world.region.flush().await.unwrap();
        world.check().await;
        world.reopen().await.unwrap();
        world.check().await;
    });
}

/// Some of the 5,120 histories for each: one test after another would be too long for one core.
macro_rules! tests_of_histories {
    ($($name:ident: $mode:ident, $hashed:literal, $keys:literal;)*) => {
        proptest! {
            #![proptest_config(histories(320))]
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
    an_upsert_region_of_3_keys_shows_what_a_sorted_map_shows: Upsert, false, 3;
    an_upsert_region_of_9_keys_shows_what_a_sorted_map_shows: Upsert, false, 9;
    an_upsert_region_of_60_keys_shows_what_a_sorted_map_shows: Upsert, false, 60;
    an_upsert_region_of_200_keys_shows_what_a_sorted_map_shows: Upsert, false, 200;
    a_hashed_upsert_region_of_3_keys_shows_what_a_sorted_map_shows: Upsert, true, 3;
    a_hashed_upsert_region_of_9_keys_shows_what_a_sorted_map_shows: Upsert, true, 9;
    a_hashed_upsert_region_of_60_keys_shows_what_a_sorted_map_shows: Upsert, true, 60;
    a_hashed_upsert_region_of_200_keys_shows_what_a_sorted_map_shows: Upsert, true, 200;
    an_append_only_region_of_3_keys_shows_what_a_sorted_map_shows: AppendOnly, false, 3;
    an_append_only_region_of_9_keys_shows_what_a_sorted_map_shows: AppendOnly, false, 9;
    an_append_only_region_of_60_keys_shows_what_a_sorted_map_shows: AppendOnly, false, 60;
    an_append_only_region_of_200_keys_shows_what_a_sorted_map_shows: AppendOnly, false, 200;
    a_hashed_append_only_region_of_3_keys_shows_what_a_sorted_map_shows: AppendOnly, true, 3;
    a_hashed_append_only_region_of_9_keys_shows_what_a_sorted_map_shows: AppendOnly, true, 9;
    a_hashed_append_only_region_of_60_keys_shows_what_a_sorted_map_shows: AppendOnly, true, 60;
    a_hashed_append_only_region_of_200_keys_shows_what_a_sorted_map_shows: AppendOnly, true, 200;
}

#[tokio::test]
async fn a_follower_drops_what_the_owner_flushed_and_shows_the_same() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    let follower = World::fresh(&world.storage, &world.spec);
    follower.load().await.unwrap();
    for number in 0..20 {
        let rows: Vec<Row> = (0..10).map(|i| row(&world, number + i, Some(1), 0)).collect();
        world.put(&rows);
        follower.apply(world.log.last().unwrap().clone()).unwrap();
        if number == 12 {
            world.region.flush().await.unwrap();
        }
    }
    // One run straddles the flushed sequence: its rows up to there are masked.
    follower.merge_runs().await.unwrap();
    follower.load().await.unwrap();
    assert_eq!(follower.flushed_sequence(), world.region.flushed_sequence());
    assert_eq!(scan(&follower, &all()).await.unwrap(), world.expected_rows());
    assert_eq!(follower.stats().files, world.region.stats().files);
    let before = follower.stats().manifest_version;
    follower.load().await.unwrap();
    assert_eq!(follower.stats().manifest_version, before);
}

#[tokio::test]
async fn a_scan_shows_what_was_there_when_it_was_called() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&[row(&world, 1, Some(1), 0), row(&world, 2, Some(2), 0)]);
    world.region.flush().await.unwrap();
    world.put(&[row(&world, 3, Some(3), 0)]);
    let expected = world.expected_rows();
    let stream = world.region.scan(&all()).unwrap();
    world.delete(&[key(1), key(2), key(3)]);
    world.region.flush().await.unwrap();
    let batches: Vec<_> = futures::TryStreamExt::try_collect::<Vec<_>>(stream).await.unwrap();
    let rows: Vec<Row> = batches.iter().flat_map(rows_of).collect();
    assert_eq!(rows, expected);
    world.check().await;
}

#[tokio::test]
async fn deletes_vanish_with_the_first_flush_and_stay_while_older_files_may_hold_the_key() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&[row(&world, 1, Some(1), 0)]);
    world.delete(&[key(1)]);
    let report = world.region.flush().await.unwrap();
    assert_eq!((report.files, report.rows), (0, 0));
    world.put(&[row(&world, 2, Some(1), 0)]);
    world.region.flush().await.unwrap();
    world.delete(&[key(2)]);
    let report = world.region.flush().await.unwrap();
    assert_eq!((report.files, report.rows), (1, 1));
    world.check().await;
    let files = world.region.files();
    assert_eq!(files.iter().map(|file| file.deletes).sum::<u64>(), 1);
    assert_eq!(Arc::strong_count(&world.region), 1);
}
