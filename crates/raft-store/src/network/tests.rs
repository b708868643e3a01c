//! Three nodes in this process, over real connections.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use openraft::type_config::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, ReadPolicy};
use tempfile::TempDir;
use tidewater_common::ids::Term;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_proto::v1::{self, Reason};
use tokio::net::TcpListener;

use super::*;

mod calls;
mod idle;

use crate::leader_history::{LeaderCause, LeaderChange, LeaderHistory, LeaderView};
use crate::testing::cluster::{CLUSTER, GROUP, Node, start, wait_commands, wait_leader};
use crate::testing::eventually;

fn others(nodes: &BTreeMap<u64, Node>, id: u64) -> Vec<u64> {
    nodes.keys().copied().filter(|other| *other != id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_survive_the_death_of_the_leader() {
    let dir = TempDir::new().unwrap();
    let mut nodes = start(&dir, 3).await;
    let leader = wait_leader(&nodes).await;
    for number in 0..50 {
        nodes[&leader].write(&format!("first {number}")).await;
    }
    let before = nodes[&leader].commands();
    nodes.remove(&leader).unwrap().kill();
    let next = wait_leader(&nodes).await;
    assert_ne!(next, leader);
    nodes[&next].write("second").await;
    for node in nodes.values() {
        wait_commands(node, 51).await;
        assert_eq!(node.commands()[..50], before[..]);
    }
    // The node restarts with its log at another address, and catches up.
    let back = Node::start(leader, dir.path().join(leader.to_string())).await;
    for node in nodes.values() {
        node.addresses.set(NodeId(leader), back.member().address);
        back.addresses.set(NodeId(node.id), node.member().address);
    }
    wait_commands(&back, 51).await;
    assert_eq!(back.commands(), nodes[&next].commands());
    assert_eq!(back.machine.applied.lock().installed, 0, "from the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_member_is_initialized_by_a_snapshot() {
    let dir = TempDir::new().unwrap();
    let mut nodes = start(&dir, 2).await;
    let leader = wait_leader(&nodes).await;
    let large = "x".repeat(3 * 1024 * 1024);
    nodes[&leader].write(&large).await;
    for number in 0..20 {
        nodes[&leader].write(&number.to_string()).await;
    }
    nodes[&leader].raft.trigger().snapshot().await.unwrap();
    eventually("the log is purged", || {
        nodes[&leader].raft.metrics().borrow_watched().purged.is_some_and(|id| id.index >= 20)
    })
    .await;
    let newcomer = Node::start(3, dir.path().join("3")).await;
    let raft = &nodes[&leader].raft;
    raft.add_learner(3, newcomer.member(), true).await.unwrap();
    wait_commands(&newcomer, 21).await;
    assert_eq!(newcomer.commands(), nodes[&leader].commands());
    assert_eq!(newcomer.machine.applied.lock().installed, 1);
    raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([3])), false).await.unwrap();
    nodes[&leader].write("after").await;
    wait_commands(&newcomer, 22).await;
    let snapshots = dir.path().join("3/snapshots");
    assert_eq!(names(&snapshots), ["current"], "nothing is left of the transfer");
    nodes.insert(3, newcomer);
    wait_leader(&nodes).await;
}

// The node knows neither the new member nor its leadership when the new member's entries arrive.
#[tokio::test(flavor = "multi_thread")]
async fn lagging_node_follows_a_leader_it_does_not_know() {
    let dir = TempDir::new().unwrap();
    let mut nodes = start(&dir, 3).await;
    let leader = wait_leader(&nodes).await;
    nodes[&leader].write("first").await;
    let away = others(&nodes, leader)[0];
    wait_commands(&nodes[&away], 1).await;
    nodes.remove(&away).unwrap().kill();
    let newcomer = Node::start(4, dir.path().join("4")).await;
    let raft = nodes[&leader].raft.clone();
    raft.add_learner(4, newcomer.member(), true).await.unwrap();
    raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([4])), false).await.unwrap();
    for node in nodes.values() {
        newcomer.addresses.set(NodeId(node.id), node.member().address);
    }
    nodes.insert(4, newcomer);
    raft.trigger().transfer_leader(4).await.unwrap();
    eventually("the new member leads", || nodes[&4].raft.is_leader()).await;
    nodes[&4].write("second").await;
    let back = Node::start(away, dir.path().join(away.to_string())).await;
    for node in nodes.values() {
        node.addresses.set(NodeId(away), back.member().address);
    }
    wait_commands(&back, 2).await;
    assert_eq!(back.leader(), Some(4));
}

