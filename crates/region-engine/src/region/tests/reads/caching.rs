//! Object cache: read ranges stay in memory within the limit, and concurrent reads fetch them once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tidewater_common::ids::{ColumnId, Sequence};
use tidewater_common::schema::WriteMode;

use crate::compaction::Scope;
use crate::env::{EngineOptions, RegionEnv, SystemIds};
use crate::memory::MemoryBudget;
use crate::region::tests::fixture::*;
use crate::storage::Operation;
use crate::storage::testing::{Fault, FaultyStore};
use crate::{Region, ScanOptions};

/// Opens a separate region over the fixture's store, and counts its reads of data files.
async fn reader(
    store: &FaultyStore,
    fixture: &RegionFixture,
    cached: usize,
) -> (Arc<Region>, Arc<AtomicU64>) {
    let options = EngineOptions { object_cache_bytes: cached, ..EngineOptions::default() };
    let env = RegionEnv::new(
        store.storage(),
        Arc::new(FixedClock),
        Arc::new(SystemIds),
        MemoryBudget::new(1 << 30),
        options,
    );
    let region = Region::new(env, fixture.spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.load().await.unwrap();
    let reads = Arc::new(AtomicU64::new(0));
    let count = reads.clone();
    store.plan(move |call| {
        if call.operation == Operation::Get && call.path.as_ref().ends_with(".parquet") {
            count.fetch_add(1, Ordering::SeqCst);
            // Slow, so that concurrent reads overlap.
            return Fault::Slow(Duration::from_millis(2));
        }
        Fault::None
    });
    (region, reads)
}

async fn fixture(store: &FaultyStore) -> RegionFixture {
    let mut fixture = RegionFixture::new(store.storage(), WriteMode::Upsert, false).await;
    let rows: Vec<Row> =
        (0..300).map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("note {n}"))).collect();
    fixture.put(&rows);
    fixture.region.flush().await.unwrap();
    fixture
}

#[tokio::test]
async fn second_scan_is_served_from_cache() {
    let store = FaultyStore::new();
    let fixture = fixture(&store).await;
    for (cached, again) in [(1 << 20, false), (0, true)] {
        let (region, reads) = reader(&store, &fixture, cached).await;
        assert_eq!(scan(&region, &all()).await.unwrap(), fixture.expected_rows());
        let first = reads.swap(0, Ordering::SeqCst);
        assert!(first > 0);
        assert_eq!(scan(&region, &all()).await.unwrap(), fixture.expected_rows());
        assert_eq!(reads.load(Ordering::SeqCst) > 0, again, "{cached}");
        assert!(region.env.objects.bytes() <= cached);
    }
}

#[tokio::test]
async fn concurrent_scans_share_fetches() {
    let store = FaultyStore::new();
    let fixture = fixture(&store).await;
    let mut counted = Vec::new();
    for readers in [1, 4] {
        let (region, reads) = reader(&store, &fixture, 1 << 20).await;
        // Reads only the footers, which have a separate cache.
        let no_columns = ScanOptions { projection: Vec::new(), ..all() };
        let rows: Vec<_> = region.scan(&no_columns).unwrap().try_collect().await.unwrap();
        assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 300);
        reads.store(0, Ordering::SeqCst);
        let options = all();
        let scans = (0..readers).map(|_| scan(&region, &options));
        for rows in futures::future::join_all(scans).await {
            assert_eq!(rows.unwrap(), fixture.expected_rows());
        }
        counted.push(reads.load(Ordering::SeqCst));
    }
    assert!(counted[0] > 0 && counted[0] == counted[1], "{counted:?}");
}

/// The data that a scan reads ahead of its consumer does not grow with the table.
#[tokio::test]
async fn scan_read_ahead_is_bounded() {
    let store = FaultyStore::new();
    let mut fixture = fixture(&store).await;
    for round in 1..3_i64 {
        let rows: Vec<Row> =
            (0..300).map(|n| (("k".to_owned(), n), Some(round), "again".to_owned())).collect();
        fixture.put(&rows);
        fixture.region.flush().await.unwrap();
    }
    let (region, reads) = reader(&store, &fixture, 0).await;
    assert_eq!(scan(&region, &all()).await.unwrap(), fixture.expected_rows());
    let whole = reads.swap(0, Ordering::SeqCst);
    let mut rows = region.scan(&ScanOptions { batch_rows: 5, ..all() }).unwrap();
    rows.next().await.unwrap().unwrap();
    // Two ranges of each of the three files at the beginning.
    let first = reads.load(Ordering::SeqCst);
    assert!(first <= 6 && whole >= 3 * first, "{first} of {whole} reads");
}

