//! Permanently lost nodes: their replicas are rebuilt on other nodes.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::GroupState;
use tokio::time::Instant;

use crate::support::{conclude, setting};

/// Long enough that an election or a busy machine does not mark a node as lost.
const REPLACE_AFTER: &str = "4s";
/// Limit for detection, the time of [`REPLACE_AFTER`], and three membership changes in each group.
const REPLACED_WITHIN: Duration = Duration::from_secs(90);
/// Smallest `--memory-limit` of a data node, in MiB.
const SMALL_MIB: u64 = 768;
/// Bytes of a row of the heavy load, without its key.
const ROW_BYTES: u64 = 200;

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

// Every node has a replica of all twelve groups, with rows in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_node_replaces_a_lost_one_in_twelve_groups() -> Result<()> {
    let mib: u64 = setting("TIDEWATER_LOST_MIB", 32);
    let plan = ClusterPlan::default().nodes(3, 4, 0).env("TIDEWATER_REPLACE_AFTER", REPLACE_AFTER);
    let mut cluster = plan.env("TIDEWATER_GROUPS_PER_NODE", "4").prepare().await?;
    let small = ["--memory-limit".to_owned(), format!("{SMALL_MIB}MiB")];
    cluster.data[3].spec.args.extend(small);
    cluster.start_with(3).await?;
    cluster.wait_until_healthy().await?;
    wait::until("twelve groups are active", REPLACED_WITHIN, || async {
        let catalog = cluster.catalog().await.map_err(|error| error.to_string())?;
        let active = i32::from(GroupState::Active);
        let complete =
            catalog.groups.iter().filter(|group| group.state == active && group.voters.len() == 3);
        let complete = complete.count();
        if complete == 12 { Ok(()) } else { Err(format!("{complete} are")) }
    })
    .await?;
    cluster.create_log_table_with_regions(12).await?;
    let heavy = LoadOptions { pause: Duration::from_millis(40), ..LoadOptions::heavy() };
    let load = Workload::start(&cluster, heavy).await?;
    load.progress((mib << 20) / (heavy.rows.unsigned_abs() * ROW_BYTES)).await?;
    let lost = cluster.owner(LOG_TABLE).await?;
    let id = cluster.node_id(&cluster.data[lost].spec).await?;
    cluster.data[lost].kill().await?;
    load.mark();
    let begun = Instant::now();
    cluster.data[3].start().await?;
    wait_until_replaced(&cluster, id).await?;
    println!(
        "three live replicas of each group {:.1?} after the loss, with {REPLACE_AFTER} of waiting; slowest write {:.1?}",
        begun.elapsed(),
        load.slowest_write()
    );
    load.progress(40).await?;
    let memory = cluster.data[3].memory()?;
    println!("peak memory of the new node: {} MiB of {SMALL_MIB}", memory.peak >> 20);
    if memory.peak > SMALL_MIB << 20 {
        return Err(HarnessError::violated(format!("{memory:?} above {SMALL_MIB} MiB")));
    }
    conclude(cluster, load).await?;
    Ok(())
}
