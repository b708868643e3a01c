//! S2: whatever the interleaving of writes, flushes, merges, snapshots and owners, a region shows
//! what a sorted map of all writes shows.

use std::sync::Arc;

use proptest::prelude::*;
use tidewater_common::ids::{Epoch, Incarnation, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{SchemaChange, WriteMode};

use super::world::*;
use crate::bulk::AdoptError;
use crate::bulk::error::NotShared;
use crate::compaction::commit::commit;
use crate::compaction::{Attempt, CompactionJob, Compactor, Scope};
use crate::file_meta::FileMeta;
use crate::layout::RegionDir;
use crate::manifest::{ManifestContext, Void};
use crate::memtable::RunImage;
use crate::region::{Content, Publication};
use crate::storage::Storage;
use crate::{CompareOp, EngineError, Predicate, Region, RegionSpec, ScanOptions};

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<(u8, Option<i64>)>),
    Delete(Vec<u8>),
    Flush,
    MergeRuns,
    Compact(Scope),
    /// A job is planned and its files are merged, ..
    BeginJob(Scope),
    /// .. and committed later, by another process.
    CommitJob,
    Truncate,
    AddColumn,
    DropColumn,
    Settle,
    /// Rows come as a file, and are published under this owner or the next one.
    Adopt {
        numbers: Vec<u8>,
        next_owner: bool,
    },
    /// Rows come as a file into a staging area, which begins with it.
    Stage(Vec<u8>),
    PublishArea,
    AbandonArea,
    /// Another region takes over all files.
    Copy,
    Reopen,
    /// A replica that has followed the log, or part of it by a snapshot, becomes the owner.
    Failover {
        snapshot_at: prop::sample::Index,
    },
    Scan {
        start: u8,
        end: Option<u8>,
        limit: Option<u64>,
        batch_rows: usize,
        above: Option<i64>,
    },
    Get(Vec<u8>),
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![3 => Just(Scope::Due), 1 => Just(Scope::Whole)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0_u8..60, prop::option::weighted(0.8, 0_i64..100));
    let step = prop_oneof![
        10 => prop::collection::vec(row, 1..25).prop_map(Step::Put),
        3 => prop::collection::vec(0_u8..60, 1..8).prop_map(Step::Delete),
        4 => Just(Step::Flush),
        3 => Just(Step::MergeRuns),
        3 => scope().prop_map(Step::Compact),
        2 => scope().prop_map(Step::BeginJob),
        2 => Just(Step::CommitJob),
        1 => Just(Step::Truncate),
        1 => Just(Step::AddColumn),
        1 => Just(Step::DropColumn),
        1 => Just(Step::Settle),
        2 => (prop::collection::vec(0_u8..60, 1..20), any::<bool>())
            .prop_map(|(numbers, next_owner)| Step::Adopt { numbers, next_owner }),
        2 => prop::collection::vec(0_u8..60, 1..20).prop_map(Step::Stage),
        1 => Just(Step::PublishArea),
        1 => Just(Step::AbandonArea),
        1 => Just(Step::Copy),
        1 => Just(Step::Reopen),
        1 => any::<prop::sample::Index>().prop_map(|snapshot_at| Step::Failover { snapshot_at }),
        3 => (
            0_u8..60,
            prop::option::of(0_u8..60),
            prop::option::of(0_u64..50),
            1_usize..40,
            prop::option::of(0_i64..100),
        )
            .prop_map(|(start, end, limit, batch_rows, above)| {
                Step::Scan { start, end, limit, batch_rows, above }
            }),
        2 => prop::collection::vec(0_u8..60, 1..10).prop_map(Step::Get),
    ];
    prop::collection::vec(step, 1..50)
}

fn key(number: u8) -> Key {
    (["", "a", "ab", "b"][usize::from(number % 4)].to_owned(), i32::from(number / 4) - 3)
}

