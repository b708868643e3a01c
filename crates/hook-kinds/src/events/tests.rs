use serde_json::json;
use tidewater_common::ids::*;
use tidewater_events::testing::CollectingRecorder;
use tidewater_events::{Event, EventRecorder, Receipt, RecordedEvent, Value as Cell, is_shared};
use tidewater_region_engine::Plugins;
use tidewater_region_engine::hooks::{
    EventSource, FilesRemoved, HookEvent, HookRegistration, RegionSnapshot, RemovalReason,
};
use tidewater_region_engine::manifest::history::{History, history, snapshot};

use super::*;
use crate::testing::{DIR, env, flush, home, region, source};

/// Recorder of which every receipt has this outcome.
#[derive(Debug)]
struct FixedRecorder(RecordOutcome);

#[async_trait]
impl EventRecorder for FixedRecorder {
    fn record(&self, _event: &dyn Event) -> Receipt {
        Receipt::known(self.0)
    }

    async fn close(&self) {}
}

fn hook(access: HookAccess, durable: bool, home: HookHome) -> RegionHookRef {
    let spec = HookSpec {
        name: "audit".to_owned(),
        kind: EVENTS_KIND.to_owned(),
        config: json!({}),
        durable,
        generation: 4,
    };
    Events { access }.make(&spec, home).unwrap()
}

fn access(events: Arc<dyn EventRecorder>) -> HookAccess {
    HookAccess::default().with_events(events, EventTables::default())
}

fn files_removed(files: usize) -> RegionEvent {
    let files = vec![FileId(Default::default()); files];
    let removed = FilesRemoved { files, reason: RemovalReason::Compaction };
    RegionEvent { source: EventSource::new(DIR), event: HookEvent::FilesRemoved(removed) }
}

fn cell(event: &RecordedEvent, name: &str) -> Cell {
    let found = event.extra.iter().find(|(column, _)| column.name == name);
    found.map(|(_, value)| value.clone()).unwrap_or_else(|| panic!("{event:?} has no {name}"))
}

fn payload(event: &RecordedEvent) -> Value {
    serde_json::from_str(&event.payload).unwrap()
}

#[tokio::test]
async fn events_hook_records_flushes_with_their_files() {
    let recorder = Arc::new(CollectingRecorder::default());
    let plugins = Plugins::default();
    plugins.insert(hook(access(recorder.clone()), false, home())).unwrap();
    plugins.set_table_name(DIR.table_id, Some("flights"));
    let region = region(&env(plugins)).await;
    flush(&region, 1, "a").await;
    let events = recorder.events();
    assert!(events.iter().all(|event| event.event_type == "hook_event" && !is_shared(event.id)));
    for trigger in ["sst_files_written", "manifest_updated"] {
        let is_flush = |event: &&RecordedEvent| {
            cell(event, "trigger") == Cell::Text(trigger.to_owned())
                && cell(event, "files_added") == Cell::UInt64(1)
        };
        let event = events.iter().find(is_flush).unwrap();
        assert_eq!(cell(event, "node_id"), Cell::UInt64(101));
        assert_eq!(cell(event, "table_id"), Cell::UInt64(3));
        assert_eq!(cell(event, "region_id"), Cell::UInt64(7));
        assert_eq!(cell(event, "hook"), Cell::Text("audit".to_owned()));
        assert_eq!(cell(event, "files_removed"), Cell::UInt64(0));
        let record = payload(event);
        assert_eq!((&record["event"], &record["table"]), (&json!(trigger), &json!("flights")));
        assert_eq!((&record["files"][0]["rows"], &record["node_id"]), (&json!(2), &json!(101)));
        assert_eq!(record["files"][0]["columns"], Value::Null);
    }
}

#[tokio::test]
async fn repeated_delivery_of_a_version_is_the_same_event() {
    let recorder = Arc::new(CollectingRecorder::default());
    let env = env(Plugins::default());
    let region = region(&env).await;
    flush(&region, 1, "a").await;
    let found = history(&env, DIR, ManifestVersion(0), 100).await.unwrap();
    let History::Deltas(past) = found else { panic!("{found:?}") };
    // The leader of the region changes, and the new one does not know the name of the table yet.
    for (node, table) in [(101, Some("flights")), (102, None)] {
        let plugins = Plugins::default();
        let home = HookHome { role: "data", node_id: NodeId(node) };
        let hook = hook(access(recorder.clone()), true, home);
        plugins.insert(HookRegistration { durable: true, ..hook.into() }).unwrap();
        let delivered = plugins.durable("audit").unwrap();
        let source = EventSource { table_name: table.map(Into::into), ..source(&env) };
        for version in &past {
            delivered.manifest_updated(&source, version).await.unwrap();
        }
    }
    let events = recorder.events();
    let (first, repeated) = events.split_at(past.len());
    assert_eq!(first, repeated);
    for (event, version) in first.iter().zip(&past) {
        assert!(is_shared(event.id));
        assert_eq!(event.timestamp_ns, version.delta.time_ms as i64 * 1_000_000);
        assert_eq!(cell(event, "node_id"), Cell::Null);
        let number = version.delta.version.get();
        assert_eq!(cell(event, "manifest_version"), Cell::UInt64(number));
        assert_eq!(payload(event)["manifest_version"], json!(number));
    }
    assert!(first.windows(2).all(|pair| pair[0].id != pair[1].id));
}

