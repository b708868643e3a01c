//! Object stores that are unavailable, return wrong responses, or lack conditional puts.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::direct::NodeClient;
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use crate::support::{
    expect_fenced_manifest, expect_within_memory, flush_and_expect_each_row_once, wait_for_problem,
    wait_until_replicas_agree,
};

/// Minimum outage; the outage also lasts until writes are rejected.
const DOWN: Duration = Duration::from_secs(20);
const LIMIT_MIB: u64 = 768;
/// Longer than a write waits for memory before it is rejected.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
const REFUSED_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_store_rejects_writes_only_when_memory_is_full() -> Result<()> {
    let plan = ClusterPlan::default().store(Store::S3).memory_limit(&format!("{LIMIT_MIB}MiB"));
    let cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let load =
        Workload::start(&cluster, LoadOptions { note: 400, ..LoadOptions::unthrottled() }).await?;
    let region = cluster.region(LOG_TABLE).await?;
    let owner = cluster.owner(LOG_TABLE).await?;
    let owner = NodeClient::new(cluster.data[owner].spec.listen, ANSWERED_WITHIN)?;
    let s3 = cluster.s3.as_ref().expect("planned");

    s3.inject(Fault::new(Mode::Down)).await?;
    let down = Instant::now();
    // Writes succeed without the store.
    load.progress(40).await?;
    // When memory is full, writes wait and are then rejected.
    let refusal = wait::until("a write is rejected", REFUSED_WITHIN, || async {
        match owner.open_producer(region).await {
            Ok(_) => Err(format!("{} writes were acknowledged", load.acknowledged())),
            Err(status) => Ok(Refusal::from(status)),
        }
    })
    .await?;
    if refusal.reason != Reason::Overloaded || refusal.retry_after.is_none() {
        return Err(HarnessError::violated(format!("a write failed with {refusal:?}")));
    }
    wait_for_problem(&cluster, "unflushed rows take", true).await?;
    tokio::time::sleep_until(down + DOWN).await;
    println!("during the outage:");
    expect_within_memory(&cluster, LIMIT_MIB)?;

    s3.heal().await?;
    wait_for_problem(&cluster, "unflushed rows take", false).await?;
    load.progress(40).await?;
    let attempts = load.stop().await?;
    flush_and_expect_each_row_once(&cluster, LOG_TABLE).await?;
    expect_fenced_manifest(&cluster, LOG_TABLE).await?;
    println!("after the flushes:");
    expect_within_memory(&cluster, LIMIT_MIB)?;
    cluster.wait_until_healthy().await?;
    println!("{}", cluster.verify(&attempts).await?);
    wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await
}

/// Injects a fault into puts of manifests and of data files during flushes.
async fn flush_during_faults(mode: Mode) -> Result<()> {
    let cluster = ClusterPlan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let s3 = cluster.s3.as_ref().expect("planned");
    for path in ["manifest", "data", "manifest"] {
        load.progress(20).await?;
        s3.inject(Fault::new(mode).on_puts().on_path(path).times(2)).await?;
        wait::until("a flush succeeds", Duration::from_secs(60), || async {
            let output = cluster.flush(LOG_TABLE).await.and_then(|output| output.ok());
            output.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        if s3.hits().await? == 0 {
            return Err(HarnessError::violated(format!("the fault affected no put of {path}")));
        }
        s3.heal().await?;
    }
    let attempts = load.stop().await?;
    flush_and_expect_each_row_once(&cluster, LOG_TABLE).await?;
    expect_fenced_manifest(&cluster, LOG_TABLE).await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_error_after_put_duplicates_nothing() -> Result<()> {
    flush_during_faults(Mode::ErrorAfter).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_conflict_without_put_loses_nothing() -> Result<()> {
    flush_during_faults(Mode::Conflict).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_disconnect_after_put_duplicates_nothing() -> Result<()> {
    flush_during_faults(Mode::CloseAfter).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_node_rejects_store_without_conditional_puts() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).store(Store::S3).prepare().await?;
    let s3 = cluster.s3.as_ref().expect("planned");
    s3.inject(Fault::new(Mode::Unconditional)).await?;
    cluster.meta[0].start().await?;
    cluster.data[0].spawn()?;
    let status = cluster.data[0].wait_for_exit(Duration::from_secs(60)).await?;
    let log = cluster.data[0].log().text()?.to_lowercase();
    if status.success() || !log.contains("put if absent") {
        return Err(HarnessError::violated(format!("the node exited with {status}: {log}")));
    }
    cluster.finish().await
}
