//! Rolling upgrade from an earlier release, and the way back before the feature level is raised.
//!
//! `scripts/upgrade-test` builds the binary of the earlier release, names it in `TIDEWATER_EARLIER_BIN`, and runs
//! this test; `scripts/test` runs it when that binary is in the cache. The test without it is in `earlier.rs`.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::node::{Node, Role};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, binary, wait};
use tidewater_common::feature_level::FeatureLevel;

use crate::events::restarts::expect_restarts;
use crate::support::{SETTLED_WITHIN, conclude};

/// Writes that are acknowledged between two restarts.
const WRITES: u64 = 10;
/// Limit for a refused node to exit.
const EXIT_WITHIN: Duration = Duration::from_secs(30);
/// Setting of meta nodes that holds back the raise.
pub(crate) const MAX_LEVEL: &str = "TIDEWATER_MAX_FEATURE_LEVEL";

#[ignore = "needs the binary of an earlier release: scripts/upgrade-test"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_upgrade_and_rollback_lose_no_write() -> Result<()> {
    let earlier = binary::earlier()?;
    let current = binary::tidewater()?;
    // The earlier release records no events. The spools have those of today's release until the table can be created.
    let mut cluster = ClusterPlan::default().events().prepare().await?;
    for node in cluster.meta.iter_mut().chain(&mut cluster.data) {
        node.set_binary(earlier.clone());
    }
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;

    // Upgrade, held back by the setting, and back.
    for node in &mut cluster.meta {
        node.spec.env.push((MAX_LEVEL.to_owned(), "1".to_owned()));
    }
    for (role, index) in NODES {
        restart(&mut cluster, &load, (role, index), &current).await?;
    }
    cluster.flush(LOG_TABLE).await?.ok()?;
    wait_for_status(&cluster, "the setting holds back the level", |status| {
        let holders = holders(status);
        status["feature_level"] == 1 && holders.len() == 3 && holders.iter().all(is_limited)
    })
    .await?;
    for (role, index) in NODES.into_iter().rev() {
        restart(&mut cluster, &load, (role, index), &earlier).await?;
    }

    // Upgrade again: the level follows the last node.
    for node in &mut cluster.meta {
        node.spec.env.retain(|(name, _)| name != MAX_LEVEL);
    }
    let [others @ .., last] = NODES;
    for (role, index) in others {
        restart(&mut cluster, &load, (role, index), &current).await?;
    }
    let spec = node_of(&mut cluster, last).spec.clone();
    let last_id = cluster.node_id(&spec).await?;
    let highest = FeatureLevel::HIGHEST.get();
    wait_for_status(&cluster, "the last node holds back the level", |status| {
        let holders = holders(status);
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let supports = |node: &&Value| node["highest_level"] == highest;
        let supporting = nodes.iter().filter(supports).count();
        let is_last = holders.len() == 1 && holders[0]["node_id"] == last_id;
        is_last && status["feature_level"] == 1 && supporting == NODES.len() - 1
    })
    .await?;
    restart(&mut cluster, &load, last, &current).await?;
    wait_for_status(&cluster, "the level is raised", |status| status["feature_level"] == highest)
        .await?;
    load.progress(WRITES).await?;

    // The earlier release is refused.
    for refused in [(Role::Data, 0), (Role::Meta, 0)] {
        node_of(&mut cluster, refused).terminate().await?;
        expect_refused(node_of(&mut cluster, refused), &earlier).await?;
        let node = node_of(&mut cluster, refused);
        node.set_binary(current.clone());
        node.start().await?;
        cluster.wait_until_healthy().await?;
        load.progress(WRITES).await?;
    }
    // Each data node was restarted three times, and the first one once more, while all meta nodes ran today's release.
    expect_restarts(&cluster, &[4, 3, 3]).await?;
    conclude(cluster, load).await?;
    Ok(())
}

/// Nodes in the order of an upgrade.
const NODES: [(Role, usize); 6] = [
    (Role::Meta, 0),
    (Role::Meta, 1),
    (Role::Meta, 2),
    (Role::Data, 0),
    (Role::Data, 1),
    (Role::Data, 2),
];

fn node_of(cluster: &mut Cluster, (role, index): (Role, usize)) -> &mut Node {
    match role {
        Role::Meta => &mut cluster.meta[index],
        Role::Data => &mut cluster.data[index],
        Role::Compactor => &mut cluster.compactors[index],
    }
}

/// Restarts one node with a binary, and waits until the cluster is healthy and serves writes.
async fn restart(
    cluster: &mut Cluster,
    load: &Workload,
    node: (Role, usize),
    binary: &Path,
) -> Result<()> {
    let restarted = node_of(cluster, node);
    restarted.terminate().await?;
    restarted.set_binary(binary.to_owned());
    restarted.start().await?;
    cluster.wait_until_healthy().await?;
    load.progress(WRITES).await
}

async fn wait_for_status(
    cluster: &Cluster,
    what: &str,
    is_expected: impl Fn(&Value) -> bool,
) -> Result<()> {
    wait::until(what, SETTLED_WITHIN, || async {
        let status = status(cluster).await.map_err(|error| error.to_string())?;
        if is_expected(&status) { Ok(()) } else { Err(status.to_string()) }
    })
    .await
}

async fn status(cluster: &Cluster) -> Result<Value> {
    cluster.run(&["cluster", "status", "--output", "json"]).await?.json()
}

fn holders(status: &Value) -> Vec<Value> {
    status["level_held_back_by"].as_array().cloned().unwrap_or_default()
}

fn is_limited(holder: &Value) -> bool {
    holder["reason"].as_str().is_some_and(|reason| reason.contains("--max-feature-level"))
}

/// Starts a node with the earlier release: it must exit, and name the level.
async fn expect_refused(node: &mut Node, earlier: &Path) -> Result<()> {
    node.set_binary(earlier.to_owned());
    node.spawn()?;
    let status = node.wait_for_exit(EXIT_WITHIN).await?;
    let log = node.log().since_start()?;
    let is_named = log.contains("feature level") || log.contains("newer release");
    if status.success() || !is_named {
        let name = &node.spec.name;
        return Err(HarnessError::violated(format!("{name} ended with {status}: {log}")));
    }
    println!("{}: {}", node.spec.name, log.lines().last().unwrap_or_default());
    Ok(())
}
