//! The `jsonl` hook kind: appends a line to a file for each call, on the node that makes the call.
//!
//! Configuration: `{"path": "/absolute/path"}`. A line is written by one write with O_APPEND, so
//! that several processes may share a file. The file is opened for every line, so it can be moved
//! away at any time. A durable hook syncs the file after each line.
//!
//! The file is below the hook directory of the node (`--hook-dir`), regular, and not a symbolic
//! link. Otherwise a caller that adds a hook could append to any file of the node's user.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tidewater_common::granted_files::GrantedFileError;
use tidewater_region_engine::RegionHookRef;
use tidewater_region_engine::hooks::{HookError, HookHome, HookKind, HookSpec};

use crate::access::HookAccess;
use crate::files;
use crate::parse;
use crate::record::Record;
use crate::record_hook::{RecordHook, RecordSink};

/// The `jsonl` hook kind.
#[derive(Debug, Clone)]
pub struct Jsonl {
    /// Permissions of hooks on this node.
    pub access: HookAccess,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    path: PathBuf,
}

impl Config {
    fn read(config: &Value) -> Result<Self, String> {
        let config: Self = parse(config)?;
        if !config.path.is_absolute() {
            return Err("the path must be absolute: nodes run in different directories".to_owned());
        }
        let text = config.path.to_string_lossy();
        if text.ends_with('/') || config.path.file_name().is_none() {
            return Err("the path must name a file".to_owned());
        }
        Ok(config)
    }
}

impl HookKind for Jsonl {
    fn kind(&self) -> &'static str {
        "jsonl"
    }

    fn check(&self, config: &Value) -> Result<(), String> {
        Config::read(config).map(|_| ())
    }

    fn make(&self, spec: &HookSpec, home: HookHome) -> Result<RegionHookRef, String> {
        let config = Config::read(&spec.config)?;
        let root = self.access.hook_dir()?;
        files::check_append(root, &config.path)
            .map_err(|error| format!("{}: {error}", config.path.display()))?;
        let sink = LineSink::new(root, config.path, spec.durable);
        Ok(Arc::new(RecordHook::new(&spec.name, home, sink)))
    }
}

#[derive(Debug)]
struct LineSink {
    /// The hook directory of the node.
    root: Arc<Path>,
    path: Arc<Path>,
    /// True if this process wrote its last line only in part: the next line begins with a line
    /// break.
    torn: Arc<AtomicBool>,
    /// True if a line must be on disk before its call returns.
    durable: bool,
}

impl LineSink {
    fn new(root: &Path, path: PathBuf, durable: bool) -> Self {
        Self { root: root.into(), path: path.into(), torn: Arc::default(), durable }
    }
}

#[async_trait]
impl RecordSink for LineSink {
    async fn put(&self, record: Record) -> Result<(), HookError> {
        let root = self.root.clone();
        let path = self.path.clone();
        let torn = self.torn.clone();
        let durable = self.durable;
        let written = tokio::task::spawn_blocking(move || {
            let file = append(&root, &path, record.into_text(), &torn)?;
            if durable { Ok(file.sync_data()?) } else { Ok(()) }
        });
        let result: Result<(), GrantedFileError> = written.await.map_err(HookError::new)?;
        result.map_err(|error| HookError::new(format_args!("{}: {error}", self.path.display())))
    }
}