#[tokio::test]
async fn bootstrap_is_recorded_with_its_live_files() {
    let recorder = Arc::new(CollectingRecorder::default());
    let env = env(Plugins::default());
    let region = region(&env).await;
    flush(&region, 1, "a").await;
    flush(&region, 2, "b").await;
    let state = snapshot(&env, DIR).await.unwrap();
    let version = state.version.get();
    let snapshot = HookEvent::Bootstrap(RegionSnapshot::new(state));
    let event = RegionEvent { source: source(&env), event: snapshot };
    hook(access(recorder.clone()), true, home()).on_event(&event).await.unwrap();
    let [event] = &recorder.events()[..] else { panic!("one event") };
    assert!(!is_shared(event.id));
    assert_eq!(cell(event, "trigger"), Cell::Text("bootstrap".to_owned()));
    assert_eq!(cell(event, "manifest_version"), Cell::UInt64(version));
    assert_eq!(cell(event, "files_added"), Cell::UInt64(2));
}

#[tokio::test]
async fn durable_call_succeeds_when_its_event_is_spooled() {
    for (outcome, durable, expected) in [
        (RecordOutcome::Spooled, true, None),
        (RecordOutcome::Filtered, true, None),
        (RecordOutcome::Dropped, true, Some("--event-spool")),
        (RecordOutcome::Closed, true, Some("is closed")),
        (RecordOutcome::Dropped, false, None),
        (RecordOutcome::Closed, false, None),
    ] {
        let hook = hook(access(Arc::new(FixedRecorder(outcome))), durable, home());
        let result = hook.on_event(&files_removed(1)).await.map_err(|error| error.to_string());
        match expected {
            None => assert_eq!(result, Ok(()), "{outcome:?}"),
            Some(text) => assert!(result.unwrap_err().contains(text), "{outcome:?}"),
        }
    }
}

#[test]
fn node_without_events_creates_no_hook() {
    for durable in [true, false] {
        let spec = HookSpec {
            name: "audit".to_owned(),
            kind: EVENTS_KIND.to_owned(),
            config: json!({}),
            durable,
            generation: 4,
        };
        let kind = Events { access: HookAccess::default() };
        assert_eq!(kind.check(&spec.config), Ok(()));
        let refused = kind.make(&spec, home()).err().unwrap();
        for part in ["records no events", "--events off", "--event-dir"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}

#[tokio::test]
async fn large_call_is_recorded_with_a_cut_payload() {
    let recorder = Arc::new(CollectingRecorder::default());
    let hook = hook(access(recorder.clone()), false, home());
    let files = hook_event::MAX_PAYLOAD_BYTES / 32;
    hook.on_event(&files_removed(files)).await.unwrap();
    let [event] = &recorder.events()[..] else { panic!("one event") };
    assert_eq!(cell(event, "files_removed"), Cell::UInt64(files as u64));
    assert_eq!(payload(event)["cut"], json!(true));
    assert!(event.payload.len() < 1_024, "{}", event.payload);
}

#[tokio::test]
async fn nothing_is_recorded_about_tables_that_hold_events() {
    let recorder = Arc::new(CollectingRecorder::default());
    let tables = EventTables::default();
    tables.add(TableId(99));
    let access = HookAccess::default().with_events(recorder.clone(), tables.clone());
    for durable in [false, true] {
        let hook = hook(access.clone(), durable, home());
        hook.on_event(&files_removed(1)).await.unwrap();
    }
    assert_eq!(recorder.types(), ["hook_event", "hook_event"]);
    tables.add(DIR.table_id);
    for durable in [false, true] {
        let hook = hook(access.clone(), durable, home());
        hook.on_event(&files_removed(1)).await.unwrap();
    }
    assert_eq!(recorder.events().len(), 2);
}
