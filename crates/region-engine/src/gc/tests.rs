//! Passes over an in-memory store.

mod awaited;
mod late;
mod race;

use tidewater_common::clock::Clock;
use tidewater_common::ids::{FileId, RegionId, TableId};
use tokio::sync::mpsc;

use super::*;
use crate::file_meta::FileMeta;
use crate::hooks::testing::{HookCall, Recorder};
use crate::hooks::{FilesRemoved, GcPass, RegionHookRef};
use crate::manifest::samples::*;
use crate::manifest::{Change, Edit, ManifestContext};
use crate::storage::Storage;
use crate::storage::testing::{Fault, FaultyStore};

const OTHER: RegionDir =
    RegionDir { table_id: TableId(4), region_id: RegionId(20), incarnation: DIR.incarnation };

/// Returns an environment without checkpoints, so that deltas are no garbage.
fn env(storage: Storage) -> crate::env::RegionEnv {
    let mut env = crate::manifest::samples::env(storage);
    env.options.manifest.checkpoint_every = 1_000;
    env
}

/// Later than all ids of `file(1..=9)`.
const FLOOR: u64 = 1_000_010;

fn request(dry_run: bool) -> GcRequest {
    GcRequest { floor_ms: FLOOR, dry_run, table: None, max_deletions: 1_000 }
}

async fn pass(storage: &Storage, request: GcRequest) -> (GcReport, Vec<String>) {
    let (sender, mut receiver) = mpsc::channel(1_000);
    let report =
        GarbageCollector::new(env(storage.clone())).collect(&request, &sender).await.unwrap();
    drop(sender);
    let mut garbage = Vec::new();
    while let Some(found) = receiver.recv().await {
        garbage.push(format!("{} {}", found.path, found.why.as_str()));
    }
    assert_eq!(garbage.len() as u64, report.deleted);
    (report, garbage)
}

async fn put(storage: &Storage, path: Path) {
    storage.put(&path, bytes::Bytes::from_static(b"rows")).await.unwrap();
}

async fn objects(storage: &Storage) -> Vec<Path> {
    let listed = storage.list(&Path::default(), None).await.unwrap();
    listed.into_iter().map(|object| object.location).collect()
}

async fn has(storage: &Storage, dir: RegionDir, file: FileId) -> bool {
    objects(storage).await.contains(&dir.data(file))
}

/// Creates a region with file 1 compacted into file 3 long ago, file 2 live, and an orphan.
async fn region(storage: &Storage) -> ManifestContext {
    let manifest = ManifestContext::new(env(storage.clone()), DIR);
    for change in [fence(1), create(1), flush(1, 1), flush(1, 2)] {
        manifest.update_manifest(change).await.unwrap();
    }
    let output = FileMeta { stored_min_sequence: file(1).stored_min_sequence, ..file(3) };
    let output = FileMeta { stored_max_sequence: file(1).stored_max_sequence, ..output };
    let edit = Edit { add: vec![output], remove: vec![file(1).reference()], ..Edit::default() };
    manifest.update_manifest(by_job(edit)).await.unwrap();
    for number in 1..=4 {
        put(storage, DIR.data(file(number).file_id)).await;
    }
    manifest
}

#[tokio::test]
async fn pass_deletes_unreferenced_objects_and_counts_all() {
    let storage = Storage::memory();
    let manifest = region(&storage).await;
    put(&storage, Path::from("cluster.json")).await;
    let before = objects(&storage).await;

    let (dry_report, garbage) = pass(&storage, request(true)).await;
    assert_eq!(objects(&storage).await, before, "a dry run changes nothing");
    assert_eq!(dry_report.deleted + dry_report.kept_objects(), before.len() as u64);
    let expected = [
        format!("{} compaction", DIR.data(file(1).file_id)),
        format!("{} orphan", DIR.data(file(4).file_id)),
    ];
    assert_eq!(garbage, expected);

    let (report, deleted) = pass(&storage, request(false)).await;
    assert_eq!(deleted, garbage);
    assert_eq!(report, dry_report);
    for (number, kept) in [(1, false), (2, true), (3, true), (4, false)] {
        assert_eq!(has(&storage, DIR, file(number).file_id).await, kept, "{number}");
    }
    // The floor is in the manifest, which refuses deleted files.
    manifest.refresh().await.unwrap();
    assert_eq!(manifest.state().gc_floor_ms, FLOOR);
    let error = manifest.update_manifest(flush(1, 4)).await.unwrap_err();
    assert!(error.to_string().contains("floor"), "{error}");
    let (again, _) = pass(&storage, request(false)).await;
    assert_eq!((again.deleted, again.failed), (0, 0));
}