/// A read may wait for a fetch of another scan, but never for that scan's client.
#[tokio::test]
async fn stalled_scan_does_not_block_others() {
    let store = FaultyStore::new();
    let fixture = fixture(&store).await;
    let (region, _) = reader(&store, &fixture, 1 << 20).await;
    let mut stalled = region.scan(&ScanOptions { batch_rows: 5, ..all() }).unwrap();
    stalled.next().await.unwrap().unwrap();
    let options = all();
    let other = tokio::time::timeout(Duration::from_secs(60), scan(&region, &options));
    assert_eq!(
        other.await.expect("does not wait for the stalled scan").unwrap(),
        fixture.expected_rows()
    );
    drop(stalled);
}

fn number(n: i32) -> Key {
    ("k".to_owned(), n)
}

async fn get(region: &Region, keys: &[Key]) -> Vec<Row> {
    let projection: Vec<ColumnId> = region.spec().schema.columns().iter().map(|c| c.id).collect();
    rows_of(&region.get(&key_batch(keys, region.spec()), &projection).await.unwrap())
}

#[tokio::test]
async fn repeated_point_read_is_cached_decoded() {
    let store = FaultyStore::new();
    let fixture = fixture(&store).await;
    let (region, reads) = reader(&store, &fixture, 1 << 20).await;
    let expected: Vec<Row> =
        fixture.expected_rows().into_iter().filter(|row| row.0 == number(150)).collect();
    let mut held = Vec::new();
    for round in 0..4 {
        assert_eq!(get(&region, &[number(150)]).await, expected);
        assert_eq!(reads.swap(0, Ordering::SeqCst) > 0, round == 0, "{round}");
        held.push(region.env.objects.bytes());
    }
    // First the bytes, then also the decoded values, then no change.
    assert!(held[0] < held[1] && held[1] == held[2] && held[2] == held[3], "{held:?}");
    // Another row in the same pages.
    assert_eq!(get(&region, &[number(151)]).await.len(), 1);
    assert_eq!(region.env.objects.bytes(), held[3]);
    assert_eq!(reads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn point_reads_are_correct_at_any_cache_size() {
    let store = FaultyStore::new();
    let fixture = fixture(&store).await;
    for cached in [0, 1_500, 6_000, 20_000, 1 << 20] {
        let (region, _) = reader(&store, &fixture, cached).await;
        for round in 0..4 {
            for n in [3, 4, 150, 299, 151, 3, 77, 300] {
                let found = get(&region, &[number(n), number(n + 9)]).await;
                let expected: Vec<Row> = fixture
                    .expected_rows()
                    .into_iter()
                    .filter(|row| row.0 == number(n) || row.0 == number(n + 9))
                    .collect();
                assert_eq!(found, expected, "{cached} {round} {n}");
                assert!(region.env.objects.bytes() <= cached);
            }
        }
    }
}

/// Cached values are keyed by file id, and file ids are never reused.
#[tokio::test]
async fn cached_values_do_not_outlive_their_file() {
    let store = FaultyStore::new();
    let mut fixture = fixture(&store).await;
    for value in 0..3 {
        let row: Row = (number(150), Some(value), "again".to_owned());
        fixture.put(std::slice::from_ref(&row));
        fixture.region.flush().await.unwrap();
        for _ in 0..3 {
            assert_eq!(get(&fixture.region, &[number(150)]).await, std::slice::from_ref(&row));
        }
        fixture.compact(Scope::Whole).await.unwrap();
        for _ in 0..3 {
            assert_eq!(get(&fixture.region, &[number(150)]).await, std::slice::from_ref(&row));
        }
    }
    fixture.delete(&[number(150)]);
    fixture.region.flush().await.unwrap();
    fixture.compact(Scope::Whole).await.unwrap();
    assert_eq!(get(&fixture.region, &[number(150)]).await, []);
    fixture.check().await;
}
