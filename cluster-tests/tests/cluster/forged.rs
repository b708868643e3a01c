//! Calls that no node of the cluster sends, to a cluster of real processes: each is refused and
//! counted, and changes nothing.

mod calls;

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::direct::{NodeClient, RegionRef};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::oracle::Attempt;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_proto::v1::{CatalogSnapshot, Group, Reason};
use tonic::Status;

use self::calls::Forger;
use crate::support::wait_until_replicas_agree;

const DEADLINE: Duration = Duration::from_secs(10);

/// A healthy cluster of three meta nodes, three data nodes and a compactor, with rows.
struct Target {
    cluster: Cluster,
    attempts: Vec<Attempt>,
    catalog: CatalogSnapshot,
    region: RegionRef,
    group: Group,
    before: Vec<ReplicaState>,
}

/// Region, applied index and digest of a replica, and the node.
type ReplicaState = (usize, u64, u64, String);

impl Target {
    async fn start() -> Result<Self> {
        let cluster = ClusterPlan::default().nodes(3, 3, 1).start().await?;
        cluster.create_log_table().await?;
        let load = Workload::start(&cluster, LoadOptions::default()).await?;
        load.progress(50).await?;
        let attempts = load.stop().await?;
        wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
        let before = states(&cluster).await?;
        let region = cluster.region(LOG_TABLE).await?;
        let catalog = cluster.catalog().await?;
        let group = catalog.groups.iter().find(|group| group.group_id == region.group_id);
        let group = group.cloned().ok_or_else(|| HarnessError::violated("the group is missing"))?;
        Ok(Self { cluster, attempts, catalog, region, group, before })
    }

    /// Calls to a data node, in the name of nodes of the cluster.
    async fn data(&self, index: usize) -> Result<Forger> {
        let node = &self.cluster.data[index];
        let id = self.cluster.node_id(&node.spec).await?;
        Forger::new(node.spec.listen, &self.catalog.cluster_id, id).await
    }

    /// Calls to a meta node; `number` counts from 1, and is its node id.
    async fn meta(&self, number: u64) -> Result<Forger> {
        let node = &self.cluster.meta[number as usize - 1];
        Forger::new(node.spec.listen, &self.catalog.cluster_id, number).await
    }

    /// Checks that nothing has changed since the start, and that the cluster works.
    async fn expect_unchanged(self) -> Result<()> {
        let after = states(&self.cluster).await?;
        if after != self.before {
            let text = format!("replicas were changed: {:?}, then {after:?}", self.before);
            return Err(HarnessError::violated(text));
        }
        self.cluster.verify(&self.attempts).await?;
        self.cluster.wait_until_healthy().await?;
        let owner = self.cluster.owner(LOG_TABLE).await?;
        let client = NodeClient::new(self.cluster.data[owner].spec.listen, DEADLINE)?;
        client.open_producer(self.region).await.map_err(|status| {
            HarnessError::violated(format!("the region accepts no writes: {status}"))
        })?;
        wait_until_replicas_agree(&self.cluster, LOG_TABLE).await?;
        // Poison would show at the next start.
        let Self { mut cluster, attempts, .. } = self;
        for node in cluster.data.iter_mut().chain(&mut cluster.meta) {
            node.kill().await?;
        }
        cluster.start_all().await?;
        cluster.wait_until_healthy().await?;
        write_more(cluster, attempts).await
    }
}

/// Writes further rows, verifies all of them, and stops the nodes.
async fn write_more(cluster: Cluster, mut attempts: Vec<Attempt>) -> Result<()> {
    let options = LoadOptions { first_writer: 100, ..LoadOptions::default() };
    let load = Workload::start(&cluster, options).await?;
    load.progress(20).await?;
    attempts.extend(load.stop().await?);
    cluster.verify(&attempts).await?;
    wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await
}

