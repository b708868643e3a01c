//! Tests of the loader against a store with unreadable manifests.

use std::time::Duration;

use tidewater_region_engine::region::Phase;
use tidewater_region_engine::storage::testing::{Call, Fault, FaultyStore};
use tidewater_region_engine::storage::{Storage, StorageOptions};

use super::*;
use crate::group::testing::{host, shared};

/// Returns whether a call concerns the manifest of a region with an id up to `last`.
fn concerns_region(call: &Call, last: u64) -> bool {
    (1..=last).any(|id| call.path.as_ref().starts_with(&format!("t3/r{id}-1/")))
}

fn open_region(shared: &ReplicaState, id: u64) {
    host(shared, id);
    shared.targets.request(RegionId(id), ManifestVersion(0));
}

/// Time until the region was read; the paused clock does not advance while tasks run.
async fn time_to_read(shared: &ReplicaState, id: u64) -> Duration {
    let begun = Instant::now();
    let read = async {
        while shared.regions.get(RegionId(id)).unwrap().region.stats().phase == Phase::Loading {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), read)
        .await
        .expect("the region is read eventually");
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn unreadable_manifest_does_not_delay_other_regions() {
    let store = FaultyStore::new();
    store.plan(|call| if concerns_region(call, 1) { Fault::ErrorBefore } else { Fault::None });
    let shared = shared(store.storage(), 1 << 30);
    let loader = tokio::spawn(run(shared.clone()));
    open_region(&shared, 1);
    // Its backoff has become long, and it is in the middle of one.
    tokio::time::sleep(Duration::from_millis(61_300)).await;
    open_region(&shared, 2);
    assert!(time_to_read(&shared, 2).await < Duration::from_millis(100));
    store.plan(|_| Fault::None);
    assert!(time_to_read(&shared, 1).await <= Duration::from_secs(6));
    shared.stopping.cancel();
    loader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn unresponsive_manifests_leave_slots_to_other_regions() {
    let store = FaultyStore::new();
    store.plan(|call| if concerns_region(call, 9) { Fault::LostAnswer } else { Fault::None });
    let patient = StorageOptions { deadline: Duration::from_secs(300), ..Default::default() };
    let storage = Storage::new(Arc::new(store), "faulty://store", patient);
    let shared = shared(storage, 1 << 30);
    let loader = tokio::spawn(run(shared.clone()));
    for id in 1..=10 {
        open_region(&shared, id);
    }
    assert!(time_to_read(&shared, 10).await < Duration::from_secs(5));
    shared.stopping.cancel();
    loader.await.unwrap();
}

// A listing without the version that the log names is stale: the loader retries it with a backoff.
#[tokio::test(start_paused = true)]
async fn loader_retries_until_the_logged_version_appears() {
    let store = FaultyStore::new();
    let shared = shared(store.storage(), 1 << 30);
    let loader = tokio::spawn(run(shared.clone()));
    let lists = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = lists.clone();
    store.plan(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Fault::None
    });
    open_region(&shared, 1);
    shared.targets.request(RegionId(1), ManifestVersion(3));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(shared.targets.is_open(RegionId(1)));
    let calls = lists.load(std::sync::atomic::Ordering::Relaxed);
    assert!((10..100).contains(&calls), "{calls} calls in a minute");
    shared.stopping.cancel();
    loader.await.unwrap();
}

#[test]
fn failed_loads_back_off_and_yield_to_healthy_regions() {
    let targets = ManifestTargets::default();
    let start = Instant::now();
    targets.request(RegionId(1), ManifestVersion(1));
    assert_eq!(targets.start_next(start), Some(RegionId(1)));
    assert_eq!(targets.start_next(start), None, "it is being loaded");
    let mut now = start;
    let mut backoffs = Vec::new();
    for failures in 1..=8 {
        assert_eq!(targets.fail_load(RegionId(1), now, 0), failures);
        assert_eq!(targets.start_next(now), None, "it backs off");
        let due = targets.next_due().unwrap();
        backoffs.push((due - now).as_millis());
        now = due;
        if failures == 8 {
            targets.request(RegionId(2), ManifestVersion(1));
            assert_eq!(targets.start_next(now), Some(RegionId(2)));
        }
        assert_eq!(targets.start_next(now), Some(RegionId(1)));
    }
    assert_eq!(backoffs, [125, 250, 500, 1_000, 2_000, 2_500, 2_500, 2_500]);
    targets.record_loaded(RegionId(1), ManifestVersion(1));
    assert_eq!(targets.finish_load(RegionId(1), now, 0), 8);
    assert_eq!(targets.next_due(), None);
    targets.request(RegionId(1), ManifestVersion(2));
    assert_eq!(targets.start_next(now), Some(RegionId(1)), "without a backoff");
}