#[tokio::test]
async fn file_referenced_by_a_higher_region_is_kept() {
    let storage = Storage::memory();
    region(&storage).await;
    let other = ManifestContext::new(env(storage.clone()), OTHER);
    other.update_manifest(fence(1)).await.unwrap();
    other.update_manifest(create(1)).await.unwrap();
    let adopted = Edit { add: vec![FileMeta { level: 1, ..file(1) }], ..Edit::default() };
    other.update_manifest(by_owner(1, adopted)).await.unwrap();
    let (report, _) = pass(&storage, request(false)).await;
    assert!(has(&storage, DIR, file(1).file_id).await);
    assert!(!has(&storage, DIR, file(4).file_id).await);
    assert_eq!(report.deleted, 1);
    // A region that references files of others also gets the floor.
    other.refresh().await.unwrap();
    assert_eq!(other.state().gc_floor_ms, FLOOR);
    // The file is deleted once that region has removed it before the floor.
    let edit = Edit { remove: vec![file(1).reference()], ..Edit::default() };
    other.update_manifest(by_owner(1, edit)).await.unwrap();
    let late = GcRequest { floor_ms: 3_000_000, ..request(false) };
    pass(&storage, late).await;
    assert!(!has(&storage, DIR, file(1).file_id).await);
}

#[tokio::test]
async fn dropped_region_keeps_its_manifest() {
    let storage = Storage::memory();
    let manifest = region(&storage).await;
    let remove = Change::new(
        crate::manifest::Author::Owner(owner(1)),
        vec![crate::manifest::ActionKind::Remove],
    );
    manifest.update_manifest(remove).await.unwrap();
    // Kept: the region was dropped after the floor.
    let early = GcRequest { floor_ms: 1_000_000, ..request(false) };
    let (report, _) = pass(&storage, early).await;
    assert_eq!((report.deleted, report.kept[&KeepReason::Recent]), (0, 3));
    let late = GcRequest { floor_ms: 3_000_000, ..request(false) };
    let (report, garbage) = pass(&storage, late).await;
    assert_eq!(report.deleted, 4, "{garbage:?}");
    assert!(garbage.iter().filter(|line| line.ends_with("drop")).count() == 3, "{garbage:?}");
    let left = objects(&storage).await;
    assert!(left.iter().all(|path| path.as_ref().contains("/manifest/")), "{left:?}");
    let reader = ManifestContext::new(env(storage.clone()), DIR);
    reader.refresh().await.unwrap();
    assert!(reader.state().is_removed());
}

#[tokio::test]
async fn region_that_lost_its_newest_deltas_is_left_alone() {
    let storage = Storage::memory();
    region(&storage).await;
    let read = ManifestContext::new(env(storage.clone()), DIR);
    let newest = read.refresh().await.unwrap();
    // As after a restore of an older copy: file 3, which the newest delta added, looks like an orphan.
    storage.delete(&DIR.delta(newest)).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(1_000);
    let logged = LoggedVersions { known: [(DIR, newest)].into(), ..LoggedVersions::default() };
    let collector = GarbageCollector::new(env(storage.clone())).with_logged_versions(logged);
    let report = collector.collect(&request(false), &sender).await.unwrap();
    assert_eq!(report.deleted, 0);
    assert!(receiver.try_recv().is_err());
    assert!(has(&storage, DIR, file(3).file_id).await);
    let [(dir, detail)] = &report.unreadable[..] else { panic!("{report:?}") };
    assert_eq!(*dir, DIR);
    let behind = format!("ends at version {}, but", newest.get() - 1);
    assert!(detail.contains(&behind), "{detail}");
}

