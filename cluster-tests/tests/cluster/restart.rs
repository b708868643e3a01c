//! Nodes that go and come back, with and without their disks.

use futures::future::try_join_all;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::direct::{Direct, refusal_of};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_proto::v1::Reason;

use crate::support::{SETTLED_WITHIN, conclude, rows_in_files};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_everything_by_kill_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    load.progress(40).await?;
    let all = cluster.meta.iter_mut().chain(cluster.data.iter_mut());
    try_join_all(all.map(|node| node.kill())).await?;
    cluster.start_all().await?;
    load.progress(40).await?;
    cluster.healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_node_after_the_other_by_request_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    load.progress(20).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let in_files = rows_in_files(&cluster, LOG_TABLE).await?;
    for index in 0..cluster.data.len() {
        let led = cluster.owner(LOG_TABLE).await? == index;
        cluster.data[index].terminate().await?;
        let said = cluster.data[index].log().since_start()?;
        if led && !said.contains("leadership transferred") {
            return Err(HarnessError::violated("a leader went without handing over"));
        }
        load.progress(20).await?;
        cluster.data[index].start().await?;
        cluster.healthy().await?;
    }
    if rows_in_files(&cluster, LOG_TABLE).await? != in_files {
        return Err(HarnessError::violated("a node flushed on its way out"));
    }
    for index in 0..cluster.meta.len() {
        cluster.meta[index].terminate().await?;
        load.progress(20).await?;
        cluster.meta[index].start().await?;
        cluster.healthy().await?;
    }
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_directory_makes_a_node_another_node() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    let lost = (cluster.owner(LOG_TABLE).await? + 1) % cluster.data.len();
    let old_id = cluster.node_id(&cluster.data[lost].spec).await?;
    cluster.data[lost].kill().await?;
    cluster.data[lost].wipe()?;
    load.progress(20).await?;
    cluster.data[lost].start().await?;

    let new_id = cluster.node_id(&cluster.data[lost].spec).await?;
    if new_id == old_id {
        return Err(HarnessError::violated(format!("an empty directory is node {old_id} again")));
    }
    // What is meant for the old node must not be answered by the new one at its address.
    let catalog = cluster.catalog().await?;
    let region = cluster.region(LOG_TABLE).await?;
    let node = Direct::to(cluster.data[lost].spec.listen, SETTLED_WITHIN)?;
    let source = cluster.node_id(&cluster.data[(lost + 1) % 3].spec).await?;
    let answer = node.ask_vote(&catalog.cluster_id, source, old_id, region.group_id).await;
    let reason = refusal_of(answer)?.reason;
    if reason != Reason::WrongNode {
        return Err(HarnessError::violated(format!("asked as node {old_id}, it said {reason:?}")));
    }
    load.progress(40).await?;
    let attempts = load.stop().await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}
