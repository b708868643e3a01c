//! Tests of the lifetimes of handles and jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_proto::compaction::v1::*;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::{Attempt, CompactionPlan, Scope};
use tidewater_region_engine::env::{IdSource, SystemIds};
use tidewater_region_engine::hooks::{
    HookHome, HookKind, HookSpec as Spec, RegionHook, RegionHookRef,
};

use crate::testing::*;

#[tokio::test]
async fn later_owner_revokes_handles_but_not_running_jobs() {
    let world = CompactorFixture::new().await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let first = world.open(&region).await;
    let held = world.hold_workers().await;
    let running = world.compact(&first, plan(&region).await).await.unwrap();
    take_ownership(&region, 2).await;
    let request = world.open_request(&region, 2);
    let second = world.client.clone().open_compaction_region(request).await.unwrap().into_inner();
    assert!(second.manifest_version > 0 && second.idle_ms == 300_000);
    // The running job continues, and its commit is valid.
    let busy = world.refused(&second.handle, plan(&region).await).await;
    assert_eq!(busy.reason, Reason::JobExists, "{busy}");
    drop(held);
    committed(running).await;
    flush(&region, 20..30).await;
    let plan = plan(&region).await;
    assert_eq!(world.refused(&first, plan.clone()).await.reason, Reason::HandleNotFound);
    let fenced = world.open_refused(world.open_request(&region, 1)).await;
    assert_eq!(fenced.reason, Reason::RegionFenced);
    committed(world.compact(&second.handle, plan).await.unwrap()).await;
    world.stopped().await;
}

#[tokio::test]
async fn owner_fenced_after_opening_cannot_start_a_job() {
    let world = CompactorFixture::new().await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let handle = world.open(&region).await;
    take_ownership(&region, 2).await;
    let refused = world.refused(&handle, plan(&region).await).await;
    assert_eq!(refused.reason, Reason::RegionFenced);
    world.stopped().await;
}

#[tokio::test]
async fn closed_and_unused_handles_are_not_found() {
    let world =
        CompactorFixture::with(|options| options.handle_life = Duration::from_millis(300)).await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let closed = world.open(&region).await;
    let unused = world.open(&region).await;
    let close = CloseCompactionRegionRequest { header: header(), handle: closed.clone() };
    world.client.clone().close_compaction_region(close).await.unwrap();
    // The heartbeat loop expires handles without a call.
    until(async || world.context.handles.lock().len() == 0).await;
    for handle in [&closed, &unused] {
        let refused = world.refused(handle, plan(&region).await).await;
        assert_eq!(refused.reason, Reason::HandleNotFound);
        assert!(refused.message.contains("open it again"), "{refused}");
    }
    world.stopped().await;
}

#[tokio::test]
async fn cancelled_job_can_be_started_again() {
    let world = CompactorFixture::new().await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let handle = world.open(&region).await;
    let held = world.hold_workers().await;
    let plan = plan(&region).await;
    let running = world.compact(&handle, plan.clone()).await.unwrap();
    let renamed = CompactionPlan { job_id: SystemIds.job_id(5_000), ..plan.clone() };
    for again in [plan.clone(), renamed] {
        let refused = world.refused(&handle, again).await;
        assert_eq!(refused.reason, Reason::JobExists);
        assert!(refused.message.contains(&plan.job_id.to_string()), "{refused}");
    }
    let cancel = |job_id: String| CancelCompactionRequest { header: header(), job_id };
    let mut client = world.client.clone();
    client.cancel_compaction(cancel(plan.job_id.to_string())).await.unwrap();
    drop(held);
    assert_eq!(failed(running).await, (Reason::JobCancelled, false));
    let ended = refusal(client.cancel_compaction(cancel(plan.job_id.to_string())).await);
    assert_eq!(ended.reason, Reason::JobNotFound);
    let malformed = refusal(client.cancel_compaction(cancel("x".into())).await);
    assert_eq!(malformed.reason, Reason::InvalidArgument);
    assert_eq!(region.files().len(), 2);
    // The same job id is accepted once the first attempt has ended.
    committed(world.compact(&handle, plan).await.unwrap()).await;
    world.stopped().await;
}

