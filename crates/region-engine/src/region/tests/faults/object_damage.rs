//! S6 for every kind of object: a byte that was flipped, or an object that was cut, wherever that is,
//! gives an error that names the object, or the right rows.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::EngineError;
use crate::compaction::Scope;
use crate::index::Bloom;
use crate::storage::{Storage, StorageOptions};

/// How often an object of a kind is flipped, and how often it is cut.
const PLACES: usize = 500;

fn rows(round: i32) -> Vec<Row> {
    (0..40).map(|n| ((format!("name {}", n % 3), 2 * n + round), Some(7), "note".into())).collect()
}

/// A region with several files, some merged, with indexes, old deltas and checkpoints, a newest
/// checkpoint and deltas after it.
async fn world() -> World {
    let options =
        StorageOptions { attempts: 1, backoff: Duration::ZERO, ..StorageOptions::default() };
    let storage = Storage::new(Arc::new(InMemory::new()), "memory://", options);
    let mut world = World::new(storage, WriteMode::Upsert, false).await;
    for round in 0..28 {
        world.put(&rows(round * 3));
        world.delete(&[("name 1".to_owned(), round * 3 + 8)]);
        world.region.flush().await.unwrap();
        if round == 24 {
            world.compact(Scope::Whole).await.unwrap();
        }
    }
    world.region.build_indexes(&Bloom).await.unwrap();
    for round in 28..30 {
        world.put(&rows(round * 3));
        world.region.flush().await.unwrap();
    }
    world
}

/// The objects of this kind that a reader needs, and the others.
async fn objects(world: &World, folder: &str, kind: &str) -> (Vec<Path>, Vec<Path>) {
    let path = world.region.dir.path().join(folder);
    let listed = world.storage.list(&path, None).await.unwrap();
    let paths: Vec<Path> = listed.into_iter().map(|object| object.location).collect();
    let stem = |path: &Path| path.filename().unwrap().split('.').next().unwrap().to_owned();
    let newest = paths.iter().filter(|path| path.as_ref().ends_with(".checkpoint")).map(stem).max();
    let live = world.region.files();
    let is_needed = |path: &Path| match kind {
        ".parquet" => live.iter().any(|file| file.path() == *path),
        ".checkpoint" => Some(stem(path)) == newest,
        ".delta" => Some(stem(path)) > newest,
        _ => true,
    };
    paths.into_iter().filter(|path| path.as_ref().ends_with(kind)).partition(is_needed)
}

/// Reads everything with nothing remembered: whether the damage was found.
async fn found(world: &World, object: &Path, what: &str) -> bool {
    let expected = world.expected_rows();
    match read(world).await {
        Ok((scanned, got)) => {
            assert_eq!(scanned, expected, "{what}");
            let keys = keys();
            let there: Vec<Row> =
                expected.into_iter().filter(|row| keys.contains(&row.0)).collect();
            assert_eq!(got, there, "{what}");
            false
        }
        Err(error) => {
            let name = object.filename().unwrap();
            assert!(error.to_string().contains(name), "{what}: {error}");
            true
        }
    }
}

/// Keys of several files, one that was deleted, and some that never were.
fn keys() -> Vec<Key> {
    let numbers = [0, 8, 30, 74, 90, 95, 165, 166, 167, 1_000];
    numbers.into_iter().map(|number| (format!("name {}", number % 3), number)).collect()
}

async fn read(world: &World) -> Result<(Vec<Row>, Vec<Row>), EngineError> {
    let region = World::fresh(&world.storage, &world.spec);
    region.load().await?;
    let got = region.get(&key_batch(&keys(), &world.spec), &all().projection).await;
    let scanned = scan(&region, &all()).await?;
    Ok((scanned, rows_of(&got?)))
}

/// So many flips and so many cuts; how many of each were found.
async fn damage(world: &World, objects: &[Path], places: usize) -> (usize, usize) {
    let (mut flips, mut cuts) = (0, 0);
    for place in 0..places {
        let object = &objects[place % objects.len()];
        let whole = world.storage.get(object).await.unwrap();
        let at = place * whole.len() / places;
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 + u8::try_from(place * 7 % 255).unwrap();
        world.storage.put(object, flipped.into()).await.unwrap();
        flips += usize::from(found(world, object, &format!("{object} flipped at {at}")).await);
        world.storage.put(object, whole.slice(..at)).await.unwrap();
        cuts += usize::from(found(world, object, &format!("{object} cut at {at}")).await);
        world.storage.put(object, whole).await.unwrap();
    }
    assert!(!found(world, &objects[0], "whole again").await);
    (flips, cuts)
}

#[tokio::test]
async fn data_files() {
    let world = world().await;
    let (needed, merged) = objects(&world, "data", ".parquet").await;
    assert!(needed.len() > 5 && !merged.is_empty(), "{needed:?}");
    let (flips, cuts) = damage(&world, &needed, PLACES).await;
    // The first bytes of a file say only that it is one.
    assert!(cuts == PLACES && flips + 8 >= PLACES, "{flips} {cuts}");
    assert_eq!(damage(&world, &merged, 20).await, (0, 0));
}

#[tokio::test]
async fn deltas() {
    let world = world().await;
    let (needed, covered) = objects(&world, "manifest", ".delta").await;
    assert!(needed.len() > 1 && covered.len() > 20, "{needed:?}");
    assert_eq!(damage(&world, &needed, PLACES).await, (PLACES, PLACES));
    assert_eq!(damage(&world, &covered, 50).await, (0, 0));
}

#[tokio::test]
async fn checkpoints() {
    let world = world().await;
    let (newest, older) = objects(&world, "manifest", ".checkpoint").await;
    assert!(newest.len() == 1 && !older.is_empty(), "{newest:?}");
    assert_eq!(damage(&world, &newest, PLACES).await, (PLACES, PLACES));
    assert_eq!(damage(&world, &older, 20).await, (0, 0));
}

/// A wrong hint costs a longer listing.
#[tokio::test]
async fn hints() {
    let world = world().await;
    let (hint, _) = objects(&world, "manifest", "_last_checkpoint").await;
    let length = world.storage.get(&hint[0]).await.unwrap().len();
    assert!((1..20).contains(&length));
    // Every byte, and every length.
    assert_eq!(damage(&world, &hint, length).await, (0, 0));
    let path = &hint[0];
    for byte in 0..=u8::MAX {
        for at in 0..length {
            let mut flipped = world.storage.get(path).await.unwrap().to_vec();
            let whole = flipped.clone();
            flipped[at] = byte;
            world.storage.put(path, flipped.into()).await.unwrap();
            assert!(!found(&world, path, &format!("{byte} at {at}")).await);
            world.storage.put(path, whole.into()).await.unwrap();
        }
    }
}

/// An index that cannot be used is passed over.
#[tokio::test]
async fn indexes() {
    let world = world().await;
    let (indexes, _) = objects(&world, "index", ".bloom").await;
    assert!(indexes.len() > 3, "{indexes:?}");
    assert_eq!(damage(&world, &indexes, PLACES).await, (0, 0));
}
