//! The cluster that forged calls are sent to, and the comparison of its state.

use std::net::SocketAddr;
use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::command::CommandOutput;
use tidewater_cluster_tests::direct::{NodeClient, RegionRef};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::oracle::Attempt;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::{CatalogSnapshot, Group, Node, Table};

use super::calls::Forger;
use crate::support::{SETTLED_WITHIN, wait_until_replicas_agree};

pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Longer than the time from a flush to the record of its file's index, and from a heartbeat to the
/// record of its reports.
pub(super) const SETTLED_FOR: Duration = Duration::from_secs(3);

/// A healthy cluster of three meta nodes, three data nodes and a compactor, with rows.
pub(super) struct Target {
    pub(super) cluster: Cluster,
    pub(super) attempts: Vec<Attempt>,
    pub(super) catalog: CatalogSnapshot,
    pub(super) region: RegionRef,
    /// The group that serves the region.
    pub(super) group: Group,
    before: ClusterState,
}

/// Everything that no forged call may change.
#[derive(Debug, Clone, PartialEq)]
struct ClusterState {
    /// Terms of the groups' leaders: another leader commits its own fence to each manifest.
    terms: Vec<(u64, u64)>,
    /// Node, region and digest of each replica.
    replicas: Vec<(usize, u64, String)>,
    catalog: CatalogSnapshot,
}

impl Target {
    pub(super) async fn start() -> Result<Self> {
        let cluster = ClusterPlan::default().nodes(3, 3, 1).start().await?;
        cluster.create_log_table().await?;
        let load = Workload::start(&cluster, LoadOptions::default()).await?;
        load.progress(50).await?;
        let attempts = load.stop().await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
        wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
        cluster.wait_until_healthy().await?;
        let before = settled_state(&cluster).await?;
        let region = cluster.region(LOG_TABLE).await?;
        let catalog = cluster.catalog().await?;
        let group = catalog.groups.iter().find(|group| group.group_id == region.group_id);
        let group = group.cloned().ok_or_else(|| HarnessError::violated("the group is missing"))?;
        Ok(Self { cluster, attempts, catalog, region, group, before })
    }

    /// Calls to a data node, in the name of nodes of the cluster.
    pub(super) async fn data(&self, index: usize) -> Result<Forger> {
        let node = &self.cluster.data[index];
        let id = self.cluster.node_id(&node.spec).await?;
        Forger::new(node.spec.listen, &self.catalog.cluster_id, id).await
    }

    /// Calls to a meta node; `number` counts from 1, and is its node id.
    pub(super) async fn meta(&self, number: u64) -> Result<Forger> {
        let node = &self.cluster.meta[number as usize - 1];
        Forger::new(node.spec.listen, &self.catalog.cluster_id, number).await
    }

    /// Calls to the meta leader.
    pub(super) async fn meta_leader(&self) -> Result<Forger> {
        let (index, _) = self.cluster.meta_leader().await?;
        self.meta(index as u64 + 1).await
    }

    /// The table of the region.
    pub(super) fn table(&self) -> Result<Table> {
        let table = self.catalog.tables.iter().find(|table| table.name == LOG_TABLE);
        table.cloned().ok_or_else(|| HarnessError::violated("the table is missing"))
    }

    /// A voter of the group other than this one.
    pub(super) fn other_voter(&self, node: u64) -> u64 {
        let mut voters = self.group.voters.iter().copied();
        voters.find(|voter| *voter != node).unwrap_or_default()
    }

    /// Address of a node in the catalog.
    pub(super) fn address(&self, node: u64) -> String {
        let found = self.catalog.nodes.iter().find(|known| known.node_id == node);
        found.map(|node| node.address.clone()).unwrap_or_default()
    }

    /// Checks that nothing has changed since the start, and that the cluster works, also after a restart
    /// of all nodes: a poisonous entry would show at the next start.
    pub(super) async fn expect_unchanged(self) -> Result<()> {
        let after = state(&self.cluster).await?;
        let same = if after.terms == self.before.terms {
            after == self.before
        } else {
            // An election, as a busy machine has them.
            after.catalog == self.before.catalog
        };
        if !same {
            let text = format!("the cluster was changed: {:?}, then {after:?}", self.before);
            return Err(HarnessError::violated(text));
        }
        self.cluster.verify(&self.attempts).await?;
        expect_no_problems(&self.cluster).await?;
        let owner = self.cluster.owner(LOG_TABLE).await?;
        let client = NodeClient::new(self.cluster.data[owner].spec.listen, DEADLINE)?;
        client.open_producer(self.region).await.map_err(|status| {
            HarnessError::violated(format!("the region accepts no writes: {status}"))
        })?;
        wait_until_replicas_agree(&self.cluster, LOG_TABLE).await?;
        self.expect_unchanged_after_restart().await
    }

