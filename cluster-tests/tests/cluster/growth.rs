//! Nodes that come later than the tables, and nodes that come again.

use tidewater_cluster_tests::cluster::{LOG_TABLE, Plan};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{Result, wait};

use crate::support::{SETTLED_WITHIN, conclude, status_says};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_data_node_to_three_takes_a_table_off_its_one_disk() -> Result<()> {
    let mut cluster = Plan::default().nodes(3, 3, 1).prepare().await?;
    for node in &mut cluster.meta {
        node.spawn()?;
    }
    cluster.data[0].start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    load.progress(20).await?;
    // Another has registered, and goes before it holds anything: that is said until it is mended.
    cluster.data[1].start().await?;
    cluster.data[1].kill().await?;
    status_says(&cluster, "has 1 of the 2 replicas", true).await?;

    cluster.start_all().await?;
    let group = cluster.region(LOG_TABLE).await?.group_id;
    wait::until("the table's group has three replicas", SETTLED_WITHIN, || async {
        let catalog = cluster.catalog().await.map_err(|error| error.to_string())?;
        let voters = catalog.groups.iter().find(|found| found.group_id == group);
        let voters = voters.map_or(0, |found| found.voters.len());
        if voters == 3 { Ok(()) } else { Err(format!("{voters} voters")) }
    })
    .await?;
    cluster.healthy().await?;
    status_says(&cluster, "replicas", false).await?;

    cluster.data[0].kill().await?;
    load.progress(40).await?;
    cluster.data[0].start().await?;
    cluster.healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_compactor_that_comes_again_leaves_the_cluster_healthy() -> Result<()> {
    let mut cluster = Plan::default().nodes(1, 1, 1).start().await?;
    cluster.compactors[0].terminate().await?;
    cluster.compactors[0].start().await?;
    cluster.healthy().await?;
    cluster.compactors[0].kill().await?;
    cluster.compactors[0].start().await?;
    cluster.healthy().await?;
    cluster.finish().await
}
