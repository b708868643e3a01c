//! S6 for every kind of object: after a flipped byte or a truncation at any position, a read returns an
//! error that names the object, or the correct rows.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use tidewater_common::backoff::Backoff;
use tidewater_common::schema::WriteMode;

use crate::EngineError;
use crate::compaction::Scope;
use crate::index::Bloom;
use crate::region::tests::fixture::*;
use crate::storage::{Storage, StorageOptions};

/// Number of flipped bytes, and of truncations, for each kind of object.
const PLACES: usize = 500;

fn rows(round: i32) -> Vec<Row> {
    (0..40).map(|n| ((format!("name {}", n % 3), 2 * n + round), Some(7), "note".into())).collect()
}

/// Returns a region with several files, some compacted, with indexes, old deltas and checkpoints, a
/// newest checkpoint and later deltas.
async fn fixture() -> RegionFixture {
    let options =
        StorageOptions { attempts: 1, backoff: Backoff::NONE, ..StorageOptions::default() };
    let storage = Storage::new(Arc::new(InMemory::new()), "memory://", options);
    let mut fixture = RegionFixture::new(storage, WriteMode::Upsert, false).await;
    for round in 0..28 {
        fixture.put(&rows(round * 3));
        fixture.delete(&[("name 1".to_owned(), round * 3 + 8)]);
        fixture.region.flush().await.unwrap();
        if round == 24 {
            fixture.compact(Scope::Whole).await.unwrap();
        }
    }
    fixture.region.build_indexes(&Bloom).await.unwrap();
    for round in 28..30 {
        fixture.put(&rows(round * 3));
        fixture.region.flush().await.unwrap();
    }
    fixture
}

/// Returns the objects of this kind that a reader needs, and the others.
async fn objects(fixture: &RegionFixture, directory: &str, kind: &str) -> (Vec<Path>, Vec<Path>) {
    let path = fixture.region.dir.path().join(directory);
    let listed = fixture.storage.list(&path, None).await.unwrap();
    let paths: Vec<Path> = listed.into_iter().map(|object| object.location).collect();
    let stem = |path: &Path| path.filename().unwrap().split('.').next().unwrap().to_owned();
    let newest = paths.iter().filter(|path| path.as_ref().ends_with(".checkpoint")).map(stem).max();
    let live = fixture.region.files();
    let is_needed = |path: &Path| match kind {
        ".parquet" => live.iter().any(|file| file.path() == *path),
        ".checkpoint" => Some(stem(path)) == newest,
        ".delta" => Some(stem(path)) > newest,
        _ => true,
    };
    paths.into_iter().filter(|path| path.as_ref().ends_with(kind)).partition(is_needed)
}

/// Reads all rows without caches. Returns whether the damage was detected.
async fn detects_damage(fixture: &RegionFixture, object: &Path, what: &str) -> bool {
    let expected = fixture.expected_rows();
    match read(fixture).await {
        Ok((scanned, got)) => {
            assert_eq!(scanned, expected, "{what}");
            let keys = keys();
            let existing: Vec<Row> =
                expected.into_iter().filter(|row| keys.contains(&row.0)).collect();
            assert_eq!(got, existing, "{what}");
            false
        }
        Err(error) => {
            let name = object.filename().unwrap();
            assert!(error.to_string().contains(name), "{what}: {error}");
            true
        }
    }
}

/// Returns keys of several files, a deleted key, and keys that never existed.
fn keys() -> Vec<Key> {
    let numbers = [0, 8, 30, 74, 90, 95, 165, 166, 167, 1_000];
    numbers.into_iter().map(|number| (format!("name {}", number % 3), number)).collect()
}

async fn read(fixture: &RegionFixture) -> Result<(Vec<Row>, Vec<Row>), EngineError> {
    let region = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    region.load().await?;
    let got = region.get(&key_batch(&keys(), &fixture.spec), &all().projection).await;
    let scanned = scan(&region, &all()).await?;
    Ok((scanned, rows_of(&got?)))
}

