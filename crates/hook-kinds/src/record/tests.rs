//! Records of the events of a real region, field by field.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::*;
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::hooks::{
    EventSource, FilesRemoved, HookError, HookRegistration, RegionRole, RegionSnapshot,
    RemovalReason,
};
use tidewater_region_engine::manifest::history::{History, history, snapshot};
use tidewater_region_engine::{MemoryBudget, Plugins, RegionHookRef};

use super::*;
use crate::record_hook::{RecordHook, RecordSink};
use crate::testing::{DIR, env, flush, home, region, source};

/// Fields of every record, in releases before table, author, schema and incarnation were added.
const FIRST_FIELDS: [&str; 9] = [
    "hook",
    "event",
    "region_id",
    "node_role",
    "node_id",
    "manifest_version",
    "manifest",
    "actions",
    "files",
];
const ADDED_FIELDS: [&str; 5] = ["table_id", "table", "incarnation", "author", "schema"];

/// Keeps records.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<Value>>>);

#[async_trait]
impl RecordSink for Kept {
    async fn put(&self, record: Record) -> Result<(), HookError> {
        self.0.lock().push(serde_json::from_str(&record.into_text()).unwrap());
        Ok(())
    }
}

impl Kept {
    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut self.0.lock())
    }

    /// Returns the records of an event with files.
    fn take_with_files(&self, event: &str) -> Vec<Value> {
        let has_files = |record: &Value| record["files"].as_array().is_some_and(|f| !f.is_empty());
        self.take()
            .into_iter()
            .filter(|record| record["event"] == event && has_files(record))
            .collect()
    }
}

fn schema_record() -> Value {
    json!({
        "version": 1,
        "columns": [
            { "id": 1, "name": "n", "type": "int64", "nullable": false },
            { "id": 2, "name": "text", "type": "utf8", "nullable": true },
            { "id": 3, "name": "x", "type": "float64", "nullable": true },
        ],
        "primary_key": [1],
        "time_column": null,
        "next_column_id": 4,
    })
}

/// Returns a registry with a hook and a durable hook, which know the table's name, and their records.
fn hooks() -> (Plugins, Kept, Kept) {
    let plugins = Plugins::default();
    let (live, durable) = (Kept::default(), Kept::default());
    for (name, sink, durable) in [("live", &live, false), ("durable", &durable, true)] {
        let hook: RegionHookRef = Arc::new(RecordHook::new(name, home(), sink.clone()));
        plugins.insert(HookRegistration { durable, ..hook.into() }).unwrap();
    }
    plugins.set_table_name(DIR.table_id, Some("flights"));
    (plugins, live, durable)
}

/// Checks the fields of every record, and the statistics of its files without sizes.
fn check(record: &Value, hook: &str, text: &str) {
    let common = [&FIRST_FIELDS[..], &ADDED_FIELDS[..]].concat();
    for field in common {
        assert!(record.get(field).is_some(), "{field} is missing: {record}");
    }
    assert_eq!((&record["hook"], &record["node_role"]), (&json!(hook), &json!("data")));
    assert_eq!((&record["table_id"], &record["table"]), (&json!(3), &json!("flights")));
    assert_eq!((&record["region_id"], &record["incarnation"]), (&json!(7), &json!(2)));
    assert_eq!(record["schema"], schema_record());
    let files = record["files"].as_array().unwrap();
    assert_eq!(files.len(), 1, "{record}");
    let mut columns = files[0]["columns"].clone();
    for column in columns.as_array_mut().unwrap() {
        assert!(column["bytes"].as_u64().unwrap() > 0, "{column}");
        column.as_object_mut().unwrap().remove("bytes");
    }
    let expected = json!([
        { "id": 1, "nulls": 0, "has_nan": false, "min": "-4", "max": "9" },
        { "id": 2, "nulls": 1, "has_nan": false, "min": text, "max": text },
        { "id": 3, "nulls": 0, "has_nan": true, "min": "0.5", "max": "0.5" },
    ]);
    assert_eq!(columns, expected);
}

#[tokio::test]
async fn records_of_live_hook_have_all_fields() {
    let (plugins, live, durable) = hooks();
    let region = region(&env(plugins.clone())).await;
    for (sequence, text) in [(1, "a"), (2, "b")] {
        flush(&region, sequence, text).await;
        let records = live.take();
        let with = |event| {
            let mut found = records.iter().filter(|record: &&Value| {
                record["event"] == event && record["files"].get(0).is_some()
            });
            found.next().unwrap()
        };
        check(with("sst_files_written"), "live", text);
        assert_eq!(with("sst_files_written")["author"], Value::Null);
        check(with("manifest_updated"), "live", text);
        assert_eq!(with("manifest_updated")["author"], json!({ "owner": "0.0" }));
    }
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap();
    let records = live.take_with_files("manifest_updated");
    check(&records[0], "live", "b");
    assert!(records[0]["author"]["job"].is_string(), "{}", records[0]);
    assert_eq!(durable.take(), Vec::<Value>::new());
    // The catalog no longer has the table.
    plugins.set_table_name(DIR.table_id, None);
    flush(&region, 3, "c").await;
    assert_eq!(live.take_with_files("manifest_updated")[0]["table"], Value::Null);
}

