//! Options of a meta node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::ClusterClock;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::NodeId;
use tidewater_common::problems::ProcessProblems;
use tidewater_events::{EventRecorderRef, NoRecorder};
use tidewater_hook_kinds::HookAccess;
use tidewater_region_engine::hooks::HookKinds;

use crate::catalog::FIRST_NODE_ID;
use crate::leader::{BarrierOptions, Retention};

/// Bootstrap mode of a meta node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootstrap {
    /// The node waits to be added to a cluster.
    Never,
    /// The node creates a cluster, and fails to start when its directory already belongs to one.
    Once,
    /// The node creates a cluster when its directory is empty, and starts normally otherwise. For a
    /// cluster in a single process.
    IfEmpty,
}

/// Options of a meta node. `node_id`, `peers` and `bootstrap` apply only while the data directory is
/// empty.
#[derive(Debug, Clone)]
pub struct MetaOptions {
    /// Id of the node, 1 to 100; higher ids are assigned to other nodes.
    pub node_id: NodeId,
    /// Path of the data directory.
    pub data_dir: PathBuf,
    /// All members of a new cluster, including this node, with the addresses that others connect to.
    pub peers: BTreeMap<NodeId, String>,
    /// Bootstrap mode.
    pub bootstrap: Bootstrap,
    /// Time without a heartbeat after which a node is down. With a value below two election timeouts,
    /// a change of the meta leader would set every node down.
    pub failure_timeout: Duration,
    /// Delay of new groups after the last registration of a data node.
    pub settle: Duration,
    /// Time after which the replicas on a node that is down are replaced.
    pub replace_after: Duration,
    /// Number of data groups for each data node, 1 or more. The same on all meta nodes.
    pub groups_per_node: usize,
    /// Maximum number of data nodes in the catalog, including those that are down. The same on all meta nodes.
    pub max_data_nodes: usize,
    /// Difference of a clock from the other clocks of the cluster beyond which it is wrong; more than 0.
    pub max_clock_difference: Duration,
    /// Highest level to which the cluster is raised while this node is a member; `None`: no limit. Until the
    /// raise, all nodes can return to the release before.
    pub max_level: Option<FeatureLevel>,
    /// Interval between garbage collection passes.
    pub gc_every: Duration,
    /// Grace period before unreferenced objects are deleted; must exceed the longest scan.
    pub gc_grace: Duration,
    /// Maximum age of manifest deltas that are kept for a durable hook that lags. At most 6 days,
    /// because checkpoints record the writers of versions for 7 days.
    pub hook_retention: Duration,
    /// Maximum number of versions of a region's manifest that are kept for a durable hook that lags. A
    /// hook that is further behind restarts with a snapshot.
    pub hook_retention_versions: u64,
    /// Available hook kinds; the data nodes must have the same.
    pub hook_kinds: HookKinds,
    /// Interval of barriers, and how long epochs can be read. The same on all meta nodes.
    pub barriers: BarrierOptions,
    /// Problems of the process, which the leader of group 0 reports.
    pub problems: ProcessProblems,
    /// Recorder of the cluster's events.
    pub events: EventRecorderRef,
}

/// Maximum of [`MetaOptions::hook_retention`]: checkpoints record the writers of versions for 7 days.
const MAX_HOOK_RETENTION: Duration = Duration::from_secs(6 * 24 * 60 * 60);