/// Flips `places` bytes and makes as many truncations. Returns how many of each were detected.
async fn damage(fixture: &RegionFixture, objects: &[Path], places: usize) -> (usize, usize) {
    let mut flips = 0;
    let mut cuts = 0;
    for place in 0..places {
        let object = &objects[place % objects.len()];
        let whole = fixture.storage.get(object).await.unwrap();
        let at = place * whole.len() / places;
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 + u8::try_from(place * 7 % 255).unwrap();
        fixture.storage.put(object, flipped.into()).await.unwrap();
        flips += usize::from(
            detects_damage(fixture, object, &format!("{object} flipped at {at}")).await,
        );
        fixture.storage.put(object, whole.slice(..at)).await.unwrap();
        cuts +=
            usize::from(detects_damage(fixture, object, &format!("{object} cut at {at}")).await);
        fixture.storage.put(object, whole).await.unwrap();
    }
    assert!(!detects_damage(fixture, &objects[0], "whole again").await);
    (flips, cuts)
}

#[tokio::test]
async fn data_file_damage_is_detected() {
    let fixture = fixture().await;
    let (needed, merged) = objects(&fixture, "data", ".parquet").await;
    assert!(needed.len() > 5 && !merged.is_empty(), "{needed:?}");
    let (flips, cuts) = damage(&fixture, &needed, PLACES).await;
    // The first bytes of a file are the magic number, which is not read.
    assert!(cuts == PLACES && flips + 8 >= PLACES, "{flips} {cuts}");
    assert_eq!(damage(&fixture, &merged, 20).await, (0, 0));
}

#[tokio::test]
async fn delta_damage_is_detected() {
    let fixture = fixture().await;
    let (needed, covered) = objects(&fixture, "manifest", ".delta").await;
    assert!(needed.len() > 1 && covered.len() > 20, "{needed:?}");
    assert_eq!(damage(&fixture, &needed, PLACES).await, (PLACES, PLACES));
    assert_eq!(damage(&fixture, &covered, 50).await, (0, 0));
}

#[tokio::test]
async fn checkpoint_damage_is_detected() {
    let fixture = fixture().await;
    let (newest, older) = objects(&fixture, "manifest", ".checkpoint").await;
    assert!(newest.len() == 1 && !older.is_empty(), "{newest:?}");
    assert_eq!(damage(&fixture, &newest, PLACES).await, (PLACES, PLACES));
    assert_eq!(damage(&fixture, &older, 20).await, (0, 0));
}

/// A wrong checkpoint hint only makes the listing longer.
#[tokio::test]
async fn hint_damage_is_harmless() {
    let fixture = fixture().await;
    let (hint, _) = objects(&fixture, "manifest", "_last_checkpoint").await;
    let length = fixture.storage.get(&hint[0]).await.unwrap().len();
    assert!((1..20).contains(&length));
    // Every byte, and every length.
    assert_eq!(damage(&fixture, &hint, length).await, (0, 0));
    let path = &hint[0];
    for byte in 0..=u8::MAX {
        for at in 0..length {
            let mut flipped = fixture.storage.get(path).await.unwrap().to_vec();
            let whole = flipped.clone();
            flipped[at] = byte;
            fixture.storage.put(path, flipped.into()).await.unwrap();
            assert!(!detects_damage(&fixture, path, &format!("{byte} at {at}")).await);
            fixture.storage.put(path, whole.into()).await.unwrap();
        }
    }
}

/// A damaged index is ignored.
#[tokio::test]
async fn index_damage_is_harmless() {
    let fixture = fixture().await;
    let (indexes, _) = objects(&fixture, "index", ".bloom").await;
    assert!(indexes.len() > 3, "{indexes:?}");
    assert_eq!(damage(&fixture, &indexes, PLACES).await, (0, 0));
}
