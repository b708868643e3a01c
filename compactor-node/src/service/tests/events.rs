//! Tests of the events of jobs.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::schema::TableOptions;
use tidewater_events::Value;
use tidewater_events::testing::CollectingRecorder;
use tidewater_hook_kinds::{EVENTS_KIND, HookAccess};
use tidewater_proto::compaction::v1::{OpenCompactionRegionRequest, PluginSpec};

use crate::testing::*;

/// Starts a compactor that records each job as slow.
async fn recording(recorder: &Arc<CollectingRecorder>) -> CompactorFixture {
    CompactorFixture::with(|options| {
        let tables = options.event_tables.clone();
        let access = HookAccess::default().with_events(recorder.clone(), tables);
        options.hook_kinds = tidewater_hook_kinds::builtin(access);
        options.events = recorder.clone();
        options.slow_operation = Some(Duration::ZERO);
    })
    .await
}

/// Compacts a region with an `events` hook, and waits for the end of the job's task.
async fn compact(world: &CompactorFixture, holds_events: bool) {
    let region = world.region(9, &[0..10, 5..15]).await;
    let plugin = PluginSpec {
        name: "audit".to_owned(),
        kind: EVENTS_KIND.to_owned(),
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

#[tokio::test]
async fn compactor_records_slow_jobs_and_hook_calls() {
    let recorder = Arc::new(CollectingRecorder::default());
    let world = recording(&recorder).await;
    compact(&world, false).await;
    assert_eq!(recorder.types(), ["hook_event", "hook_event", "slow_operation"]);
    for event in recorder.events() {
        let node = event.extra.iter().find(|(column, _)| column.name == "node_id");
        assert_eq!(node.map(|(_, value)| value), Some(&Value::UInt64(NODE)), "{event:?}");
    }
    world.stopped().await;
}

#[tokio::test]
async fn compactor_records_nothing_about_tables_of_events() {
    let recorder = Arc::new(CollectingRecorder::default());
    let world = recording(&recorder).await;
    compact(&world, true).await;
    assert_eq!(recorder.types(), Vec::<String>::new());
    world.stopped().await;
}