fn row(world: &World, number: u8, value: Option<i64>, position: usize) -> Row {
    (key(number), value, format!("{}/{position}", world.log.len()))
}

/// Rows with distinct keys, whose notes no write has.
fn bulk_rows(world: &mut World, mut numbers: Vec<u8>) -> Vec<Row> {
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
    let files = bulk_files(&world.storage, &world.spec, &rows).await;
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

async fn check_copy(world: &World) {
    world.region.flush().await.unwrap();
    let spec = RegionSpec { region_id: RegionId(1_000), ..world.spec.clone() };
    let base = Sequence(1_000_000);
    // Regions of earlier steps have another incarnation.
    let incarnation = Incarnation(world.region.stats().manifest_version.get());
    let spec = RegionSpec { incarnation, ..spec };
    let copy = Region::new(env(world.storage.clone()), spec, base, Sequence(0)).unwrap();
    copy.take_ownership(owner(1), GROUP).await.unwrap();
    let RegionSpec { table_id, region_id, incarnation, .. } = *world.region.spec();
    let source = RegionDir { table_id, region_id, incarnation };
    let staged = match copy.copy_from(source, DEADLINE).await {
        Ok(staged) => staged,
        // At this version there has been a copy before.
        Err(AdoptError::NotShared { reason: NotShared::NotEmpty, .. }) => return,
        Err(other) => panic!("{other}"),
    };
    let publication = Publication { area: staged.area, epoch: Epoch(0), content: Content::Copies };
    copy.publish(cause(Sequence(base.get() + 10)), publication).unwrap();
    copy.settle().await.unwrap();
    assert_eq!(scan(&copy, &all()).await.unwrap(), world.expected_rows());
}

/// A job whose files are written and in no manifest.
type Begun = Option<(CompactionJob, Vec<FileMeta>)>;

async fn begin(world: &World, scope: Scope) -> Begun {
    world.region.load().await.unwrap();
    let (job, _claim) = world.region.claim(scope, Epoch(0)).unwrap()?;
    let compactor = Compactor::new(env(world.storage.clone()));
    let written = compactor.merge(&job, &Attempt::default()).await.unwrap();
    let outputs: Vec<_> = written.into_iter().map(|file| file.meta).collect();
    Some((job, outputs))
}

async fn commit_late(world: &World, begun: Begun) {
    let Some((job, outputs)) = begun else { return };
    let manifest = ManifestContext::new(env(world.storage.clone()), job.dir);
    match commit(&manifest, &job, &outputs).await {
        Ok(version) => {
            world.region.load().await.unwrap();
            // A late or double report changes nothing.
            assert_eq!(commit(&manifest, &job, &outputs).await.unwrap_or(version), version);
        }
        Err(EngineError::Refused { reason: Void::InputsGone { .. }, .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

async fn take(world: &mut World, step: Step, begun: &mut Begun) {
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
        Step::Compact(scope) => {
            let report = world.compact(scope).await;
            if scope == Scope::Whole {
                let files = world.region.files();
                assert!(files.iter().all(|file| file.deletes == 0), "{files:#?}");
                assert!(world.compact(Scope::Whole).await.is_none(), "{report:?}");
            }
        }
        Step::BeginJob(scope) => *begun = begin(world, scope).await,
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
        Step::Copy => check_copy(world).await,
        Step::Reopen => world.reopen().await.unwrap(),
        Step::Failover { snapshot_at } => failover(world, snapshot_at).await,
        Step::Scan { start, end, limit, batch_rows, above } => {
            check_scan(world, &key(start), end.map(key), limit, batch_rows, above).await;
        }
        Step::Get(numbers) => check_get(world, &numbers).await,
    }
    world.check().await;
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

proptest! {
    #[test]
    fn a_region_shows_what_a_sorted_map_shows(
        steps in steps(),
        append_only in any::<bool>(),
        hashed in any::<bool>(),
    ) {
        let mode = if append_only { WriteMode::AppendOnly } else { WriteMode::Upsert };
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
