//! Compaction of a region: what it must keep, what it may leave out, what ends it.

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::EngineError;
use crate::compaction::commit::commit;
use crate::compaction::{Attempt, CompactionReason, Compactor, ProgressSnapshot, Scope};
use crate::file_meta::{FileMeta, Stamp};
use crate::hooks::SstFileInfo;
use crate::manifest::{ActionKind, Author, Change, Edit, ManifestContext, Void};
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

fn key(number: i32) -> Key {
    (["a", "b", "c"][number.unsigned_abs() as usize % 3].to_owned(), number)
}

fn rows(numbers: std::ops::Range<i32>, note: &str) -> Vec<Row> {
    numbers.map(|n| (key(n), Some(i64::from(n)), note.to_owned())).collect()
}

async fn flushed(world: &mut World, rows: &[Row]) {
    world.put(rows);
    world.region.flush().await.unwrap();
}

/// Replaces live references by others, as no flush does.
async fn edit(world: &World, remove: &[FileMeta], add: Vec<FileMeta>) {
    let remove = remove.iter().map(FileMeta::reference).collect();
    let edit = Edit { add, remove, ..Edit::default() };
    let change = Change::new(Author::Owner(owner(world.term)), vec![ActionKind::Edit(edit)]);
    world.region.manifest.update_manifest(change).await.unwrap();
    world.region.swap();
}

fn metas(written: Vec<SstFileInfo>) -> Vec<FileMeta> {
    written.into_iter().map(|file| file.meta).collect()
}

fn total(files: &[FileMeta]) -> u64 {
    files.iter().map(|file| file.rows).sum()
}

#[tokio::test]
async fn files_become_one_run_and_the_rows_stay() {
    for (mode, hashed) in [
        (WriteMode::Upsert, false),
        (WriteMode::Upsert, true),
        (WriteMode::AppendOnly, false),
        (WriteMode::AppendOnly, true),
    ] {
        let mut world = World::new(Storage::memory(), mode, hashed).await;
        for round in 0..5 {
            flushed(&mut world, &rows(round * 10..round * 10 + 90, &format!("{round}"))).await;
        }
        // Rows that are not flushed are left where they are.
        world.put(&rows(60..70, "in memory"));
        let before = world.region.files();
        let report = world.compact(Scope::Whole).await.unwrap();
        world.check().await;
        let mut after = world.region.files();
        assert_eq!((report.files_in, report.files_out), (before.len(), after.len()));
        assert_eq!(report.why, CompactionReason::Asked);
        assert_eq!(report.done.rows_read, total(&before));
        assert_eq!(report.done.rows_written, total(&after));
        assert_eq!(report.done.files_written, after.len() as u64);
        let bytes: u64 = after.iter().map(|file| file.size).sum();
        assert_eq!(report.done.bytes_written, bytes);
        after.sort_by(|a, b| a.min_key.cmp(&b.min_key));
        assert!(after.windows(2).all(|pair| pair[0].max_key < pair[1].min_key));
        assert!(after.len() > 2, "cut at the target size and into sub-jobs");
        assert!(after.iter().all(|file| file.level == 1 && file.clip == KeyRange::whole()));
        let rows = if mode == WriteMode::Upsert { 130 } else { 450 };
        assert_eq!(total(&after), rows);
        assert!(world.compact(Scope::Whole).await.is_none(), "one run already");
        let follower = World::fresh(&world.storage, &world.spec);
        follower.load().await.unwrap();
        world.replay(&follower);
        assert_eq!(scan(&follower, &all()).await.unwrap(), world.expected_rows());
        world.reopen().await.unwrap();
        world.check().await;
    }
}

