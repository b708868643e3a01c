//! Reads from any version to the tail, with slots that were cleaned and filled again.

use super::*;
use crate::manifest::samples::*;
use crate::manifest::{ActionKind, Author, Change, Edit, ManifestContext, codec};
use crate::storage::Storage;

fn v(version: u64) -> ManifestVersion {
    ManifestVersion(version)
}

/// Creates a fence, a table and flushes up to this version; a checkpoint every four versions.
async fn region(storage: &Storage, through: u64) -> ManifestContext {
    let manifest = ManifestContext::new(env(storage.clone()), DIR);
    manifest.fence(owner(1), GROUP).await.unwrap();
    manifest.update_manifest(create(1)).await.unwrap();
    for number in 3..=through {
        manifest.update_manifest(flush(1, number)).await.unwrap();
    }
    manifest
}

async fn after(storage: &Storage, version: u64, limit: u64) -> History {
    history(&env(storage.clone()), DIR, v(version), limit).await.unwrap()
}

/// Summarizes a history as its versions or its outcome.
fn versions(history: &History) -> Result<Vec<u64>, &'static str> {
    match history {
        History::Deltas(past) => Ok(past.iter().map(|entry| entry.delta.version.get()).collect()),
        History::Current => Err("current"),
        History::Ended => Err("ended"),
        History::Lagged => Err("lagged"),
    }
}

async fn put(storage: &Storage, delta: &Delta) {
    storage.put(&DIR.delta(delta.version), codec::encode_delta(delta)).await.unwrap();
}

#[tokio::test]
async fn history_has_every_version_after_any_start() {
    let storage = Storage::memory();
    assert_eq!(versions(&after(&storage, 0, 3).await), Err("current"));
    region(&storage, 21).await;
    for start in 0..=21 {
        let mut seen = Vec::new();
        let mut at = start;
        while let History::Deltas(past) = after(&storage, at, 3).await {
            assert!(past.len() <= 3);
            seen.extend(past.iter().map(|entry| entry.delta.version.get()));
            at = *seen.last().unwrap();
        }
        assert_eq!(seen, (start + 1..=21).collect::<Vec<_>>(), "after {start}");
        assert_eq!(versions(&after(&storage, at, 3).await), Err("current"));
    }
    let History::Deltas(first) = after(&storage, 0, 3).await else { panic!("nothing") };
    let kinds: Vec<ManifestKind> = first.iter().map(|entry| entry.manifest).collect();
    assert_eq!(kinds, [ManifestKind::Bookkeeping, ManifestKind::Live, ManifestKind::Live]);
    assert_eq!(snapshot(&env(storage.clone()), DIR).await.unwrap().version, v(21));
}

#[tokio::test]
async fn cleaned_delta_is_reported_as_lagged_not_skipped() {
    let storage = Storage::memory();
    region(&storage, 13).await;
    storage.delete(&DIR.delta(v(6))).await.unwrap();
    assert_eq!(versions(&after(&storage, 3, 10).await), Ok(vec![4, 5]));
    assert_eq!(versions(&after(&storage, 5, 10).await), Err("lagged"));
    // The effect of 7 is unknown.
    assert_eq!(versions(&after(&storage, 6, 10).await), Err("lagged"));
    assert_eq!(versions(&after(&storage, 8, 2).await), Ok(vec![9, 10]));
    // The checkpoint before it is deleted, so the effects of the deltas after it are unknown.
    storage.delete(&DIR.checkpoint(v(8))).await.unwrap();
    assert_eq!(versions(&after(&storage, 8, 2).await), Err("lagged"));
    assert_eq!(versions(&after(&storage, 12, 2).await), Ok(vec![13]));
}

#[tokio::test]
async fn history_skips_a_phantom_in_a_cleaned_slot() {
    let storage = Storage::memory();
    region(&storage, 13).await;
    // A put by a writer that was paused until the slot was free again.
    put(&storage, &delta(6, flush(1, 99))).await;
    assert_eq!(versions(&after(&storage, 4, 10).await), Ok(vec![5]));
    assert_eq!(versions(&after(&storage, 5, 10).await), Err("lagged"));
    assert_eq!(versions(&after(&storage, 8, 10).await), Ok(vec![9, 10, 11, 12, 13]));
}

