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
    /// State and leader of each group.
    groups: BTreeMap<u64, (GroupState, u64)>,
}

impl States {
    /// Number of active groups.
    pub(crate) fn active_groups(&self) -> usize {
        self.groups.values().filter(|(state, _)| *state == GroupState::Active).count()
    }

    /// Number of groups that one of these nodes leads.
    pub(crate) fn led_by(&self, is_one: impl Fn(u64) -> bool) -> usize {
        self.groups.values().filter(|(_, leader)| is_one(*leader)).count()
    }

    /// Number of data nodes with this state.
    pub(crate) fn nodes_with(&self, state: NodeState) -> usize {
        self.nodes.values().filter(|known| **known == state).count()
    }

    fn take(&mut self, nodes: &[Node], groups: &[Group]) {
        let data = nodes.iter().filter(|node| node.role() == NodeRole::Data);
        self.nodes.extend(data.map(|node| (node.node_id, node.state())));
        let states = groups.iter().map(|group| (group.group_id, (group.state(), group.leader)));
        self.groups.extend(states);
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
