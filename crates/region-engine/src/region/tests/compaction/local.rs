//! Local compaction of a region: rows kept, rows dropped, cancellation.

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use crate::EngineError;
use crate::compaction::commit::commit;
use crate::compaction::{Attempt, CompactionReason, Compactor, ProgressSnapshot, Scope};
use crate::file_meta::{FileMeta, Stamp};
use crate::hooks::SstFileInfo;
use crate::manifest::{ActionKind, Author, Change, Edit, ManifestContext, Void};
use crate::region::tests::fixture::*;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

fn key(number: i32) -> Key {
    (["a", "b", "c"][number.unsigned_abs() as usize % 3].to_owned(), number)
}

fn rows(numbers: std::ops::Range<i32>, note: &str) -> Vec<Row> {
    numbers.map(|n| (key(n), Some(i64::from(n)), note.to_owned())).collect()
}

async fn flushed(fixture: &mut RegionFixture, rows: &[Row]) {
    fixture.put(rows);
    fixture.region.flush().await.unwrap();
}

/// Replaces live references by others, which a flush never does.
async fn edit(fixture: &RegionFixture, remove: &[FileMeta], add: Vec<FileMeta>) {
    let remove = remove.iter().map(FileMeta::reference).collect();
    let edit = Edit { add, remove, ..Edit::default() };
    let change = Change::new(Author::Owner(owner(fixture.term)), vec![ActionKind::Edit(edit)]);
    fixture.region.manifest.update_manifest(change).await.unwrap();
    fixture.region.install_version();
}

fn metas(written: Vec<SstFileInfo>) -> Vec<FileMeta> {
    written.into_iter().map(|file| file.meta).collect()
}

fn total(files: &[FileMeta]) -> u64 {
    files.iter().map(|file| file.rows).sum()
}

#[tokio::test]
async fn compaction_rewrites_files_to_one_run_and_keeps_rows() {
    for (mode, hashed) in [
        (WriteMode::Upsert, false),
        (WriteMode::Upsert, true),
        (WriteMode::AppendOnly, false),
        (WriteMode::AppendOnly, true),
    ] {
        let mut fixture = RegionFixture::new(Storage::memory(), mode, hashed).await;
        for round in 0..5 {
            flushed(&mut fixture, &rows(round * 10..round * 10 + 90, &format!("{round}"))).await;
        }
        // Unflushed rows stay in memory.
        fixture.put(&rows(60..70, "in memory"));
        let before = fixture.region.files();
        let report = fixture.compact(Scope::Whole).await.unwrap();
        fixture.check().await;
        let mut after = fixture.region.files();
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
        assert!(fixture.compact(Scope::Whole).await.is_none(), "one run already");
        let follower = RegionFixture::fresh(&fixture.storage, &fixture.spec);
        follower.load().await.unwrap();
        fixture.replay(&follower);
        assert_eq!(scan(&follower, &all()).await.unwrap(), fixture.expected_rows());
        fixture.reopen().await.unwrap();
        fixture.check().await;
    }
}

#[tokio::test]
async fn delete_is_kept_while_older_rows_may_exist() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let deletes = |fixture: &RegionFixture| -> Vec<u64> {
        fixture.region.files().iter().map(|file| file.deletes).filter(|n| *n > 0).collect()
    };
    flushed(&mut fixture, &rows(0..30, "old")).await;
    flushed(&mut fixture, &rows(0..30, "older")).await;
    assert_eq!(fixture.compact(Scope::Due).await.unwrap().why, CompactionReason::Tier);
    // Level 1 contains the keys; the two compacted flushes above it delete some of them.
    fixture.delete(&[key(3), key(4)]);
    flushed(&mut fixture, &rows(0..1, "new")).await;
    fixture.delete(&[key(5)]);
    flushed(&mut fixture, &rows(0..1, "newest")).await;
    let report = fixture.compact(Scope::Due).await.unwrap();
    assert_eq!((report.files_in, report.done.rows_written), (2, 4));
    assert_eq!(deletes(&fixture), [3]);
    fixture.check().await;
    // Level 1 has two runs now, and no older run exists.
    assert_eq!(fixture.compact(Scope::Due).await.unwrap().why, CompactionReason::Tier);
    assert_eq!(deletes(&fixture), [0; 0]);
    assert_eq!(total(&fixture.region.files()), 27);
    fixture.check().await;
}

