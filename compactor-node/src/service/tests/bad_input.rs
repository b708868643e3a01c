//! Refusals of the service and their reasons.

use tidewater_common::ids::{Epoch, FileId, JobId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_hook_kinds::EVENTS_KIND;
use tidewater_proto::compaction::v1::*;
use tidewater_proto::v1::{CallHeader, Reason};
use tidewater_region_engine::compaction::{CompactionPlan, OutputOptions};
use tidewater_region_engine::file_meta::FileRef;
use tidewater_region_engine::layout::RegionDir;
use uuid::Uuid;

use crate::context::CONCURRENT_READS;
use crate::testing::*;

#[tokio::test]
async fn calls_with_a_wrong_header_are_refused() {
    let world = CompactorFixture::new().await;
    let good = header().unwrap();
    let wrong = [
        (None, Reason::InvalidArgument),
        (
            Some(CallHeader { cluster_id: Uuid::from_u128(2).to_string(), ..good.clone() }),
            Reason::WrongCluster,
        ),
        (Some(CallHeader { target_node: NODE + 1, ..good }), Reason::WrongNode),
    ];
    for (header, reason) in wrong {
        let header = || header.clone();
        let mut client = world.client.clone();
        let open = OpenCompactionRegionRequest { header: header(), ..Default::default() };
        let compact = CompactRequest { header: header(), ..Default::default() };
        let cancel = CancelCompactionRequest { header: header(), job_id: String::new() };
        let list = ListCompactionsRequest { header: header() };
        let close = CloseCompactionRegionRequest { header: header(), handle: String::new() };
        let refused = [
            refusal(client.open_compaction_region(open).await),
            refusal(client.compact(compact).await),
            refusal(client.cancel_compaction(cancel).await),
            refusal(client.list_compactions(list).await),
            refusal(client.close_compaction_region(close).await),
        ];
        assert!(refused.iter().all(|refusal| refusal.reason == reason), "{refused:?}");
    }
    world.stopped().await;
}

#[tokio::test]
async fn invalid_open_requests_are_refused() {
    let world = CompactorFixture::new().await;
    let region = world.small_region(9).await;
    let good = world.open_request(&region, 1);
    let other = Uuid::from_u128(3).to_string();
    let other_store =
        OpenCompactionRegionRequest { object_store_id: other.clone(), ..good.clone() };
    let refused = world.open_refused(other_store).await;
    assert_eq!(refused.reason, Reason::ObjectStoreMismatch);
    assert!(refused.message.contains(&other) && refused.message.contains(&world.store));

    let dir =
        |region_id| good.dir.map(|dir| tidewater_proto::v1::ManifestRegionDir { region_id, ..dir });
    let no_columns = tidewater_proto::v1::TableSchema::default();
    let plugin = |name: &str, kind: &str, config: &str| PluginSpec {
        name: name.into(),
        kind: kind.into(),
        config: config.into(),
        generation: 1,
    };
    let with = |plugins| OpenCompactionRegionRequest { plugins, ..good.clone() };
    let many = (0..257).map(|n| plugin(&format!("p{n}"), "jsonl", r#"{"path":"/tmp/x"}"#));
    use Reason::*;
    let cases = [
        (OpenCompactionRegionRequest { dir: None, ..good.clone() }, InvalidArgument, "region"),
        (OpenCompactionRegionRequest { schema: None, ..good.clone() }, InvalidArgument, "schema"),
        (
            OpenCompactionRegionRequest { schema: Some(no_columns), ..good.clone() },
            InvalidArgument,
            "schema",
        ),
        (OpenCompactionRegionRequest { options: None, ..good.clone() }, InvalidArgument, "options"),
        (
            OpenCompactionRegionRequest { owner_epoch: None, ..good.clone() },
            InvalidArgument,
            "owner",
        ),
        (OpenCompactionRegionRequest { dir: dir(10), ..good.clone() }, RegionNotFound, "10"),
        (world.open_request(&region, 2), NotLeader, "0.2"),
        (OpenCompactionRegionRequest { group_id: 99, ..good.clone() }, RegionFenced, "0.1"),
        (with(vec![plugin("mine", "loud", "{}")]), BadPlugin, "mine"),
        (with(vec![plugin("mine", "jsonl", r#"{"volume":3}"#)]), BadPlugin, "mine"),
        (with(vec![plugin("mine", "jsonl", "{")]), BadPlugin, "mine"),
        // Outside of the compactor's own hook directory.
        (with(vec![plugin("mine", "jsonl", r#"{"path":"/etc/x"}"#)]), BadPlugin, "outside of"),
        // The compactor records no events.
        (with(vec![plugin("audit", EVENTS_KIND, "{}")]), BadPlugin, "--event-dir"),
        (with(many.collect()), BadPlugin, "p256"),
        (with(vec![plugin("large", "jsonl", &" ".repeat(9 << 20))]), MessageTooLarge, ""),
    ];
    for (request, reason, word) in cases {
        let refused = world.open_refused(request).await;
        assert_eq!(refused.reason, reason, "{refused}");
        assert!(refused.message.contains(word), "{refused}: {word}");
    }
    region.remove().await.unwrap();
    assert_eq!(world.open_refused(good).await.reason, Reason::RegionNotFound);
    world.stopped().await;
}

#[tokio::test]
async fn invalid_plans_are_refused() {
    let world = CompactorFixture::new().await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let handle = world.open(&region).await;
    let good = plan(&region).await;
    let inputs = |inputs: Vec<FileRef>| CompactionPlan { inputs, ..good.clone() };
    let dead = FileRef { file_id: FileId(Uuid::from_u128(1)), ..good.inputs[0].clone() };
    let twice = [good.inputs.clone(), good.inputs.clone()].concat();
    let other_region = RegionDir { region_id: RegionId(10), ..good.dir };
    let level = OutputOptions { level: 7, ..good.output };
    let bytes = OutputOptions { target_file_bytes: 0, ..good.output };
    use Reason::*;
    let cases = [
        (inputs(vec![dead]), InputsGone),
        (inputs(twice), BadPlan),
        (inputs(vec![]), BadPlan),
        (CompactionPlan { dir: other_region, ..good.clone() }, BadPlan),
        (CompactionPlan { output: level, ..good.clone() }, BadPlan),
        (CompactionPlan { output: bytes, ..good.clone() }, BadPlan),
        (CompactionPlan { since: Epoch(5), ..good.clone() }, BadPlan),
        (CompactionPlan { job_id: JobId(Uuid::from_u128(1)), ..good.clone() }, BadPlan),
    ];
    for (plan, reason) in cases {
        let refused = world.refused(&handle, plan.clone()).await;
        assert_eq!(refused.reason, reason, "{plan:?}: {refused}");
    }
    let none = CompactRequest { plan: None, ..compact_request(&handle, (&good).into()) };
    assert_eq!(refusal(world.client.clone().compact(none).await).reason, BadPlan);
    for handle in ["", "none", &Uuid::new_v4().to_string()] {
        assert_eq!(world.refused(handle, good.clone()).await.reason, HandleNotFound);
    }
    // The refused plans do not prevent the valid one.
    committed(world.compact(&handle, good.clone()).await.unwrap()).await;
    assert_eq!(world.refused(&handle, good).await.reason, InputsGone);
    world.stopped().await;
}

#[tokio::test]
async fn jobs_without_memory_disk_or_slots_are_refused() {
    let small = CompactorFixture::with(|options| options.memory_limit = 100 << 20).await;
    let region = small.region(9, &[0..10, 5..15]).await;
    let handle = small.open(&region).await;
    let refused = small.refused(&handle, plan(&region).await).await;
    assert_eq!((refused.reason, refused.retry_after), (Reason::JobTooLarge, None));
    small.stopped().await;

    let full = CompactorFixture::with(|options| options.disk_reserve = u64::MAX).await;
    let region = full.region(9, &[0..10, 5..15]).await;
    let handle = full.open(&region).await;
    assert_eq!(full.refused(&handle, plan(&region).await).await.reason, Reason::DiskFull);
    until(async || full.meta.last.lock().problems.len() == 1).await;
    full.stopped().await;

    let single_slot = CompactorFixture::with(|options| options.slots = 1).await;
    let first = single_slot.region(8, &[0..10, 5..15]).await;
    let second = single_slot.region(9, &[0..1, 1..2]).await;
    let a = single_slot.open(&first).await;
    let b = single_slot.open(&second).await;
    let held = single_slot.context.env.workers.clone().acquire_owned().await.unwrap();
    let running = single_slot.compact(&a, plan(&first).await).await.unwrap();
    let refused = single_slot.refused(&b, plan(&second).await).await;
    assert!(refused.reason == Reason::Overloaded && refused.retry_after.is_some(), "{refused}");
    drop(held);
    committed(running).await;
    committed(single_slot.compact(&b, plan(&second).await).await.unwrap()).await;
    single_slot.stopped().await;
}

#[tokio::test]
async fn calls_are_refused_while_all_manifest_reads_are_taken() {
    let world = CompactorFixture::new().await;
    let region = world.region(9, &[0..10, 5..15]).await;
    let handle = world.open(&region).await;
    let plan = plan(&region).await;
    let reading = world.context.reading.acquire_many(CONCURRENT_READS as u32).await.unwrap();
    let opening = world.open_refused(world.open_request(&region, 1));
    for refused in <[Refusal; 2]>::from(tokio::join!(opening, world.refused(&handle, plan.clone())))
    {
        let retryable = refused.reason == Reason::Overloaded && refused.retry_after.is_some();
        assert!(retryable, "{refused}");
    }
    drop(reading);
    committed(world.compact(&handle, plan).await.unwrap()).await;
    world.stopped().await;
}
