//! A data node whose disk is full: it says so, takes no writes, reads on, and goes on when there is
//! room, without being started again.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE, OnSmallDisk, Plan};
use tidewater_cluster_tests::direct::{Direct, RegionRef, refusal_of};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::Reason;

use crate::support::{SETTLED_WITHIN, conclude, status_says};

const SOON: Duration = Duration::from_secs(10);
/// Which data node has the small disk.
const SMALL: usize = 0;

/// A cluster of three data nodes, the first of which has a small disk.
async fn started(load: Load) -> Result<(Cluster, Workload)> {
    let cluster = Plan::default().small_disk(OnSmallDisk::Data(1)).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, load).await?;
    Ok((cluster, load))
}

/// Makes a data node the leader of the table's group.
async fn lead(cluster: &Cluster, index: usize) -> Result<RegionRef> {
    let region = cluster.region(LOG_TABLE).await?;
    if cluster.owner(LOG_TABLE).await? != index {
        let to = cluster.node_id(&cluster.data[index].spec).await?.to_string();
        let group = region.group_id.to_string();
        cluster.run(&["group", "transfer-leader", &group, "--to", &to]).await?.ok()?;
    }
    wait::until("the node leads", SETTLED_WITHIN, || async {
        match cluster.owner(LOG_TABLE).await {
            Ok(owner) if owner == index => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    Ok(region)
}

/// Waits until `cluster status` says that a node's disk is full, or no longer does.
async fn status_names_the_disk(cluster: &Cluster, index: usize, full: bool) -> Result<()> {
    let node = cluster.node_id(&cluster.data[index].spec).await?;
    status_says(cluster, &format!("node {node}: its disk is full"), full).await
}

/// Writes are refused as they should be, and a linearizable read sees all that was acknowledged.
async fn refuses_writes_and_reads_on(
    node: &Direct,
    region: RegionRef,
    load: &Workload,
    rows: u64,
) -> Result<()> {
    let refusal = refusal_of(node.open_producer(region).await)?;
    if refusal.reason != Reason::DiskFull
        || refusal.retry_after.is_none()
        || !refusal.message.contains("free space")
    {
        return Err(HarnessError::violated(format!("a write was refused as {refusal:?}")));
    }
    let known = load.acknowledged() * rows;
    let counted = node.count(region).await.map_err(HarnessError::refused("count at the node"))?;
    if counted < known {
        return Err(HarnessError::violated(format!("{counted} rows of {known} were counted")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_leader_refuses_writes_and_answers_reads_until_there_is_room() -> Result<()> {
    let rows = Load::default().rows.unsigned_abs();
    let (cluster, load) = started(Load::default()).await?;
    let region = lead(&cluster, SMALL).await?;
    load.progress(20).await?;
    let disk = cluster.disk.as_ref().expect("planned");
    let node = Direct::to(cluster.data[SMALL].spec.listen, SOON)?;
    let pid = cluster.data[SMALL].pid();

    // Below the reserve, then nothing at all.
    disk.fill_to_reserve()?;
    status_names_the_disk(&cluster, SMALL, true).await?;
    refuses_writes_and_reads_on(&node, region, &load, rows).await?;
    disk.fill()?;
    refuses_writes_and_reads_on(&node, region, &load, rows).await?;
    status_names_the_disk(&cluster, SMALL, true).await?;
    cluster.count(LOG_TABLE).await?;

    disk.empty()?;
    status_names_the_disk(&cluster, SMALL, false).await?;
    load.progress(40).await?;
    node.open_producer(region).await.map_err(HarnessError::refused("write to the node"))?;
    cluster.healthy().await?;
    if cluster.data[SMALL].pid() != pid {
        return Err(HarnessError::violated("the node is another process"));
    }
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_follower_holds_nobody_up_and_it_catches_up() -> Result<()> {
    // So much that what waits for the disk in memory is full as well.
    let load = Load { rows: 1_000, note: 400, ..Load::default() };
    let (cluster, load) = started(load).await?;
    lead(&cluster, SMALL + 1).await?;
    let disk = cluster.disk.as_ref().expect("planned");
    disk.fill_to_reserve()?;
    status_names_the_disk(&cluster, SMALL, true).await?;
    disk.fill()?;
    load.progress(200).await?;
    disk.empty()?;
    status_names_the_disk(&cluster, SMALL, false).await?;
    load.progress(10).await?;
    cluster.healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