    async fn expect_unchanged_after_restart(mut self) -> Result<()> {
        let Self { cluster, before, .. } = &mut self;
        // A compactor has no state: it would register as a new node.
        for node in cluster.data.iter_mut().chain(&mut cluster.meta) {
            node.kill().await?;
        }
        cluster.start_all().await?;
        cluster.wait_until_healthy().await?;
        let catalog = state(cluster).await?.catalog;
        if without_starts(catalog.clone()) != without_starts(before.catalog.clone()) {
            let text = format!("the catalog was changed: {:?}, then {catalog:?}", before.catalog);
            return Err(HarnessError::violated(text));
        }
        self.finish().await
    }

    /// Writes further rows, verifies all of them, flushes, and stops the nodes.
    pub(super) async fn finish(self) -> Result<()> {
        let Self { cluster, mut attempts, .. } = self;
        let options = LoadOptions { first_writer: 100, ..LoadOptions::default() };
        let load = Workload::start(&cluster, options).await?;
        load.progress(20).await?;
        attempts.extend(load.stop().await?);
        cluster.flush(LOG_TABLE).await?.ok()?;
        cluster.verify(&attempts).await?;
        wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
        expect_no_problems(&cluster).await?;
        cluster.finish().await
    }
}

/// Waits until `cluster status` lists no problem.
async fn expect_no_problems(cluster: &Cluster) -> Result<()> {
    wait::until("cluster status lists no problem", SETTLED_WITHIN, || async {
        let output = cluster.run(&["cluster", "status", "--output", "json"]).await;
        let status = output.and_then(CommandOutput::ok).and_then(|output| output.json());
        let status = status.map_err(|error| error.to_string())?;
        let none = status["problems"].as_array().is_some_and(Vec::is_empty);
        if none && status["healthy"] == true { Ok(()) } else { Err(status.to_string()) }
    })
    .await
}

/// Waits until the index of the flushed file is recorded in the manifest, and returns the state.
async fn settled_state(cluster: &Cluster) -> Result<ClusterState> {
    wait::until("the state no longer changes", SETTLED_WITHIN, || async {
        let first = state(cluster).await.map_err(|error| error.to_string())?;
        tokio::time::sleep(SETTLED_FOR).await;
        let second = state(cluster).await.map_err(|error| error.to_string())?;
        if first == second { Ok(second) } else { Err(format!("{first:?}, then {second:?}")) }
    })
    .await
}

async fn state(cluster: &Cluster) -> Result<ClusterState> {
    let mut replicas = Vec::new();
    for (index, infos) in cluster.replicas(LOG_TABLE, None, true).await {
        let infos = infos.map_err(HarnessError::violated)?;
        replicas.extend(infos.into_iter().map(|info| (index, info.region_id, info.digest)));
    }
    replicas.sort();
    let catalog = cluster.catalog().await?;
    let terms = catalog.groups.iter().map(|group| (group.group_id, group.leader_term)).collect();
    Ok(ClusterState { terms, replicas, catalog: decided(catalog) })
}

/// Returns the catalog without positions and leaders, which elections change.
fn decided(catalog: CatalogSnapshot) -> CatalogSnapshot {
    let group = |group: Group| Group {
        leader: 0,
        leader_term: 0,
        membership_term: 0,
        membership_index: 0,
        ..group
    };
    CatalogSnapshot {
        revision: 0,
        groups: catalog.groups.into_iter().map(group).collect(),
        ..catalog
    }
}

/// The catalog without the numbers of the nodes' starts, which a restart raises.
fn without_starts(catalog: CatalogSnapshot) -> CatalogSnapshot {
    let nodes = catalog.nodes.into_iter().map(|node| Node { boot: 0, ..node }).collect();
    CatalogSnapshot { nodes, ..catalog }
}

/// Sum of a metric on a node.
pub(super) async fn count(node: SocketAddr, metric: &str) -> Result<u64> {
    Ok(Metrics::fetch(node).await?.sum(metric))
}

/// Checks that a node has counted at least this number of refusals since `before`.
pub(super) async fn expect_counted(
    node: SocketAddr,
    metric: &str,
    before: u64,
    refusals: u64,
) -> Result<()> {
    let after = count(node, metric).await?;
    if after >= before + refusals {
        return Ok(());
    }
    let text = format!("{metric}: {before}, then {after} after {refusals} forged calls");
    Err(HarnessError::violated(text))
}
