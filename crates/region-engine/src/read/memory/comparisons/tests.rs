use futures::FutureExt;
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::read::memory::ScanMemory;
use crate::read::memory::budget::UNIT;

const KIB: u64 = 1_024;
/// Bytes of all comparisons, of the large ones, and of a small one.
const WHOLE: u64 = 64 * KIB;
const LARGE: u64 = 48 * KIB;
const SMALL: u64 = 16 * KIB;

fn budget() -> Arc<ComparisonBudget> {
    Arc::new(ComparisonBudget::new(WHOLE))
}

/// Requests memory, and yields until the request waits.
async fn waiting(budget: &Arc<ComparisonBudget>, bytes: u64) -> JoinHandle<ByteLease> {
    let budget = budget.clone();
    let task = tokio::spawn(async move { budget.lease(bytes).await.unwrap() });
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    task
}

#[tokio::test(start_paused = true)]
async fn all_comparisons_complete_within_the_budget() {
    let budget = budget();
    let begun = Instant::now();
    let mut comparisons = JoinSet::new();
    for bytes in [LARGE, SMALL, 20 * KIB, 500 * KIB, SMALL, 30 * KIB].repeat(10) {
        let budget = budget.clone();
        comparisons.spawn(async move {
            // Chunks of one comparison: each waits anew.
            for _ in 0..3 {
                let lease = budget.lease(bytes).await.unwrap();
                assert_eq!(lease.bytes(), bytes);
                assert!(budget.used() <= WHOLE);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    while let Some(ended) = comparisons.join_next().await {
        ended.unwrap();
    }
    // Far longer than a scan waits.
    assert!(begun.elapsed() > Duration::from_secs(60));
    assert_eq!((budget.used(), budget.is_contended()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn small_comparisons_do_not_wait_for_large_ones() {
    let budget = budget();
    let held = budget.lease(LARGE).await.unwrap();
    let large: Vec<_> = (0..3).map(|_| waiting(&budget, LARGE)).collect();
    let large = futures::future::join_all(large).await;
    let begun = Instant::now();
    for _ in 0..100 {
        let [one, other] = [SMALL, SMALL / 2].map(|bytes| budget.lease(bytes));
        drop(one.await.unwrap());
        drop(other.await.unwrap());
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(held);
    for comparison in large {
        drop(comparison.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn memory_of_scans_is_separate() {
    let memory = ScanMemory::new(128 << 20);
    assert_eq!(memory.comparisons().limit(), 32 << 20);
    let held = memory.comparisons().lease(memory.comparisons().limit()).await.unwrap();
    let account = memory.account();
    let sources = memory.sources().limit();
    let scan = account.sources.lease(sources, sources, Duration::ZERO).await.unwrap();
    drop(held);
    assert!(memory.comparisons().lease(LARGE).now_or_never().is_some());
    drop(scan);
}

#[tokio::test(start_paused = true)]
async fn idle_comparison_keeps_its_memory_without_others() {
    let budget = budget();
    let place = IdlePlace::default();
    budget.keep_idle(&place, budget.lease(LARGE).await.unwrap());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(budget.used(), LARGE);
    assert!(place.take().is_some());
    // The lease was dropped.
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn idle_comparison_is_closed_for_one_that_waits() {
    let budget = budget();
    let place = IdlePlace::default();
    budget.keep_idle(&place, budget.lease(LARGE).await.unwrap());
    let begun = Instant::now();
    let lease = waiting(&budget, LARGE).await.await.unwrap();
    let waited = begun.elapsed();
    assert!(waited >= KEPT_IDLE && waited < 3 * KEPT_IDLE, "{waited:?}");
    assert!(place.take().is_none());
    assert_eq!(lease.bytes(), LARGE);
    // One that has been idle for a long time is closed at once.
    budget.keep_idle(&place, lease);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let _lease = budget.lease(LARGE).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn comparison_that_continues_is_not_closed() {
    let budget = budget();
    let place = IdlePlace::default();
    budget.keep_idle(&place, budget.lease(LARGE).await.unwrap());
    let lease = place.take().unwrap();
    let other = waiting(&budget, LARGE).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!other.is_finished() && budget.is_contended());
    // Idle anew: its time begins again.
    budget.keep_idle(&place, lease);
    assert_eq!(budget.idle.lock().len(), 1);
    tokio::time::sleep(KEPT_IDLE / 2).await;
    assert!(!other.is_finished());
    let _lease = other.await.unwrap();
    assert!(place.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn cancelled_request_waits_no_more() {
    let budget = budget();
    let held = budget.lease(LARGE).await.unwrap();
    let other = waiting(&budget, LARGE).await;
    let last = waiting(&budget, SMALL + UNIT).await;
    assert!(budget.is_contended());
    other.abort();
    assert!(other.await.unwrap_err().is_cancelled());
    drop(held);
    assert_eq!(last.await.unwrap().bytes(), SMALL + UNIT);
    assert_eq!((budget.used(), budget.is_contended()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn ended_comparisons_are_forgotten() {
    let budget = budget();
    for _ in 0..10 {
        let place = IdlePlace::default();
        budget.keep_idle(&place, budget.lease(SMALL).await.unwrap());
    }
    assert_eq!(budget.used(), 0);
    assert_eq!(budget.idle.lock().len(), 1);
}