/// An address that closes every connection, and counts them.
struct ClosedAddress {
    address: String,
    calls: Arc<AtomicUsize>,
}

impl ClosedAddress {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { address, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap();
    names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated_node_does_not_raise_its_term() {
    let dir = TempDir::new().unwrap();
    let nodes = start(&dir, 3).await;
    let leader = wait_leader(&nodes).await;
    let isolated = others(&nodes, leader)[0];
    let term = nodes[&leader].term();
    // Isolated both ways: its calls get no response.
    nodes[&isolated].proxy.set_open(false);
    let closed = ClosedAddress::start().await;
    for other in others(&nodes, isolated) {
        nodes[&isolated].addresses.set(NodeId(other), closed.address.clone());
    }
    // A follower only calls for votes: each of the others three times.
    eventually("it has requested votes repeatedly", || closed.calls() >= 6).await;
    assert_eq!(nodes[&isolated].term(), term, "no vote request was granted");
    nodes[&leader].write("isolated").await;
    for other in others(&nodes, isolated) {
        nodes[&isolated].addresses.set(NodeId(other), nodes[&other].member().address);
    }
    nodes[&isolated].proxy.set_open(true);
    wait_commands(&nodes[&isolated], 1).await;
    assert_eq!(wait_leader(&nodes).await, leader, "the returning node deposes no leader");
    assert_eq!(nodes[&leader].term(), term);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_node_is_called_at_a_bounded_rate() {
    let dir = TempDir::new().unwrap();
    let nodes = start(&dir, 3).await;
    let leader = wait_leader(&nodes).await;
    let closed = ClosedAddress::start().await;
    let dead = others(&nodes, leader)[0];
    nodes[&dead].proxy.set_open(false);
    nodes[&leader].addresses.set(NodeId(dead), closed.address.clone());
    nodes[&leader].write("there is something to send").await;
    let begun = Instant::now();
    let before = closed.calls();
    eventually("it was called twenty times", || closed.calls() >= before + 20).await;
    // Seven heartbeats and five streams a second; a busy machine only takes longer.
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_transferred_on_request() {
    let dir = TempDir::new().unwrap();
    let nodes = start(&dir, 3).await;
    let leader = wait_leader(&nodes).await;
    nodes[&leader].write("before").await;
    let next = others(&nodes, leader)[0];
    wait_commands(&nodes[&next], 1).await;
    let term = nodes[&leader].term();
    let mut history = LeaderHistory::default();
    let mut observe = || {
        let node = &nodes[&next];
        let metrics = node.raft.server_metrics();
        let now = LeaderView::new(&node.host, GROUP, &metrics.borrow_watched());
        history.observe(now)
    };
    assert_eq!(observe(), None);
    nodes[&leader].raft.trigger().transfer_leader(next).await.unwrap();
    let mut change = None;
    eventually("the other leads", || {
        change = change.or_else(&mut observe);
        change.is_some() && nodes.values().all(|node| node.leader() == Some(next))
    })
    .await;
    assert_eq!(nodes[&next].term(), term + 1, "immediately, without an election timeout");
    let cause = LeaderCause::Transferred;
    let expected = LeaderChange { term: Term(term + 1), former: Some(NodeId(leader)), cause };
    assert_eq!(change, Some(expected));
    nodes[&next].write("after").await;
    nodes[&next].raft.ensure_linearizable(ReadPolicy::ReadIndex).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_entries_are_replicated_without_an_election() {
    let dir = TempDir::new().unwrap();
    let nodes = start(&dir, 3).await;
    let leader = wait_leader(&nodes).await;
    let term = nodes[&leader].term();
    let large = "x".repeat(5 * 1024 * 1024);
    let writes = (0..10).map(|_| nodes[&leader].write(&large));
    futures::future::join_all(writes).await;
    for node in nodes.values() {
        wait_commands(node, 10).await;
    }
    assert_eq!(nodes[&leader].term(), term);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_node_at_old_address_refuses_calls() {
    let dir = TempDir::new().unwrap();
    let nodes = start(&dir, 1).await;
    let address = format!("http://{}", nodes[&1].proxy.address);
    let mut client = RaftClient::connect(address).await.unwrap();
    let header = |cluster: ClusterId, target_node, group: GroupId| v1::RaftHeader {
        cluster_id: cluster.to_string(),
        source_node: 9,
        target_node,
        group_id: group.get(),
        source_boot: 0,
    };
    let cases = [
        (header(CLUSTER, 2, GROUP), Reason::WrongNode),
        (header(ClusterId(uuid::Uuid::nil()), 1, GROUP), Reason::WrongCluster),
        (header(CLUSTER, 1, GroupId(77)), Reason::GroupNotHosted),
    ];
    for (header, expected) in cases {
        let reason = |status: tonic::Status| Refusal::from_status(&status).reason;
        let header = Some(header);
        let vote = v1::VoteRequest { header: header.clone(), ..Default::default() };
        assert_eq!(reason(client.vote(vote.clone()).await.unwrap_err()), expected);
        assert_eq!(reason(client.pre_vote(vote).await.unwrap_err()), expected);
        if expected != Reason::GroupNotHosted {
            // Heartbeats name their groups individually.
            let hello = v1::HeartbeatBatch { header: header.clone(), ..Default::default() };
            let stream = tokio_stream::iter([hello]);
            assert_eq!(reason(client.heartbeats(stream).await.unwrap_err()), expected);
        }
        let append = v1::AppendEntriesRequest { header: header.clone(), ..Default::default() };
        let stream = tokio_stream::iter([append]);
        assert_eq!(reason(client.append_entries(stream).await.unwrap_err()), expected);
        let chunk = v1::SnapshotChunk { header: header.clone(), ..Default::default() };
        let stream = tokio_stream::iter([chunk]);
        assert_eq!(reason(client.install_snapshot(stream).await.unwrap_err()), expected);
        let transfer = v1::TransferLeaderMessage { header, ..Default::default() };
        assert_eq!(reason(client.transfer_leader(transfer).await.unwrap_err()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_group_answers_no_more() {
    let dir = TempDir::new().unwrap();
    let nodes = start(&dir, 3).await;
    let leader = wait_leader(&nodes).await;
    let gone = others(&nodes, leader)[0];
    nodes[&gone].host.remove(GROUP);
    nodes[&gone].raft.shutdown().await.unwrap();
    nodes[&gone].store.remove_group(GROUP).await.unwrap();
    nodes[&leader].write("two are enough").await;
    // Further requests of its leader are refused, and create no new log.
    let address = format!("http://{}", nodes[&gone].proxy.address);
    let mut client = RaftClient::connect(address).await.unwrap();
    let header = v1::RaftHeader {
        cluster_id: CLUSTER.to_string(),
        source_node: leader,
        target_node: gone,
        group_id: GROUP.get(),
        source_boot: 0,
    };
    let append = v1::AppendEntriesRequest { header: Some(header), ..Default::default() };
    let refused = client.append_entries(tokio_stream::iter([append])).await.unwrap_err();
    assert_eq!(Refusal::from_status(&refused).reason, Reason::GroupNotHosted);
    assert!(nodes[&gone].store.is_empty());
    assert!(nodes[&leader].factory.addresses().get(NodeId(gone)).is_some());
}

/// A superseded process acknowledges entries that the newest one lacks.
#[tokio::test(flavor = "multi_thread")]
async fn appends_go_to_the_newest_start_of_a_node() {
    let dir = TempDir::new().unwrap();
    let mut nodes = start(&dir, 3).await;
    let leader = wait_leader(&nodes).await;
    nodes[&leader].write("to all").await;
    let moved = others(&nodes, leader)[0];
    for node in nodes.values() {
        wait_commands(node, 1).await;
    }
    // The node's new process is at another address. The old one still has its connection.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = &nodes[&leader].addresses;
    addresses.set(NodeId(moved), nowhere.to_string());
    addresses.set_start(NodeId(moved), BootNumber(2));
    nodes[&leader].write("to the newest").await;
    let third = others(&nodes, leader)[1];
    wait_commands(&nodes[&third], 2).await;
    nodes[&leader].write("and more").await;
    wait_commands(&nodes[&third], 3).await;
    assert!(nodes[&moved].commands().len() < 3, "{:?}", nodes[&moved].commands());
    nodes.remove(&leader).unwrap().kill();
}
