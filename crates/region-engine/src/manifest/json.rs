//! JSON of a manifest for operators: `tidewater region manifest`.

use serde_json::{Value, json};

use super::reader::{ManifestReader, ManifestTail};
use super::replay::ReplayOutcome;
use super::state::{RemovedFile, StagingArea};
use super::{
    Action, ActionKind, AreaStep, Author, Delta, Edit, ExpiryMark, ManifestState, RequiredProgress,
    Truncate,
};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::file_meta::{FileMeta, FileRef, IndexMeta};
use crate::layout::RegionDir;
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema, WriteMode};

/// Reads the manifest as it is stored now: the state at its tail, and every delta since the newest
/// checkpoint with its effect.
pub async fn manifest_json(env: &RegionEnv, dir: RegionDir) -> Result<Value, EngineError> {
    let reader =
        ManifestReader { storage: env.storage.clone(), dir, options: env.options.manifest.clone() };
    let found = reader.tail(&ManifestState::empty(dir)).await?;
    Ok(describe(&found))
}

fn describe(found: &ManifestTail) -> Value {
    let deltas: Vec<Value> =
        found.deltas.iter().map(|(delta, outcome)| delta_json(delta, outcome)).collect();
    json!({
        "state": state_json(&found.state),
        "checkpoint": found.checkpoint,
        "deltas": deltas,
    })
}

/// Returns the state without deltas.
pub fn state_json(state: &ManifestState) -> Value {
    let removed: Vec<Value> =
        state.removed.iter().map(|(file, removed)| removed_json(file, removed)).collect();
    let areas: Vec<Value> =
        state.areas.iter().map(|(id, area)| area_json(&id.to_string(), area)).collect();
    json!({
        "table_id": state.dir.table_id,
        "region_id": state.dir.region_id,
        "incarnation": state.dir.incarnation,
        "directory": state.dir.to_string(),
        "version": state.version,
        "time_ms": state.time_ms,
        "schema": state.table.as_ref().map(|table| schema_json(&table.schema)),
        "options": state.table.as_ref().map(|table| options_json(&table.options)),
        "range": state.range.as_ref().map(range_json),
        "sealed_at": state.sealed_at,
        "parents": state.parents,
        "files": state.live.values().map(file_json).collect::<Vec<_>>(),
        "removed_files": removed,
        "flushed_sequence": state.flushed,
        "truncated_sequence": state.truncated,
        "done_through_sequence": state.done_through,
        "since": state.since,
        "window_ms": state.window_ms,
        "expired": state.expired.iter().map(mark_json).collect::<Vec<_>>(),
        "owner_epoch": state.owner.map(|owner| owner.epoch.to_string()),
        "group_id": state.owner.map(|owner| owner.group),
        "gc_floor_ms": state.gc_floor_ms,
        "removed_at_ms": state.removed_at_ms,
        "staging_areas": areas,
    })
}

fn delta_json(delta: &Delta, outcome: &ReplayOutcome) -> Value {
    json!({
        "version": delta.version,
        "author": author_json(delta.author),
        "writer_id": delta.writer,
        "time_ms": delta.time_ms,
        "cause_sequence": delta.cause,
        "procedure": delta.procedure.map(|step| json!({ "number": step.number, "step": step.step })),
        "by_reference": delta.by_reference,
        "void": match outcome {
            ReplayOutcome::Applied => None,
            ReplayOutcome::Void(reason) => Some(reason.to_string()),
        },
        "actions": delta.actions.iter().map(action_json).collect::<Vec<_>>(),
    })
}

/// Returns the author of a delta, as `region manifest` shows it.
pub fn author_json(author: Author) -> Value {
    match author {
        Author::Owner(epoch) => json!({ "owner": epoch.to_string() }),
        Author::Job(job) => json!({ "job": job }),
        Author::System => json!("system"),
    }
}

