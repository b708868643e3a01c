//! Tests of compactions that are too large for a node.

use std::time::Duration;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_proto::v1::{CompactionPlace, Reason};
use tidewater_region_engine::compaction::CompactionOptions;

use crate::cluster::{GROUP, REGION};
use crate::fake_compactor::FakeReply;
use crate::remote_cluster::{
    MANY_INTERVALS, RemoteCompactionCluster, flush_rows, no_fallback, options,
    with_automatic_compaction,
};

/// Least memory of a job, without that of its files.
const FIXED: u64 = 96 << 20;

fn memory(memory_bytes: u64) -> CompactionOptions {
    CompactionOptions { memory_bytes, ..CompactionOptions::default() }
}

fn always_too_large() -> impl Iterator<Item = FakeReply> {
    (0..1_000).map(|_| FakeReply::RefusePlan(Reason::JobTooLarge))
}

/// A cluster with nine files whose data node has memory for a few of them at a time, and whose compactors
/// refuse every job as too large.
async fn cluster_with_small_nodes() -> RemoteCompactionCluster {
    let cluster =
        RemoteCompactionCluster::start_with(options(JobPolicy::default()), memory(FIXED + 400_000))
            .await;
    flush_rows(&cluster.node, 5..11).await;
    cluster.first.script(always_too_large());
    cluster.second.script(always_too_large());
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn job_too_large_for_nodes_runs_in_passes() {
    let cluster = cluster_with_small_nodes().await;
    let rows = cluster.node.scan().await.unwrap();
    let report = cluster.compact().await.unwrap();
    assert_eq!((report.node_id, cluster.node.info().await.unwrap().files), (0, 1));
    assert!(report.passes > 1, "{report:?}");
    assert_eq!(cluster.node.scan().await.unwrap(), rows);
    let planned: Vec<usize> = cluster
        .first
        .plans
        .lock()
        .iter()
        .map(|request| request.plan.as_ref().unwrap().inputs.len())
        .collect();
    assert_eq!(planned[0], 9, "compactors are asked for the whole job");
    assert_eq!(cluster.node.compact().await.unwrap().0.report, None);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_passes_are_continued_by_the_next_request() {
    let cluster = cluster_with_small_nodes().await;
    let rows = cluster.node.scan().await.unwrap();
    // The caller disconnects after the first pass; its job may continue for a moment.
    let mut files = 9;
    while files == 9 {
        let compacting = cluster.node.compact_at(CompactionPlace::Local);
        let _ = tokio::time::timeout(Duration::from_millis(30), compacting).await;
        files = cluster.node.info().await.unwrap().files;
    }
    cluster.node.compact_at(CompactionPlace::Local).await.unwrap();
    assert_eq!(cluster.node.info().await.unwrap().files, 1);
    assert_eq!(cluster.node.scan().await.unwrap(), rows);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_above_the_memory_of_its_node_is_refused() {
    let background = with_automatic_compaction(options(JobPolicy::default()));
    let cluster = RemoteCompactionCluster::start_with(background, memory(FIXED)).await;
    cluster.announce(&[]);
    flush_rows(&cluster.node, 5..11).await;
    tokio::time::sleep(MANY_INTERVALS).await;
    assert_eq!(cluster.node.info().await.unwrap().files, 9, "nothing ran");
    let refusal = cluster.node.compact_at(CompactionPlace::Local).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::JobTooLarge);
    assert!(refusal.message.contains("--memory-limit"), "{refusal}");
    let replica = cluster.node.groups.get(GroupId(GROUP)).unwrap();
    let region = replica.region(RegionId(REGION)).unwrap().region;
    assert!(!region.compactions_due().is_empty(), "the files are free again");
    drop((region, replica));
    // A compactor has the memory.
    cluster.announce(&[(&cluster.first, 2)]);
    let (last, _) = cluster.node.compact_at(CompactionPlace::Remote).await.unwrap();
    assert_eq!(last.report.unwrap().passes, 1);
    cluster.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_remote_only_job_names_the_reason() {
    let cluster = RemoteCompactionCluster::start(no_fallback()).await;
    cluster.first.script(always_too_large());
    cluster.second.script(always_too_large());
    let refusal = cluster.compact().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NoCompactors);
    assert!(refusal.message.contains("as scripted"), "{refusal}");
    cluster.node.stop().await;
}
