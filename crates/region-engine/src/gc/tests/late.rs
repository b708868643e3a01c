//! Changes between a pass's first read of a manifest and its last.

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
const LATE: GcRequest =
    GcRequest { floor_ms: 3_000_000, dry_run: false, table: None, max_deletions: 1_000 };

/// Creates a region that references file 1 of the lower one.
async fn adopter(storage: &Storage, dir: RegionDir) -> ManifestContext {
    let adopter = ManifestContext::new(env(storage.clone()), dir);
    let adopted = Edit { add: vec![FileMeta { level: 1, ..file(1) }], ..Edit::default() };
    for change in [fence(1), create(1), by_owner(1, adopted)] {
        adopter.update_manifest(change).await.unwrap();
    }
    adopter
}

/// The survey could still read the manifest.
#[tokio::test]
async fn manifest_unreadable_after_the_survey_protects_lower_regions() {
    for broken_from in [DIR, OTHER] {
        let store = FaultyStore::new();
        let storage = store.storage();
        region(&storage).await;
        adopter(&storage, OTHER).await;
        // Fails once the floor is being committed to that manifest.
        let broken = AtomicU32::new(0);
        store.plan(move |call| {
            let is_in = |dir: RegionDir| call.path.as_ref().starts_with(dir.path().as_ref());
            if is_in(broken_from) && call.operation == Operation::PutIfAbsent {
                broken.store(1, Ordering::SeqCst);
            }
            let is_broken = broken.load(Ordering::SeqCst) == 1;
            if is_broken && call.operation == Operation::Get && is_in(OTHER) {
                Fault::ErrorBefore
            } else {
                Fault::None
            }
        });
        let (report, _) = pass(&storage, LATE).await;
        assert_eq!((report.deleted, report.kept[&KeepReason::Spared]), (0, 2), "{broken_from}");
        assert_eq!(report.unreadable[0].0, OTHER);
        store.plan(|_| Fault::None);
        assert!(has(&storage, DIR, file(1).file_id).await);
    }
}

/// A paused writer would not notice that its file is deleted.
#[tokio::test]
async fn region_without_the_floor_loses_no_objects() {
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

/// Passes a reference from region to region, each removing it after the next has adopted it, ahead
/// of the pass; all by a slow clock, so that no file is kept as recently removed. The last steps
/// happen when the marking pass reaches the `nth` of the last two regions.
async fn pass_reference_on(is_new: bool, nth: usize) {
    let inner = Arc::new(InMemory::new());
    let store = FaultyStore::over(inner.clone());
    let storage = store.storage();
    region(&storage).await;
    let first = adopter(&storage, FIRST).await;
    let second = adopter(&storage, OTHER).await;
    let third = adopter(&storage, THIRD).await;
    for manifest in [&first, &second] {
        let removal = Edit { remove: vec![file(1).reference()], ..Edit::default() };
        manifest.update_manifest(by_owner(1, removal)).await.unwrap();
    }
    // These deltas are taken out of the store and put back during the pass.
    let before_floors = take_out(&storage, [(OTHER, 3..=3), (FIRST, 4..=4)]).await;
    let adoption = if is_new { 1..=3 } else { 3..=3 };
    let before_marks = take_out(&storage, [(THIRD, adoption), (OTHER, 4..=4)]).await;
    let listings = AtomicU32::new(0);
    let seen = Mutex::new(BTreeSet::new());
    store.plan(move |call| {
        let path = call.path.as_ref();
        let restore = |held: &[(Path, Bytes)]| {
            for (path, bytes) in held {
                let put = inner.put(path, bytes.clone().into()).now_or_never();
                put.unwrap().unwrap();
            }
        };
        if call.operation == Operation::PutIfAbsent && path.contains("/r12-") {
            restore(&before_floors);
        }
        // Regions are listed for the survey, then for marking.
        if path.is_empty() {
            listings.fetch_add(1, Ordering::SeqCst);
        }
        let of = [OTHER, THIRD].into_iter().find(|dir| path.starts_with(dir.path().as_ref()));
        let mut seen = seen.lock();
        if listings.load(Ordering::SeqCst) == 2
            && of.is_some_and(|dir| seen.insert(dir))
            && seen.len() == nth
        {
            restore(&before_marks);
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
async fn region_created_during_marking_keeps_its_references() {
    pass_reference_on(true, 1).await;
}

/// Otherwise the pass would read the adopter before the adoption, and the source after the removal.
#[tokio::test]
async fn regions_are_marked_in_the_order_of_adoption() {
    pass_reference_on(false, 2).await;
}

/// Takes deltas out of the store.
async fn take_out(
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
