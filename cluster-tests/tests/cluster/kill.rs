//! Nodes killed with SIGKILL.

use futures::future::try_join_all;
use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};

use crate::support::conclude;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_group_leader_loses_no_write() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    for _ in 0..2 {
        let leader = cluster.owner(LOG_TABLE).await?;
        cluster.data[leader].kill().await?;
        load.progress(40).await?;
        cluster.data[leader].start().await?;
        cluster.wait_until_healthy().await?;
    }
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_follower_catches_up_without_loss() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let follower = (cluster.owner(LOG_TABLE).await? + 1) % cluster.data.len();
    cluster.data[follower].kill().await?;
    load.progress(100).await?;
    // The writes that the follower missed are flushed and no longer in memory when it restarts.
    cluster.flush(LOG_TABLE).await?.ok()?;
    load.progress(40).await?;
    cluster.data[follower].start().await?;
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_meta_leader_loses_no_command() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    for round in 0..2 {
        let before = format!("before_{round}");
        create_small(&cluster, &before).await?;
        let (leader, _) = cluster.meta_leader().await?;
        cluster.meta[leader].kill().await?;
        load.progress(40).await?;
        create_small(&cluster, &format!("after_{round}")).await?;
        cluster.run(&["table", "describe", &before]).await?.ok()?;
        cluster.meta[leader].start().await?;
        cluster.wait_until_healthy().await?;
    }
    conclude(cluster, load).await?;
    Ok(())
}

async fn create_small(cluster: &Cluster, name: &str) -> Result<()> {
    let args = ["table", "create", name, "--columns", "k int64", "--primary-key", "k"];
    cluster.run(&args).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_of_all_replicas_loses_no_write() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    for _ in 0..2 {
        try_join_all(cluster.data.iter_mut().map(|node| node.kill())).await?;
        cluster.start_all().await?;
        load.progress(40).await?;
    }
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
