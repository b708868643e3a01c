//! The core of the suite with objects in S3.

use futures::future::try_join_all;
use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan, Store};
use tidewater_cluster_tests::workload::{Load, Workload};

use crate::support::{conclude, flushed_once, manifest_is_in_order};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_what_was_flushed_through_kills_and_restarts() -> Result<()> {
    let mut cluster = Plan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
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
    cluster.healthy().await?;

    let attempts = load.stop().await?;
    flushed_once(&cluster, LOG_TABLE).await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_nothing_with_a_follower_the_meta_leader_or_everything() -> Result<()> {
    let mut cluster = Plan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
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
    cluster.healthy().await?;

    let all = cluster.meta.iter_mut().chain(cluster.data.iter_mut());
    try_join_all(all.map(|node| node.kill())).await?;
    cluster.start_all().await?;
    load.progress(20).await?;
    cluster.healthy().await?;
    cluster.flush("late").await?.ok()?;
    manifest_is_in_order(&cluster, LOG_TABLE).await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_a_standing_load_while_flushing() -> Result<()> {
    let cluster = Plan::default().store(Store::S3).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    for _ in 0..5 {
        load.progress(20).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    conclude(cluster, load).await?;
    Ok(())
}
