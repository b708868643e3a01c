//! Nodes that join after tables were created, and nodes that restart.

use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{Result, wait};

use crate::support::{SETTLED_WITHIN, conclude, wait_for_problem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_gains_replicas_when_data_nodes_join() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(3, 3, 1).prepare().await?;
    for node in &mut cluster.meta {
        node.spawn()?;
    }
    cluster.data[0].start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    load.progress(20).await?;
    // A second node registers and is killed before it has a replica. The status reports that until it is
    // repaired.
    cluster.data[1].start().await?;
    cluster.data[1].kill().await?;
    wait_for_problem(&cluster, "has 1 of the 2 replicas", true).await?;

    cluster.start_all().await?;
    let group = cluster.region(LOG_TABLE).await?.group_id;
    wait::until("the table's group has three replicas", SETTLED_WITHIN, || async {
        let catalog = cluster.catalog().await.map_err(|error| error.to_string())?;
        let voters = catalog.groups.iter().find(|found| found.group_id == group);
        let voters = voters.map_or(0, |found| found.voters.len());
        if voters == 3 { Ok(()) } else { Err(format!("{voters} voters")) }
    })
    .await?;
    cluster.wait_until_healthy().await?;
    wait_for_problem(&cluster, "replicas", false).await?;

    cluster.data[0].kill().await?;
    load.progress(40).await?;
    cluster.data[0].start().await?;
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_compactor_leaves_the_cluster_healthy() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 1).start().await?;
    cluster.compactors[0].terminate().await?;
    cluster.compactors[0].start().await?;
    cluster.wait_until_healthy().await?;
    cluster.compactors[0].kill().await?;
    cluster.compactors[0].start().await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}