/// Returns one action, as `region manifest` shows it.
pub fn action_json(action: &Action) -> Value {
    let (kind, content) = match &action.kind {
        ActionKind::Alter { schema, options } => {
            ("change", json!({ "schema": schema_json(schema), "options": options_json(options) }))
        }
        ActionKind::PartitionExprChange { range } => ("partition_expr_change", range_json(range)),
        ActionKind::Edit(edit) => ("edit", edit_json(edit)),
        ActionKind::Truncate(Truncate::UpTo(sequence)) => {
            ("truncate", json!({ "up_to": sequence }))
        }
        ActionKind::Truncate(Truncate::Files(files)) => {
            ("truncate", json!({ "files": files.iter().map(ref_json).collect::<Vec<_>>() }))
        }
        ActionKind::Remove => ("remove", json!({})),
        ActionKind::Fence { owner, group, required } => {
            let mut fence = json!({ "owner_epoch": owner.to_string(), "group_id": group });
            if *required != RequiredProgress::default() {
                fence["required"] = json!({ "flushed": required.flushed, "done": required.done });
            }
            ("fence", fence)
        }
        ActionKind::GcFloor { floor_ms } => ("gc_floor", json!({ "floor_ms": floor_ms })),
        ActionKind::Area { area, step } => {
            ("area", json!({ "area_id": area.to_string(), "step": step_json(step) }))
        }
    };
    match action.staged {
        Some(area) => json!({ kind: content, "staged": area.to_string() }),
        None => json!({ kind: content }),
    }
}

fn step_json(step: &AreaStep) -> Value {
    match step {
        AreaStep::Open { logged, deadline_ms } => {
            json!({ "open": { "logged": logged, "deadline_ms": deadline_ms } })
        }
        AreaStep::Publish => json!("publish"),
        AreaStep::Abandon => json!("abandon"),
        AreaStep::Merged(actions) => {
            json!({ "merged": actions.iter().map(action_json).collect::<Vec<_>>() })
        }
    }
}

fn edit_json(edit: &Edit) -> Value {
    let indexes: Vec<Value> = edit
        .add_indexes
        .iter()
        .map(|(file, index)| json!({ "file": ref_json(file), "index": index_json(index) }))
        .collect();
    json!({
        "add": edit.add.iter().map(file_json).collect::<Vec<_>>(),
        "remove": edit.remove.iter().map(ref_json).collect::<Vec<_>>(),
        "add_indexes": indexes,
        "flushed_sequence": edit.flushed,
        "since": edit.since,
        "window_ms": edit.window_ms,
        "expired": edit.expired.iter().map(mark_json).collect::<Vec<_>>(),
    })
}

fn mark_json(mark: &ExpiryMark) -> Value {
    json!({ "before_ms": mark.before_ms, "through_sequence": mark.through })
}

/// Returns one file, as `region manifest` and `region files` show it.
pub fn file_json(file: &FileMeta) -> Value {
    json!({
        "file_id": file.file_id,
        "path": file.path().to_string(),
        "clip": range_json(&file.clip),
        "level": file.level,
        "bytes": file.size,
        "rows": file.rows,
        "row_groups": file.row_groups,
        "deletes": file.deletes,
        "min_key": hex(&file.min_key),
        "max_key": hex(&file.max_key),
        "min_time": file.time.map(|time| time.min),
        "max_time": file.time.map(|time| time.max),
        "min_sequence": file.min_sequence(),
        "max_sequence": file.max_sequence(),
        "min_epoch": file.min_epoch(),
        "max_epoch": file.max_epoch(),
        "stamped": file.stamp.is_some(),
        "one_version_per_key": file.one_version_per_key,
        "schema_version": file.schema_version,
        "indexes": file.indexes.iter().map(index_json).collect::<Vec<_>>(),
        "checksum": format!("{:08x}", file.checksum),
    })
}

fn index_json(index: &IndexMeta) -> Value {
    json!({
        "index_id": index.index_id,
        "kind": index.kind,
        "schema_version": index.schema_version,
        "bytes": index.size,
        "checksum": format!("{:08x}", index.checksum),
    })
}

