//! kill -9.

use futures::future::try_join_all;
use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::{Load, Workload};

use crate::support::conclude;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_group_leader_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    for _ in 0..2 {
        let leader = cluster.owner(LOG_TABLE).await?;
        cluster.data[leader].kill().await?;
        load.progress(40).await?;
        cluster.data[leader].start().await?;
        cluster.healthy().await?;
    }
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_follower_loses_nothing_and_it_catches_up() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    let follower = (cluster.owner(LOG_TABLE).await? + 1) % cluster.data.len();
    cluster.data[follower].kill().await?;
    load.progress(100).await?;
    // What it missed is in files and gone from memory when it comes back.
    cluster.flush(LOG_TABLE).await?.ok()?;
    load.progress(40).await?;
    cluster.data[follower].start().await?;
    cluster.healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_meta_leader_loses_no_command() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    for round in 0..2 {
        let before = format!("before_{round}");
        create_small(&cluster, &before).await?;
        let (leader, _) = cluster.meta_leader().await?;
        cluster.meta[leader].kill().await?;
        load.progress(40).await?;
        create_small(&cluster, &format!("after_{round}")).await?;
        cluster.run(&["table", "describe", &before]).await?.ok()?;
        cluster.meta[leader].start().await?;
        cluster.healthy().await?;
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
async fn of_all_replicas_at_once_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    for _ in 0..2 {
        try_join_all(cluster.data.iter_mut().map(|node| node.kill())).await?;
        cluster.start_all().await?;
        load.progress(40).await?;
    }
    cluster.healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
