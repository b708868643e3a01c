//! Permanently lost nodes: their replicas are rebuilt on other nodes.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::GroupState;

use crate::support::conclude;

/// Long enough that an election or a busy machine does not mark a node as lost.
const REPLACE_AFTER: &str = "4s";
/// Limit for detection, the time of [`REPLACE_AFTER`], and three membership changes in each group.
const REPLACED_WITHIN: Duration = Duration::from_secs(90);

async fn started(data: u32) -> Result<(Cluster, Workload)> {
    let plan =
        ClusterPlan::default().nodes(3, data, 0).env("TIDEWATER_REPLACE_AFTER", REPLACE_AFTER);
    let cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    // Some rows in files and some in memory: the new replica needs both.
    cluster.flush(LOG_TABLE).await?.ok()?;
    load.progress(20).await?;
    Ok((cluster, load))
}

/// Waits until every group has three voters without node `lost`, and the cluster is healthy.
async fn wait_until_replaced(cluster: &Cluster, lost: u64) -> Result<()> {
    let what = format!("all groups have three replicas without node {lost}");
    wait::until(&what, REPLACED_WITHIN, || async {
        let catalog = cluster.catalog().await.map_err(|error| error.to_string())?;
        let active = i32::from(GroupState::Active);
        let short: Vec<String> = catalog
            .groups
            .iter()
            .filter(|group| group.state == active)
            .filter(|group| group.voters.len() != 3 || group.voters.contains(&lost))
            .map(|group| format!("group {} has {:?}", group.group_id, group.voters))
            .collect();
        if short.is_empty() { Ok(()) } else { Err(short.join(", ")) }
    })
    .await?;
    cluster.wait_until_healthy().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_with_lost_disk_rejoins_as_a_new_replica() -> Result<()> {
    let (mut cluster, load) = started(3).await?;
    let lost = cluster.owner(LOG_TABLE).await?;
    let old = cluster.node_id(&cluster.data[lost].spec).await?;
    cluster.data[lost].kill().await?;
    cluster.data[lost].wipe()?;
    load.progress(20).await?;
    cluster.data[lost].start().await?;
    wait_until_replaced(&cluster, old).await?;

    // Only the new replica makes this kill tolerable.
    let other = (lost + 1) % cluster.data.len();
    cluster.data[other].kill().await?;
    load.progress(40).await?;
    cluster.data[other].start().await?;
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_a_lost_node_move_to_others() -> Result<()> {
    let (mut cluster, load) = started(4).await?;
    let lost = cluster.owner(LOG_TABLE).await?;
    let id = cluster.node_id(&cluster.data[lost].spec).await?;
    cluster.data[lost].kill().await?;
    wait_until_replaced(&cluster, id).await?;
    let region = cluster.region(LOG_TABLE).await?;
    let catalog = cluster.catalog().await?;
    let leader = catalog.groups.iter().find(|group| group.group_id == region.group_id);
    if leader.is_none_or(|group| group.leader == id) {
        return Err(HarnessError::violated(format!(
            "the lost node {id} is listed as leader: {leader:?}"
        )));
    }
    load.progress(40).await?;
    conclude(cluster, load).await?;
    Ok(())
}