#[tokio::test]
async fn delete_newer_than_flushed_sequence_is_kept() {
    // A published file that is newer than rows in memory.
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut fixture, &rows(0..5, "flushed")).await;
    fixture.delete(&[key(1)]);
    flushed(&mut fixture, &rows(7..8, "flushed")).await;
    let files = fixture.region.files();
    let late = Stamp { sequence: Sequence(1_000), epoch: Epoch(0) };
    let stamped = files
        .iter()
        .filter(|file| file.deletes > 0)
        .map(|file| FileMeta { stamp: Some(late), ..file.clone() })
        .collect::<Vec<_>>();
    let plain = stamped.iter().map(|file| FileMeta { stamp: None, ..file.clone() });
    edit(&fixture, &plain.collect::<Vec<_>>(), stamped).await;
    fixture.compact(Scope::Whole).await.unwrap();
    assert_eq!(fixture.region.files().iter().map(|file| file.deletes).sum::<u64>(), 1);
}

#[tokio::test]
async fn compaction_honours_and_inherits_clip() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut fixture, &rows(0..60, "one")).await;
    flushed(&mut fixture, &rows(20..80, "two")).await;
    let low = row_key(&fixture.spec, &key(21));
    let high = row_key(&fixture.spec, &key(50));
    let clip = KeyRange::new(low, Some(high));
    let files = fixture.region.files();
    let clipped: Vec<FileMeta> =
        files.iter().map(|file| FileMeta { clip: clip.clone(), ..file.clone() }).collect();
    edit(&fixture, &files, clipped).await;
    let expected: Vec<Row> = fixture
        .expected()
        .into_iter()
        .filter(|(row_key, _)| clip.contains(row_key))
        .map(|(_, row)| row)
        .collect();
    assert!(expected.len() > 10);
    assert_eq!(scan(&fixture.region, &all()).await.unwrap(), expected);
    fixture.compact(Scope::Whole).await.unwrap();
    assert_eq!(scan(&fixture.region, &all()).await.unwrap(), expected);
    let after = fixture.region.files();
    assert_eq!(total(&after), expected.len() as u64, "clipped rows are not copied");
    assert!(after.iter().all(|file| file.clip == clip));
}

#[tokio::test]
async fn compaction_honours_different_clips_of_inputs() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut fixture, &rows(0..60, "one")).await;
    let first = fixture.region.files();
    flushed(&mut fixture, &rows(0..60, "two")).await;
    let bound = |number| row_key(&fixture.spec, &key(number));
    // The newer files show the end and the older ones the beginning: they overlap in the middle.
    let clipped: Vec<FileMeta> = fixture
        .region
        .files()
        .into_iter()
        .map(|file| {
            let clip = if first.contains(&file) {
                KeyRange::new(Vec::new(), Some(bound(40)))
            } else {
                KeyRange::new(bound(22), None)
            };
            FileMeta { clip, ..file }
        })
        .collect();
    let files = fixture.region.files();
    edit(&fixture, &files, clipped).await;
    let before = scan(&fixture.region, &all()).await.unwrap();
    let ones = before.iter().filter(|row| row.2 == "one").count();
    assert!(before.len() == 60 && ones > 5 && ones < 55, "{ones}");
    fixture.compact(Scope::Whole).await.unwrap();
    assert_eq!(scan(&fixture.region, &all()).await.unwrap(), before);
}

#[tokio::test]
async fn cancelled_job_reads_no_rows() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut fixture, &rows(0..30, "one")).await;
    flushed(&mut fixture, &rows(0..30, "two")).await;
    let planned = fixture.region.claim(Scope::Whole, Epoch(0)).unwrap().unwrap();
    let job = planned.job().clone();
    let attempt = Attempt::default();
    attempt.cancel.cancel();
    let ended = Compactor::new(env(fixture.storage.clone())).merge(&job, &attempt).await;
    assert!(matches!(ended, Err(EngineError::Cancelled { .. })), "{ended:?}");
    assert_eq!(attempt.progress.snapshot(), ProgressSnapshot::default());
}

