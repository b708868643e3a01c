//! Events as JSON records. Every record begins with the same fields; those that an event does not have
//! are null or empty. Field names are stable: fields are added, and never changed or removed.
//! `docs/hook-records.md` describes them.

use serde_json::{Map, Value, json};
use tidewater_region_engine::file_meta::FileMeta;
use tidewater_region_engine::hooks::{
    ColumnSummary, FilesRemoved, GcPass, HookEvent, HookHome, ManifestKind, RegionEvent,
    RegionMetaActionList, RegionSnapshot,
};
use tidewater_region_engine::manifest::json::{
    action_json, author_json, file_json, range_json, schema_json,
};

/// One call of a hook, as passed to a [`RecordSink`](crate::record_hook::RecordSink).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record(Map<String, Value>);

impl Record {
    /// Creates the record of an event. `columns`: the statistics of the event's files, in their order.
    pub(crate) fn new(
        hook: &str,
        home: HookHome,
        event: &RegionEvent,
        columns: Vec<Option<Vec<ColumnSummary>>>,
    ) -> Self {
        let mut record = Self(Map::new());
        record.set("hook", json!(hook));
        record.set("event", json!(event.event.name()));
        record.set("table_id", json!(event.source.dir.table_id));
        record.set("table", json!(event.source.table_name.as_deref()));
        record.set("region_id", json!(event.source.dir.region_id));
        record.set("incarnation", json!(event.source.dir.incarnation));
        record.set("node_role", json!(home.role));
        record.set("node_id", json!(home.node_id));
        record.set("manifest_version", Value::Null);
        record.set("manifest", Value::Null);
        record.set("author", Value::Null);
        record.set("schema", event.event.schema().map_or(Value::Null, schema_json));
        record.set("actions", json!([]));
        let files = event.event.files().zip(columns);
        record.set("files", files.map(|(file, columns)| with_columns(file, columns)).collect());
        record.add_event(&event.event);
        record
    }

    fn set(&mut self, field: &str, value: Value) {
        self.0.insert(field.to_owned(), value);
    }

    fn add_event(&mut self, event: &HookEvent) {
        match event {
            HookEvent::ManifestUpdated { actions, manifest } => self.add_update(actions, *manifest),
            HookEvent::Bootstrap(snapshot) => self.add_snapshot(snapshot),
            HookEvent::RoleChanged { old, new, epoch } => {
                self.set("old_role", json!(old.as_str()));
                self.set("new_role", json!(new.as_str()));
                self.set("owner_epoch", json!(epoch.to_string()));
            }
            HookEvent::FilesRemoved(removed) => self.add_removed(removed),
            HookEvent::Gc(pass) => self.add_pass(pass),
            HookEvent::SstFilesWritten { .. }
            | HookEvent::Opened { .. }
            | HookEvent::Closed { .. }
            | HookEvent::Dropped { .. } => {}
        }
    }

    fn add_update(&mut self, actions: &RegionMetaActionList, manifest: ManifestKind) {
        self.set("manifest_version", json!(actions.version()));
        self.set("manifest", json!(manifest.as_str()));
        self.set("author", author_json(actions.author()));
        self.set("actions", actions.actions().iter().map(action_json).collect());
        self.set("time_ms", json!(actions.time_ms()));
        if !actions.by_reference().is_empty() {
            self.set("by_reference", json!(actions.by_reference()));
        }
    }

    fn add_snapshot(&mut self, snapshot: &RegionSnapshot) {
        self.set("manifest_version", json!(snapshot.version()));
        self.set("range", snapshot.range().map_or(Value::Null, range_json));
        self.set("dropped", json!(snapshot.is_dropped()));
    }

    fn add_removed(&mut self, removed: &FilesRemoved) {
        self.set("files", removed.files.iter().map(|id| json!({ "file_id": id })).collect());
        self.set("reason", json!(removed.reason.as_str()));
    }

    fn add_pass(&mut self, pass: &GcPass) {
        let removed = pass
            .removed
            .iter()
            .map(|files| json!({ "reason": files.reason.as_str(), "files": files.files }))
            .collect();
        self.set("removed", removed);
        self.set("bytes", json!(pass.bytes));
    }

    /// Sets the fields to null that differ between repetitions of a call: those of the node that makes it, and the
    /// name of the table, which a node may not know yet.
    pub(crate) fn set_node_unknown(&mut self) {
        for field in ["table", "node_role", "node_id"] {
            self.set(field, Value::Null);
        }
    }

    /// Returns the JSON text. One above `limit` bytes has no lists and objects, and the field `cut`.
    pub(crate) fn into_text_within(self, limit: usize) -> String {
        let mut record = Value::Object(self.0);
        let text = record.to_string();
        if text.len() <= limit {
            return text;
        }
        if let Value::Object(fields) = &mut record {
            fields.retain(|_, value| !value.is_array() && !value.is_object());
            fields.insert("cut".to_owned(), json!(true));
        }
        record.to_string()
    }

    /// Returns the JSON text, without line breaks.
    pub(crate) fn into_text(self) -> String {
        Value::Object(self.0).to_string()
    }
}

/// Returns a file as the manifest describes it, with the statistics of its columns.
fn with_columns(file: &FileMeta, columns: Option<Vec<ColumnSummary>>) -> Value {
    let mut value = file_json(file);
    let columns = columns.map(|columns| columns.iter().map(column_json).collect::<Vec<_>>());
    if let Value::Object(fields) = &mut value {
        fields.insert("columns".to_owned(), json!(columns));
    }
    value
}

fn column_json(column: &ColumnSummary) -> Value {
    json!({
        "id": column.column,
        "bytes": column.bytes,
        "nulls": column.nulls,
        "has_nan": column.has_nan,
        "min": column.min,
        "max": column.max,
    })
}

#[cfg(test)]
mod tests;
