use std::path::Path;

use serde_json::json;
use tidewater_common::granted_dirs::DirectoryGrants;
use tidewater_source_kinds::{ExportTargets, SourceAccess};

use super::*;
use crate::exports::layout::{Part, StepEpochs, StepFile, part_object};

/// Opens the place of an export in the directory `prefix` below a granted one.
async fn place(granted: &Path, export: u128) -> ExportPlace {
    let mut grants = DirectoryGrants::new(&[]);
    let targets = ExportTargets::new(SourceAccess::default(), Some(granted), &mut grants).unwrap();
    let config = json!({ "url": format!("file://{}/prefix", granted.display()) });
    ExportPlace {
        cluster: ClusterId(Uuid::from_u128(1)),
        export: Uuid::from_u128(export),
        name: "x".to_owned(),
        table: "t".to_owned(),
        target: targets.open(&config).await.unwrap(),
    }
}

fn directory() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

fn reason<T>(result: Result<T, Refusal>) -> Reason {
    result.err().unwrap().reason
}

fn step(export: u128, as_of: u64, paths: &[&str]) -> Step {
    let file = |path: &&str| StepFile { path: (*path).to_owned(), rows: 1, bytes: 2 };
    let files = paths.iter().map(file).collect();
    Step::new(Uuid::from_u128(export), 2, StepEpochs { after: Some(1), as_of }, files)
}

#[tokio::test]
async fn prefix_belongs_to_the_export_that_has_claimed_it() {
    let (_dir, path) = directory();
    let first = place(&path, 5).await;
    assert_eq!(reason(first.check_claimed().await), Reason::ExportPrefixInUse);
    first.claim().await.unwrap();
    first.claim().await.unwrap();
    first.check_claimed().await.unwrap();
    let refused = place(&path, 6).await.claim().await.unwrap_err();
    assert_eq!(refused.reason, Reason::ExportPrefixInUse);
    assert!(refused.message.contains("is the prefix of export \"x\" of table \"t\""), "{refused}");
    let other_cluster =
        ExportPlace { cluster: ClusterId(Uuid::from_u128(2)), ..place(&path, 5).await };
    assert_eq!(reason(other_cluster.claim().await), Reason::ExportPrefixInUse);
}

#[tokio::test]
async fn prefix_with_objects_is_refused() {
    let (_dir, path) = directory();
    std::fs::create_dir_all(path.join("prefix/old")).unwrap();
    std::fs::write(path.join("prefix/old/file"), "rows").unwrap();
    let refused = place(&path, 5).await.claim().await.unwrap_err();
    assert_eq!(refused.reason, Reason::ExportPrefixInUse);
    assert!(refused.message.contains("is not empty: it has old/file"), "{refused}");
    assert!(!path.join("prefix/_export.json").exists());
    std::fs::write(path.join("prefix/_export.json"), "{").unwrap();
    assert_eq!(reason(place(&path, 5).await.claim().await), Reason::Corrupt);
}

#[tokio::test]
async fn step_is_completed_once() {
    let (_dir, path) = directory();
    let place = place(&path, 5).await;
    place.claim().await.unwrap();
    let first = step(5, 9, &["data/b", "data/a"]);
    assert_eq!(place.complete(first.clone()).await.unwrap(), first);
    // A call of another leader that arrives late.
    assert_eq!(place.complete(step(5, 9, &["data/c"])).await.unwrap(), first);
    let other = Step::new(Uuid::from_u128(6), 3, first.epochs, Vec::new());
    let bytes = encoded("other", &other).unwrap();
    assert!(place.target.put_new(&step_object(3), bytes).await.unwrap());
    let third = Step::new(Uuid::from_u128(5), 3, first.epochs, Vec::new());
    assert_eq!(reason(place.complete(third).await), Reason::ExportPrefixInUse);
    std::fs::remove_file(path.join("prefix/_export.json")).unwrap();
    assert_eq!(reason(place.complete(first).await), Reason::ExportPrefixInUse);
}

#[tokio::test]
async fn objects_of_failed_attempts_are_removed_with_the_step() {
    let (_dir, path) = directory();
    let place = place(&path, 5).await;
    let named = "data/00000000000000000002/1-a.parquet";
    let failed = "data/00000000000000000002/1-b.parquet";
    let next = "data/00000000000000000003/1-c.parquet";
    let part = part_object(2, tidewater_common::ids::RegionId(1));
    for name in [named, failed, next, &part] {
        assert!(place.target.put_new(name, Bytes::from_static(b"x")).await.unwrap());
    }
    place.clean(&step(5, 9, &[named])).await;
    let mut left = place.target.list("", 10).await.unwrap();
    left.sort();
    assert_eq!(left, [named, next]);
    assert_eq!(place.read::<Part>(&part).await.unwrap(), None);
}