#[tokio::test]
async fn a_delete_stays_as_long_as_older_rows_may_lie_beneath() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    let deletes = |world: &World| -> Vec<u64> {
        world.region.files().iter().map(|file| file.deletes).filter(|n| *n > 0).collect()
    };
    flushed(&mut world, &rows(0..30, "old")).await;
    flushed(&mut world, &rows(0..30, "older")).await;
    assert_eq!(world.compact(Scope::Due).await.unwrap().why, CompactionReason::Tier);
    // Level 1 holds the keys; two flushes that delete some of them meet above it.
    world.delete(&[key(3), key(4)]);
    flushed(&mut world, &rows(0..1, "new")).await;
    world.delete(&[key(5)]);
    flushed(&mut world, &rows(0..1, "newest")).await;
    let report = world.compact(Scope::Due).await.unwrap();
    assert_eq!((report.files_in, report.done.rows_written), (2, 4));
    assert_eq!(deletes(&world), [3]);
    world.check().await;
    // On level 1 there are two runs now; beneath them nothing.
    assert_eq!(world.compact(Scope::Due).await.unwrap().why, CompactionReason::Tier);
    assert_eq!(deletes(&world), [0; 0]);
    assert_eq!(total(&world.region.files()), 27);
    world.check().await;
}

#[tokio::test]
async fn a_delete_that_is_newer_than_what_is_flushed_stays() {
    // A file that no flush wrote, above rows that are in memory: as when a publication overtakes.
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut world, &rows(0..5, "flushed")).await;
    world.delete(&[key(1)]);
    flushed(&mut world, &rows(7..8, "flushed")).await;
    let files = world.region.files();
    let late = Stamp { sequence: Sequence(1_000), epoch: Epoch(0) };
    let stamped = files
        .iter()
        .filter(|file| file.deletes > 0)
        .map(|file| FileMeta { stamp: Some(late), ..file.clone() })
        .collect::<Vec<_>>();
    let plain = stamped.iter().map(|file| FileMeta { stamp: None, ..file.clone() });
    edit(&world, &plain.collect::<Vec<_>>(), stamped).await;
    world.compact(Scope::Whole).await.unwrap();
    assert_eq!(world.region.files().iter().map(|file| file.deletes).sum::<u64>(), 1);
}

#[tokio::test]
async fn a_clip_is_honoured_and_inherited() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut world, &rows(0..60, "one")).await;
    flushed(&mut world, &rows(20..80, "two")).await;
    let (low, high) = (row_key(&world.spec, &key(21)), row_key(&world.spec, &key(50)));
    let clip = KeyRange::new(low, Some(high));
    let files = world.region.files();
    let clipped: Vec<FileMeta> =
        files.iter().map(|file| FileMeta { clip: clip.clone(), ..file.clone() }).collect();
    edit(&world, &files, clipped).await;
    let expected: Vec<Row> = world
        .expected()
        .into_iter()
        .filter(|(row_key, _)| clip.contains(row_key))
        .map(|(_, row)| row)
        .collect();
    assert!(expected.len() > 10);
    assert_eq!(scan(&world.region, &all()).await.unwrap(), expected);
    world.compact(Scope::Whole).await.unwrap();
    assert_eq!(scan(&world.region, &all()).await.unwrap(), expected);
    let after = world.region.files();
    assert_eq!(total(&after), expected.len() as u64, "what the clip hides is not copied");
    assert!(after.iter().all(|file| file.clip == clip));
}

#[tokio::test]
async fn inputs_with_different_clips_show_what_each_may() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut world, &rows(0..60, "one")).await;
    let first = world.region.files();
    flushed(&mut world, &rows(0..60, "two")).await;
    let bound = |number| row_key(&world.spec, &key(number));
    // Of the newer files the end, of the older ones the begin: they overlap in the middle.
    let clipped: Vec<FileMeta> = world
        .region
        .files()
        .into_iter()
        .map(|file| {
            let clip = match first.contains(&file) {
                true => KeyRange::new(Vec::new(), Some(bound(40))),
                false => KeyRange::new(bound(22), None),
            };
            FileMeta { clip, ..file }
        })
        .collect();
    let files = world.region.files();
    edit(&world, &files, clipped).await;
    let before = scan(&world.region, &all()).await.unwrap();
    let ones = before.iter().filter(|row| row.2 == "one").count();
    assert!(before.len() == 60 && ones > 5 && ones < 55, "{ones}");
    world.compact(Scope::Whole).await.unwrap();
    assert_eq!(scan(&world.region, &all()).await.unwrap(), before);
}

