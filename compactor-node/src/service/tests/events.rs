//! Tests of the events of jobs and of their hooks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tidewater_common::schema::TableOptions;
use tidewater_events::testing::CollectingRecorder;
use tidewater_events::{RecordedEvent, Value};
use tidewater_hook_kinds::{EVENTS_KIND, HookAccess};
use tidewater_proto::compaction::v1::{
    CancelCompactionRequest, OpenCompactionRegionRequest, PluginSpec,
};
use tidewater_proto::v1::CallHeader;
use tidewater_region_engine::hooks::{
    HookError, HookHome, HookKind, HookSpec, RegionEvent, RegionHook, RegionHookRef,
};

use crate::testing::*;

/// A hook that fails, and its kind.
#[derive(Debug, Clone, Copy)]
struct FailingHook;

const FAILING_KIND: &str = "failing";

#[async_trait::async_trait]
impl RegionHook for FailingHook {
    async fn on_event(&self, _: &RegionEvent) -> Result<(), HookError> {
        Err(HookError::new("no route"))
    }
}

impl HookKind for FailingHook {
    fn kind(&self) -> &'static str {
        FAILING_KIND
    }
    fn check(&self, _: &Json) -> Result<(), String> {
        Ok(())
    }
    fn make(&self, _: &HookSpec, _: HookHome) -> Result<RegionHookRef, String> {
        Ok(Arc::new(*self))
    }
}

/// Starts a compactor that records each job as slow, and suspends a hook at its first failure.
async fn recording(recorder: &Arc<CollectingRecorder>) -> CompactorFixture {
    CompactorFixture::with(|options| {
        let tables = options.event_tables.clone();
        let access = HookAccess::default().with_events(recorder.clone(), tables);
        options.hook_kinds = tidewater_hook_kinds::builtin(access);
        options.hook_kinds.register(Arc::new(FailingHook)).unwrap();
        options.hook_limits.failures_in_a_row = 1;
        options.events = recorder.clone();
        options.slow_operation = Some(Duration::ZERO);
    })
    .await
}

/// Compacts a region with a hook of this kind, and waits for the end of the job's task.
async fn compact(world: &CompactorFixture, id: u64, kind: &str, holds_events: bool) {
    let region = world.region(id, &[0..10, 5..15]).await;
    let plugin = PluginSpec {
        name: "audit".to_owned(),
        kind: kind.to_owned(),
        config: "{}".to_owned(),
        generation: 4,
    };
    let options = TableOptions { holds_events, ..region.spec().options.clone() };
    let request = OpenCompactionRegionRequest {
        plugins: vec![plugin],
        options: Some((&options).into()),
        ..world.open_request(&region, 1)
    };
    let opened = world.client.clone().open_compaction_region(request).await.unwrap().into_inner();
    committed(world.compact(&opened.handle, plan(&region).await).await.unwrap()).await;
    until(async || world.context.tasks.is_empty()).await;
}

/// Returns the value of an extra column.
fn value(event: &RecordedEvent, name: &str) -> Option<Value> {
    let column = event.extra.iter().find(|(column, _)| column.name == name);
    column.map(|(_, value)| value.clone())
}

fn text(text: &str) -> Option<Value> {
    Some(Value::Text(text.to_owned()))
}

#[tokio::test]
async fn compactor_records_slow_jobs_and_hook_calls() {
    let recorder = Arc::new(CollectingRecorder::default());
    let world = recording(&recorder).await;
    compact(&world, 9, EVENTS_KIND, false).await;
    assert_eq!(recorder.types(), ["hook_event", "hook_event", "slow_operation"]);
    for event in recorder.events() {
        assert_eq!(value(&event, "node_id"), Some(Value::UInt64(NODE)), "{event:?}");
    }
    world.stopped().await;
}

/// Returns the limit of slow jobs that a compactor sends to the owner of a region.
async fn limit_for_owner(world: &CompactorFixture) -> Option<u64> {
    let region = world.small_region(9).await;
    let opened = world.client.clone().open_compaction_region(world.open_request(&region, 1)).await;
    opened.unwrap().into_inner().slow_operation_ms
}

#[tokio::test]
async fn owner_receives_the_limit_of_slow_jobs_without_recorder() {
    let world = CompactorFixture::new().await;
    assert_eq!(limit_for_owner(&world).await, Some(60_000));
    world.stopped().await;
    let world = recording(&Arc::default()).await;
    assert_eq!(limit_for_owner(&world).await, None);
    world.stopped().await;
}

#[tokio::test]
async fn suspended_hook_is_recorded_once() {
    let recorder = Arc::new(CollectingRecorder::default());
    let world = recording(&recorder).await;
    compact(&world, 9, FAILING_KIND, false).await;
    compact(&world, 10, FAILING_KIND, false).await;
    assert_eq!(recorder.types(), ["hook_suspended", "slow_operation", "slow_operation"]);
    let suspended = &recorder.events()[0];
    assert_eq!(value(suspended, "node_id"), Some(Value::UInt64(NODE)));
    assert_eq!(value(suspended, "region_id"), Some(Value::UInt64(9)));
    assert_eq!(value(suspended, "hook"), text("audit"));
    assert_eq!(value(suspended, "cause"), text("no route"));
    world.stopped().await;
}

#[tokio::test]
async fn cancellation_by_a_client_is_recorded() {
    let recorder = Arc::new(CollectingRecorder::default());
    let world = recording(&recorder).await;
    let of_client = header().map(|header| CallHeader { source_node: 0, ..header });
    for header in [header(), of_client] {
        let cancel = CancelCompactionRequest { header, job_id: "x".to_owned() };
        world.client.clone().cancel_compaction(cancel).await.unwrap_err();
    }
    assert_eq!(recorder.types(), ["admin_call"]);
    let call = &recorder.events()[0];
    assert_eq!(value(call, "call"), text("CancelCompaction"));
    assert_eq!(value(call, "subject"), text("x"));
    assert_eq!(value(call, "outcome"), text("failed"));
    world.stopped().await;
}

#[tokio::test]
async fn compactor_records_nothing_about_tables_of_events() {
    for kind in [EVENTS_KIND, FAILING_KIND] {
        let recorder = Arc::new(CollectingRecorder::default());
        let world = recording(&recorder).await;
        compact(&world, 9, kind, true).await;
        assert_eq!(recorder.types(), Vec::<String>::new(), "{kind}");
        world.stopped().await;
    }
}
