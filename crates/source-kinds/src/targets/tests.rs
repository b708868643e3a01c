mod config;
mod s3;
mod s3_server;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::AsyncArrowWriter;
use serde_json::json;
use tidewater_common::granted_dirs::{DirectoryError, DirectoryGrants};
use tokio::io::AsyncWriteExt;

use super::target::PART_BYTES;
use super::{ExportTargets, Target, TargetError};
use crate::SourceAccess;

/// A node that permits exports to write below `dir/exports`.
struct Node {
    _dir: tempfile::TempDir,
    exports: PathBuf,
    outside: PathBuf,
    targets: ExportTargets,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (exports, outside) = (base.join("exports"), base.join("outside"));
        std::fs::create_dir_all(&exports).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("precious"), "precious").unwrap();
        let mut grants = DirectoryGrants::new(&[]);
        let access = SourceAccess::default();
        let targets = ExportTargets::new(access, Some(&exports), &mut grants).unwrap();
        Self { _dir: dir, exports, outside, targets }
    }

    async fn open_at(&self, path: &Path) -> Result<Target, TargetError> {
        self.targets.open(&json!({ "url": format!("file://{}", path.display()) })).await
    }

    /// Opens the target `exports/sales/eu`, which the first call creates.
    async fn open(&self) -> Target {
        self.open_at(&self.exports.join("sales/eu/")).await.unwrap()
    }

    fn outside_is_unchanged(&self) -> bool {
        let names = std::fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().path());
        names.collect::<Vec<_>>() == [self.outside.join("precious")]
            && std::fs::read(self.outside.join("precious")).unwrap() == b"precious"
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn listed(target: &Target, below: &str) -> Vec<String> {
    let mut names = target.list(below, 100).await.unwrap();
    names.sort();
    names
}

fn assert_not_permitted<T: std::fmt::Debug>(result: Result<T, TargetError>) {
    assert!(matches!(&result, Err(TargetError::NotPermitted(_))), "{result:?}");
}

#[tokio::test]
async fn local_object_is_written_once() {
    let node = Node::new();
    let target = node.open().await;
    assert_eq!(target.url(), format!("file://{}", node.exports.join("sales/eu").display()));
    assert!(target.is_local());
    assert_eq!(target.put_new("a/x.json", bytes("one")).await, Ok(true));
    assert_eq!(target.put_new("a/x.json", bytes("two")).await, Ok(false));
    let file = node.exports.join("sales/eu/a/x.json");
    assert_eq!(std::fs::read(&file).unwrap(), b"one");
    // A later node opens the same directory.
    let target = node.open().await;
    assert_eq!(target.get("a/x.json", 3).await, Ok(Some(bytes("one"))));
    assert_eq!(target.get("a/y.json", 3).await, Ok(None));
    let error = target.get("a/x.json", 2).await.unwrap_err();
    let expected = format!("{}/a/x.json has 3 bytes, the maximum is 2", target.url());
    assert_eq!(error, TargetError::Invalid(expected));
    for _ in 0..2 {
        assert_eq!(target.delete("a/x.json").await, Ok(()));
    }
    assert!(!file.exists());
}

#[tokio::test]
async fn local_objects_are_listed_below_a_path() {
    let node = Node::new();
    let target = node.open().await;
    assert!(listed(&target, "").await.is_empty() && listed(&target, "a").await.is_empty());
    for name in ["x", "a/x", "a/b/x", "ab/x"] {
        assert_eq!(target.put_new(name, bytes("")).await, Ok(true));
    }
    // Temporary file of a process that was killed.
    std::fs::write(node.exports.join("sales/eu/a/y#12"), "").unwrap();
    assert_eq!(listed(&target, "").await, ["a/b/x", "a/x", "ab/x", "x"]);
    assert_eq!(listed(&target, "a").await, ["a/b/x", "a/x"]);
    for (limit, expected) in [(0, 0), (3, 3), (5, 4)] {
        assert_eq!(target.list("", limit).await.unwrap().len(), expected);
    }
}

#[tokio::test]
async fn written_object_appears_when_its_writer_closes() {
    let node = Node::new();
    let target = node.open().await;
    for size in [0, 10, PART_BYTES * 3 + 1] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let mut writer = target.writer("a/x").unwrap();
        writer.write_all(&content).await.unwrap();
        assert!(listed(&target, "").await.is_empty());
        assert_eq!(target.get("a/x", u64::MAX).await, Ok(None));
        writer.shutdown().await.unwrap();
        assert_eq!(listed(&target, "").await, ["a/x"]);
        let read = target.get("a/x", size as u64).await.unwrap().unwrap();
        assert!(read == content, "{size}");
        target.delete("a/x").await.unwrap();
        let mut writer = target.writer("a/x").unwrap();
        writer.write_all(&content).await.unwrap();
        writer.abort().await.unwrap();
        assert!(listed(&target, "").await.is_empty());
    }
}

