use std::fs;

use bytes::Bytes;
use tidewater_common::ids::RegionId;
use uuid::Uuid;

use super::*;
use crate::exports::layout::{IDENTITY, StepEpochs, part_object};
use crate::exports::testing::{ExportDirectory, file, reason};

/// Step 2 of an export.
fn step(export: u128, paths: &[&str]) -> ExportStep {
    let files = paths.iter().map(|path| file(path)).collect();
    let epochs = StepEpochs { after: Some(1), as_of: 9 };
    ExportStep::new(Uuid::from_u128(export), 2, epochs, files)
}

#[tokio::test]
async fn step_is_completed_once() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    target.claim().await.unwrap();
    let first = step(5, &["data/b", "data/a"]);
    assert_eq!(target.complete(first.clone()).await.unwrap(), first);
    // A call of another leader that arrives late.
    assert_eq!(target.complete(step(5, &["data/c"])).await.unwrap(), first);
    let third = |export| ExportStep::new(Uuid::from_u128(export), 3, first.epochs, Vec::new());
    let bytes = encoded("other", &third(6)).unwrap();
    assert!(target.put_new(&step_object(3), bytes).await.unwrap());
    assert_eq!(reason(target.complete(third(5)).await), Reason::ExportPrefixInUse);
    fs::remove_file(directory.prefix().join(IDENTITY)).unwrap();
    assert_eq!(reason(target.complete(first).await), Reason::ExportPrefixInUse);
}

#[tokio::test]
async fn unnamed_objects_are_removed_with_their_step() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    target.claim().await.unwrap();
    let of_step = |number: usize| format!("data/00000000000000000002/1-{number:02}.parquet");
    let next = "data/00000000000000000003/1-00.parquet".to_owned();
    let parts = [1, 2].map(|region| part_object(2, RegionId(region)));
    let failed = (1..3 * CONCURRENT_DELETES).map(of_step);
    for name in failed.chain(parts).chain([of_step(0), next.clone()]) {
        assert!(target.put_new(&name, Bytes::from_static(b"x")).await.unwrap());
    }
    target.clean(&step(5, &[&of_step(0)])).await;
    assert_eq!(directory.files(), [IDENTITY, &of_step(0), &next]);
}

// A call of a dropped export may end after another export has claimed the emptied prefix.
#[tokio::test]
async fn objects_of_another_claim_are_kept() {
    let directory = ExportDirectory::new();
    let later = directory.open(6).await;
    later.claim().await.unwrap();
    let name = "data/00000000000000000002/1-a.parquet";
    assert!(later.put_new(name, Bytes::from_static(b"x")).await.unwrap());
    directory.open(5).await.clean(&step(5, &[])).await;
    assert_eq!(directory.files(), [IDENTITY, name]);
}
