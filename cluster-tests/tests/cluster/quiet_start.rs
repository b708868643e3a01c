//! The first start of a cluster logs no warning and no error.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::commands::standalone::Standalone;
use crate::support::SETTLED_WITHIN;

/// Time after the start in which delayed warnings appear.
const QUIET_FOR: Duration = Duration::from_secs(3);

/// Returns an error with the lines of a node's log above the level info.
fn check_quiet(node: &Node) -> Result<()> {
    let text = node.log().text()?;
    let loud: Vec<&str> = text
        .lines()
        .filter(|line| [" WARN ", " ERROR ", "panicked"].iter().any(|word| line.contains(word)))
        .collect();
    // Without any line, the test would not see how the levels are written.
    if loud.is_empty() && text.contains(" INFO ") {
        return Ok(());
    }
    Err(HarnessError::violated(format!("{} logged {loud:#?}", node.spec.name)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_start_of_a_standalone_process_logs_no_warning() -> Result<()> {
    let mut standalone = Standalone::start().await?;
    let create = ["table", "create", "t", "--columns", "id int64", "--primary-key", "id"];
    standalone.run(&create).await?.ok()?;
    wait::until("the process is healthy", SETTLED_WITHIN, || async {
        let output = standalone.run(&["cluster", "health"]).await.and_then(|output| output.ok());
        output.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    tokio::time::sleep(QUIET_FOR).await;
    check_quiet(&standalone.node)?;
    standalone.node.terminate().await?;
    check_quiet(&standalone.node)?;
    standalone.cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_start_of_a_cluster_logs_no_warning() -> Result<()> {
    expect_quiet_start(ClusterPlan::default().nodes(3, 3, 1).start().await?).await
}

/// Verifies that a new cluster has logged no warning, also with a new table, and stops it.
pub(crate) async fn expect_quiet_start(cluster: Cluster) -> Result<()> {
    let create = ["table", "create", "t", "--columns", "id int64", "--primary-key", "id"];
    cluster.run(&create).await?.ok()?;
    cluster.wait_until_healthy().await?;
    tokio::time::sleep(QUIET_FOR).await;
    for node in cluster.meta.iter().chain(&cluster.data).chain(&cluster.compactors) {
        check_quiet(node)?;
    }
    cluster.finish().await
}
