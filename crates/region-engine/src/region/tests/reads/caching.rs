//! What was read stays in memory, within its limit, and is fetched once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tidewater_common::ids::{ColumnId, Sequence};
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::compaction::Scope;
use crate::env::{EngineOptions, RegionEnv, SystemIds};
use crate::memory::MemoryBudget;
use crate::storage::Operation;
use crate::storage::testing::{Fault, FaultyStore};
use crate::{Region, ScanOptions};

/// A region of its own over the world's store, and a count of its reads of data files.
async fn reader(
    store: &FaultyStore,
    world: &World,
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
    let region = Region::new(env, world.spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.load().await.unwrap();
    let reads = Arc::new(AtomicU64::new(0));
    let count = reads.clone();
    store.plan(move |call| {
        if call.operation == Operation::Get && call.path.as_ref().ends_with(".parquet") {
            count.fetch_add(1, Ordering::SeqCst);
            // So that two who read at once do meet.
            return Fault::Slow(Duration::from_millis(2));
        }
        Fault::None
    });
    (region, reads)
}

async fn world(store: &FaultyStore) -> World {
    let mut world = World::new(store.storage(), WriteMode::Upsert, false).await;
    let rows: Vec<Row> =
        (0..300).map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("note {n}"))).collect();
    world.put(&rows);
    world.region.flush().await.unwrap();
    world
}

#[tokio::test]
async fn a_second_scan_reads_nothing_from_the_store() {
    let store = FaultyStore::new();
    let world = world(&store).await;
    for (cached, again) in [(1 << 20, false), (0, true)] {
        let (region, reads) = reader(&store, &world, cached).await;
        assert_eq!(scan(&region, &all()).await.unwrap(), world.expected_rows());
        let first = reads.swap(0, Ordering::SeqCst);
        assert!(first > 0);
        assert_eq!(scan(&region, &all()).await.unwrap(), world.expected_rows());
        assert_eq!(reads.load(Ordering::SeqCst) > 0, again, "{cached}");
        assert!(region.env.objects.bytes() <= cached);
    }
}

#[tokio::test]
async fn who_reads_at_once_reads_once() {
    let store = FaultyStore::new();
    let world = world(&store).await;
    let mut counted = Vec::new();
    for readers in [1, 4] {
        let (region, reads) = reader(&store, &world, 1 << 20).await;
        // Reads the footers and nothing else: they are not what is shared here.
        assert_eq!(region.count(&all()).await.unwrap(), 300);
        reads.store(0, Ordering::SeqCst);
        let options = all();
        let scans = (0..readers).map(|_| scan(&region, &options));
        for rows in futures::future::join_all(scans).await {
            assert_eq!(rows.unwrap(), world.expected_rows());
        }
        counted.push(reads.load(Ordering::SeqCst));
    }
    assert!(counted[0] > 0 && counted[0] == counted[1], "{counted:?}");
}

/// What is read and held ahead of who takes the rows does not grow with the table.
#[tokio::test]
async fn a_scan_reads_little_ahead() {
    let store = FaultyStore::new();
    let mut world = world(&store).await;
    for round in 1..3_i64 {
        let rows: Vec<Row> =
            (0..300).map(|n| (("k".to_owned(), n), Some(round), "again".to_owned())).collect();
        world.put(&rows);
        world.region.flush().await.unwrap();
    }
    let (region, reads) = reader(&store, &world, 0).await;
    assert_eq!(scan(&region, &all()).await.unwrap(), world.expected_rows());
    let whole = reads.swap(0, Ordering::SeqCst);
    let mut rows = region.scan(&ScanOptions { batch_rows: 5, ..all() }).unwrap();
    rows.next().await.unwrap().unwrap();
    // Of each of the three files at the begin: two stretches.
    let first = reads.load(Ordering::SeqCst);
    assert!(first <= 6 && whole >= 3 * first, "{first} of {whole} reads");
}

/// Others wait for what a scan fetches, but never for its client.
#[tokio::test]
async fn who_takes_no_rows_holds_nobody_up() {
    let store = FaultyStore::new();
    let world = world(&store).await;
    let (region, _) = reader(&store, &world, 1 << 20).await;
    let mut stalled = region.scan(&ScanOptions { batch_rows: 5, ..all() }).unwrap();
    stalled.next().await.unwrap().unwrap();
    let options = all();
    let other = tokio::time::timeout(Duration::from_secs(60), scan(&region, &options));
    assert_eq!(other.await.expect("waits for the stalled one").unwrap(), world.expected_rows());
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
async fn what_is_read_again_is_kept_decoded() {
    let store = FaultyStore::new();
    let world = world(&store).await;
    let (region, reads) = reader(&store, &world, 1 << 20).await;
    let expected: Vec<Row> =
        world.expected_rows().into_iter().filter(|row| row.0 == number(150)).collect();
    let mut held = Vec::new();
    for round in 0..4 {
        assert_eq!(get(&region, &[number(150)]).await, expected);
        assert_eq!(reads.swap(0, Ordering::SeqCst) > 0, round == 0, "{round}");
        held.push(region.env.objects.bytes());
    }
    // Bytes only; then values beside them; then nothing more.
    assert!(held[0] < held[1] && held[1] == held[2] && held[2] == held[3], "{held:?}");
    // Another row of the same pages.
    assert_eq!(get(&region, &[number(151)]).await.len(), 1);
    assert_eq!(region.env.objects.bytes(), held[3]);
    assert_eq!(reads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn point_reads_are_right_however_little_is_held() {
    let store = FaultyStore::new();
    let world = world(&store).await;
    for cached in [0, 1_500, 6_000, 20_000, 1 << 20] {
        let (region, _) = reader(&store, &world, cached).await;
        for round in 0..4 {
            for n in [3, 4, 150, 299, 151, 3, 77, 300] {
                let found = get(&region, &[number(n), number(n + 9)]).await;
                let expected: Vec<Row> = world
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

/// Values are held by file, and a file's name never comes again.
#[tokio::test]
async fn nothing_held_outlives_its_file() {
    let store = FaultyStore::new();
    let mut world = world(&store).await;
    for value in 0..3 {
        let row: Row = (number(150), Some(value), "again".to_owned());
        world.put(std::slice::from_ref(&row));
        world.region.flush().await.unwrap();
        for _ in 0..3 {
            assert_eq!(get(&world.region, &[number(150)]).await, std::slice::from_ref(&row));
        }
        world.compact(Scope::Whole).await.unwrap();
        for _ in 0..3 {
            assert_eq!(get(&world.region, &[number(150)]).await, std::slice::from_ref(&row));
        }
    }
    world.delete(&[number(150)]);
    world.region.flush().await.unwrap();
    world.compact(Scope::Whole).await.unwrap();
    assert_eq!(get(&world.region, &[number(150)]).await, []);
    world.check().await;
}
