//! An object store that is down, lies, or does not keep its promises.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan, Store};
use tidewater_cluster_tests::direct::Direct;
use tidewater_cluster_tests::s3::{Fault, Mode};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use crate::support::{
    flushed_once, manifest_is_in_order, replicas_agree, status_says, within_memory,
};

/// At least so long, and until writes are refused.
const DOWN: Duration = Duration::from_secs(20);
const LIMIT_MIB: u64 = 768;
/// Longer than a write waits for memory before it is refused.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
const REFUSED_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_is_down_stops_no_write_before_memory_is_used_up() -> Result<()> {
    let plan = Plan::default().store(Store::S3).memory_limit(&format!("{LIMIT_MIB}MiB"));
    let cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load { note: 400, ..Load::flat_out() }).await?;
    let (owner, region) = (cluster.owner(LOG_TABLE).await?, cluster.region(LOG_TABLE).await?);
    let owner = Direct::to(cluster.data[owner].spec.listen, ANSWERED_WITHIN)?;
    let s3 = cluster.s3.as_ref().expect("planned");

    s3.fault(Fault::of(Mode::Down)).await?;
    let down = Instant::now();
    // Writes go on without it.
    load.progress(40).await?;
    // Until memory is used up: then they wait, and are refused in the end.
    let refusal = wait::until("a write is refused", REFUSED_WITHIN, || async {
        match owner.open_producer(region).await {
            Ok(_) => Err(format!("{} writes were acknowledged", load.acknowledged())),
            Err(status) => Ok(Refusal::from(status)),
        }
    })
    .await?;
    if refusal.reason != Reason::Overloaded || refusal.retry_after.is_none() {
        return Err(HarnessError::violated(format!("a write was refused as {refusal:?}")));
    }
    status_says(&cluster, "unflushed rows take", true).await?;
    tokio::time::sleep_until(down + DOWN).await;
    println!("while the store is down:");
    within_memory(&cluster, LIMIT_MIB)?;

    s3.heal().await?;
    status_says(&cluster, "unflushed rows take", false).await?;
    load.progress(40).await?;
    let attempts = load.stop().await?;
    flushed_once(&cluster, LOG_TABLE).await?;
    manifest_is_in_order(&cluster, LOG_TABLE).await?;
    println!("after flushes have caught up:");
    within_memory(&cluster, LIMIT_MIB)?;
    cluster.healthy().await?;
    println!("{}", cluster.verify(&attempts).await?);
    replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await
}

/// Each fault strikes some puts of manifests and of data files while flushes go on.
async fn faults_during_flushes(mode: Mode) -> Result<()> {
    let cluster = Plan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    let s3 = cluster.s3.as_ref().expect("planned");
    for path in ["manifest", "data", "manifest"] {
        load.progress(20).await?;
        s3.fault(Fault::of(mode).on_puts().on_path(path).times(2)).await?;
        wait::until("a flush succeeds", Duration::from_secs(60), || async {
            let said = cluster.flush(LOG_TABLE).await.and_then(|said| said.ok());
            said.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        if s3.hits().await? == 0 {
            return Err(HarnessError::violated(format!("no put of {path} was struck")));
        }
        s3.heal().await?;
    }
    let attempts = load.stop().await?;
    flushed_once(&cluster, LOG_TABLE).await?;
    manifest_is_in_order(&cluster, LOG_TABLE).await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_answers_500_after_storing_gets_nothing_twice() -> Result<()> {
    faults_during_flushes(Mode::ErrorAfter).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_answers_409_without_storing_loses_nothing() -> Result<()> {
    faults_during_flushes(Mode::Conflict).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_closes_connections_after_storing_gets_nothing_twice() -> Result<()> {
    faults_during_flushes(Mode::CloseAfter).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_ignores_conditional_puts_is_refused_at_start() -> Result<()> {
    let mut cluster = Plan::default().nodes(1, 1, 0).store(Store::S3).prepare().await?;
    let s3 = cluster.s3.as_ref().expect("planned");
    s3.fault(Fault::of(Mode::Unconditional)).await?;
    cluster.meta[0].start().await?;
    cluster.data[0].spawn()?;
    let status = cluster.data[0].ended(Duration::from_secs(60)).await?;
    let said = cluster.data[0].log().text()?.to_lowercase();
    if status.success() || !said.contains("put if absent") {
        return Err(HarnessError::violated(format!("it ended with {status} and said: {said}")));
    }
    cluster.finish().await
}