async fn states(cluster: &Cluster) -> Result<Vec<ReplicaState>> {
    let mut states = Vec::new();
    for (index, infos) in cluster.replicas(LOG_TABLE, None, true).await {
        let infos = infos.map_err(|status| HarnessError::violated(status.to_string()))?;
        let state = |info: tidewater_proto::v1::RegionInfo| {
            (index, info.region_id, info.applied_index, info.digest)
        };
        states.extend(infos.into_iter().map(state));
    }
    states.sort();
    Ok(states)
}

/// Checks that a forged call was refused for one of these reasons.
fn refused<T: std::fmt::Debug>(
    call: &str,
    answer: Result<T, Status>,
    reasons: &[Reason],
) -> Result<()> {
    match answer {
        Ok(answer) => {
            Err(HarnessError::violated(format!("the forged {call} was accepted: {answer:?}")))
        }
        Err(status) => {
            let reason = tidewater_common::refusal::Refusal::from(status.clone()).reason;
            if reasons.contains(&reason) {
                return Ok(());
            }
            Err(HarnessError::violated(format!("the forged {call} ended with {status}")))
        }
    }
}

async fn count(cluster: &Cluster, index: usize, metric: &str) -> Result<u64> {
    Ok(Metrics::fetch(cluster.data[index].spec.listen).await?.sum(metric))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_raft_messages_are_refused() -> Result<()> {
    let target = Target::start().await?;
    let group = target.group.group_id;
    let term = target.group.leader_term;
    let leader = target.group.leader;
    for index in 0..3 {
        let node = target.data(index).await?;
        let metric = "tidewater_raft_messages_refused_total";
        let before = count(&target.cluster, index, metric).await?;
        let member = if node.id == leader { other(&target.group, leader) } else { leader };
        let invalid = &[Reason::InvalidArgument];
        let stranger = &[Reason::MemberNotFound];
        for high in [u64::MAX, u64::MAX - 2] {
            let vote = node.vote(group, member, high, true).await;
            refused("vote with a high term", vote, invalid)?;
            let append = node.append(group, member, (high, member), Vec::new()).await;
            refused("append with a high term", append, invalid)?;
        }
        refused("vote of a stranger", node.vote(group, 999, term + 1, true).await, stranger)?;
        let append = node.append(group, 999, (term + 1, 999), Vec::new()).await;
        refused("append of a stranger", append, stranger)?;
        let append = node.append(group, 999, (1 << 63, 999), Vec::new()).await;
        refused("append of a stranger in term 2^63", append, invalid)?;
        let own = node.id;
        for source in [own, member] {
            let append = node.append(group, source, (term + 45, own), Vec::new()).await;
            refused("append that names its receiver", append, invalid)?;
            let snapshot = node.snapshot(group, source, (term + 45, own), b"").await;
            refused("snapshot that names its receiver", snapshot, invalid)?;
        }
        refused("heartbeat of a stranger", node.heartbeat(group, 999, term + 1).await, stranger)?;
        let transfer = node.transfer(group, 999, term + 1).await;
        refused("leader transfer of a stranger", transfer, stranger)?;
        if member == leader {
            let gap = node.append(group, leader, (term, leader), vec![u64::MAX]).await;
            refused("append with a gap", gap, invalid)?;
            let later = node.append_unknown_kind(group, leader, term).await;
            refused("append of an unknown kind", later, &[Reason::Unsupported])?;
            for body in [&b""[..], &[7; 700]] {
                let snapshot = node.snapshot(group, leader, (term, leader), body).await;
                refused("snapshot without content", snapshot, &[Reason::Corrupt])?;
            }
        }
        let after = count(&target.cluster, index, metric).await?;
        if after < before + 13 {
            return Err(HarnessError::violated(format!("{metric}: {before}, then {after}")));
        }
    }
    for number in 1..=3 {
        let node = target.meta(number).await?;
        let member = number % 3 + 1;
        let invalid = &[Reason::InvalidArgument];
        let vote = node.vote(0, member, u64::MAX, true).await;
        refused("vote to a meta node", vote, invalid)?;
        let append = node.append(0, number, (1 << 18, number), Vec::new()).await;
        refused("append to a meta node", append, invalid)?;
        let append = node.append(0, 999, (1 << 18, 999), Vec::new()).await;
        refused("append of a stranger to a meta node", append, &[Reason::MemberNotFound])?;
        for body in [&b""[..], &[7; 700]] {
            let snapshot = node.snapshot(0, member, (1, member), body).await;
            refused("snapshot to a meta node", snapshot, &[Reason::Corrupt])?;
        }
    }
    target.expect_unchanged().await
}

/// A voter of the group other than this one.
fn other(group: &Group, node: u64) -> u64 {
    group.voters.iter().copied().find(|voter| *voter != node).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_calls_to_groups_are_refused() -> Result<()> {
    let target = Target::start().await?;
    let region = target.region;
    let table = target.catalog.tables.iter().find(|table| table.name == LOG_TABLE).cloned();
    let table = table.ok_or_else(|| HarnessError::violated("the table is missing"))?;
    for index in 0..3 {
        let node = target.data(index).await?;
        let metric = "tidewater_control_calls_refused_total";
        let before = count(&target.cluster, index, metric).await?;
        let invalid = &[Reason::InvalidArgument];
        for (base, id) in [(u64::MAX, region.region_id), (0, 4_711), (u64::MAX, 4_711)] {
            let opened = node.open_region(&region, &table, id, base).await;
            refused("opening of a region", opened, invalid)?;
        }
        refused("removal of a region", node.drop_region(&region).await, invalid)?;
        for number in [0, 1, u64::MAX] {
            let truncated = node.truncate_region(&region, number).await;
            refused("truncation of a region", truncated, invalid)?;
            let altered = node.alter_region(&region, &table, u32::MAX, number).await;
            refused("alteration of a region", altered, invalid)?;
        }
        let on = (target.group.membership_term, target.group.membership_index);
        for member in 900..903 {
            let added = node.add_learner(region.group_id, member, on).await;
            refused("addition of an unknown node", added, invalid)?;
            let promoted = node.promote(region.group_id, member, on).await;
            refused("promotion of an unknown node", promoted, invalid)?;
        }
        let started = node.start_group(u64::MAX).await;
        refused("start of an unknown group", started, invalid)?;
        let after = count(&target.cluster, index, metric).await?;
        if after < before + 17 {
            return Err(HarnessError::violated(format!("{metric}: {before}, then {after}")));
        }
        for on in [(u64::MAX, u64::MAX), on] {
            let stopped = node.stop_replica(region.group_id, on).await;
            refused("stop of a replica", stopped, &[Reason::MembershipStale])?;
        }
    }
    target.expect_unchanged().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_heartbeats_do_not_stay() -> Result<()> {
    let target = Target::start().await?;
    let (leader, _) = target.cluster.meta_leader().await?;
    let meta = target.meta(leader as u64 + 1).await?;
    let id = target.group.group_id;
    let named = target.group.leader;
    let address = target.catalog.nodes.iter().find(|node| node.node_id == named);
    let address = address.map(|node| node.address.clone()).unwrap_or_default();
    let elsewhere = meta.node_heartbeat(named, "127.0.0.1:1", id, 1 << 40).await;
    refused("heartbeat from another address", elsewhere, &[Reason::WrongNode])?;
    // A term out of reach, and one that is not.
    for term in [1 << 40, target.group.leader_term + 1_000] {
        for node in [named, other(&target.group, named)] {
            let _ = meta.node_heartbeat(node, &address, id, term).await;
        }
    }
    let expected = target.group.clone();
    let cluster = &target.cluster;
    tidewater_cluster_tests::wait::until("the record is right again", 3 * DEADLINE, || async {
        let catalog = cluster.catalog().await.map_err(|error| error.to_string())?;
        let group = catalog.groups.iter().find(|group| group.group_id == id);
        if group == Some(&expected) { Ok(()) } else { Err(format!("{group:?}")) }
    })
    .await?;
    write_more(target.cluster, target.attempts).await
}
