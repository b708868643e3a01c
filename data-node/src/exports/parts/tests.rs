use tokio::sync::oneshot;

use super::*;

fn key(step: u64, region: u64) -> PartKey {
    PartKey { export: Uuid::from_u128(5), step, region: RegionId(region) }
}

fn file(path: &str) -> StepFile {
    StepFile { path: path.to_owned(), rows: 1, bytes: 2 }
}

#[tokio::test(start_paused = true)]
async fn part_goes_on_without_its_caller() {
    let parts = Parts::default();
    let (end, ended) = oneshot::channel();
    let write = |rows: Arc<AtomicU64>| async move {
        rows.store(7, Ordering::Relaxed);
        ended.await.unwrap()
    };
    let begun = parts.advance(key(1, 1), write).await.unwrap();
    assert_eq!((begun.done, begun.rows), (false, 7));
    let other = |_| async { panic!("the part runs already") };
    assert!(!parts.advance(key(1, 1), other).await.unwrap().done);
    end.send(Ok(vec![file("a")])).unwrap();
    let done = parts.advance(key(1, 1), other).await.unwrap();
    assert_eq!((done.done, done.files), (true, vec![file("a").into()]));
    assert!(parts.running.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn failed_part_is_begun_again_by_the_next_call() {
    let parts = Parts::default();
    let full = Refusal::new(Reason::ExportTargetUnavailable, "the disk is full");
    let failed = parts.advance(key(1, 1), |_| async { Err(full) }).await.unwrap_err();
    assert_eq!(failed.reason, Reason::ExportTargetUnavailable);
    let interrupted = parts.advance(key(1, 1), |_| async { panic!("a defect") }).await;
    assert_eq!(interrupted.unwrap_err().reason, Reason::ShuttingDown);
    assert!(parts.advance(key(1, 1), |_| async { Ok(Vec::new()) }).await.unwrap().done);
}

#[tokio::test(start_paused = true)]
async fn parts_of_earlier_steps_are_aborted() {
    let parts = Parts::default();
    let (dropped, aborted) = oneshot::channel::<()>();
    let write = |_| async move {
        let _dropped = dropped;
        std::future::pending().await
    };
    assert!(!parts.advance(key(1, 1), write).await.unwrap().done);
    assert!(parts.advance(key(2, 1), |_| async { Ok(Vec::new()) }).await.unwrap().done);
    assert!(aborted.await.is_err());
    assert!(parts.running.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn few_parts_are_written_at_a_time() {
    let parts = Parts::default();
    let writing = Arc::new(AtomicU64::new(0));
    for region in 0..5 {
        let writing = Arc::clone(&writing);
        let write = |_| async move {
            writing.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        };
        assert!(!parts.advance(key(1, region), write).await.unwrap().done);
    }
    assert_eq!(writing.load(Ordering::Relaxed), CONCURRENT_PARTS as u64);
}
