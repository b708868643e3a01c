//! A durable hook that is behind, and passes that clean what is covered.

use std::collections::BTreeMap;

use tidewater_common::ids::ManifestVersion;

use super::*;
use crate::manifest::history::{History, history};
// With checkpoints.
use crate::manifest::samples::env;

/// Everything that the samples write is older.
const LATE: GcRequest = GcRequest { floor_ms: 3_000_000, dry_run: false, table: None, most: 1_000 };

async fn collect(storage: &Storage, known: u64, most: u64) -> GcReport {
    let known = BTreeMap::from([(DIR.region_id, vec![ManifestVersion(known)])]);
    let awaited = HookPositions { known, oldest_ms: 0, most };
    let (sender, _receiver) = mpsc::channel(1_000);
    let collector = GarbageCollector::new(env(storage.clone())).with_hook_positions(awaited);
    collector.collect(&LATE, &sender).await.unwrap()
}

async fn next(storage: &Storage, known: u64) -> History {
    history(&env(storage.clone()), DIR, ManifestVersion(known), 100).await.unwrap()
}

#[tokio::test]
async fn what_a_hook_is_still_to_be_told_outlives_its_checkpoint_up_to_a_limit() {
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
    let versions: Vec<u64> = past.iter().map(|one| one.delta.version.get()).collect();
    // The passes' own floors are among them.
    assert_eq!(versions[..15], (7..=21).collect::<Vec<_>>());
    assert!(versions.is_sorted());
    // Further behind than is waited for.
    let report = collect(&storage, 6, 10).await;
    assert_eq!(report.kept.get(&KeepReason::Awaited), None, "{report:?}");
    assert!(matches!(next(&storage, 6).await, History::Lagged));
}
