//! Tests of a group of three replicas over loopback.

use std::sync::Arc;
use std::time::Duration;

use tidewater_data_node::options::GroupOptions;
use tidewater_events::NoRecorder;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::{self, Reason};
use tidewater_region_engine::compaction::CompactionOptions;
use tidewater_region_engine::storage::Storage;
use tonic::Request;

use super::cluster::*;

/// Three nodes in one process, each with a replica of the group.
pub(crate) struct ThreeNodes {
    // Kept until the end of the test.
    folder: tempfile::TempDir,
    pub(crate) storage: Storage,
    options: GroupOptions,
    pub(crate) nodes: Vec<Option<Node>>,
}

impl ThreeNodes {
    pub(crate) async fn start(options: GroupOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("file://{}", folder.path().join("store").display());
        let storage = Storage::open(&store).await.unwrap();
        let mut three = Self { folder, storage, options, nodes: Vec::new() };
        for id in 1..=3 {
            let config = three.node_config(id, "127.0.0.1:0");
            three.nodes.push(Some(Node::start(&config).await));
        }
        let members: Vec<_> = three.running().map(Node::member).collect();
        for (at, node) in three.running().enumerate() {
            node.start_group(&members, at == 0).await;
        }
        three
    }

    fn node_config(&self, id: u64, listen: &str) -> NodeConfig {
        NodeConfig {
            id,
            folder: self.folder.path().join(id.to_string()),
            storage: self.storage.clone(),
            options: self.options.clone(),
            memory: 1 << 30,
            compaction: CompactionOptions::default(),
            listen: listen.to_owned(),
            hooks: no_hooks(id),
            recorder: Arc::new(NoRecorder),
        }
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// Returns the node that leads and serves.
    pub(crate) async fn leader(&self) -> usize {
        let mut found = None;
        until("one node leads", async || {
            for (at, node) in self.nodes.iter().enumerate() {
                let Some(node) = node else { continue };
                if node.leads() && node.open_region().await.is_ok() {
                    found = Some(at);
                    return true;
                }
            }
            false
        })
        .await;
        found.unwrap()
    }

    /// Returns the node that leads and serves a region.
    pub(crate) async fn leader_of(&self, region: u64) -> usize {
        let mut found = None;
        until("one node leads", async || {
            for (at, node) in self.nodes.iter().enumerate() {
                let Some(node) = node else { continue };
                if node.leads() && node.count(region).await.is_some() {
                    found = Some(at);
                    return true;
                }
            }
            false
        })
        .await;
        found.unwrap()
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().unwrap()
    }

    pub(crate) async fn agree(&self) {
        self.agree_on(REGION).await;
    }

    pub(crate) async fn agree_on(&self, region: u64) {
        until("all replicas have one digest", async || {
            let mut digests = Vec::new();
            for node in self.running() {
                digests
                    .push(node.info_of(region).await.map(|info| (info.digest, info.last_sequence)));
            }
            digests.iter().all(|digest| digest.is_some() && *digest == digests[0])
        })
        .await;
    }

    /// Starts a node again that was stopped.
    pub(crate) async fn restart(&mut self, at: usize, address: &str) {
        let config = self.node_config(at as u64 + 1, address);
        self.nodes[at] = Some(Node::start(&config).await);
    }

    /// Starts a stopped node while the others are stopped, and these when the condition is met: the node reads manifests
    /// before it receives entries.
    pub(crate) async fn restart_ahead(
        &mut self,
        at: usize,
        address: &str,
        what: &str,
        is_met: impl AsyncFn(&Node) -> bool,
    ) {
        let mut others = Vec::new();
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let node = self.nodes[other].take().unwrap();
            others.push((other, node.address.clone()));
            node.stop().await;
        }
        self.restart(at, address).await;
        until(what, async || is_met(self.node(at)).await).await;
        for (other, address) in others {
            self.restart(other, &address).await;
        }
    }

    /// Transfers the leadership of the group to a node.
    pub(crate) async fn transfer(&self, to: usize) {
        until("leadership moves", async || {
            for node in self.running().filter(|node| node.leads()) {
                let request = v1::TransferLeaderRequest {
                    header: node.header(),
                    group_id: GROUP,
                    to_node: to as u64 + 1,
                };
                let _ = node.control.transfer_leader(Request::new(request)).await;
            }
            self.node(to).leads()
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes.into_iter().flatten() {
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_a_failover() {
    let mut three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    three.node(leader).write(write(1, 1, &[])).await.unwrap();
    three.node(leader).write(write(1, 2, &[1, 2, 3])).await.unwrap();
    three.agree().await;

    // A follower refuses calls and names the leader.
    let follower = (leader + 1) % 3;
    let refusal = three.node(follower).scan().await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NotLeader);
    assert_eq!(refusal.leader.unwrap().address, three.node(leader).address);
    let refusal = three.node(follower).write(write(1, 3, &[9])).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::NotLeader);

    let old = three.nodes[leader].take().unwrap();
    let address = old.address.clone();
    old.stop().await;
    let next = three.leader().await;
    let node = three.node(next);
    until("the new leader serves", async || node.scan().await.is_ok_and(|ids| ids == [1, 2, 3]))
        .await;
    // A retry that arrives at the new owner takes no second effect.
    assert!(node.write(write(1, 2, &[1, 2, 3])).await.unwrap().repeated);
    node.write(write(1, 3, &[4])).await.unwrap();
    let flushed = node.flush().await.unwrap();
    assert_eq!(flushed.rows, 4);

    // The old leader rejoins as a follower and drops flushed rows.
    three.restart(leader, &address).await;
    three.agree().await;
    until("followers drop what is flushed", async || {
        for node in three.running() {
            let info = node.info().await.unwrap();
            if info.memtable_rows > 0 || info.files != 1 {
                return false;
            }
        }
        true
    })
    .await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_without_a_quorum_refuses_reads_and_writes() {
    let mut three = ThreeNodes::start(GroupOptions {
        write_deadline: Duration::from_secs(2),
        ..GroupOptions::default()
    })
    .await;
    let leader = three.leader().await;
    three.node(leader).write(write(1, 1, &[])).await.unwrap();
    three.node(leader).flush().await.unwrap();
    for at in 0..3 {
        if at != leader {
            three.nodes[at].take().unwrap().stop().await;
        }
    }
    let node = three.node(leader);
    let refusal = node.scan().await.unwrap_err();
    assert!(matches!(refusal.reason, Reason::NotLeader | Reason::DeadlineExceeded), "{refusal:?}");
    let refusal = node.get(&[1]).await.unwrap_err();
    assert!(matches!(refusal.reason, Reason::NotLeader | Reason::DeadlineExceeded), "{refusal:?}");
    // An empty flush result would be a guess: another leader may have accepted writes since.
    let refusal = node.flush().await.unwrap_err();
    assert!(matches!(refusal.reason, Reason::NotLeader | Reason::DeadlineExceeded), "{refusal:?}");
    let refusal = node.write(write(1, 2, &[1])).await.unwrap_err();
    assert!(
        matches!(
            refusal.reason,
            Reason::NotLeader | Reason::DeadlineExceeded | Reason::LeadershipLost
        ),
        "{refusal:?}"
    );
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_transferred_on_request() {
    let three = ThreeNodes::start(GroupOptions::default()).await;
    let leader = three.leader().await;
    three.transfer((leader + 1) % 3).await;
    three.stop().await;
}
