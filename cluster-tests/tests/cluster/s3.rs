//! Core scenarios with objects in S3.

use futures::future::try_join_all;
use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};

use crate::support::{conclude, expect_fenced_manifest, flush_and_expect_each_row_once};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_keeps_flushed_rows_across_kills_and_restarts() -> Result<()> {
    let mut cluster = ClusterPlan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    load.progress(20).await?;
    let leader = cluster.owner(LOG_TABLE).await?;
    cluster.data[leader].kill().await?;
    load.progress(20).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    cluster.data[leader].start().await?;
    try_join_all(cluster.data.iter_mut().map(|node| node.kill())).await?;
    cluster.start_all().await?;
    load.progress(20).await?;
    cluster.wait_until_healthy().await?;

    let attempts = load.stop().await?;
    flush_and_expect_each_row_once(&cluster, LOG_TABLE).await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_cluster_loses_nothing_when_nodes_are_killed() -> Result<()> {
    let mut cluster = ClusterPlan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let follower = (cluster.owner(LOG_TABLE).await? + 1) % cluster.data.len();
    cluster.data[follower].kill().await?;
    load.progress(20).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    cluster.data[follower].start().await?;

    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    load.progress(20).await?;
    let table = ["table", "create", "late", "--columns", "k int64", "--primary-key", "k"];
    cluster.run(&table).await?.ok()?;
    cluster.meta[leader].start().await?;
    cluster.wait_until_healthy().await?;

    let all = cluster.meta.iter_mut().chain(cluster.data.iter_mut());
    try_join_all(all.map(|node| node.kill())).await?;
    cluster.start_all().await?;
    load.progress(20).await?;
    cluster.wait_until_healthy().await?;
    cluster.flush("late").await?.ok()?;
    expect_fenced_manifest(&cluster, LOG_TABLE).await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_cluster_serves_writes_during_flushes() -> Result<()> {
    let cluster = ClusterPlan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    for _ in 0..5 {
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    conclude(cluster, load).await?;
    Ok(())
}