#[tokio::test]
async fn a_cancelled_merge_reads_nothing_more() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut world, &rows(0..30, "one")).await;
    flushed(&mut world, &rows(0..30, "two")).await;
    let planned = world.region.claim(Scope::Whole, Epoch(0)).unwrap().unwrap();
    let job = planned.job().clone();
    let attempt = Attempt::default();
    attempt.cancel.cancel();
    let ended = Compactor::new(env(world.storage.clone())).merge(&job, &attempt).await;
    assert!(matches!(ended, Err(EngineError::Cancelled { .. })), "{ended:?}");
    assert_eq!(attempt.progress.snapshot(), ProgressSnapshot::default());
}

#[tokio::test]
async fn a_stamp_decides_who_wins_and_is_written_out() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut world, &rows(0..30, "published later")).await;
    flushed(&mut world, &rows(10..40, "written later")).await;
    let first = world.region.files().into_iter().min_by_key(FileMeta::min_sequence).unwrap();
    let stamp = Stamp { sequence: Sequence(77), epoch: Epoch(3) };
    let stamped = FileMeta { stamp: Some(stamp), ..first.clone() };
    edit(&world, &[first], vec![stamped]).await;
    let before = scan(&world.region, &all()).await.unwrap();
    assert_eq!(before.iter().filter(|row| row.2 == "published later").count(), 30);
    let attempt = Attempt::default();
    world.region.compact(Scope::Whole, Epoch(9), &attempt).await.unwrap().unwrap();
    assert_eq!(scan(&world.region, &all()).await.unwrap(), before);
    let files = world.region.files();
    assert!(files.iter().all(|file| file.stamp.is_none()));
    let max = files.iter().map(|file| file.stored_max_sequence).max().unwrap();
    let epochs = files.iter().map(|file| file.stored_max_epoch).max().unwrap();
    assert_eq!((max, epochs), (Sequence(77), Epoch(3)));
}

#[tokio::test]
async fn versions_newer_than_since_stay_and_the_newest_before() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    for epoch in [3, 5, 6, 8] {
        world.epoch = epoch;
        world.put(&rows(0..20, &format!("epoch {epoch}")));
        if epoch == 6 {
            world.delete(&[key(1)]);
        }
        world.region.flush().await.unwrap();
    }
    let attempt = Attempt::default();
    let compact = |since| world.region.compact(Scope::Whole, Epoch(since), &attempt);
    compact(5).await.unwrap().unwrap();
    world.check().await;
    // Of each key those of 8, 6 and 5; the delete is newer than since.
    let files = world.region.files();
    assert_eq!(total(&files), 60);
    assert_eq!(files.iter().map(|file| file.deletes).sum::<u64>(), 1);
    assert!(files.iter().all(|file| !file.one_version_per_key));
    let least = files.iter().map(|file| file.stored_min_epoch).min();
    assert_eq!(least, Some(Epoch(5)));
    assert_eq!(world.region.manifest.state().since, Epoch(5));
    // It never goes back.
    compact(0).await.unwrap();
    assert_eq!(total(&world.region.files()), 60);
    compact(8).await.unwrap().unwrap();
    world.check().await;
    assert_eq!(total(&world.region.files()), 20);
    assert!(world.region.files().iter().all(|file| file.one_version_per_key));
}