#[tokio::test]
async fn writer_error_is_that_of_the_target() {
    let node = Node::new();
    let target = node.open().await;
    target.put_new("a", bytes("")).await.unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let rows = RecordBatch::try_from_iter([("id", column)]).unwrap();
    // The directory of the object would be a file.
    let writer = target.writer("a/x.parquet").unwrap();
    let mut writer = AsyncArrowWriter::try_new(writer, rows.schema(), None).unwrap();
    writer.write(&rows).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    let Some(TargetError::Unavailable(text)) = TargetError::find_in(&error) else {
        panic!("{error:?}")
    };
    assert!(text.contains("Not a directory"), "{text}");
}

#[tokio::test]
async fn exports_write_no_files_without_a_directory() {
    let node = Node::new();
    let config = json!({ "url": format!("file://{}", node.exports.display()) });
    let error = ExportTargets::default().open(&config).await.unwrap_err();
    assert!(matches!(error, TargetError::NotPermitted(_)), "{error:?}");
    assert!(error.to_string().contains("--export-dir DIR"), "{error}");
}

#[tokio::test]
async fn exports_write_below_their_directory_only() {
    let node = Node::new();
    symlink(&node.outside, node.exports.join("link")).unwrap();
    symlink(node.outside.join("missing"), node.exports.join("dangling")).unwrap();
    for path in [
        node.outside.clone(),
        node.outside.join("new"),
        node.exports.join(".."),
        node.exports.join("link"),
        node.exports.join("link/new/deep"),
        node.exports.join("new/../../outside/new"),
    ] {
        let error = node.open_at(&path).await.unwrap_err();
        assert!(matches!(error, TargetError::NotPermitted(_)), "{error:?}");
        assert!(error.to_string().contains("--export-dir"), "{error}");
    }
    for path in [node.exports.join("dangling"), node.exports.join("dangling/new")] {
        let error = node.open_at(&path).await.unwrap_err();
        assert!(matches!(error, TargetError::Unavailable(_)), "{error:?}");
    }
    assert!(node.outside_is_unchanged());
    node.open_at(&node.exports).await.unwrap();
}

#[tokio::test]
async fn objects_behind_symbolic_links_are_refused() {
    let node = Node::new();
    let target = node.open().await;
    let root = node.exports.join("sales/eu");
    symlink(&node.outside, root.join("link")).unwrap();
    symlink(node.outside.join("precious"), root.join("file")).unwrap();
    for name in ["link/new", "link/a/new", "link/precious", "file"] {
        assert_not_permitted(target.put_new(name, bytes("x")).await);
        assert_not_permitted(target.get(name, 100).await);
        assert_not_permitted(target.delete(name).await);
        for size in [1, PART_BYTES + 1] {
            let mut writer = target.writer(name).unwrap();
            let error = match writer.write_all(&vec![0; size]).await {
                Ok(()) => writer.shutdown().await.unwrap_err(),
                Err(error) => error,
            };
            let found = TargetError::find_in(&error);
            assert!(matches!(found, Some(TargetError::NotPermitted(_))), "{error:?}");
        }
    }
    assert!(node.outside_is_unchanged());
}

#[tokio::test]
async fn invalid_names_of_objects_are_refused() {
    let target = Node::new().open().await;
    for name in ["", "/", "a//b", "..", "../x", "a/../x", "a\nb", "x#1"] {
        for refused in [
            target.put_new(name, bytes("")).await.map(drop),
            target.get(name, 1).await.map(drop),
            target.delete(name).await,
            target.writer(name).map(drop),
        ] {
            assert!(matches!(refused, Err(TargetError::Invalid(_))), "{name:?}: {refused:?}");
        }
    }
}

#[test]
fn export_directory_overlaps_no_earlier_grant() {
    let node = Node::new();
    let below = node.exports.join("sources");
    std::fs::create_dir(&below).unwrap();
    let mut grants = DirectoryGrants::new(&[]);
    let access = SourceAccess::new(Some(&below), None, &mut grants).unwrap();
    let error = ExportTargets::new(access, Some(&node.exports), &mut grants).unwrap_err();
    assert!(matches!(error, DirectoryError::Overlap { .. }), "{error}");
    assert!(error.to_string().starts_with("--export-dir "), "{error}");
}
