mod ambiguous;
mod crash;
mod damage;
mod race;

use crate::manifest::Truncate;
use crate::manifest::samples::*;
use crate::manifest::{ActionKind, Edit};
use crate::storage::testing::FaultyStore;

use super::*;

fn manager(store: &FaultyStore) -> RegionManifestManager {
    RegionManifestManager::new(env(store.storage()), DIR)
}

async fn owned_manager(store: &FaultyStore, term: u64) -> RegionManifestManager {
    let mut manager = manager(store);
    manager.update(fence(term)).await.unwrap();
    manager
}

/// Reads the manifest with a fresh manager.
async fn read(store: &FaultyStore) -> ManifestState {
    let mut manager = manager(store);
    manager.refresh().await.unwrap();
    (**manager.state()).clone()
}

async fn names(store: &FaultyStore) -> Vec<String> {
    let objects = store.storage().list(&DIR.manifest(), None).await.unwrap();
    objects.iter().map(|object| object.location.filename().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn empty_manifest_is_at_version_0() {
    let state = read(&FaultyStore::new()).await;
    assert_eq!(state, ManifestState::empty(DIR));
}

#[tokio::test]
async fn committed_deltas_are_read_by_followers() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    let mut follower = manager(&store);
    owner.update(create(1)).await.unwrap();
    for number in 1..=20 {
        let delta = owner.update(flush(1, number)).await.unwrap();
        assert_eq!(delta.version, ManifestVersion(number + 2));
        assert_eq!(follower.refresh().await.unwrap(), delta.version);
        assert_eq!(follower.state(), owner.state());
    }
    assert_eq!(read(&store).await, **owner.state());
    assert_eq!(owner.state().live.len(), 20);
    let names = names(&store).await;
    assert_eq!(names.iter().filter(|name| name.ends_with(".checkpoint")).count(), 5);
    assert!(names.contains(&"_last_checkpoint".to_owned()));
}

#[tokio::test]
async fn opening_reads_one_checkpoint_and_the_deltas_after_it() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    for number in 1..=20 {
        owner.update(flush(1, number)).await.unwrap();
    }
    let reads = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&reads);
    store.plan(move |call| {
        if call.operation == crate::storage::Operation::Get {
            seen.lock().push(call.path.filename().unwrap_or_default().to_owned());
        }
        crate::storage::testing::Fault::None
    });
    assert_eq!(read(&store).await, **owner.state());
    let reads = reads.lock().clone();
    assert_eq!(
        reads,
        ["_last_checkpoint", "00000000000000000020.checkpoint", "00000000000000000021.delta"]
    );
}

#[tokio::test]
async fn missing_or_wrong_hints_do_not_change_the_state() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    for number in 1..=9 {
        owner.update(flush(1, number)).await.unwrap();
    }
    let storage = store.storage();
    let hint = DIR.last_checkpoint();
    for wrong in ["4", "0", "7", "99", "18446744073709551615", "", "x", "-1"] {
        storage.put(&hint, wrong.into()).await.unwrap();
        assert_eq!(read(&store).await, **owner.state(), "hint {wrong:?}");
    }
    storage.put(&hint, Bytes::from_static(&[0xff, 0xfe])).await.unwrap();
    assert_eq!(read(&store).await, **owner.state());
    storage.delete(&hint).await.unwrap();
    assert_eq!(read(&store).await, **owner.state());
}

#[tokio::test]
async fn fenced_owner_gets_an_error_and_commits_nothing() {
    let store = FaultyStore::new();
    let mut old = owned_manager(&store, 1).await;
    old.update(flush(1, 1)).await.unwrap();
    let mut new = owned_manager(&store, 2).await;
    let error = old.update(flush(1, 2)).await.unwrap_err();
    assert!(
        matches!(error, EngineError::Fenced { own, later, .. } if own == owner(1) && later == owner(2)),
        "{error}"
    );
    new.update(flush(2, 2)).await.unwrap();
    let error = old.update(fence(1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Fenced { .. }), "{error}");
    assert_eq!(read(&store).await.version, ManifestVersion(4));
}

#[tokio::test]
async fn refusals_are_decided_at_the_tail() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    let mut job = manager(&store);
    job.refresh().await.unwrap();
    owner.update(flush(1, 1)).await.unwrap();
    // The job has not seen the file yet; its swap must not fail as if the file had been removed.
    let swap = Edit {
        add: vec![crate::file_meta::FileMeta { file_id: file_id(1_000_050, 50), ..file(1) }],
        remove: vec![file(1).reference()],
        ..Edit::default()
    };
    job.update(by_job(swap.clone())).await.unwrap();
    let error = job.update(by_job(swap)).await.unwrap_err();
    let reason = Void::InputsGone { file: file(1).file_id };
    assert!(matches!(error, EngineError::Refused { reason: r, .. } if r == reason));
    assert_eq!(read(&store).await.version, ManifestVersion(3));
}

#[tokio::test]
async fn commit_to_a_removed_region_fails_as_removed() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    let remove = Change::new(Author::Owner(samples_owner()), vec![ActionKind::Remove]);
    owner.update(remove).await.unwrap();
    let error = owner.update(flush(1, 1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Removed { .. }), "{error}");
}

fn samples_owner() -> tidewater_common::ids::OwnerEpoch {
    crate::manifest::samples::owner(1)
}

#[tokio::test]
async fn flush_of_truncated_rows_is_refused() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    let up_to = Truncate::UpTo(tidewater_common::ids::Sequence(19));
    let truncate = Change::new(Author::Owner(samples_owner()), vec![ActionKind::Truncate(up_to)]);
    owner.update(truncate).await.unwrap();
    let error = owner.update(flush(1, 1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { reason: Void::AlreadyFlushed { .. }, .. }));
}