#[tokio::test]
async fn only_an_owner_chooses_and_a_removed_region_is_left_alone() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut world, &rows(0..30, "one")).await;
    flushed(&mut world, &rows(0..30, "two")).await;
    assert_eq!(world.region.compactions_due().len(), 1);
    let follower = World::fresh(&world.storage, &world.spec);
    follower.load().await.unwrap();
    let attempt = Attempt::default();
    let refused = follower.compact(Scope::Whole, Epoch(0), &attempt).await;
    assert!(matches!(refused, Err(EngineError::NotOwner { .. })), "{refused:?}");
    assert_eq!(follower.compactions_due(), world.region.compactions_due());
    // Dropped while the files are merged: the commit finds out.
    let planned = world.region.claim(Scope::Whole, Epoch(0)).unwrap().unwrap();
    let job = planned.job().clone();
    let outputs =
        metas(Compactor::new(env(world.storage.clone())).merge(&job, &attempt).await.unwrap());
    world.region.remove().await.unwrap();
    let late = commit(&world.region.manifest, &job, &outputs).await;
    assert!(matches!(late, Err(EngineError::Removed { .. })), "{late:?}");
    let refused = world.region.compact(Scope::Whole, Epoch(0), &attempt).await;
    assert!(matches!(refused, Err(EngineError::Removed { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_cancelled_job_leaves_no_live_trace() {
    let store = FaultyStore::new();
    let mut world = World::new(store.storage(), WriteMode::Upsert, false).await;
    for round in 0..4 {
        flushed(&mut world, &rows(0..90, &format!("{round}"))).await;
    }
    let before = world.region.files();
    let mut cancelled = 0;
    for at in 0.. {
        // What lies in a cache would be calls that are not made.
        store.plan(|_| Fault::None);
        world.reopen().await.unwrap();
        let attempt = Attempt::default();
        let token = attempt.cancel.clone();
        store.plan(move |call| {
            if call.operation == Operation::Get && call.number == at {
                token.cancel();
            }
            Fault::None
        });
        if at == 0 {
            attempt.cancel.cancel();
        }
        match world.region.compact(Scope::Whole, Epoch(0), &attempt).await {
            Err(EngineError::Cancelled { .. }) => {}
            Ok(Some(_)) => break,
            other => panic!("{other:?}"),
        }
        cancelled += 1;
        assert_eq!(world.region.files(), before);
        world.check().await;
    }
    assert!(cancelled > 3, "{cancelled}");
    store.plan(|_| Fault::None);
    world.check().await;
    assert_ne!(world.region.files(), before, "what was claimed is free again");
}

#[tokio::test]
async fn a_job_is_committed_once_however_often_it_is_reported() {
    let mut world = World::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    flushed(&mut world, &rows(0..30, "one")).await;
    flushed(&mut world, &rows(0..30, "two")).await;
    let claim = world.region.claim(Scope::Whole, Epoch(0)).unwrap().unwrap();
    let job = claim.job().clone();
    assert_eq!(world.region.compactions_due(), [], "its files are taken");
    let attempt = Attempt::default();
    let compactor = Compactor::new(env(world.storage.clone()));
    let outputs = metas(compactor.merge(&job, &attempt).await.unwrap());
    let twin = metas(compactor.merge(&job, &attempt).await.unwrap());
    let version = commit(&world.region.manifest, &job, &outputs).await.unwrap();
    drop(claim);
    for _ in 0..2 {
        let elsewhere = ManifestContext::new(env(world.storage.clone()), job.dir);
        assert_eq!(commit(&elsewhere, &job, &outputs).await.unwrap(), version);
    }
    // Another attempt at the same job comes too late.
    let late = commit(&world.region.manifest, &job, &twin).await;
    let gone = matches!(late, Err(EngineError::Refused { reason: Void::InputsGone { .. }, .. }));
    assert!(gone, "{late:?}");
    world.region.load().await.unwrap();
    assert_eq!(world.region.stats().manifest_version, version);
    world.check().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_settled() {
    for fault in [Fault::ErrorAfter, Fault::StoredConflict, Fault::ErrorBefore] {
        let store = FaultyStore::new();
        let mut world = World::new(store.storage(), WriteMode::AppendOnly, false).await;
        flushed(&mut world, &rows(0..30, "one")).await;
        flushed(&mut world, &rows(0..30, "two")).await;
        store.plan(move |call| match call.operation {
            Operation::PutIfAbsent if call.number == 1 => fault,
            _ => Fault::None,
        });
        let report = world.compact(Scope::Whole).await.unwrap();
        store.plan(|_| Fault::None);
        assert_eq!(world.region.files().len(), report.files_out, "{fault:?}");
        world.check().await;
    }
}