/// Least interval of barriers: each is an entry in the log of every group.
const MIN_BARRIER_INTERVAL: Duration = Duration::from_millis(100);
/// Greatest interval of barriers: an epoch can be read after the next barrier.
const MAX_BARRIER_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum of [`BarrierOptions::history`].
const MAX_HISTORY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl MetaOptions {
    /// Default of [`MetaOptions::groups_per_node`]: the load of a node that is lost is shared by several nodes.
    pub const GROUPS_PER_NODE: usize = 2;
    /// Default of [`MetaOptions::max_data_nodes`].
    pub const MAX_DATA_NODES: usize = 4_096;

    /// Creates options with default times.
    pub fn new(
        node_id: NodeId,
        data_dir: impl Into<PathBuf>,
        peers: BTreeMap<NodeId, String>,
        bootstrap: Bootstrap,
    ) -> Self {
        Self {
            node_id,
            data_dir: data_dir.into(),
            peers,
            bootstrap,
            failure_timeout: Duration::from_secs(5),
            settle: Duration::from_secs(1),
            replace_after: Duration::from_secs(600),
            groups_per_node: Self::GROUPS_PER_NODE,
            max_data_nodes: Self::MAX_DATA_NODES,
            max_clock_difference: ClusterClock::DEFAULT_BOUND,
            max_level: None,
            gc_every: Duration::from_secs(60 * 60),
            gc_grace: Duration::from_secs(6 * 60 * 60),
            hook_retention: Duration::from_secs(3 * 24 * 60 * 60),
            hook_retention_versions: 10_000,
            hook_kinds: tidewater_hook_kinds::builtin(HookAccess::default()),
            barriers: BarrierOptions::default(),
            problems: ProcessProblems::default(),
            events: Arc::new(NoRecorder),
        }
    }

    /// Creates options of a cluster with a single meta node and a single data node, which needs one group.
    pub fn standalone(data_dir: impl Into<PathBuf>, address: impl Into<String>) -> Self {
        let peers = BTreeMap::from([(NodeId(1), address.into())]);
        Self {
            settle: Duration::ZERO,
            groups_per_node: 1,
            ..Self::new(NodeId(1), data_dir, peers, Bootstrap::IfEmpty)
        }
    }

    /// Retention of unreferenced objects.
    pub(super) fn retention(&self) -> Retention {
        Retention {
            grace: self.gc_grace,
            hook_age: self.hook_retention,
            hook_versions: self.hook_retention_versions,
        }
    }

    pub(super) fn validate(&self) -> Result<(), OptionsError> {
        for id in self.peers.keys().chain([&self.node_id]) {
            if !(NodeId(1)..FIRST_NODE_ID).contains(id) {
                return Err(OptionsError::NodeId(*id));
            }
        }
        if self.hook_retention > MAX_HOOK_RETENTION {
            return Err(OptionsError::HookRetention(self.hook_retention));
        }
        let BarrierOptions { interval, history } = self.barriers;
        if !(MIN_BARRIER_INTERVAL..=MAX_BARRIER_INTERVAL).contains(&interval) {
            return Err(OptionsError::BarrierInterval(interval));
        }
        if history > MAX_HISTORY {
            return Err(OptionsError::History(history));
        }
        if !self.peers.contains_key(&self.node_id) {
            return Err(OptionsError::NotAmongPeers(self.node_id));
        }
        let mut seen = BTreeMap::new();
        for (id, address) in &self.peers {
            if let Some(other) = seen.insert(address, *id) {
                return Err(OptionsError::SameAddress(other, *id, address.clone()));
            }
        }
        Ok(())
    }
}

/// Error of invalid options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// An id outside of the range of meta nodes.
    #[error("{0} is not the id of a meta node: use 1 to 100")]
    NodeId(NodeId),
    /// The list of peers does not contain the node itself.
    #[error("--peers does not name this node: add {0}=HOST:PORT")]
    NotAmongPeers(NodeId),
    /// A hook retention above 6 days.
    #[error("hook retention {0:?} is too long (maximum 6 days)")]
    HookRetention(Duration),
    /// Barriers that are too frequent or too rare.
    #[error("--barrier-interval {0:?} is out of range: use 100ms to 1m")]
    BarrierInterval(Duration),
    /// A history that is too long.
    #[error("--history {0:?} is too long: use 7d at most")]
    History(Duration),
    /// Two peers with the same address.
    #[error("--peers gives nodes {0} and {1} the same address {2}")]
    SameAddress(NodeId, NodeId, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_options_are_rejected() {
        let options = |node: u64, peers: &[(u64, &str)]| {
            let peers = peers.iter().map(|(id, at)| (NodeId(*id), (*at).to_owned())).collect();
            MetaOptions::new(NodeId(node), "x", peers, Bootstrap::Never).validate()
        };
        assert_eq!(options(1, &[(1, "a:1"), (2, "b:1")]), Ok(()));
        assert_eq!(options(0, &[(0, "a:1")]), Err(OptionsError::NodeId(NodeId(0))));
        assert_eq!(options(1, &[(1, "a:1"), (101, "b:1")]), Err(OptionsError::NodeId(NodeId(101))));
        assert_eq!(options(3, &[(1, "a:1")]), Err(OptionsError::NotAmongPeers(NodeId(3))));
        let barriers = |interval, history| {
            let peers = BTreeMap::from([(NodeId(1), "a:1".to_owned())]);
            let barriers = BarrierOptions { interval, history };
            let options = MetaOptions::new(NodeId(1), "x", peers, Bootstrap::Never);
            MetaOptions { barriers, ..options }.validate()
        };
        assert_eq!(barriers(MIN_BARRIER_INTERVAL, Duration::ZERO), Ok(()));
        for interval in [Duration::ZERO, Duration::from_millis(99), Duration::from_secs(61)] {
            let refused = barriers(interval, Duration::ZERO);
            assert_eq!(refused, Err(OptionsError::BarrierInterval(interval)));
        }
        let long = MAX_HISTORY + Duration::from_secs(1);
        assert_eq!(barriers(MAX_BARRIER_INTERVAL, long), Err(OptionsError::History(long)));
        assert_eq!(
            options(1, &[(1, "a:1"), (2, "a:1")]),
            Err(OptionsError::SameAddress(NodeId(1), NodeId(2), "a:1".into()))
        );
    }
}
