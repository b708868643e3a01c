//! Tests of jobs that complete.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_proto::compaction::v1::compaction_event::Event;
use tidewater_proto::compaction::v1::{
    self as wire, CloseCompactionRegionRequest, OpenCompactionRegionRequest,
};
use tidewater_region_engine::RegionSpec;
use tidewater_region_engine::hooks::*;

use crate::testing::*;

#[tokio::test]
async fn compactor_compacts_the_files_of_an_owner() {
    let world = CompactorFixture::new().await;
    let region = world.region(9, &[0..100, 50..150, 200..210]).await;
    let before = rows(&region).await;
    let handle = world.open(&region).await;
    let plan = plan(&region).await;
    let events = all_events(world.compact(&handle, plan.clone()).await.unwrap()).await;
    let [Event::Accepted(accepted), .., Event::Committed(committed)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(accepted.parallelism, 1, "more sub-jobs are not useful");
    assert!(accepted.memory_bytes >= 48 << 20);
    let named: Vec<_> = plan.inputs.iter().map(Into::into).collect();
    assert_eq!(committed.files_in.len(), 3);
    assert!(named.iter().all(|file| committed.files_in.contains(file)));
    let footer = committed.files_out[0].footer.as_ref().unwrap();
    assert_eq!((committed.files_out.len(), footer.rows), (1, 160));
    let done = committed.done.unwrap();
    assert_eq!((done.rows_read, done.rows_written, done.files_written), (210, 160, 1));

    assert_eq!(rows(&region).await, before);
    let files = region.files();
    assert_eq!((files.len(), files[0].rows), (1, 160));
    assert_eq!(region.stats().manifest_version.get(), committed.manifest_version);
    assert!(world.list().await.is_empty());
    let close = || CloseCompactionRegionRequest { header: header(), handle: handle.clone() };
    for _ in 0..2 {
        world.client.clone().close_compaction_region(close()).await.unwrap();
    }
    world.stopped().await;
}

#[tokio::test]
async fn running_job_is_listed_and_continues_without_its_caller() {
    let world = CompactorFixture::new().await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let handle = world.open(&region).await;
    let held = world.hold_workers().await;
    let plan = plan(&region).await;
    let mut stream = world.compact(&handle, plan.clone()).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.job_id, plan.job_id.to_string());
    assert!(matches!(first.event, Some(Event::Accepted(_))));
    assert!(matches!(
        stream.message().await.unwrap().unwrap().event,
        Some(Event::Progress(done)) if done.rows_written == 0
    ));
    let jobs = world.list().await;
    let job = &jobs[0];
    assert_eq!((jobs.len(), job.job_id.clone()), (1, plan.job_id.to_string()));
    assert_eq!((job.state.as_str(), job.source_node, job.attempt), ("merging", SOURCE, 1));
    assert_eq!((job.files_in, job.parallelism), (2, 1));
    assert!(job.age_ms >= 500 && job.memory_bytes > 0 && job.bytes_in > 0);
    until(async || world.meta.last.lock().compactor.as_ref().is_some_and(|load| load.jobs == 1))
        .await;
    let load = world.meta.last.lock().compactor.clone().unwrap();
    assert_eq!((load.slots, load.memory_bytes), (2, 432 << 20));
    assert_eq!(load.memory_used_bytes, job.memory_bytes);
    assert!(load.disk_free_bytes.is_some() && !load.draining);
    assert_eq!(load.jobs_of, [(SOURCE, 1)].into());

    drop((stream, held));
    until(async || world.list().await.is_empty()).await;
    assert_eq!(rows(&region).await, (0..15).collect::<Vec<_>>());
    assert_eq!(region.files().len(), 1);
    world.stopped().await;
}

/// Hook that records its calls.
#[derive(Debug, Clone, Default)]
struct RecordingHook(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl RegionHook for RecordingHook {
    async fn on_sst_files_written(
        &self,
        region: RegionId,
        _: &RegionSpec,
        files: &[SstFileInfo],
    ) -> Result<(), HookError> {
        self.0.lock().push(format!("region {region}: {} files", files.len()));
        Ok(())
    }

    async fn on_manifest_updated(
        &self,
        _: RegionId,
        actions: &RegionMetaActionList,
        _: ManifestVersion,
        _: ManifestKind,
    ) -> Result<(), HookError> {
        self.0.lock().push(format!("{} files removed", actions.files_removed().count()));
        Ok(())
    }
}

impl HookKind for RecordingHook {
    fn kind(&self) -> &'static str {
        "notes"
    }
    fn check(&self, _: &Value) -> Result<(), String> {
        Ok(())
    }
    fn make(&self, _: &HookSpec, home: HookHome) -> Result<RegionHookRef, String> {
        assert_eq!(home.role, "compactor");
        Ok(Arc::new(self.clone()))
    }
}

#[tokio::test]
async fn only_hooks_of_the_open_request_are_called() {
    let notes = RecordingHook::default();
    let kind = notes.clone();
    let world =
        CompactorFixture::with(|options| options.hook_kinds.register(Arc::new(kind)).unwrap())
            .await;
    let silent = world.region(8, &[0..10, 5..15]).await;
    let handle = world.open(&silent).await;
    committed(world.compact(&handle, plan(&silent).await).await.unwrap()).await;
    assert!(notes.0.lock().is_empty());

    let region = world.region(9, &[0..10, 5..15]).await;
    let plugin = wire::PluginSpec {
        name: "mine".into(),
        kind: "notes".into(),
        config: "{}".into(),
        generation: 4,
    };
    let request =
        OpenCompactionRegionRequest { plugins: vec![plugin], ..world.open_request(&region, 1) };
    let opened = world.client.clone().open_compaction_region(request).await.unwrap().into_inner();
    committed(world.compact(&opened.handle, plan(&region).await).await.unwrap()).await;
    assert_eq!(*notes.0.lock(), ["region 9: 1 files", "2 files removed"]);
    until(async || world.meta.last.lock().hooks.iter().any(|hook| hook.calls == 2)).await;
    let report = world.meta.last.lock().hooks[0].clone();
    assert_eq!((report.name.as_str(), report.generation), ("mine", 4));
    world.stopped().await;
}
