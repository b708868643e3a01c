//! States of nodes and groups from one catalog watch. A fetch of the whole catalog for each look would be a load
//! of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_common::backoff::Jitter;
use tidewater_proto::v1::watch_event::Event;
use tidewater_proto::v1::{Group, GroupState, Node, NodeRole, NodeState};
use tidewater_rpc::{AddressBook, MetaLink};
use tokio::task::JoinHandle;

/// States in the catalog.
#[derive(Debug, Default)]
pub(crate) struct States {
    /// Data nodes.
    nodes: BTreeMap<u64, NodeState>,
    groups: BTreeMap<u64, GroupEntry>,
}

/// A group in the catalog.
#[derive(Debug)]
struct GroupEntry {
    state: GroupState,
    leader: u64,
    voters: Vec<u64>,
}

impl States {
    /// Number of active groups.
    pub(crate) fn active_groups(&self) -> usize {
        self.groups.values().filter(|group| group.state == GroupState::Active).count()
    }

    /// Number of groups without a leader other than these nodes, although the other nodes are a majority of their voters.
    pub(crate) fn without_leader(&self, is_lost: impl Fn(u64) -> bool) -> usize {
        let is_waiting = |group: &&GroupEntry| {
            (group.leader == 0 || is_lost(group.leader)) && group.has_majority(&is_lost)
        };
        self.groups.values().filter(is_waiting).count()
    }

    /// Number of groups of which these nodes are no minority.
    pub(crate) fn without_majority(&self, is_lost: impl Fn(u64) -> bool) -> usize {
        self.groups.values().filter(|group| !group.has_majority(&is_lost)).count()
    }

    /// Number of data nodes with this state.
    pub(crate) fn nodes_with(&self, state: NodeState) -> usize {
        self.nodes.values().filter(|known| **known == state).count()
    }

    fn take(&mut self, nodes: &[Node], groups: &[Group]) {
        let data = nodes.iter().filter(|node| node.role() == NodeRole::Data);
        self.nodes.extend(data.map(|node| (node.node_id, node.state())));
        let entries = groups.iter().map(|group| {
            let voters = group.voters.clone();
            let entry = GroupEntry { state: group.state(), leader: group.leader, voters };
            (group.group_id, entry)
        });
        self.groups.extend(entries);
    }

    fn record(&mut self, event: &Event) {
        match event {
            Event::Snapshot(snapshot) => {
                *self = Self::default();
                self.take(&snapshot.nodes, &snapshot.groups);
            }
            Event::Delta(delta) => {
                self.take(&delta.node_upserts, &delta.group_upserts);
                for node in &delta.node_deletes {
                    self.nodes.remove(node);
                }
            }
            Event::CurrentRevision(_) => {}
        }
    }
}

impl GroupEntry {
    fn has_majority(&self, is_lost: impl Fn(u64) -> bool) -> bool {
        let live = self.voters.iter().filter(|voter| !is_lost(**voter)).count();
        2 * live > self.voters.len()
    }
}

/// Follows the catalog until it is dropped.
#[derive(Debug)]
pub(crate) struct Mirror {
    states: Arc<Mutex<States>>,
    task: JoinHandle<()>,
}

impl Mirror {
    /// Starts the watch of a cluster. `cluster`: its id.
    pub(crate) fn start(metas: &[String], cluster: &str) -> Result<Self> {
        let cluster = cluster
            .parse()
            .map_err(|_| HarnessError::violated(format!("the cluster's id is {cluster:?}")))?;
        let states = Arc::new(Mutex::new(States::default()));
        let link = MetaLink::new(metas.iter().cloned(), Jitter::system());
        let recorded = states.clone();
        let task = tokio::spawn(async move {
            let book = AddressBook::new();
            link.follow_catalog(cluster, &book, |event| recorded.lock().record(event)).await;
        });
        Ok(Self { states, task })
    }

    /// Returns a figure of the states.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&States) -> T) -> T {
        read(&self.states.lock())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}