#[tokio::test]
async fn history_reports_void_deltas_as_void() {
    let storage = Storage::memory();
    region(&storage, 5).await;
    let late = ManifestContext::new(env(storage.clone()), DIR);
    late.fence(owner(2), GROUP).await.unwrap();
    put(&storage, &delta(7, flush(1, 7))).await;
    late.update_manifest(flush(2, 8)).await.unwrap();
    for start in [0, 4, 6] {
        let History::Deltas(past) = after(&storage, start, 10).await else { panic!("{start}") };
        let kind_of = |version| {
            past.iter().find(|entry| entry.delta.version == v(version)).map(|entry| entry.manifest)
        };
        assert_eq!(kind_of(7), Some(ManifestKind::Void), "after {start}");
        assert_eq!(kind_of(8), Some(ManifestKind::Live), "after {start}");
    }
}

#[tokio::test]
async fn history_of_a_dropped_region_ends_with_its_removal() {
    let storage = Storage::memory();
    let manifest = region(&storage, 5).await;
    let remove = Change::new(Author::Owner(owner(1)), vec![ActionKind::Remove]);
    manifest.update_manifest(remove).await.unwrap();
    let History::Deltas(past) = after(&storage, 5, 10).await else { panic!("no removal") };
    assert_eq!((past.len(), past[0].manifest), (1, ManifestKind::Bookkeeping));
    assert_eq!(versions(&after(&storage, 6, 10).await), Err("ended"));
    // A put after the removal changes nothing.
    put(&storage, &delta(7, flush(1, 7))).await;
    assert_eq!(versions(&after(&storage, 6, 10).await), Err("ended"));
    assert_eq!(versions(&after(&storage, 5, 10).await), Ok(vec![6, 7]));
}

#[tokio::test]
async fn delta_that_adds_deleted_file_is_reported_as_lagged() {
    let storage = Storage::memory();
    let manifest = region(&storage, 5).await;
    let with_files = async |version| {
        let found = history_with_files(&env(storage.clone()), DIR, v(version), 2).await.unwrap();
        versions(&found).map_err(str::to_owned)
    };
    // A compaction of the files of versions 3 and 4.
    let output = FileMeta {
        stored_min_sequence: file(3).stored_min_sequence,
        stored_max_sequence: file(4).stored_max_sequence,
        ..file(50)
    };
    let swap = Edit {
        add: vec![output],
        remove: vec![file(3).reference(), file(4).reference()],
        ..Edit::default()
    };
    manifest.update_manifest(by_job(swap)).await.unwrap();
    let removed_ms = manifest.state().removed[&file(4).reference()].at_ms;
    let raise_floor = async |floor_ms| {
        let floor = Change::new(Author::System, vec![ActionKind::GcFloor { floor_ms }]);
        manifest.update_manifest(floor).await.unwrap();
    };
    raise_floor(removed_ms).await;
    for start in 0..6 {
        assert_eq!(with_files(start).await, Ok(vec![start + 1, start + 2]), "after {start}");
    }
    raise_floor(removed_ms + 1).await;
    for start in 1..4 {
        assert_eq!(with_files(start).await, Err("lagged".to_owned()), "after {start}");
        assert!(versions(&after(&storage, start, 2).await).is_ok(), "the deltas are there");
    }
    assert_eq!(with_files(0).await, Ok(vec![1, 2]), "they add no files");
    assert_eq!(with_files(4).await, Ok(vec![5, 6]), "live, and the output of the compaction");
    // The removal of the region is delivered.
    let remove = Change::new(Author::Owner(owner(1)), vec![ActionKind::Remove]);
    manifest.update_manifest(remove).await.unwrap();
    assert_eq!(with_files(2).await, Ok(vec![3, 4]));
}
