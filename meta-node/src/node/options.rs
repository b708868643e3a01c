//! What a meta node is started with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_region_engine::hooks::HookKinds;

use crate::catalog::FIRST_NODE_ID;
use crate::leader::Retention;

/// Whether this node makes the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootstrap {
    /// It waits to be asked into one.
    Never,
    /// It does, and refuses to start when its directory belongs to one already.
    Once,
    /// It does when its directory is empty, else it starts as usual: for a cluster of one process.
    IfEmpty,
}

/// What a meta node is started with. `node_id`, `peers` and `bootstrap` count only while the data
/// directory is empty.
#[derive(Debug, Clone)]
pub struct MetaOptions {
    /// From 1 to 100; higher ids are given to other nodes.
    pub node_id: NodeId,
    /// Where its state is kept.
    pub data_dir: PathBuf,
    /// All members of a new cluster, this node among them: what others connect to.
    pub peers: BTreeMap<NodeId, String>,
    /// Whether this node makes the cluster.
    pub bootstrap: Bootstrap,
    /// A node that sends no heartbeat for so long counts as down. Below two election timeouts,
    /// a change of the meta leader would take every node down.
    pub failure_timeout: Duration,
    /// How long registrations of data nodes must have settled before a group is made of them.
    pub settle: Duration,
    /// A replica on a node that is down for longer is replaced.
    pub replace_after: Duration,
    /// How often garbage is collected.
    pub gc_every: Duration,
    /// What has been garbage for less stays: longer than any scan lives.
    pub gc_grace: Duration,
    /// How long what a durable hook has still to be told is kept; at most six days, since checkpoints
    /// name for a week who wrote a version.
    pub hook_retention: Duration,
    /// Versions of a region's manifest that a durable hook may be behind, after which it begins again
    /// with a snapshot.
    pub hook_retention_versions: u64,
    /// The kinds that hooks may have; the data nodes must know them too.
    pub hook_kinds: HookKinds,
}

/// Checkpoints name for a week who wrote a version.
const LONGEST_HOOK_RETENTION: Duration = Duration::from_secs(6 * 24 * 60 * 60);

impl MetaOptions {
    /// The usual times.
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
            gc_every: Duration::from_secs(60 * 60),
            gc_grace: Duration::from_secs(6 * 60 * 60),
            hook_retention: Duration::from_secs(3 * 24 * 60 * 60),
            hook_retention_versions: 10_000,
            hook_kinds: tidewater_hook_kinds::builtin(),
        }
    }

    /// A cluster with this one meta node.
    pub fn standalone(data_dir: impl Into<PathBuf>, address: impl Into<String>) -> Self {
        let peers = BTreeMap::from([(NodeId(1), address.into())]);
        Self { settle: Duration::ZERO, ..Self::new(NodeId(1), data_dir, peers, Bootstrap::IfEmpty) }
    }

    /// What garbage collection leaves for now.
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
        if self.hook_retention > LONGEST_HOOK_RETENTION {
            return Err(OptionsError::HookRetention(self.hook_retention));
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

/// Options that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// An id that is not for meta nodes.
    #[error("meta nodes have ids from 1 to 100, not {0}")]
    NodeId(NodeId),
    /// The node itself is not in its list.
    #[error("--peers does not name this node: add {0}=HOST:PORT")]
    NotAmongPeers(NodeId),
    /// Longer than it is known who wrote what.
    #[error("deltas can be kept for hooks for at most 6 days, not {0:?}")]
    HookRetention(Duration),
    /// Two peers at one address.
    #[error("--peers gives nodes {0} and {1} the same address {2}")]
    SameAddress(NodeId, NodeId, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let options = |node: u64, peers: &[(u64, &str)]| {
            let peers = peers.iter().map(|(id, at)| (NodeId(*id), (*at).to_owned())).collect();
            MetaOptions::new(NodeId(node), "x", peers, Bootstrap::Never).validate()
        };
        assert_eq!(options(1, &[(1, "a:1"), (2, "b:1")]), Ok(()));
        assert_eq!(options(0, &[(0, "a:1")]), Err(OptionsError::NodeId(NodeId(0))));
        assert_eq!(options(1, &[(1, "a:1"), (101, "b:1")]), Err(OptionsError::NodeId(NodeId(101))));
        assert_eq!(options(3, &[(1, "a:1")]), Err(OptionsError::NotAmongPeers(NodeId(3))));
        assert_eq!(
            options(1, &[(1, "a:1"), (2, "a:1")]),
            Err(OptionsError::SameAddress(NodeId(1), NodeId(2), "a:1".into()))
        );
    }
}