fn ref_json(file: &FileRef) -> Value {
    json!({ "file_id": file.file_id, "clip": range_json(&file.clip()) })
}

fn removed_json(file: &FileRef, removed: &RemovedFile) -> Value {
    json!({
        "file_id": file.file_id,
        "directory": removed.origin.to_string(),
        "removed_at_ms": removed.at_ms,
        "reason": removed.reason.as_str(),
    })
}

fn area_json(id: &str, area: &StagingArea) -> Value {
    json!({
        "area_id": id,
        "logged": area.logged,
        "deadline_ms": area.deadline_ms,
        "actions": area.actions.iter().map(action_json).collect::<Vec<_>>(),
    })
}

/// Returns a schema, as `region manifest` shows it.
pub fn schema_json(schema: &TableSchema) -> Value {
    let columns: Vec<Value> = schema
        .columns()
        .iter()
        .map(|column| {
            json!({
                "id": column.id,
                "name": column.name,
                "type": column.data_type.to_string(),
                "nullable": column.nullable,
            })
        })
        .collect();
    json!({
        "version": schema.version(),
        "columns": columns,
        "primary_key": schema.primary_key(),
        "time_column": schema.time_column(),
        "next_column_id": schema.next_column_id(),
    })
}

fn options_json(options: &TableOptions) -> Value {
    let hash = options
        .hash
        .as_ref()
        .map(|hash| json!({ "columns": hash.columns, "vnode_count": hash.vnode_count }));
    json!({
        "write_mode": match options.write_mode {
            WriteMode::Upsert => "upsert",
            WriteMode::AppendOnly => "append_only",
        },
        "hash": hash,
        "ttl_ms": options.ttl_ms,
        "refreshable": options.refreshable,
        "compaction_window_ms": options.compaction_window_ms(),
        "holds_events": options.holds_events,
        "explicit_since": options.explicit_since,
        "dropped": options.dropped,
    })
}

/// Returns a range of row keys, as `region manifest` shows it.
pub fn range_json(range: &KeyRange) -> Value {
    json!({ "start": hex(&range.start), "end": range.end.as_deref().map(hex) })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::samples::*;
    use crate::manifest::{ManifestContext, Void};
    use crate::storage::testing::FaultyStore;

    #[tokio::test]
    async fn manifest_json_shows_the_state_and_recent_deltas() {
        let store = FaultyStore::new();
        let env = env(store.storage());
        let context = ManifestContext::new(env.clone(), DIR);
        context.fence(owner(1), GROUP).await.unwrap();
        context.update_manifest(create(1)).await.unwrap();
        for number in 1..=3 {
            context.update_manifest(flush(1, number)).await.unwrap();
        }
        let shown = manifest_json(&env, DIR).await.unwrap();
        assert_eq!(shown["checkpoint"], 4);
        assert_eq!(shown["state"]["version"], 5);
        assert_eq!(shown["state"]["owner_epoch"], "0.1");
        assert_eq!(shown["state"]["flushed_sequence"], 39);
        assert_eq!(shown["state"]["files"].as_array().unwrap().len(), 3);
        assert_eq!(shown["state"]["schema"]["columns"][0]["type"], "int64");
        let deltas = shown["deltas"].as_array().unwrap();
        assert_eq!(deltas.len(), 1);
        assert_eq!(deltas[0]["author"]["owner"], "0.1");
        assert_eq!(deltas[0]["void"], Value::Null);
        let added = &deltas[0]["actions"][0]["edit"]["add"][0];
        assert_eq!(added["max_key"], "8009");
        assert_eq!(added["checksum"], "deadbeef");
    }

    #[test]
    fn void_delta_shows_its_reason() {
        let void = ReplayOutcome::Void(Void::NotFenced { own: owner(3) });
        let shown = delta_json(&delta(4, flush(3, 1)), &void);
        assert_eq!(shown["void"], "owner 0.3 has not committed its fence");
    }
}
