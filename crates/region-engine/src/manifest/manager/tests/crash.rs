//! A committer that dies, or is cancelled, between any two storage calls.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

/// Polls so often; `None` when the future was not done by then.
fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..times).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    })
}

/// Commits flushes 1 to 6, dying after `steps` steps. Returns the last flush that was reported.
async fn work(store: &FaultyStore) -> u64 {
    let mut owner = RegionManifestManager::new(env(store.storage()), DIR);
    owner.update(fence(1)).await.unwrap();
    let mut done = 0;
    for number in 1..=6 {
        owner.update(flush(1, number)).await.unwrap();
        done = number;
        REPORTED.set(done);
    }
    done
}

thread_local! {
    static REPORTED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[tokio::test]
async fn after_a_crash_anywhere_the_region_opens_with_all_that_was_reported() {
    for steps in 1..10_000 {
        let store = FaultyStore::new();
        REPORTED.set(0);
        let finished = poll_times(work(&store.stepped()), steps).is_some();
        let reported = REPORTED.get();
        let state = read(&store).await;
        let live = state.live.len() as u64;
        // At most the one that was under way is there without having been reported.
        assert!(live == reported || live == reported + 1, "{live} of {reported} at step {steps}");
        // The next owner goes on from there.
        let mut next = owned_manager(&store, 2).await;
        next.update(flush(2, live + 1)).await.unwrap();
        assert_eq!(read(&store).await.live.len() as u64, live + 1);
        if finished {
            assert!(steps > 30, "the store was not stepped");
            return;
        }
    }
    panic!("the work never ended");
}

#[tokio::test]
async fn a_cancelled_commit_is_settled_by_the_next_call() {
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
    panic!("the commit never ended");
}

#[tokio::test]
async fn what_a_cancelled_commit_has_committed_is_not_kept_from_the_hooks() {
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
        // Whoever asked has got it, or the hooks get it from here.
        let expected: &[ManifestVersion] =
            if committed && !finished { &[ManifestVersion(4)] } else { &[] };
        assert_eq!(late, expected, "step {steps}");
        if finished {
            assert!(while_checkpointing > 0, "no checkpoint was written");
            return;
        }
    }
    panic!("the commit never ended");
}
