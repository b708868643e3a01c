//! A durable hook that is behind, and passes that delete covered deltas.

use std::collections::BTreeMap;

use tidewater_common::ids::ManifestVersion;

use super::*;
use crate::manifest::history::{History, history};
// With checkpoints.
use crate::manifest::samples::env;

/// Later than everything that the samples write.
const LATE: GcRequest =
    GcRequest { floor_ms: 3_000_000, dry_run: false, table: None, max_deletions: 1_000 };

async fn collect(storage: &Storage, known: u64, most: u64) -> GcReport {
    collect_for(storage, DIR, known, most).await
}

/// Runs a pass with a hook that has received the versions of one region up to `known`.
async fn collect_for(storage: &Storage, dir: RegionDir, known: u64, most: u64) -> GcReport {
    let known = BTreeMap::from([(dir.region_id, vec![ManifestVersion(known)])]);
    let positions = HookPositions { known, oldest_ms: 0, max_versions_behind: most };
    let (sender, _receiver) = mpsc::channel(1_000);
    let collector = GarbageCollector::new(env(storage.clone())).with_hook_positions(positions);
    collector.collect(&LATE, &sender).await.unwrap()
}

async fn next(storage: &Storage, known: u64) -> History {
    history(&env(storage.clone()), DIR, ManifestVersion(known), 100).await.unwrap()
}

#[tokio::test]
async fn deltas_awaited_by_a_hook_are_kept_within_limits() {
    let storage = Storage::memory();
    let manifest = ManifestContext::new(env(storage.clone()), DIR);
    manifest.update_manifest(fence(1)).await.unwrap();
    manifest.update_manifest(create(1)).await.unwrap();
    for number in 3..=21 {
        manifest.update_manifest(flush(1, number)).await.unwrap();
    }
    let report = collect(&storage, 6, 100).await;
    assert!(report.kept[&KeepReason::Awaited] > 0 && report.deleted > 0, "{report:?}");
    assert!(!objects(&storage).await.contains(&DIR.delta(ManifestVersion(4))));
    let History::Deltas(past) = next(&storage, 6).await else { panic!("a delta was cleaned") };
    let versions: Vec<u64> = past.iter().map(|entry| entry.delta.version.get()).collect();
    // The floors of the passes are included.
    assert_eq!(versions[..15], (7..=21).collect::<Vec<_>>());
    assert!(versions.is_sorted());
    // Further behind than the limit.
    let report = collect(&storage, 6, 10).await;
    assert_eq!(report.kept.get(&KeepReason::Awaited), None, "{report:?}");
    assert!(matches!(next(&storage, 6).await, History::Lagged));
}

#[tokio::test]
async fn removed_files_are_kept_until_hook_receives_removal() {
    let storage = Storage::memory();
    // Its last version removes file 1.
    let manifest = region(&storage).await;
    let before = manifest.state().version.get() - 1;
    for _ in 0..2 {
        let report = collect(&storage, before, 100).await;
        assert!(has(&storage, DIR, file(1).file_id).await);
        assert!(report.kept[&KeepReason::Awaited] >= 1, "{report:?}");
    }
    manifest.refresh().await.unwrap();
    let after = manifest.state().version.get();
    collect(&storage, after, 100).await;
    assert!(!has(&storage, DIR, file(1).file_id).await);
    assert!(has(&storage, DIR, file(3).file_id).await);
}

#[tokio::test]
async fn files_of_hook_beyond_limits_are_deleted() {
    let storage = Storage::memory();
    let manifest = region(&storage).await;
    collect(&storage, manifest.state().version.get() - 1, 0).await;
    assert!(!has(&storage, DIR, file(1).file_id).await);
}

/// The floor of a region refuses late references to objects of other regions.
#[tokio::test]
async fn lagging_hook_of_adopter_spares_lower_regions() {
    let storage = Storage::memory();
    region(&storage).await;
    let adopter = ManifestContext::new(env(storage.clone()), OTHER);
    let adopted = Edit { add: vec![FileMeta { level: 1, ..file(2) }], ..Edit::default() };
    for change in [fence(1), create(1), by_owner(1, adopted)] {
        adopter.update_manifest(change).await.unwrap();
    }
    let report = collect_for(&storage, OTHER, 1, 100).await;
    assert_eq!((report.deleted, report.kept[&KeepReason::Spared]), (0, 2), "{report:?}");
    let newest = adopter.state().version.get();
    let report = collect_for(&storage, OTHER, newest, 100).await;
    assert_eq!(report.deleted, 2, "{report:?}");
}
