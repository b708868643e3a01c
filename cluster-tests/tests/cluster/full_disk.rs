//! A data node with a full disk: it reports the problem, rejects writes, serves reads, and recovers
//! without a restart when space is free.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, SmallDiskUse};
use tidewater_cluster_tests::direct::{NodeClient, RegionRef, expect_refusal};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::Reason;

use crate::support::{SETTLED_WITHIN, conclude, wait_for_problem};

const DEADLINE: Duration = Duration::from_secs(10);
/// Index of the data node with the small disk.
const SMALL: usize = 0;

/// Starts a cluster of three data nodes, the first of which has a small disk.
async fn started(load: LoadOptions) -> Result<(Cluster, Workload)> {
    let cluster = ClusterPlan::default().small_disk(SmallDiskUse::Data(1)).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, load).await?;
    Ok((cluster, load))
}

/// Makes a data node the leader of the table's group.
async fn make_leader(cluster: &Cluster, index: usize) -> Result<RegionRef> {
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

/// Waits until `cluster status` reports, or no longer reports, that the disk of a node is full.
async fn wait_for_disk_problem(cluster: &Cluster, index: usize, full: bool) -> Result<()> {
    let node = cluster.node_id(&cluster.data[index].spec).await?;
    wait_for_problem(cluster, &format!("node {node}: its disk is full"), full).await
}

/// Verifies that writes are rejected and that a linearizable read returns all acknowledged rows.
async fn expect_read_only(
    node: &NodeClient,
    region: RegionRef,
    load: &Workload,
    rows: u64,
) -> Result<()> {
    let refusal = expect_refusal(node.open_producer(region).await)?;
    if refusal.reason != Reason::DiskFull
        || refusal.retry_after.is_none()
        || !refusal.message.contains("free space")
    {
        return Err(HarnessError::violated(format!("a write failed with {refusal:?}")));
    }
    let known = load.acknowledged() * rows;
    let counted = node.count(region).await.map_err(HarnessError::refused("count at the node"))?;
    if counted < known {
        return Err(HarnessError::violated(format!("{counted} rows of {known} were counted")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_with_full_disk_rejects_writes_and_serves_reads() -> Result<()> {
    let rows = LoadOptions::default().rows.unsigned_abs();
    let (cluster, load) = started(LoadOptions::default()).await?;
    let region = make_leader(&cluster, SMALL).await?;
    load.progress(20).await?;
    let disk = cluster.disk.as_ref().expect("planned");
    let node = NodeClient::new(cluster.data[SMALL].spec.listen, DEADLINE)?;
    let pid = cluster.data[SMALL].pid();

    // Fill the disk to below the reserve, then completely.
    disk.fill_to_reserve()?;
    wait_for_disk_problem(&cluster, SMALL, true).await?;
    expect_read_only(&node, region, &load, rows).await?;
    disk.fill()?;
    expect_read_only(&node, region, &load, rows).await?;
    wait_for_disk_problem(&cluster, SMALL, true).await?;
    cluster.count(LOG_TABLE).await?;

    disk.empty()?;
    wait_for_disk_problem(&cluster, SMALL, false).await?;
    load.progress(40).await?;
    node.open_producer(region).await.map_err(HarnessError::refused("write to the node"))?;
    cluster.wait_until_healthy().await?;
    if cluster.data[SMALL].pid() != pid {
        return Err(HarnessError::violated("the node was restarted"));
    }
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follower_with_full_disk_blocks_no_write_and_recovers() -> Result<()> {
    // Enough rows to fill the queue of writes in memory that wait for the disk.
    let load = LoadOptions { rows: 1_000, note: 400, ..LoadOptions::default() };
    let (cluster, load) = started(load).await?;
    make_leader(&cluster, SMALL + 1).await?;
    let disk = cluster.disk.as_ref().expect("planned");
    disk.fill_to_reserve()?;
    wait_for_disk_problem(&cluster, SMALL, true).await?;
    disk.fill()?;
    load.progress(200).await?;
    disk.empty()?;
    wait_for_disk_problem(&cluster, SMALL, false).await?;
    load.progress(10).await?;
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