#[tokio::test]
async fn unreadable_manifest_protects_lower_regions() {
    let store = FaultyStore::new();
    let storage = store.storage();
    region(&storage).await;
    ManifestContext::new(env(storage.clone()), OTHER).update_manifest(fence(1)).await.unwrap();
    let broken = OTHER.delta(tidewater_common::ids::ManifestVersion(1));
    let whole = storage.get(&broken).await.unwrap();
    storage.put(&broken, bytes::Bytes::from_static(b"not a delta")).await.unwrap();
    let (report, _) = pass(&storage, request(false)).await;
    assert_eq!((report.deleted, report.kept[&KeepReason::Spared]), (0, 2));
    assert!(report.unreadable.iter().all(|(dir, _)| *dir == OTHER), "{report:?}");
    storage.put(&broken, whole).await.unwrap();
    // A store that refuses to delete: no object is counted as deleted.
    store.plan(|call| match call.operation {
        crate::storage::Operation::Delete => Fault::ErrorBefore,
        _ => Fault::None,
    });
    let (report, _) = pass(&storage, request(false)).await;
    assert_eq!((report.deleted, report.failed), (0, 2));
    store.plan(|_| Fault::None);
    assert_eq!(pass(&storage, request(false)).await.0.deleted, 2);
}

/// Otherwise one permanently unreadable region would keep all later regions from being collected.
#[tokio::test]
async fn protected_objects_do_not_count_against_the_maximum() {
    let storage = Storage::memory();
    region(&storage).await;
    let broken = RegionDir { region_id: RegionId(15), ..DIR };
    let damaged = bytes::Bytes::from_static(b"not a delta");
    storage.put(&broken.delta(tidewater_common::ids::ManifestVersion(1)), damaged).await.unwrap();
    ManifestContext::new(env(storage.clone()), OTHER).update_manifest(fence(1)).await.unwrap();
    put(&storage, OTHER.data(file(5).file_id)).await;
    let (report, garbage) = pass(&storage, GcRequest { max_deletions: 1, ..request(false) }).await;
    assert_eq!(garbage, [format!("{} orphan", OTHER.data(file(5).file_id))]);
    // One of the two protected objects fit the maximum until they were known to be protected.
    assert_eq!((report.kept[&KeepReason::Spared], report.kept[&KeepReason::Later]), (1, 1));
    assert_eq!(report.unreadable.len(), 1);
}

#[tokio::test]
async fn pass_respects_table_and_maximum() {
    let storage = Storage::memory();
    region(&storage).await;
    let table = Some(OTHER.table_id);
    let (report, _) = pass(&storage, GcRequest { table, ..request(false) }).await;
    assert_eq!((report.deleted, report.kept[&KeepReason::Later]), (0, 2));
    let (report, _) = pass(&storage, GcRequest { max_deletions: 1, ..request(false) }).await;
    assert_eq!((report.deleted, report.kept[&KeepReason::Later]), (1, 1));
    let table = Some(DIR.table_id);
    let (report, _) = pass(&storage, GcRequest { table, ..request(false) }).await;
    assert_eq!(report.deleted, 1);
}

#[tokio::test]
async fn hooks_are_notified_of_deleted_files() {
    let storage = Storage::memory();
    region(&storage).await;
    let plugins = crate::Plugins::default();
    let recorder = Recorder::new("recorder");
    plugins.insert(recorder.clone() as RegionHookRef).unwrap();
    let (sender, _receiver) = mpsc::channel(1_000);
    let collector = GarbageCollector::new(env(storage.clone()).with_plugins(plugins));
    collector.collect(&request(true), &sender).await.unwrap();
    assert_eq!(recorder.take(), []);
    collector.collect(&request(false), &sender).await.unwrap();
    let removed = [(1, RemovalReason::Compaction), (4, RemovalReason::Orphan)]
        .map(|(number, reason)| FilesRemoved { files: vec![file(number).file_id], reason });
    let [first, second] = removed.clone();
    let pass = GcPass { removed: removed.to_vec(), bytes: 8 };
    let expected =
        [HookCall::FilesRemoved(first), HookCall::FilesRemoved(second), HookCall::Gc(pass)];
    assert_eq!(recorder.take(), expected);
}