#[tokio::test]
async fn stamp_decides_newest_version_and_is_materialized() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut fixture, &rows(0..30, "published later")).await;
    flushed(&mut fixture, &rows(10..40, "written later")).await;
    let first = fixture.region.files().into_iter().min_by_key(FileMeta::min_sequence).unwrap();
    let stamp = Stamp { sequence: Sequence(77), epoch: Epoch(3) };
    let stamped = FileMeta { stamp: Some(stamp), ..first.clone() };
    edit(&fixture, &[first], vec![stamped]).await;
    let before = scan(&fixture.region, &all()).await.unwrap();
    assert_eq!(before.iter().filter(|row| row.2 == "published later").count(), 30);
    let attempt = Attempt::default();
    fixture.region.compact(Scope::Whole, Epoch(9), &attempt).await.unwrap().unwrap();
    assert_eq!(scan(&fixture.region, &all()).await.unwrap(), before);
    let files = fixture.region.files();
    assert!(files.iter().all(|file| file.stamp.is_none()));
    let max = files.iter().map(|file| file.stored_max_sequence).max().unwrap();
    let epochs = files.iter().map(|file| file.stored_max_epoch).max().unwrap();
    assert_eq!((max, epochs), (Sequence(77), Epoch(3)));
}

#[tokio::test]
async fn compaction_keeps_versions_since_epoch_and_newest_before() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for epoch in [3, 5, 6, 8] {
        fixture.epoch = epoch;
        fixture.put(&rows(0..20, &format!("epoch {epoch}")));
        if epoch == 6 {
            fixture.delete(&[key(1)]);
        }
        fixture.region.flush().await.unwrap();
    }
    let attempt = Attempt::default();
    let compact = |since| fixture.region.compact(Scope::Whole, Epoch(since), &attempt);
    compact(5).await.unwrap().unwrap();
    fixture.check().await;
    // Of each key, the versions of epochs 8, 6 and 5; the delete is newer than since.
    let files = fixture.region.files();
    assert_eq!(total(&files), 60);
    assert_eq!(files.iter().map(|file| file.deletes).sum::<u64>(), 1);
    assert!(files.iter().all(|file| !file.one_version_per_key));
    let least = files.iter().map(|file| file.stored_min_epoch).min();
    assert_eq!(least, Some(Epoch(5)));
    assert_eq!(fixture.region.manifest.state().since, Epoch(5));
    // It never decreases.
    compact(0).await.unwrap();
    assert_eq!(total(&fixture.region.files()), 60);
    compact(8).await.unwrap().unwrap();
    fixture.check().await;
    assert_eq!(total(&fixture.region.files()), 20);
    assert!(fixture.region.files().iter().all(|file| file.one_version_per_key));
}

#[tokio::test]
async fn compaction_requires_owner_and_live_region() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    flushed(&mut fixture, &rows(0..30, "one")).await;
    flushed(&mut fixture, &rows(0..30, "two")).await;
    assert_eq!(fixture.region.compactions_due().len(), 1);
    let follower = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    follower.load().await.unwrap();
    let attempt = Attempt::default();
    let refused = follower.compact(Scope::Whole, Epoch(0), &attempt).await;
    assert!(matches!(refused, Err(EngineError::NotOwner { .. })), "{refused:?}");
    assert_eq!(follower.compactions_due(), fixture.region.compactions_due());
    // Removed before the commit: the commit fails.
    let planned = fixture.region.claim(Scope::Whole, Epoch(0)).unwrap().unwrap();
    let job = planned.job().clone();
    let outputs =
        metas(Compactor::new(env(fixture.storage.clone())).merge(&job, &attempt).await.unwrap());
    fixture.region.remove().await.unwrap();
    let late = commit(&fixture.region.manifest, &job, &outputs).await;
    assert!(matches!(late, Err(EngineError::Removed { .. })), "{late:?}");
    let refused = fixture.region.compact(Scope::Whole, Epoch(0), &attempt).await;
    assert!(matches!(refused, Err(EngineError::Removed { .. })), "{refused:?}");
}

