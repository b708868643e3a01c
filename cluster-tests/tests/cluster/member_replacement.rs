//! Replacement of a member of the meta group that is lost, under load, while the leader that continues it is killed.

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};
use tokio::time::Instant;

use crate::commands::operators::extra_meta;
use crate::support::{SETTLED_WITHIN, conclude, wait_for_level, wait_for_problem};

/// Returns the ids of the members with a vote.
fn voters(members: &Value) -> Vec<u64> {
    let members = members.as_array().into_iter().flatten();
    members
        .filter(|member| member["voter"] == true)
        .filter_map(|of| of["node_id"].as_u64())
        .collect()
}

async fn expect_voters(cluster: &Cluster, expected: &[u64]) -> Result<()> {
    let members = cluster.run(&["meta-member", "list", "--output", "json"]).await?.ok()?.json()?;
    if voters(&members) == expected {
        return Ok(());
    }
    Err(HarnessError::violated(format!("{expected:?} expected: {members}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_member_is_replaced_without_its_client() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(3, 3, 0).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    cluster.run(&["group", "transfer-leader", "0", "--to", "2"]).await?.ok()?;
    cluster.meta[1].kill().await?;
    load.progress(20).await?;

    let mut fourth = extra_meta(&cluster, 4)?;
    let address = fourth.spec.advertise.to_string();
    let replace = ["meta-member", "replace", "2", "--with", "4", "--address", &address];
    cluster.run(&[&replace[..], &["--within", "0s"]].concat()).await?.ok()?;
    let other = ["meta-member", "replace", "3", "--with", "5", "--address", &address];
    let other = cluster.run(&other).await?;
    other.status(4)?.expect_stderr(&["meta node 2 is being replaced", "--cancel"])?;
    let remove = cluster.run(&["meta-member", "remove", "2"]).await?;
    remove.status(4)?.expect_stderr(&["meta node 2 is being replaced"])?;
    wait_for_problem(&cluster, "the replacement of meta node 2 by node 4 waits", true).await?;
    expect_voters(&cluster, &[1, 2, 3]).await?;

    // The leader of another term continues.
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    cluster.meta[leader].start().await?;
    let begun = Instant::now();
    fourth.spawn()?;
    let members = cluster.run(&[&replace[..], &["--output", "json"]].concat()).await?.ok()?;
    println!("replaced {:.1?} after the start of the new node", begun.elapsed());
    if voters(&members.json()?) != [1, 3, 4] {
        return Err(HarnessError::violated(members.stdout));
    }
    fourth.wait_until_ready(SETTLED_WITHIN).await?;
    wait_for_problem(&cluster, "the replacement of meta node", false).await?;
    load.progress(20).await?;

    // A replacement by a node that never joins is cancelled.
    let unused = cluster.spare_address()?.to_string();
    let replace = ["meta-member", "replace", "3", "--with", "5", "--address", &unused];
    cluster.run(&[&replace[..], &["--within", "0s"]].concat()).await?.ok()?;
    cluster.run(&["meta-member", "replace", "3", "--cancel"]).await?.ok()?;
    expect_voters(&cluster, &[1, 3, 4]).await?;
    let again = cluster.run(&["meta-member", "replace", "3", "--cancel"]).await?;
    again.status(3)?.expect_stderr(&["is not being replaced"])?;
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 {
        return Err(HarnessError::violated(format!("a write has failed: {verdict}")));
    }
    Ok(())
}
