use std::future::pending;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::sleep;

use super::*;
use crate::exports::testing::{file, tasks};

/// Result of a part.
type Written = Result<Vec<StepFile>, Refusal>;

fn parts() -> Parts {
    Parts::new(tasks())
}

/// Part of export 5.
fn key(step: u64, region: u64) -> PartKey {
    PartKey { export: Uuid::from_u128(5), step, region: RegionId(region) }
}

fn part_key(export: u128, region: u64) -> PartKey {
    PartKey { export: Uuid::from_u128(export), ..key(1, region) }
}

/// Begins a part, or asks for it. It is not written yet.
async fn ask(parts: &Parts, key: PartKey, write: impl Future<Output = Written> + Send + 'static) {
    assert!(!parts.advance(key, |_| write).await.unwrap().done);
}

#[tokio::test(start_paused = true)]
async fn part_is_continued_by_later_calls() {
    let parts = parts();
    let (end, ended) = oneshot::channel();
    let write = |rows: Arc<AtomicU64>| async move {
        rows.store(7, Ordering::Relaxed);
        ended.await.unwrap()
    };
    let begun = parts.advance(key(1, 1), write).await.unwrap();
    assert_eq!((begun.done, begun.rows), (false, 7));
    let other = |_| async { panic!("the part is being written") };
    assert!(!parts.advance(key(1, 1), other).await.unwrap().done);
    end.send(Ok(vec![file("a")])).unwrap();
    let done = parts.advance(key(1, 1), other).await.unwrap();
    assert_eq!((done.done, done.files), (true, vec![file("a").into()]));
    assert!(parts.known.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn failed_part_is_begun_again_by_the_next_call() {
    let parts = parts();
    let full = Refusal::new(Reason::ExportTargetUnavailable, "the disk is full");
    let failed = parts.advance(key(1, 1), |_| async { Err(full) }).await.unwrap_err();
    assert_eq!(failed.reason, Reason::ExportTargetUnavailable);
    let interrupted = parts.advance(key(1, 1), |_| async { panic!("a defect") }).await;
    assert_eq!(interrupted.unwrap_err().reason, Reason::ShuttingDown);
    assert!(parts.advance(key(1, 1), |_| async { Ok(Vec::new()) }).await.unwrap().done);
}

#[tokio::test(start_paused = true)]
async fn parts_of_earlier_steps_are_aborted() {
    let parts = parts();
    let (dropped, aborted) = oneshot::channel::<()>();
    let write = async move {
        let _dropped = dropped;
        pending().await
    };
    ask(&parts, key(1, 1), write).await;
    assert!(parts.advance(key(2, 1), |_| async { Ok(Vec::new()) }).await.unwrap().done);
    assert!(aborted.await.is_err());
    assert!(parts.known.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn part_ends_when_no_call_asks_for_it() {
    let parts = parts();
    let (dropped, mut aborted) = oneshot::channel::<()>();
    let write = async move {
        let _dropped = dropped;
        pending().await
    };
    ask(&parts, key(1, 1), write).await;
    for _ in 0..4 {
        sleep(UNASKED_FOR / 2).await;
        ask(&parts, key(1, 1), async { panic!("the part is being written") }).await;
    }
    assert_eq!(aborted.try_recv(), Err(TryRecvError::Empty));
    sleep(UNASKED_FOR + ANSWER_WITHIN).await;
    assert!(aborted.await.is_err());
    // The next call begins it again.
    assert!(parts.advance(key(1, 1), |_| async { Ok(Vec::new()) }).await.unwrap().done);
}

#[tokio::test(start_paused = true)]
async fn hanging_export_leaves_a_permit_to_others() {
    let parts = parts();
    let writing = Arc::new(AtomicU64::new(0));
    let hanging = || {
        let writing = Arc::clone(&writing);
        async move {
            writing.fetch_add(1, Ordering::Relaxed);
            pending().await
        }
    };
    for region in 0..5 {
        ask(&parts, part_key(5, region), hanging()).await;
    }
    assert_eq!(writing.load(Ordering::Relaxed), PARTS_OF_EXPORT as u64);
    for region in 0..5 {
        let written = parts.advance(part_key(6, region), |_| async { Ok(Vec::new()) }).await;
        assert!(written.unwrap().done);
    }
    for export in 7..10 {
        ask(&parts, part_key(export, 1), hanging()).await;
    }
    assert_eq!(writing.load(Ordering::Relaxed), PARTS_OF_NODE as u64);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_of_parts_are_refused() {
    let parts = parts();
    let wait = |region| parts.find_or_begin(key(1, region), |_| pending::<Written>()).map(drop);
    parts.find_or_begin(key(1, 0), |_| async { Ok(Vec::new()) }).unwrap();
    for region in 1..MAX_PARTS as u64 {
        wait(region).unwrap();
    }
    let refused = wait(MAX_PARTS as u64).unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (Reason::Overloaded, Some(RETRY_TIME)));
    // A known part is no additional one.
    wait(1).unwrap();
    // Part 0 ends, and no call receives its end.
    sleep(ANSWER_WITHIN).await;
    wait(MAX_PARTS as u64).unwrap();
    assert_eq!(wait(MAX_PARTS as u64 + 1).unwrap_err().reason, Reason::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn parts_end_when_the_node_shuts_down() {
    let tasks = tasks();
    let parts = Parts::new(tasks.clone());
    ask(&parts, key(1, 1), pending()).await;
    tasks.closing.cancel();
    tasks.tracker.close();
    tasks.tracker.wait().await;
    let refused = parts.advance(key(1, 1), |_| async { Ok(Vec::new()) }).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ShuttingDown);
}
