//! S6: a read of a damaged file returns an error that names the file, or the correct rows; never wrong
//! rows.

use bytes::Bytes;
use object_store::memory::InMemory;
use std::sync::Arc;
use tidewater_common::backoff::Backoff;
use tidewater_common::schema::WriteMode;

use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::region::tests::fixture::*;
use crate::storage::{Storage, StorageOptions};

fn storage() -> Storage {
    let options =
        StorageOptions { attempts: 1, backoff: Backoff::NONE, ..StorageOptions::default() };
    Storage::new(Arc::new(InMemory::new()), "memory://", options)
}

async fn fixture() -> (RegionFixture, FileMeta, Bytes) {
    let mut fixture = RegionFixture::new(storage(), WriteMode::Upsert, false).await;
    let rows: Vec<Row> = (0..90)
        .map(|n| ((format!("name {}", n % 5), n), Some(i64::from(n * n)), format!("note {n}")))
        .collect();
    fixture.put(&rows);
    fixture.region.flush().await.unwrap();
    let file = fixture.region.files().remove(0);
    let bytes = fixture.storage.get(&file.path()).await.unwrap();
    (fixture, file, bytes)
}

async fn expect_error_or_right_rows(fixture: &RegionFixture, file: &FileMeta, what: &str) -> bool {
    // A separate region, so that no footer is cached.
    let region = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    region.load().await.unwrap();
    match scan(&region, &all()).await {
        Ok(rows) => {
            assert_eq!(rows, fixture.expected_rows(), "{what}");
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
async fn flipped_bit_is_detected_at_any_position() {
    let (fixture, file, bytes) = fixture().await;
    let mut found = 0;
    let mut tried = 0;
    for position in (0..bytes.len()).step_by(7).chain(bytes.len() - 40..bytes.len()) {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 1 << (position % 8);
        fixture.storage.put(&file.path(), damaged.into()).await.unwrap();
        tried += 1;
        if expect_error_or_right_rows(&fixture, &file, &format!("bit at {position}")).await {
            found += 1;
        }
    }
    // The only bytes that a scan does not read are the magic number at the beginning.
    assert!(found + 8 >= tried, "{found} of {tried}");
    fixture.storage.put(&file.path(), bytes).await.unwrap();
    assert!(!expect_error_or_right_rows(&fixture, &file, "whole again").await);
}

/// Damaged data is never cached, neither as bytes nor decoded.
#[tokio::test]
async fn repeated_point_read_of_damaged_rows_fails() {
    let (fixture, file, bytes) = fixture().await;
    let keys: Vec<Key> = (0..3).map(|n| (format!("name {n}"), n)).collect();
    let expected: Vec<Row> =
        fixture.expected_rows().into_iter().filter(|row| keys.contains(&row.0)).collect();
    let mut found = 0;
    for position in (0..bytes.len()).step_by(11) {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 1 << (position % 8);
        fixture.storage.put(&file.path(), damaged.into()).await.unwrap();
        let region = RegionFixture::fresh(&fixture.storage, &fixture.spec);
        region.load().await.unwrap();
        let requested = key_batch(&keys, &fixture.spec);
        let projection: Vec<_> = fixture.spec.schema.columns().iter().map(|c| c.id).collect();
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(match region.get(&requested, &projection).await {
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
async fn truncated_or_shifted_file_is_detected() {
    let (fixture, file, bytes) = fixture().await;
    for length in (0..500).map(|place| place * bytes.len() / 500) {
        fixture.storage.put(&file.path(), bytes.slice(..length)).await.unwrap();
        assert!(expect_error_or_right_rows(&fixture, &file, &format!("cut at {length}")).await);
    }
    for length in [1, 2, 8] {
        fixture.storage.put(&file.path(), bytes.slice(length..)).await.unwrap();
        assert!(
            expect_error_or_right_rows(&fixture, &file, &format!("first {length} bytes removed"))
                .await
        );
    }
}

#[tokio::test]
async fn missing_file_is_named_in_error() {
    let (fixture, file, _) = fixture().await;
    fixture.storage.delete(&file.path()).await.unwrap();
    let region = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    region.load().await.unwrap();
    match scan(&region, &all()).await {
        Err(EngineError::Storage(error)) => {
            assert!(error.to_string().contains(&file.file_id.to_string()));
        }
        other => panic!("{other:?}"),
    }
}

// A commit above the gap could never be read again.
#[tokio::test]
async fn flush_commits_nothing_above_a_lost_delta() {
    let storage = Storage::memory();
    let mut fixture = RegionFixture::new(storage.clone(), WriteMode::Upsert, false).await;
    let rows = |note: &str| vec![(("k".to_owned(), 1), Some(1), note.to_owned())];
    fixture.put(&rows("one"));
    fixture.region.flush().await.unwrap();
    // The version after the flush has the file's index.
    let newest = fixture.region.stats().manifest_version;
    storage.delete(&fixture.region.dir.delta(newest)).await.unwrap();
    fixture.put(&rows("two"));
    let error = fixture.region.flush().await.unwrap_err();
    assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
    assert_eq!(fixture.region.stats().manifest_version, newest);
}