#[tokio::test]
async fn cancelled_job_changes_nothing_and_frees_its_files() {
    let store = FaultyStore::new();
    let mut fixture = RegionFixture::new(store.storage(), WriteMode::Upsert, false).await;
    for round in 0..4 {
        flushed(&mut fixture, &rows(0..90, &format!("{round}"))).await;
    }
    let before = fixture.region.files();
    let mut cancelled = 0;
    for at in 0.. {
        // Cached footers would save store calls.
        store.plan(|_| Fault::None);
        fixture.reopen().await.unwrap();
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
        match fixture.region.compact(Scope::Whole, Epoch(0), &attempt).await {
            Err(EngineError::Cancelled { .. }) => {}
            Ok(Some(_)) => break,
            other => panic!("{other:?}"),
        }
        cancelled += 1;
        assert_eq!(fixture.region.files(), before);
        fixture.check().await;
    }
    assert!(cancelled > 3, "{cancelled}");
    store.plan(|_| Fault::None);
    fixture.check().await;
    assert_ne!(fixture.region.files(), before, "claimed files are free again");
}

#[tokio::test]
async fn job_is_committed_once_after_repeated_reports() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    flushed(&mut fixture, &rows(0..30, "one")).await;
    flushed(&mut fixture, &rows(0..30, "two")).await;
    let claim = fixture.region.claim(Scope::Whole, Epoch(0)).unwrap().unwrap();
    let job = claim.job().clone();
    assert_eq!(fixture.region.compactions_due(), [], "its files are taken");
    let attempt = Attempt::default();
    let compactor = Compactor::new(env(fixture.storage.clone()));
    let outputs = metas(compactor.merge(&job, &attempt).await.unwrap());
    let twin = metas(compactor.merge(&job, &attempt).await.unwrap());
    let version = commit(&fixture.region.manifest, &job, &outputs).await.unwrap();
    drop(claim);
    for _ in 0..2 {
        let other = ManifestContext::new(env(fixture.storage.clone()), job.dir);
        assert_eq!(commit(&other, &job, &outputs).await.unwrap(), version);
    }
    // The commit of another attempt of the same job is refused.
    let late = commit(&fixture.region.manifest, &job, &twin).await;
    let superseded =
        matches!(late, Err(EngineError::Refused { reason: Void::InputsGone { .. }, .. }));
    assert!(superseded, "{late:?}");
    fixture.region.load().await.unwrap();
    assert_eq!(fixture.region.stats().manifest_version, version);
    fixture.check().await;
}

#[tokio::test]
async fn compaction_resolves_unknown_commit_outcome() {
    for fault in [Fault::ErrorAfter, Fault::StoredConflict, Fault::ErrorBefore] {
        let store = FaultyStore::new();
        let mut fixture = RegionFixture::new(store.storage(), WriteMode::AppendOnly, false).await;
        flushed(&mut fixture, &rows(0..30, "one")).await;
        flushed(&mut fixture, &rows(0..30, "two")).await;
        store.plan(move |call| match call.operation {
            Operation::PutIfAbsent if call.number == 1 => fault,
            _ => Fault::None,
        });
        let report = fixture.compact(Scope::Whole).await.unwrap();
        store.plan(|_| Fault::None);
        assert_eq!(fixture.region.files().len(), report.files_out, "{fault:?}");
        fixture.check().await;
    }
}

// S8: the report of a job that was committed before the seal may come late.
#[tokio::test]
async fn job_committed_before_a_seal_is_reported_committed() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    flushed(&mut fixture, &rows(0..30, "one")).await;
    flushed(&mut fixture, &rows(0..30, "two")).await;
    let claim = fixture.region.claim(Scope::Whole, Epoch(0)).unwrap().unwrap();
    let job = claim.job().clone();
    let attempt = Attempt::default();
    let compactor = Compactor::new(env(fixture.storage.clone()));
    let outputs = metas(compactor.merge(&job, &attempt).await.unwrap());
    let twin = metas(compactor.merge(&job, &attempt).await.unwrap());
    commit(&fixture.region.manifest, &job, &outputs).await.unwrap();
    drop(claim);
    let sealed = fixture.region.set_range(sealed_range(), None).await.unwrap();
    let other = ManifestContext::new(env(fixture.storage.clone()), job.dir);
    assert_eq!(commit(&other, &job, &outputs).await.unwrap(), sealed);
    let late = commit(&other, &job, &twin).await;
    assert!(matches!(late, Err(EngineError::Refused { reason: Void::Sealed, .. })), "{late:?}");
    fixture.check().await;
}