#[tokio::test]
async fn records_of_durable_hook_have_all_fields() {
    let (plugins, _, durable) = hooks();
    let env = env(plugins.clone());
    let region = region(&env).await;
    flush(&region, 1, "a").await;
    flush(&region, 2, "b").await;
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap();
    let hook = plugins.durable("durable").unwrap();
    let found = history(&env, DIR, ManifestVersion(0), 100).await.unwrap();
    let History::Deltas(past) = found else { panic!("{found:?}") };
    for version in &past {
        hook.manifest_updated(&source(&env), version).await.unwrap();
    }
    let records = durable.take();
    let versions: Vec<u64> =
        records.iter().map(|record| record["manifest_version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (1..=past.len() as u64).collect::<Vec<_>>());
    // The first version, the fence of the owner, precedes the schema.
    assert_eq!(records[0]["schema"], Value::Null);
    let with_files: Vec<&Value> =
        records.iter().filter(|record| record["files"].get(0).is_some()).collect();
    for (record, text) in with_files.iter().zip(["a", "b", "b"]) {
        check(record, "durable", text);
    }
    let authors: Vec<bool> =
        with_files.iter().map(|record| record["author"]["job"].is_string()).collect();
    assert_eq!(authors, [false, false, true]);

    let state = snapshot(&env, DIR).await.unwrap();
    hook.bootstrap(&source(&env), RegionSnapshot::new(state)).await.unwrap();
    let [record] = &durable.take()[..] else { panic!("one snapshot") };
    check(record, "durable", "b");
    assert_eq!(record["event"], "bootstrap");
    assert_eq!(record["range"], json!({ "start": "", "end": null }));
    assert_eq!((&record["dropped"], &record["author"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn file_that_cannot_be_read_has_no_statistics() {
    let (plugins, _, durable) = hooks();
    let env = env(plugins.clone());
    let region = region(&env).await;
    flush(&region, 1, "a").await;
    // Another process, without the footers in memory, after the file was deleted.
    let state = snapshot(&env, DIR).await.unwrap();
    let path = state.files().next().unwrap().path();
    env.storage.delete(&path).await.unwrap();
    let memory = MemoryBudget::new(64 << 20);
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
    let other = RegionEnv::new(env.storage.clone(), clock, ids, memory, EngineOptions::default())
        .with_plugins(plugins.clone());
    let hook = plugins.durable("durable").unwrap();
    hook.bootstrap(&source(&other), RegionSnapshot::new(state)).await.unwrap();
    let record = &durable.take()[0];
    assert_eq!(record["files"][0]["path"], path.to_string());
    assert_eq!(record["files"][0]["columns"], Value::Null);
}

#[test]
fn records_keep_the_fields_of_earlier_releases() {
    let removed = FilesRemoved { files: Vec::new(), reason: RemovalReason::Drop };
    let event =
        RegionEvent { source: EventSource::new(DIR), event: HookEvent::FilesRemoved(removed) };
    let record = Record::new("h", home(), &event, Vec::new());
    let fields: BTreeSet<&str> = record.0.keys().map(String::as_str).collect();
    let expected = [&FIRST_FIELDS[..], &ADDED_FIELDS[..], &["reason"][..]].concat();
    assert_eq!(fields, expected.into_iter().collect());
    assert_eq!((&record.0["table"], &record.0["schema"]), (&Value::Null, &Value::Null));
    let (old, new) = (RegionRole::Follower, RegionRole::Leader);
    let event = HookEvent::RoleChanged { old, new, epoch: OwnerEpoch::default() };
    let event = RegionEvent { source: EventSource::new(DIR), event };
    let record = Record::new("h", home(), &event, Vec::new());
    assert_eq!(record.0["old_role"], "follower");
    assert_eq!((&record.0["table_id"], &record.0["incarnation"]), (&json!(3), &json!(2)));
}

#[test]
fn record_above_its_limit_has_no_lists() {
    let removed = |files| {
        let files = vec![FileId(Default::default()); files];
        let removed = FilesRemoved { files, reason: RemovalReason::Drop };
        let source = EventSource::new(DIR);
        let event = RegionEvent { source, event: HookEvent::FilesRemoved(removed) };
        Record::new("h", home(), &event, Vec::new())
    };
    let small = removed(10);
    let whole = small.clone().into_text();
    assert_eq!(small.clone().into_text_within(whole.len()), whole);
    let cut = small.into_text_within(whole.len() - 1);
    assert_eq!(removed(10_000).into_text_within(whole.len()), cut);
    let cut: Value = serde_json::from_str(&cut).unwrap();
    assert_eq!((&cut["cut"], &cut["files"]), (&json!(true), &Value::Null));
    assert_eq!((&cut["event"], &cut["reason"]), (&json!("files_removed"), &json!("drop")));
}
