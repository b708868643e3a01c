//! The loader against a store in which some manifests cannot be read.

use std::time::Duration;

use tidewater_region_engine::region::Phase;
use tidewater_region_engine::storage::testing::{Call, Fault, FaultyStore};
use tidewater_region_engine::storage::{Storage, StorageOptions};

use super::*;
use crate::group::testing::{host, shared};

/// Whether a call is about the manifest of a region with an id up to `last`.
fn about(call: &Call, last: u64) -> bool {
    (1..=last).any(|id| call.path.as_ref().starts_with(&format!("t3/r{id}-1/")))
}

fn open(shared: &Shared, id: u64) {
    host(shared, id);
    shared.targets.want(RegionId(id), ManifestVersion(0));
}

/// How long it took until the region was read; the clock stands still while anything is done.
async fn read(shared: &Shared, id: u64) -> Duration {
    let begun = Instant::now();
    let read = async {
        while shared.regions.get(RegionId(id)).unwrap().region.stats().phase == Phase::Loading {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), read).await.expect("it is read in the end");
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_region_whose_manifest_cannot_be_read_holds_up_no_other() {
    let store = FaultyStore::new();
    store.plan(|call| if about(call, 1) { Fault::ErrorBefore } else { Fault::None });
    let shared = shared(store.storage(), 1 << 30);
    let loader = tokio::spawn(run(shared.clone()));
    open(&shared, 1);
    // Its pauses have become long, and it is in the middle of one.
    tokio::time::sleep(Duration::from_millis(61_300)).await;
    open(&shared, 2);
    assert!(read(&shared, 2).await < Duration::from_millis(100));
    store.plan(|_| Fault::None);
    assert!(read(&shared, 1).await <= Duration::from_secs(6));
    shared.stopping.cancel();
    loader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn regions_whose_manifests_do_not_answer_leave_room_for_others() {
    let store = FaultyStore::new();
    store.plan(|call| if about(call, 9) { Fault::LostAnswer } else { Fault::None });
    let patient = StorageOptions { deadline: Duration::from_secs(300), ..Default::default() };
    let storage = Storage::new(Arc::new(store), "faulty://store", patient);
    let shared = shared(storage, 1 << 30);
    let loader = tokio::spawn(run(shared.clone()));
    for id in 1..=10 {
        open(&shared, id);
    }
    assert!(read(&shared, 10).await < Duration::from_secs(5));
    shared.stopping.cancel();
    loader.await.unwrap();
}

// A listing that does not show what the log says is committed is stale: it is asked for again, but
// not without a pause.
#[tokio::test(start_paused = true)]
async fn a_version_that_the_log_names_is_waited_for() {
    let store = FaultyStore::new();
    let shared = shared(store.storage(), 1 << 30);
    let loader = tokio::spawn(run(shared.clone()));
    let lists = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = lists.clone();
    store.plan(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Fault::None
    });
    open(&shared, 1);
    shared.targets.want(RegionId(1), ManifestVersion(3));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(shared.targets.is_open(RegionId(1)));
    let calls = lists.load(std::sync::atomic::Ordering::Relaxed);
    assert!((10..100).contains(&calls), "{calls} calls in a minute");
    shared.stopping.cancel();
    loader.await.unwrap();
}

#[test]
fn those_that_have_not_failed_come_first_and_pauses_grow_to_a_bound() {
    let targets = Targets::default();
    let start = Instant::now();
    targets.want(RegionId(1), ManifestVersion(1));
    assert_eq!(targets.begin(start), Some(RegionId(1)));
    assert_eq!(targets.begin(start), None, "it is being loaded");
    let mut now = start;
    let mut pauses = Vec::new();
    for failures in 1..=8 {
        assert_eq!(targets.failed(RegionId(1), now), failures);
        assert_eq!(targets.begin(now), None, "it pauses");
        let due = targets.next_due().unwrap();
        pauses.push((due - now).as_millis());
        now = due;
        if failures == 8 {
            targets.want(RegionId(2), ManifestVersion(1));
            assert_eq!(targets.begin(now), Some(RegionId(2)));
        }
        assert_eq!(targets.begin(now), Some(RegionId(1)));
    }
    assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
    targets.reached(RegionId(1), ManifestVersion(1));
    assert_eq!(targets.loaded(RegionId(1), now), 8);
    assert_eq!(targets.next_due(), None);
    targets.want(RegionId(1), ManifestVersion(2));
    assert_eq!(targets.begin(now), Some(RegionId(1)), "at once");
}
