//! Comparisons that fail.

use tidewater_common::schema::WriteMode;

use super::*;
use crate::EngineError;
use crate::bulk::{AdoptError, Unfit};
use crate::storage::Storage;

#[tokio::test]
async fn duplicate_staged_key_fails_the_comparison() {
    for (first, second) in [(0..10, 9..20), (0..100, 40..41), (0..10, 0..10)] {
        let mut fixture = fixture(false).await;
        let twice = key(second.start);
        let area = area_of(&mut fixture, &[rows(first), rows(second)]).await;
        let mut stream = fixture.region.staged_changes(area, whole()).await.unwrap();
        let error = stream.next().await.unwrap_err();
        let expected = format!("(name='{}', number={})", twice.0, twice.1);
        let message = format!("the source has the key {expected} more than once");
        assert_eq!(error.to_string(), message);
        assert_eq!(stream.next().await.unwrap(), None);
    }
    // A file with a key twice is not staged.
    let mut fixture = fixture(false).await;
    let area = area_of(&mut fixture, &[]).await;
    let files = bulk_files(&fixture.storage, &fixture.spec, &rows([1, 2, 1])).await;
    let error = fixture.region.stage_files(area, &files).await.unwrap_err();
    let is_order = matches!(error, AdoptError::Unfit { reason: Unfit::Order { .. }, .. });
    assert!(is_order, "{error}");
}

#[tokio::test]
async fn resumed_comparison_finds_duplicate_after_any_chunk() {
    let files = [rows(0..12), rows([3, 4])];
    for region in [rows(0..0), rows(0..12), rows(6..20), files[1].clone()] {
        let mut fixture = fixture(false).await;
        fixture.put(&region);
        let area = area_of(&mut fixture, &files).await;
        for chunk_rows in 1..=24 {
            let options = ChangeOptions { chunk_rows, ..whole() };
            let expected = changes(&fixture, area, options.clone()).await.unwrap_err();
            let error = resumed_changes(&fixture, area, options).await.unwrap_err();
            assert!(matches!(error, ChangeError::DuplicateKey { .. }), "{error}");
            assert_eq!(error.to_string(), expected.to_string(), "chunks of {chunk_rows}");
        }
    }
}

#[tokio::test]
async fn comparison_requires_open_area_of_owner() {
    let mut fixture = fixture(false).await;
    let unknown = new_area();
    let error = fixture.region.staged_changes(unknown, whole()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("staging area {unknown} is not open"));
    let error = fixture.region.staged_split_keys(unknown, 2).await.unwrap_err();
    assert!(matches!(error, ChangeError::AreaNotOpen { area } if area == unknown), "{error}");
    let area = area_of(&mut fixture, &[rows(0..3)]).await;
    let follower = fixture.log_replica();
    follower.load().await.unwrap();
    let error = follower.staged_changes(area, whole()).await.unwrap_err();
    let not_owner =
        |error: &ChangeError| matches!(error, ChangeError::Engine(EngineError::NotOwner { .. }));
    assert!(not_owner(&error), "{error}");
    fixture.abandon(area);
    fixture.region.record_obligations().await.unwrap();
    let error = fixture.region.staged_changes(area, whole()).await.unwrap_err();
    assert!(matches!(error, ChangeError::AreaNotOpen { .. }), "{error}");
}

#[tokio::test]
async fn append_only_table_is_not_compared() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    let area = area_of(&mut fixture, &[rows(0..3)]).await;
    let error = fixture.region.staged_changes(area, whole()).await.unwrap_err();
    assert!(matches!(error, ChangeError::Engine(EngineError::BadRows { .. })), "{error}");
}
