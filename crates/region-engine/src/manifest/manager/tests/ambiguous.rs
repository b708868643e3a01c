//! Puts whose outcome the store does not report.

use super::*;
use crate::storage::Operation;
use crate::storage::testing::{Call, Fault};

fn on_put(call: &Call) -> Option<u64> {
    (call.operation == Operation::PutIfAbsent && call.path.as_ref().ends_with(".delta"))
        .then_some(call.number)
}

/// The store accepts the delta, then fails every call: neither slot nor listing can be read.
fn fail_after_storing(store: &FaultyStore) {
    store.plan(|call| match call.operation {
        Operation::PutIfAbsent => Fault::ErrorAfter,
        Operation::Get | Operation::List => Fault::ErrorBefore,
        _ => Fault::None,
    });
}

/// Commits the third delta while its first `faulty` puts fail with `fault`.
async fn commit_through(
    fault: Fault,
    faulty: u64,
) -> (FaultyStore, Result<Arc<Delta>, EngineError>) {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    owner.update(create(1)).await.unwrap();
    store.plan(move |call| match on_put(call) {
        Some(number) if number <= faulty => fault,
        _ => Fault::None,
    });
    let result = owner.update(flush(1, 1)).await;
    if let Ok(delta) = &result {
        assert_eq!(delta.version, ManifestVersion(3));
        assert_eq!(**owner.state(), read(&store).await);
    }
    (store, result)
}

#[tokio::test]
async fn ambiguous_put_is_committed_once() {
    for fault in [
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::LostAnswer,
        Fault::FalseConflict,
        Fault::StoredConflict,
    ] {
        for faulty in [1, 2, 3] {
            let (store, result) = commit_through(fault, faulty).await;
            result.unwrap();
            let state = read(&store).await;
            assert_eq!(state.version, ManifestVersion(3), "{fault:?} {faulty}");
            assert_eq!(state.live.len(), 1);
        }
    }
}

#[tokio::test]
async fn unreported_outcome_is_unknown_until_the_store_recovers() {
    for fault in [Fault::ErrorBefore, Fault::FalseConflict] {
        let store = FaultyStore::new();
        let mut owner = owned_manager(&store, 1).await;
        store.plan(move |call| on_put(call).map_or(Fault::None, |_| fault));
        let error = owner.update(flush(1, 1)).await.unwrap_err();
        assert!(
            matches!(error, EngineError::Unknown { version: ManifestVersion(2), .. }),
            "{error}"
        );
        // Other changes fail until it is resolved, and do not take its version.
        let error = owner.update(flush(1, 2)).await.unwrap_err();
        assert!(matches!(error, EngineError::Unknown { .. }), "{error}");
        store.plan(|_| Fault::None);
        let delta = owner.update(flush(1, 1)).await.unwrap();
        assert_eq!(delta.version, ManifestVersion(2));
        assert_eq!(owner.update(flush(1, 2)).await.unwrap().version, ManifestVersion(3));
        assert_eq!(read(&store).await.live.len(), 2);
    }
}

#[tokio::test]
async fn refresh_finds_a_commit_of_unknown_outcome() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    fail_after_storing(&store);
    let error = owner.update(flush(1, 1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Unknown { .. }), "{error}");
    assert!(owner.state().live.is_empty());
    store.plan(|_| Fault::None);
    assert_eq!(owner.refresh().await.unwrap(), ManifestVersion(2));
    assert_eq!(owner.state().live.len(), 1);
}

