//! A committer that crashes, or is cancelled, between any two storage calls.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

/// Polls `times` times; `None` when the future has not completed by then.
fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..times).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    })
}

/// Commits flushes 1 to 6. Returns the last flush that was reported; `REPORTED` has it even if the
/// future is dropped.
async fn work(store: &FaultyStore) -> u64 {
    let mut owner = RegionManifestManager::new(env(store.storage()), DIR);
    owner.update(fence(1)).await.unwrap();
    let mut last = 0;
    for number in 1..=6 {
        owner.update(flush(1, number)).await.unwrap();
        last = number;
        REPORTED.set(last);
    }
    last
}

thread_local! {
    static REPORTED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[tokio::test]
async fn region_reopens_after_a_crash_with_all_reported_flushes() {
    for steps in 1..10_000 {
        let store = FaultyStore::new();
        REPORTED.set(0);
        let finished = poll_times(work(&store.stepped()), steps).is_some();
        let reported = REPORTED.get();
        let state = read(&store).await;
        let live = state.live.len() as u64;
        // At most the flush in progress is present without having been reported.
        assert!(live == reported || live == reported + 1, "{live} of {reported} at step {steps}");
        // The next owner continues from this state.
        let mut next = owned_manager(&store, 2).await;
        next.update(flush(2, live + 1)).await.unwrap();
        assert_eq!(read(&store).await.live.len() as u64, live + 1);
        if finished {
            assert!(steps > 30, "the store was not stepped");
            return;
        }
    }
    panic!("the commits never completed");
}

#[tokio::test]
async fn cancelled_commit_is_resolved_by_the_next_call() {
    for steps in 1..10_000 {
        let store = FaultyStore::new();
        let mut owner = RegionManifestManager::new(env(store.stepped().storage()), DIR);
        owner.update(fence(1)).await.unwrap();
        owner.update(flush(1, 1)).await.unwrap();
        // Version 4 also writes a checkpoint.
        owner.update(flush(1, 2)).await.unwrap();
        let finished = poll_times(owner.update(flush(1, 3)), steps).is_some();
        if !finished {
            match owner.update(flush(1, 3)).await {
                Ok(delta) => assert_eq!(delta.version, ManifestVersion(4)),
                // Committed by the first call, which was cancelled while it wrote the checkpoint.
                Err(error) => assert!(
                    matches!(
                        error,
                        EngineError::Refused { reason: Void::AlreadyFlushed { .. }, .. }
                    ),
                    "{error}"
                ),
            }
        }
        let state = read(&store).await;
        assert_eq!((state.version, state.live.len()), (ManifestVersion(4), 3), "step {steps}");
        assert_eq!(**owner.state(), state);
        if finished {
            return;
        }
    }
    panic!("the commit never completed");
}

#[tokio::test]
async fn delta_of_a_cancelled_commit_reaches_the_hooks() {
    let mut while_checkpointing = 0;
    for steps in 1..10_000 {
        let store = FaultyStore::new();
        let mut owner = RegionManifestManager::new(env(store.stepped().storage()), DIR);
        owner.update(fence(1)).await.unwrap();
        owner.update(flush(1, 1)).await.unwrap();
        owner.update(flush(1, 2)).await.unwrap();
        // Version 4 also writes a checkpoint.
        let finished = poll_times(owner.update(flush(1, 3)), steps).is_some();
        while_checkpointing += u32::from(!finished && owner.state().version == ManifestVersion(4));
        owner.refresh().await.unwrap();
        let late: Vec<ManifestVersion> =
            owner.take_late().iter().map(|delta| delta.version).collect();
        let committed = owner.state().version == ManifestVersion(4);
        // Either the caller received the delta, or the hooks receive it from `late`.
        let expected: &[ManifestVersion] =
            if committed && !finished { &[ManifestVersion(4)] } else { &[] };
        assert_eq!(late, expected, "step {steps}");
        if finished {
            assert!(while_checkpointing > 0, "no checkpoint was written");
            return;
        }
    }
    panic!("the commit never completed");
}
