//! Indexes are built in the background, spare point reads whole files, and never decide an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_common::ids::JobId;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::index::Bloom;
use crate::manifest::{ActionKind, Author, Change, Edit, Void};
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};
use crate::{EngineError, ScanMeter, ScanStats};

fn rows(numbers: impl Iterator<Item = i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), "n".to_owned())).collect()
}

/// Even numbers in one file, odd ones in another; both span the same keys.
async fn world(storage: Storage) -> World {
    let mut world = World::new(storage, WriteMode::Upsert, false).await;
    world.put(&rows((0..60).map(|n| 2 * n)));
    world.region.flush().await.unwrap();
    world.put(&rows((0..60).map(|n| 2 * n + 1)));
    world.region.flush().await.unwrap();
    world
}

async fn get(world: &World, region: &crate::Region, number: i32) -> (Vec<Row>, ScanStats) {
    let meter = ScanMeter::default();
    let keys = key_batch(&[("k".to_owned(), number)], &world.spec);
    let found = region.get_metered(&keys, &all().projection, &meter).await.unwrap();
    (rows_of(&found), meter.stats())
}

#[tokio::test]
async fn a_point_read_leaves_out_files_that_the_index_denies() {
    let world = world(Storage::memory()).await;
    let before = get(&world, &world.region, 40).await;
    assert_eq!((before.0, before.1.files), (rows([40].into_iter()), 2));
    let files = world.region.files().len();
    assert_eq!(world.region.files_without_index(&Bloom), files);
    let report = world.region.build_indexes(&Bloom).await.unwrap();
    assert_eq!((report.built, report.discarded), (files, 0));
    assert_eq!(world.region.files_without_index(&Bloom), 0);
    // Again: nothing to do.
    assert_eq!(world.region.build_indexes(&Bloom).await.unwrap().built, 0);
    let mut spared = 0;
    for number in 0..120 {
        let (found, stats) = get(&world, &world.region, number).await;
        assert_eq!(found, rows([number].into_iter()));
        spared += stats.files_pruned_by_index;
    }
    assert!(spared >= 110, "{spared}");
    let (found, stats) = get(&world, &world.region, 4_000).await;
    assert_eq!((found.len(), stats.files), (0, 0));
    // Who follows the manifest uses them, too.
    let follower = World::fresh(&world.storage, &world.spec);
    follower.load().await.unwrap();
    assert_eq!(get(&world, &follower, 41).await.1.files, 1);
}

#[tokio::test]
async fn a_damaged_or_missing_index_is_passed_over() {
    let world = world(Storage::memory()).await;
    world.region.build_indexes(&Bloom).await.unwrap();
    let files = world.region.files();
    let path = |file: &crate::file_meta::FileMeta| {
        file.origin.index(file.indexes[0].index_id, &file.indexes[0].kind)
    };
    let whole = world.storage.get(&path(&files[0])).await.unwrap();
    let mut cases: Vec<Option<Vec<u8>>> = vec![None];
    cases.extend((0..whole.len()).map(|length| Some(whole[..length].to_vec())));
    cases.extend((0..500).map(|place| {
        let mut damaged = whole.to_vec();
        damaged[place * 7 % whole.len()] ^= 1 << (place % 8);
        Some(damaged)
    }));
    for (case, bytes) in cases.into_iter().enumerate() {
        match bytes {
            None => world.storage.delete(&path(&files[0])).await.unwrap(),
            Some(bytes) => world.storage.put(&path(&files[0]), bytes.into()).await.unwrap(),
        }
        // Of its own, so that no index is remembered.
        let region = World::fresh(&world.storage, &world.spec);
        region.load().await.unwrap();
        for number in [0, 1, 40, 41, 118, 119] {
            let (found, _) = get(&world, &region, number).await;
            assert_eq!(found, rows([number].into_iter()), "case {case}");
        }
    }
}

#[tokio::test]
async fn an_index_whose_file_has_gone_is_not_named() {
    let store = FaultyStore::new();
    let world = world(store.storage()).await;
    let file = world.region.files().remove(0);
    // Another process removes the file while its index is written.
    let other = World::fresh(&world.storage, &world.spec);
    other.load().await.unwrap();
    let index = world.region.build_index(&Bloom, &file).await.unwrap();
    let gone = Edit { remove: vec![file.reference()], ..Edit::default() };
    let change = Change::new(Author::Owner(owner(1)), vec![ActionKind::Edit(gone)]);
    other.manifest.update_manifest(change).await.unwrap();
    let late = Edit { add_indexes: vec![(file.reference(), index)], ..Edit::default() };
    let job = Author::Job(JobId(uuid::Uuid::from_u128(1)));
    let refused =
        world.region.manifest.update_manifest(Change::new(job, vec![ActionKind::Edit(late)])).await;
    match refused {
        Err(EngineError::Refused { reason: Void::InputsGone { file: gone }, .. }) => {
            assert_eq!(gone, file.file_id);
        }
        other => panic!("{other:?}"),
    }
    // The build that finds it so goes on with the other files.
    let left = world.region.files().len() - 1;
    let report = world.region.build_indexes(&Bloom).await.unwrap();
    assert_eq!((report.built, report.discarded), (left, 1));
}

#[tokio::test]
async fn an_index_is_read_once_and_kept() {
    let store = FaultyStore::new();
    let world = world(store.storage()).await;
    world.region.build_indexes(&Bloom).await.unwrap();
    let reads = Arc::new(AtomicU64::new(0));
    let count = reads.clone();
    store.plan(move |call| {
        if call.operation == Operation::Get && call.path.as_ref().ends_with(".bloom") {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Fault::None
    });
    for number in 0..20 {
        get(&world, &world.region, number).await;
    }
    assert!(reads.load(Ordering::SeqCst) <= world.region.files().len() as u64);
}