#[tokio::test]
async fn stored_put_is_unknown_until_a_listing_confirms_it() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    store.plan(|call| match call.operation {
        Operation::List => Fault::ErrorBefore,
        _ => Fault::None,
    });
    let error = owner.update(flush(1, 1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn delta_that_loses_its_slot_takes_the_next() {
    for fault in [Fault::None, Fault::ErrorBefore, Fault::FalseConflict, Fault::LostAnswer] {
        let store = FaultyStore::new();
        let mut owner = owned_manager(&store, 1).await;
        owner.update(flush(1, 1)).await.unwrap();
        let mut job = manager(&store);
        job.refresh().await.unwrap();
        owner.update(flush(1, 2)).await.unwrap();
        store.plan(move |call| match on_put(call) {
            Some(1) => fault,
            _ => Fault::None,
        });
        let swap = Edit {
            add: vec![crate::file_meta::FileMeta { file_id: file_id(1_000_050, 50), ..file(1) }],
            remove: vec![file(1).reference()],
            ..Edit::default()
        };
        assert_eq!(job.update(by_job(swap)).await.unwrap().version, ManifestVersion(4));
        let state = read(&store).await;
        assert_eq!((state.version, state.live.len()), (ManifestVersion(4), 2));
    }
}

/// Deletes deltas that a checkpoint covers, as garbage collection does.
async fn clean(store: &FaultyStore, versions: std::ops::RangeInclusive<u64>) {
    for version in versions {
        store.storage().delete(&DIR.delta(ManifestVersion(version))).await.unwrap();
    }
}

#[tokio::test]
async fn put_into_a_cleaned_slot_is_void() {
    let store = FaultyStore::new();
    let mut stale = owned_manager(&store, 1).await;
    let mut owner = manager(&store);
    owner.refresh().await.unwrap();
    for number in 1..=7 {
        owner.update(flush(1, number)).await.unwrap();
    }
    clean(&store, 1..=8).await;
    // The stale owner still expects version 2 next; its slot is free again.
    let error = stale.update(flush(1, 1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Refused { reason: Void::AlreadyFlushed { .. }, .. }));
    assert!(names(&store).await.contains(&"00000000000000000002.delta".to_owned()), "a phantom");
    assert_eq!(**stale.state(), **owner.state());
    assert_eq!(read(&store).await, **owner.state());
    // A change that is still valid is committed at the tail.
    assert_eq!(stale.update(flush(1, 8)).await.unwrap().version, ManifestVersion(9));
}

#[tokio::test]
async fn follower_ignores_a_phantom_delta() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    let mut follower = manager(&store);
    follower.refresh().await.unwrap();
    for number in 1..=3 {
        owner.update(flush(1, number)).await.unwrap();
    }
    // Version 2 is cleaned, and then taken by a put that was in progress all the time.
    clean(&store, 2..=2).await;
    let phantom = Delta { writer: env(store.storage()).ids.writer_id(), ..delta(2, flush(1, 9)) };
    let _ = store
        .storage()
        .put_if_absent(&DIR.delta(phantom.version), codec::encode_delta(&phantom))
        .await;
    assert_eq!(follower.refresh().await.unwrap(), ManifestVersion(4));
    assert_eq!(**follower.state(), **owner.state());
}

#[tokio::test]
async fn committed_delta_covered_by_a_checkpoint_is_committed() {
    let store = FaultyStore::new();
    let mut slow = owned_manager(&store, 1).await;
    fail_after_storing(&store);
    slow.update(flush(1, 1)).await.unwrap_err();
    store.plan(|_| Fault::None);
    let mut other = manager(&store);
    for number in 2..=4 {
        other.update(flush(1, number)).await.unwrap();
    }
    assert!(names(&store).await.iter().any(|name| name.ends_with(".checkpoint")));
    assert_eq!(slow.update(flush(1, 1)).await.unwrap().version, ManifestVersion(2));
    slow.refresh().await.unwrap();
    assert_eq!(**slow.state(), **other.state());
}

#[tokio::test]
async fn damage_after_a_put_leaves_its_outcome_unknown() {
    let store = FaultyStore::new();
    let storage = store.storage();
    let mut slow = owned_manager(&store, 1).await;
    fail_after_storing(&store);
    slow.update(flush(1, 1)).await.unwrap_err();
    store.plan(|_| Fault::None);
    let mut other = manager(&store);
    for number in 2..=4 {
        other.update(flush(1, number)).await.unwrap();
    }
    let unknown_for = |error: EngineError, object: &str| {
        let text = error.to_string();
        let version = ManifestVersion(2);
        assert!(matches!(error, EngineError::Unknown { version: v, .. } if v == version), "{text}");
        assert!(text.contains(object), "{text}");
    };
    // The checkpoint that decides about the slot, and the slot itself.
    for path in [DIR.checkpoint(ManifestVersion(4)), DIR.delta(ManifestVersion(2))] {
        let whole = storage.get(&path).await.unwrap();
        storage.put(&path, whole.slice(..whole.len() - 1)).await.unwrap();
        let name = storage.name(&path);
        unknown_for(slow.update(flush(1, 1)).await.unwrap_err(), &name);
        unknown_for(slow.refresh().await.unwrap_err(), &name);
        storage.put(&path, whole).await.unwrap();
    }
    assert_eq!(slow.refresh().await.unwrap(), ManifestVersion(5));
    assert_eq!(**slow.state(), **other.state());
    let late: Vec<ManifestVersion> = slow.take_late().iter().map(|delta| delta.version).collect();
    assert_eq!(late, [ManifestVersion(2)]);
}

#[tokio::test]
async fn failed_checkpoint_is_retried_and_fails_no_commit() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    store.plan(|call| {
        if call.path.as_ref().ends_with(".checkpoint") { Fault::ErrorBefore } else { Fault::None }
    });
    for number in 1..=5 {
        owner.update(flush(1, number)).await.unwrap();
    }
    store.plan(|_| Fault::None);
    owner.update(flush(1, 6)).await.unwrap();
    assert!(names(&store).await.contains(&"00000000000000000007.checkpoint".to_owned()));
}

#[tokio::test]
async fn commit_succeeds_after_an_outage_of_the_store() {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    store.plan(|_| Fault::ErrorBefore);
    for _ in 0..3 {
        let error = owner.update(flush(1, 1)).await.unwrap_err();
        assert!(matches!(error, EngineError::Unknown { .. }), "{error}");
    }
    store.plan(|_| Fault::None);
    assert_eq!(owner.update(flush(1, 1)).await.unwrap().version, ManifestVersion(2));
}
