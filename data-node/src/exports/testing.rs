//! Fixtures of the tests of exports: a directory that a node grants, and its targets.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidewater_common::granted_dirs::DirectoryGrants;
use tidewater_common::ids::ClusterId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_source_kinds::{ExportTargets, SourceAccess, Target};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::layout::StepFile;
use super::open_target::OpenTarget;
use super::tasks::ExportTasks;

/// Directory that a node grants to exports. Its targets are in the directory `prefix`.
pub(super) struct ExportDirectory {
    _dir: TempDir,
    path: PathBuf,
}

impl ExportDirectory {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        Self { _dir: dir, path }
    }

    /// Returns the permissions of the node.
    pub(super) fn targets(&self) -> ExportTargets {
        let mut grants = DirectoryGrants::new(&[]);
        ExportTargets::new(SourceAccess::default(), Some(&self.path), &mut grants).unwrap()
    }

    /// Returns the directory of the targets.
    pub(super) fn prefix(&self) -> PathBuf {
        self.path.join("prefix")
    }

    /// Returns the configuration of the targets.
    pub(super) fn config(&self) -> Value {
        json!({ "url": format!("file://{}", self.prefix().display()) })
    }

    /// Opens the target of an export.
    pub(super) async fn open(&self, export: u128) -> OpenTarget {
        open_target(export, self.targets().open(&self.config()).await.unwrap())
    }

    /// Returns the paths of all files of the targets, in ascending order, also of temporary ones.
    pub(super) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        add_files(&self.prefix(), &mut files);
        let relative = |file: PathBuf| {
            let below = file.strip_prefix(self.prefix()).unwrap();
            below.to_str().unwrap().to_owned()
        };
        let mut files: Vec<String> = files.into_iter().map(relative).collect();
        files.sort();
        files
    }
}

fn add_files(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_files(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// An export of cluster 1 with this target.
pub(super) fn open_target(export: u128, target: Target) -> OpenTarget {
    OpenTarget {
        cluster: ClusterId(Uuid::from_u128(1)),
        export: Uuid::from_u128(export),
        name: "x".to_owned(),
        table: "t".to_owned(),
        target,
    }
}

/// A file with one row.
pub(super) fn file(path: &str) -> StepFile {
    StepFile { path: path.to_owned(), rows: 1, bytes: 2 }
}

/// Tasks of a node that does not shut down.
pub(super) fn tasks() -> ExportTasks {
    ExportTasks { tracker: TaskTracker::new(), closing: CancellationToken::new() }
}

pub(super) fn reason<T>(result: Result<T, Refusal>) -> Reason {
    result.err().unwrap().reason
}
