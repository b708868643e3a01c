//! Calls as JSON records. Every record begins with the same nine fields; fields that do not apply
//! to a call are null or empty. Field names are stable.

use serde_json::{Map, Value, json};
use tidewater_common::ids::{OwnerEpoch, RegionId};
use tidewater_region_engine::hooks::{
    FilesRemoved, GcPass, HookHome, ManifestKind, RegionMetaActionList, RegionRole, RegionSnapshot,
    SstFileInfo,
};
use tidewater_region_engine::manifest::json::{action_json, file_json};

/// One call of a hook, as passed to a [`RecordSink`](crate::record_hook::RecordSink).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record(Map<String, Value>);

impl Record {
    /// Creates a record with the common fields.
    pub(crate) fn new(hook: &str, home: HookHome, event: &'static str, region: RegionId) -> Self {
        let mut record = Self(Map::new());
        record.set("hook", json!(hook));
        record.set("event", json!(event));
        record.set("region_id", json!(region));
        record.set("node_role", json!(home.role));
        record.set("node_id", json!(home.node_id));
        record.set("manifest_version", Value::Null);
        record.set("manifest", Value::Null);
        record.set("actions", json!([]));
        record.set("files", json!([]));
        record
    }

    fn set(&mut self, field: &str, value: Value) {
        self.0.insert(field.to_owned(), value);
    }

    /// Adds written files, as the manifest will describe them.
    pub(crate) fn with_written(mut self, files: &[SstFileInfo]) -> Self {
        self.set("files", files.iter().map(|file| file_json(&file.meta)).collect());
        self
    }

    /// Adds a manifest change; its files are those that it adds.
    pub(crate) fn with_update(
        mut self,
        actions: &RegionMetaActionList,
        manifest: ManifestKind,
    ) -> Self {
        self.set("manifest_version", json!(actions.version()));
        self.set("manifest", json!(manifest.as_str()));
        self.set("actions", actions.actions().iter().map(action_json).collect());
        // The files of a void change do not exist.
        if manifest != ManifestKind::Void {
            self.set("files", actions.files_added().map(file_json).collect());
        }
        self.set("time_ms", json!(actions.time_ms()));
        if let Some(parent) = actions.by_reference() {
            self.set("by_reference", json!(parent));
        }
        self
    }

    /// Adds every live file at one version.
    pub(crate) fn with_snapshot(mut self, snapshot: &RegionSnapshot) -> Self {
        self.set("manifest_version", json!(snapshot.version()));
        self.set("files", snapshot.files().map(file_json).collect());
        self.set("dropped", json!(snapshot.is_dropped()));
        self
    }

    /// Adds a change of the region's role.
    pub(crate) fn with_roles(
        mut self,
        old: RegionRole,
        new: RegionRole,
        epoch: OwnerEpoch,
    ) -> Self {
        self.set("old_role", json!(old.as_str()));
        self.set("new_role", json!(new.as_str()));
        self.set("owner_epoch", json!(epoch.to_string()));
        self
    }

    /// Adds deleted objects.
    pub(crate) fn with_removed(mut self, removed: &FilesRemoved) -> Self {
        self.set("files", removed.files.iter().map(|id| json!({ "file_id": id })).collect());
        self.set("reason", json!(removed.reason.as_str()));
        self
    }

    /// Adds the result of a garbage collection pass.
    pub(crate) fn with_pass(mut self, pass: &GcPass) -> Self {
        let removed = pass
            .removed
            .iter()
            .map(|files| json!({ "reason": files.reason.as_str(), "files": files.files }))
            .collect();
        self.set("removed", removed);
        self.set("bytes", json!(pass.bytes));
        self
    }

    /// Returns the JSON text, without line breaks.
    pub(crate) fn into_text(self) -> String {
        Value::Object(self.0).to_string()
    }
}
