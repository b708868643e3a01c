//! Restarts of nodes, with and without their data directories.

use futures::future::try_join_all;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::direct::{NodeClient, expect_refusal};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::Reason;

use crate::support::{SETTLED_WITHIN, conclude, rows_in_files};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_of_all_nodes_loses_no_write() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    load.progress(40).await?;
    let all = cluster.meta.iter_mut().chain(cluster.data.iter_mut());
    try_join_all(all.map(|node| node.kill())).await?;
    cluster.start_all().await?;
    load.progress(40).await?;
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_loses_no_write() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    load.progress(20).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let in_files = rows_in_files(&cluster, LOG_TABLE).await?;
    for index in 0..cluster.data.len() {
        let led = cluster.owner(LOG_TABLE).await? == index;
        cluster.data[index].terminate().await?;
        let log = cluster.data[index].log().since_start()?;
        if led && !log.contains("leadership transferred") {
            return Err(HarnessError::violated("a leader stopped without transferring leadership"));
        }
        load.progress(20).await?;
        cluster.data[index].start().await?;
        cluster.wait_until_healthy().await?;
    }
    if rows_in_files(&cluster, LOG_TABLE).await? != in_files {
        return Err(HarnessError::violated("a node flushed while it stopped"));
    }
    for index in 0..cluster.meta.len() {
        cluster.meta[index].terminate().await?;
        load.progress(20).await?;
        cluster.meta[index].start().await?;
        cluster.wait_until_healthy().await?;
    }
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_with_wiped_directory_gets_a_new_id() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let lost = (cluster.owner(LOG_TABLE).await? + 1) % cluster.data.len();
    let old_id = cluster.node_id(&cluster.data[lost].spec).await?;
    cluster.data[lost].kill().await?;
    cluster.data[lost].wipe()?;
    load.progress(20).await?;
    cluster.data[lost].start().await?;

    // The new node is up with its first heartbeat; until then the old one has the address.
    wait::until("the wiped node has a new id", SETTLED_WITHIN, || async {
        match cluster.node_id(&cluster.data[lost].spec).await.map_err(|error| error.to_string())? {
            id if id != old_id => Ok(()),
            id => Err(format!("it has the id {id}")),
        }
    })
    .await?;
    // The new node at the same address must reject calls to the old node.
    let catalog = cluster.catalog().await?;
    let region = cluster.region(LOG_TABLE).await?;
    let node = NodeClient::new(cluster.data[lost].spec.listen, SETTLED_WITHIN)?;
    let source = cluster.node_id(&cluster.data[(lost + 1) % 3].spec).await?;
    let answer = node.request_vote(&catalog.cluster_id, source, old_id, region.group_id).await;
    let reason = expect_refusal(answer)?.reason;
    if reason != Reason::WrongNode {
        return Err(HarnessError::violated(format!(
            "a call to node {old_id} failed with {reason:?}"
        )));
    }
    load.progress(40).await?;
    let attempts = load.stop().await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}