#[tokio::test]
async fn job_with_compacted_inputs_changes_nothing() {
    let world = CompactorFixture::new().await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let handle = world.open(&region).await;
    let held = world.hold_workers().await;
    let running = world.compact(&handle, plan(&region).await).await.unwrap();
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap().unwrap();
    let files = region.files();
    drop(held);
    assert_eq!(failed(running).await, (Reason::InputsGone, false));
    assert_eq!(rows(&region).await, (0..15).collect::<Vec<_>>());
    assert_eq!(region.files(), files);
    world.stopped().await;
}

#[tokio::test]
async fn draining_compactor_completes_jobs_and_accepts_none() {
    let mut world = CompactorFixture::new().await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let handle = world.open(&region).await;
    let held = world.hold_workers().await;
    let running = world.compact(&handle, plan(&region).await).await.unwrap();
    world.request_stop();
    until(async || world.meta.last.lock().compactor.as_ref().is_some_and(|load| load.draining))
        .await;
    let more = world.region(10, &[0..10, 5..15]).await;
    let open = world.open_refused(world.open_request(&more, 1)).await;
    flush(&region, 20..30).await;
    flush(&region, 25..35).await;
    let inputs = region.files().iter().rev().take(2).map(|file| file.reference()).collect();
    let other = CompactionPlan { inputs, job_id: SystemIds.job_id(5_000), ..plan(&region).await };
    let compact = world.refused(&handle, other).await;
    assert_eq!((open.reason, compact.reason), (Reason::ShuttingDown, Reason::ShuttingDown));
    drop(held);
    committed(running).await;
    world.stopped().await;
}

#[tokio::test]
async fn compactor_with_wrong_clock_reports_no_free_slots() {
    let world = CompactorFixture::new().await;
    let clock = &world.context.clock;
    let wall_ms = clock.wall_ms();
    let year_ms = 365 * 86_400_000;
    for (agreed_ms, refuses) in
        [(wall_ms, false), (wall_ms + year_ms, true), (wall_ms - year_ms, true), (wall_ms, false)]
    {
        clock.record(agreed_ms, agreed_ms);
        assert_eq!(world.context.load().await.draining, refuses, "{agreed_ms}");
    }
    world.stopped().await;
}

#[tokio::test]
async fn draining_compactor_aborts_jobs_after_the_drain_time() {
    let mut world =
        CompactorFixture::with(|options| options.drain = Duration::from_millis(200)).await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let handle = world.open(&region).await;
    let held = world.hold_workers().await;
    let plan = plan(&region).await;
    let running = world.compact(&handle, plan).await.unwrap();
    world.request_stop();
    let cancelled = || world.context.jobs.list().iter().all(|job| job.ended_by().is_some());
    until(async || cancelled()).await;
    drop(held);
    assert_eq!(failed(running).await, (Reason::ShuttingDown, false));
    assert_eq!(rows(&region).await, (0..15).collect::<Vec<_>>());
    assert_eq!(region.files().len(), 2);
    world.stopped().await;
}

/// A hook kind whose hooks have this backlog.
#[derive(Debug, Clone)]
struct BacklogHook(Arc<AtomicU64>);

impl RegionHook for BacklogHook {
    fn backlog(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl HookKind for BacklogHook {
    fn kind(&self) -> &'static str {
        "queue"
    }
    fn check(&self, _: &serde_json::Value) -> Result<(), String> {
        Ok(())
    }
    fn make(&self, _: &Spec, _: HookHome) -> Result<RegionHookRef, String> {
        Ok(Arc::new(self.clone()))
    }
}

#[tokio::test]
async fn draining_compactor_waits_for_the_backlog_of_hooks() {
    let queued = Arc::new(AtomicU64::new(3));
    let kind = Arc::new(BacklogHook(queued.clone()));
    let mut world =
        CompactorFixture::with(|options| options.hook_kinds.register(kind).unwrap()).await;
    let region = world.small_region(9).await;
    let plugin = PluginSpec {
        name: "mine".to_owned(),
        kind: "queue".to_owned(),
        config: "{}".to_owned(),
        generation: 1,
    };
    let request =
        OpenCompactionRegionRequest { plugins: vec![plugin], ..world.open_request(&region, 1) };
    world.client.clone().open_compaction_region(request).await.unwrap();
    world.request_stop();
    until(async || world.meta.last.lock().compactor.as_ref().is_some_and(|load| load.draining))
        .await;
    let beats = world.meta.beats.load(Ordering::Relaxed);
    until(async || world.meta.beats.load(Ordering::Relaxed) > beats + 10).await;
    queued.store(0, Ordering::Relaxed);
    world.stopped().await;
}
