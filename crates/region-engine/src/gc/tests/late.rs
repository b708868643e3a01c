//! What happens between a pass's first look at a manifest and its last.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use tidewater_common::ids::ManifestVersion;

use super::*;
use crate::storage::Operation;

const FIRST: RegionDir = RegionDir { region_id: RegionId(15), ..DIR };
const THIRD: RegionDir = RegionDir { region_id: RegionId(30), ..OTHER };

/// Later than everything that the samples write.
const LATE: GcRequest = GcRequest { floor_ms: 3_000_000, dry_run: false, table: None, most: 1_000 };

/// A region that names file 1 of the lower one.
async fn taker(storage: &Storage, dir: RegionDir) -> ManifestContext {
    let taker = ManifestContext::new(env(storage.clone()), dir);
    let adopted = Edit { add: vec![FileMeta { level: 1, ..file(1) }], ..Edit::default() };
    for change in [fence(1), create(1), by_owner(1, adopted)] {
        taker.update_manifest(change).await.unwrap();
    }
    taker
}

/// Its manifest could be read by the survey.
#[tokio::test]
async fn a_manifest_that_cannot_be_read_any_more_spares_lower_regions() {
    for broken_from in [DIR, OTHER] {
        let store = FaultyStore::new();
        let storage = store.storage();
        region(&storage).await;
        taker(&storage, OTHER).await;
        // Once the floor is in that manifest.
        let broken = AtomicU32::new(0);
        store.plan(move |call| {
            let of = |dir: RegionDir| call.path.as_ref().starts_with(dir.path().as_ref());
            if of(broken_from) && call.operation == Operation::PutIfAbsent {
                broken.store(1, Ordering::SeqCst);
            }
            match broken.load(Ordering::SeqCst) == 1 && call.operation == Operation::Get {
                true if of(OTHER) => Fault::ErrorBefore,
                _ => Fault::None,
            }
        });
        let (report, _) = pass(&storage, LATE).await;
        assert_eq!((report.deleted, report.kept[&KeepReason::Spared]), (0, 2), "{broken_from}");
        assert_eq!(report.unreadable[0].0, OTHER);
        store.plan(|_| Fault::None);
        assert!(has(&storage, DIR, file(1).file_id).await);
    }
}

/// A writer that slept would not find out that its file is gone.
#[tokio::test]
async fn a_manifest_that_does_not_take_the_floor_loses_nothing() {
    let store = FaultyStore::new();
    let storage = store.storage();
    region(&storage).await;
    store.plan(|call| match call.operation {
        Operation::PutIfAbsent => Fault::ErrorBefore,
        _ => Fault::None,
    });
    let (report, _) = pass(&storage, LATE).await;
    assert_eq!((report.deleted, report.kept[&KeepReason::Spared]), (0, 2));
    assert_eq!(report.unreadable[0].0, DIR);
    store.plan(|_| Fault::None);
    assert_eq!(pass(&storage, LATE).await.0.deleted, 2);
}

/// A reference is handed on from region to region, and given up behind it, ahead of the pass; all by
/// the clock of one who is far behind, so that nothing stays for having been removed lately. The last
/// hand is put to it when the pass, marking, comes to the `nth` of the last two regions.
async fn handed_on(is_new: bool, nth: usize) {
    let inner = Arc::new(InMemory::new());
    let store = FaultyStore::over(inner.clone());
    let storage = store.storage();
    region(&storage).await;
    let first = taker(&storage, FIRST).await;
    let second = taker(&storage, OTHER).await;
    let third = taker(&storage, THIRD).await;
    for manifest in [&first, &second] {
        let given_up = Edit { remove: vec![file(1).reference()], ..Edit::default() };
        manifest.update_manifest(by_owner(1, given_up)).await.unwrap();
    }
    // All of that is taken back, and happens while the pass is under way.
    let before_floors = hold(&storage, [(OTHER, 3..=3), (FIRST, 4..=4)]).await;
    let taken = if is_new { 1..=3 } else { 3..=3 };
    let before_marks = hold(&storage, [(THIRD, taken), (OTHER, 4..=4)]).await;
    let (listings, seen) = (AtomicU32::new(0), Mutex::new(BTreeSet::new()));
    store.plan(move |call| {
        let path = call.path.as_ref();
        let land = |held: &[(Path, Bytes)]| {
            for (path, bytes) in held {
                let landed = inner.put(path, bytes.clone().into()).now_or_never();
                landed.unwrap().unwrap();
            }
        };
        if call.operation == Operation::PutIfAbsent && path.contains("/r12-") {
            land(&before_floors);
        }
        // Regions are listed for the survey, then for the marks.
        if path.is_empty() {
            listings.fetch_add(1, Ordering::SeqCst);
        }
        let of = [OTHER, THIRD].into_iter().find(|dir| path.starts_with(dir.path().as_ref()));
        let mut seen = seen.lock();
        if listings.load(Ordering::SeqCst) == 2
            && of.is_some_and(|dir| seen.insert(dir))
            && seen.len() == nth
        {
            land(&before_marks);
        }
        Fault::None
    });
    let (report, _) = pass(&storage, LATE).await;
    store.plan(|_| Fault::None);
    for manifest in [&first, &second, &third] {
        manifest.refresh().await.unwrap();
    }
    let names = |manifest: &ManifestContext| !manifest.state().live.is_empty();
    assert_eq!([names(&first), names(&second), names(&third)], [false, false, true]);
    assert!(has(&storage, DIR, file(1).file_id).await, "{report:?}");
}

#[tokio::test]
async fn a_region_that_came_while_the_pass_was_marking_keeps_what_it_names() {
    handed_on(true, 1).await;
}

/// Else the pass would read the one that takes before, and the one that gives after.
#[tokio::test]
async fn regions_are_marked_in_the_order_in_which_files_are_handed_on() {
    handed_on(false, 2).await;
}

/// Takes deltas out of the store.
async fn hold(
    storage: &Storage,
    deltas: [(RegionDir, RangeInclusive<u64>); 2],
) -> Vec<(Path, Bytes)> {
    let mut held = Vec::new();
    for (dir, versions) in deltas {
        for version in versions {
            let path = dir.delta(ManifestVersion(version));
            held.push((path.clone(), storage.get(&path).await.unwrap()));
            storage.delete(&path).await.unwrap();
        }
    }
    held
}
