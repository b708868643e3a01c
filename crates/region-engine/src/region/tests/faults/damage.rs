//! S6: a damaged file gives an error that names it, or the right rows; never wrong ones.

use bytes::Bytes;
use object_store::memory::InMemory;
use std::sync::Arc;
use std::time::Duration;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::storage::{Storage, StorageOptions};

fn storage() -> Storage {
    let options =
        StorageOptions { attempts: 1, backoff: Duration::ZERO, ..StorageOptions::default() };
    Storage::new(Arc::new(InMemory::new()), "memory://", options)
}

async fn world() -> (World, FileMeta, Bytes) {
    let mut world = World::new(storage(), WriteMode::Upsert, false).await;
    let rows: Vec<Row> = (0..90)
        .map(|n| ((format!("name {}", n % 5), n), Some(i64::from(n * n)), format!("note {n}")))
        .collect();
    world.put(&rows);
    world.region.flush().await.unwrap();
    let file = world.region.files().remove(0);
    let bytes = world.storage.get(&file.path()).await.unwrap();
    (world, file, bytes)
}

async fn expect_error_or_right_rows(world: &World, file: &FileMeta, what: &str) -> bool {
    // A region of its own, so that no footer is cached.
    let region = World::fresh(&world.storage, &world.spec);
    region.load().await.unwrap();
    match scan(&region, &all()).await {
        Ok(rows) => {
            assert_eq!(rows, world.expected_rows(), "{what}");
            false
        }
        Err(EngineError::Damaged { object, .. }) => {
            assert!(object.contains(&file.file_id.to_string()), "{what}: {object}");
            true
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

#[tokio::test]
async fn a_flipped_bit_is_found_wherever_it_is() {
    let (world, file, bytes) = world().await;
    let mut found = 0;
    let mut tried = 0;
    for position in (0..bytes.len()).step_by(7).chain(bytes.len() - 40..bytes.len()) {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 1 << (position % 8);
        world.storage.put(&file.path(), damaged.into()).await.unwrap();
        tried += 1;
        if expect_error_or_right_rows(&world, &file, &format!("bit at {position}")).await {
            found += 1;
        }
    }
    // What is not found does not lie in what a scan reads: the magic at the begin.
    assert!(found + 8 >= tried, "{found} of {tried}");
    world.storage.put(&file.path(), bytes).await.unwrap();
    assert!(!expect_error_or_right_rows(&world, &file, "whole again").await);
}

/// What is wrong is never kept, neither as bytes nor decoded.
#[tokio::test]
async fn a_point_read_of_damaged_rows_fails_however_often_it_is_made() {
    let (world, file, bytes) = world().await;
    let keys: Vec<Key> = (0..3).map(|n| (format!("name {n}"), n)).collect();
    let expected: Vec<Row> =
        world.expected_rows().into_iter().filter(|row| keys.contains(&row.0)).collect();
    let mut found = 0;
    for position in (0..bytes.len()).step_by(11) {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 1 << (position % 8);
        world.storage.put(&file.path(), damaged.into()).await.unwrap();
        let region = World::fresh(&world.storage, &world.spec);
        region.load().await.unwrap();
        let asked = key_batch(&keys, &world.spec);
        let projection: Vec<_> = world.spec.schema.columns().iter().map(|c| c.id).collect();
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(match region.get(&asked, &projection).await {
                Ok(rows) => {
                    assert_eq!(rows_of(&rows), expected, "bit at {position}");
                    true
                }
                Err(EngineError::Damaged { .. }) => false,
                Err(other) => panic!("bit at {position}: {other}"),
            });
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{position}: {answers:?}");
        found += usize::from(!answers[0]);
    }
    assert!(found > 0);
}

#[tokio::test]
async fn a_file_that_was_cut_or_grew_is_found() {
    let (world, file, bytes) = world().await;
    for length in (0..500).map(|place| place * bytes.len() / 500) {
        world.storage.put(&file.path(), bytes.slice(..length)).await.unwrap();
        assert!(expect_error_or_right_rows(&world, &file, &format!("cut at {length}")).await);
    }
    for length in [1, 2, 8] {
        world.storage.put(&file.path(), bytes.slice(length..)).await.unwrap();
        assert!(expect_error_or_right_rows(&world, &file, &format!("{length} gone")).await);
    }
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let (world, file, _) = world().await;
    world.storage.delete(&file.path()).await.unwrap();
    let region = World::fresh(&world.storage, &world.spec);
    region.load().await.unwrap();
    match scan(&region, &all()).await {
        Err(EngineError::Storage(error)) => {
            assert!(error.to_string().contains(&file.file_id.to_string()));
        }
        other => panic!("{other:?}"),
    }
}