fn append(
    root: &Path,
    path: &Path,
    mut line: String,
    torn: &AtomicBool,
) -> Result<File, GrantedFileError> {
    line.push('\n');
    if torn.load(Ordering::Relaxed) {
        line.insert(0, '\n');
    }
    let mut file = files::open_append(root, path)?;
    // Not `write_all`: partial appends of several processes would be mixed.
    let written = file.write(line.as_bytes())?;
    torn.store(written < line.len(), Ordering::Relaxed);
    if written < line.len() {
        let detail = format!("wrote only {written} of {} bytes of a line", line.len());
        return Err(io::Error::new(io::ErrorKind::WriteZero, detail).into());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewater_common::ids::*;
    use tidewater_region_engine::hooks::{
        EventSource, FilesRemoved, HookEvent, RegionEvent, RegionRole, RegionSnapshot,
        RemovalReason,
    };
    use tidewater_region_engine::layout::RegionDir;
    use tidewater_region_engine::manifest::ManifestState;

    use super::*;

    fn region_dir(region: u64) -> RegionDir {
        let region_id = RegionId(region);
        RegionDir { table_id: TableId(3), region_id, incarnation: Incarnation(1) }
    }

    fn event(region: u64, event: HookEvent) -> RegionEvent {
        RegionEvent { source: EventSource::new(region_dir(region)), event }
    }

    fn files_removed(region: u64, removed: &FilesRemoved) -> RegionEvent {
        event(region, HookEvent::FilesRemoved(removed.clone()))
    }

    fn make(root: &Path, path: &Path, durable: bool) -> Result<RegionHookRef, String> {
        let access = HookAccess::new(Some(root), None, false, &[]).unwrap();
        let spec = HookSpec {
            name: "audit".to_owned(),
            kind: "jsonl".to_owned(),
            config: json!({ "path": path }),
            durable,
            generation: 0,
        };
        Jsonl { access }.make(&spec, HookHome { role: "data", node_id: NodeId(101) })
    }

    fn hook(path: &Path) -> RegionHookRef {
        make(path.parent().unwrap(), path, false).unwrap()
    }

    #[tokio::test]
    async fn jsonl_hooks_write_below_the_hook_directory_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("hooks");
        std::fs::create_dir(&root).unwrap();
        let identity = dir.path().join("identity");
        for path in [&identity, &root.join("../identity")] {
            let error = make(&root, path, false).unwrap_err();
            assert!(error.contains("is outside of"), "{error}");
        }
        let spec = HookSpec {
            name: "audit".to_owned(),
            kind: "jsonl".to_owned(),
            config: json!({ "path": identity }),
            durable: false,
            generation: 0,
        };
        let home = HookHome { role: "data", node_id: NodeId(101) };
        let error = Jsonl { access: HookAccess::default() }.make(&spec, home).unwrap_err();
        assert!(error.contains("--hook-dir DIR"), "{error}");
        // The file is replaced with a symbolic link after the hook was made.
        let audit = make(&root, &root.join("audit"), false).unwrap();
        std::os::unix::fs::symlink(&identity, root.join("audit")).unwrap();
        let removed = FilesRemoved { files: Vec::new(), reason: RemovalReason::Drop };
        let error = audit.on_event(&files_removed(1, &removed)).await.unwrap_err();
        assert!(error.to_string().contains("is not a regular file"), "{error}");
        assert!(!identity.exists());
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn jsonl_writes_a_line_with_stable_fields_per_call() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hooks.jsonl");
        let hook = hook(&path);
        let file = FileId(Default::default());
        let removed = FilesRemoved { files: vec![file], reason: RemovalReason::Compaction };
        hook.on_event(&files_removed(7, &removed)).await.unwrap();
        let epoch = OwnerEpoch::default();
        let (old, new) = (RegionRole::Follower, RegionRole::Leader);
        hook.on_event(&event(7, HookEvent::RoleChanged { old, new, epoch })).await.unwrap();
        assert_eq!(
            lines(&path),
            [
                json!({
                    "hook": "audit", "event": "files_removed", "table_id": 3, "table": null,
                    "region_id": 7, "incarnation": 1, "node_role": "data", "node_id": 101,
                    "manifest_version": null, "manifest": null, "author": null,
                    "schema": null, "actions": [], "files": [{ "file_id": file }],
                    "reason": "compaction",
                }),
                json!({
                    "hook": "audit", "event": "region_role_changed", "table_id": 3, "table": null,
                    "region_id": 7, "incarnation": 1, "node_role": "data", "node_id": 101,
                    "manifest_version": null, "manifest": null, "author": null,
                    "schema": null, "actions": [], "files": [],
                    "old_role": "follower", "new_role": "leader", "owner_epoch": "0.0",
                }),
            ]
        );
    }

    #[tokio::test]
    async fn bootstrap_record_contains_version_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hooks.jsonl");
        let mut state = ManifestState::empty(region_dir(7));
        state.version = ManifestVersion(12);
        let hook = make(dir.path(), &path, true).unwrap();
        let snapshot = RegionSnapshot::new(Arc::new(state));
        hook.on_event(&event(7, HookEvent::Bootstrap(snapshot))).await.unwrap();
        assert_eq!(
            lines(&path),
            [json!({
                "hook": "audit", "event": "bootstrap", "table_id": 3, "table": null,
                "region_id": 7, "incarnation": 1, "node_role": "data", "node_id": 101,
                "manifest_version": 12, "manifest": null, "author": null, "schema": null,
                "actions": [], "files": [], "range": null, "dropped": false,
            })]
        );
    }

    #[tokio::test]
    async fn concurrent_writers_do_not_mix_jsonl_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hooks.jsonl");
        let files = (0..500).map(|_| FileId(Default::default())).collect();
        let removed = Arc::new(FilesRemoved { files, reason: RemovalReason::Orphan });
        let writers = (0..8).map(|number| {
            let hook = hook(&path);
            let removed = removed.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    hook.on_event(&files_removed(number, &removed)).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert_eq!(lines(&path).len(), 8 * 20);
    }

    #[tokio::test]
    async fn jsonl_file_is_recreated_after_a_move() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hooks.jsonl");
        let audit = hook(&path);
        let removed = FilesRemoved { files: Vec::new(), reason: RemovalReason::Drop };
        audit.on_event(&files_removed(1, &removed)).await.unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        audit.on_event(&files_removed(2, &removed)).await.unwrap();
        assert_eq!(lines(&path)[0]["region_id"], 2);
        let missing = dir.path().join("missing/hooks.jsonl");
        let audit = make(dir.path(), &missing, false).unwrap();
        let error = audit.on_event(&files_removed(3, &removed)).await.unwrap_err();
        assert!(error.to_string().starts_with(missing.to_str().unwrap()), "{error}");
    }

    #[test]
    fn next_line_starts_fresh_after_a_torn_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hooks.jsonl");
        std::fs::write(&path, "{\"half").unwrap();
        let root = dir.path().canonicalize().unwrap();
        append(&root, &path, "{}".to_owned(), &AtomicBool::new(true)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"half\n{}\n");
    }
}
