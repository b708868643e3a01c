//! Indexes: built in the background, let point reads skip files, never change a result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_common::ids::JobId;
use tidewater_common::schema::WriteMode;

use crate::index::Bloom;
use crate::manifest::{ActionKind, Author, Change, Edit, Void};
use crate::region::tests::fixture::*;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};
use crate::{EngineError, ScanMeter, ScanStats};

fn rows(numbers: impl Iterator<Item = i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), "n".to_owned())).collect()
}

/// Returns a region with even numbers in one file and odd numbers in another; both span the same keys.
async fn fixture(storage: Storage) -> RegionFixture {
    let mut fixture = RegionFixture::new(storage, WriteMode::Upsert, false).await;
    fixture.put(&rows((0..60).map(|n| 2 * n)));
    fixture.region.flush().await.unwrap();
    fixture.put(&rows((0..60).map(|n| 2 * n + 1)));
    fixture.region.flush().await.unwrap();
    fixture
}

async fn get(
    fixture: &RegionFixture,
    region: &crate::Region,
    number: i32,
) -> (Vec<Row>, ScanStats) {
    let meter = ScanMeter::default();
    let keys = key_batch(&[("k".to_owned(), number)], &fixture.spec);
    let found = region.get_metered(&keys, &all().projection, &meter).await.unwrap();
    (rows_of(&found), meter.stats())
}

#[tokio::test]
async fn point_read_skips_files_ruled_out_by_index() {
    let fixture = fixture(Storage::memory()).await;
    let before = get(&fixture, &fixture.region, 40).await;
    assert_eq!((before.0, before.1.files), (rows([40].into_iter()), 2));
    let files = fixture.region.files().len();
    assert_eq!(fixture.region.files_without_index(&Bloom), files);
    let report = fixture.region.build_indexes(&Bloom).await.unwrap();
    assert_eq!((report.built, report.discarded), (files, 0));
    assert_eq!(fixture.region.files_without_index(&Bloom), 0);
    // A second build has nothing to do.
    assert_eq!(fixture.region.build_indexes(&Bloom).await.unwrap().built, 0);
    let mut skipped = 0;
    for number in 0..120 {
        let (found, stats) = get(&fixture, &fixture.region, number).await;
        assert_eq!(found, rows([number].into_iter()));
        skipped += stats.files_pruned_by_index;
    }
    assert!(skipped >= 110, "{skipped}");
    let (found, stats) = get(&fixture, &fixture.region, 4_000).await;
    assert_eq!((found.len(), stats.files), (0, 0));
    // A follower uses the indexes, too.
    let follower = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    follower.load().await.unwrap();
    assert_eq!(get(&fixture, &follower, 41).await.1.files, 1);
}

#[tokio::test]
async fn damaged_or_missing_index_is_ignored() {
    let fixture = fixture(Storage::memory()).await;
    fixture.region.build_indexes(&Bloom).await.unwrap();
    let files = fixture.region.files();
    let path = |file: &crate::file_meta::FileMeta| {
        file.origin.index(file.indexes[0].index_id, &file.indexes[0].kind)
    };
    let whole = fixture.storage.get(&path(&files[0])).await.unwrap();
    let mut cases: Vec<Option<Vec<u8>>> = vec![None];
    cases.extend((0..whole.len()).map(|length| Some(whole[..length].to_vec())));
    cases.extend((0..500).map(|place| {
        let mut damaged = whole.to_vec();
        damaged[place * 7 % whole.len()] ^= 1 << (place % 8);
        Some(damaged)
    }));
    for (case, bytes) in cases.into_iter().enumerate() {
        match bytes {
            None => fixture.storage.delete(&path(&files[0])).await.unwrap(),
            Some(bytes) => fixture.storage.put(&path(&files[0]), bytes.into()).await.unwrap(),
        }
        // A separate region, so that no index is cached.
        let region = RegionFixture::fresh(&fixture.storage, &fixture.spec);
        region.load().await.unwrap();
        for number in [0, 1, 40, 41, 118, 119] {
            let (found, _) = get(&fixture, &region, number).await;
            assert_eq!(found, rows([number].into_iter()), "case {case}");
        }
    }
}

#[tokio::test]
async fn index_of_removed_file_is_discarded() {
    let store = FaultyStore::new();
    let fixture = fixture(store.storage()).await;
    let file = fixture.region.files().remove(0);
    // Another process removes the file while its index is written.
    let other = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    other.load().await.unwrap();
    let index = fixture.region.build_index(&Bloom, &file).await.unwrap();
    let removal = Edit { remove: vec![file.reference()], ..Edit::default() };
    let change = Change::new(Author::Owner(owner(1)), vec![ActionKind::Edit(removal)]);
    other.manifest.update_manifest(change).await.unwrap();
    let late = Edit { add_indexes: vec![(file.reference(), index)], ..Edit::default() };
    let job = Author::Job(JobId(uuid::Uuid::from_u128(1)));
    let refused = fixture
        .region
        .manifest
        .update_manifest(Change::new(job, vec![ActionKind::Edit(late)]))
        .await;
    match refused {
        Err(EngineError::Refused { reason: Void::InputsGone { file: missing }, .. }) => {
            assert_eq!(missing, file.file_id);
        }
        other => panic!("{other:?}"),
    }
    // The build discards the index and continues with the other files.
    let left = fixture.region.files().len() - 1;
    let report = fixture.region.build_indexes(&Bloom).await.unwrap();
    assert_eq!((report.built, report.discarded), (left, 1));
}

#[tokio::test]
async fn index_is_fetched_once_and_cached() {
    let store = FaultyStore::new();
    let fixture = fixture(store.storage()).await;
    fixture.region.build_indexes(&Bloom).await.unwrap();
    let reads = Arc::new(AtomicU64::new(0));
    let count = reads.clone();
    store.plan(move |call| {
        if call.operation == Operation::Get && call.path.as_ref().ends_with(".bloom") {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Fault::None
    });
    for number in 0..20 {
        get(&fixture, &fixture.region, number).await;
    }
    assert!(reads.load(Ordering::SeqCst) <= fixture.region.files().len() as u64);
}
