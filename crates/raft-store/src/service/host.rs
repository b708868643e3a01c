use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tokio::sync::Mutex;

use super::handler::GroupHandler;
use crate::log_store::LogStore;

/// The groups of one node that answer to other nodes.
pub struct RaftHost {
    cluster_id: ClusterId,
    node_id: NodeId,
    store: Arc<LogStore>,
    groups: RwLock<BTreeMap<GroupId, Arc<Hosted>>>,
}

/// A group that answers here.
pub(super) struct Hosted {
    pub(super) handler: Arc<dyn GroupHandler>,
    pub(super) snapshots: PathBuf,
    /// Held while a snapshot arrives and is installed: one at a time.
    pub(super) arriving: Arc<Mutex<()>>,
}

impl RaftHost {
    /// A node without groups.
    pub fn new(cluster_id: ClusterId, node_id: NodeId, store: Arc<LogStore>) -> Arc<Self> {
        Arc::new(Self { cluster_id, node_id, store, groups: RwLock::default() })
    }

    /// Which node.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Which cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Lets a group answer. Snapshots arrive as files named `incoming-*` in the folder `snapshots`,
    /// which must exist; the state machine's `install_snapshot` must rename the file that it is
    /// given ([`crate::SnapshotFile::rename`]): what still has such a name is removed later.
    pub fn add(&self, group: GroupId, handler: Arc<dyn GroupHandler>, snapshots: &Path) {
        let hosted =
            Hosted { handler, snapshots: snapshots.to_owned(), arriving: Arc::new(Mutex::new(())) };
        self.groups.write().insert(group, Arc::new(hosted));
    }

    /// Lets a group answer no more. Does not shut its Raft down.
    pub fn remove(&self, group: GroupId) {
        self.groups.write().remove(&group);
    }

    /// Groups that answer here.
    pub fn groups(&self) -> Vec<GroupId> {
        self.groups.read().keys().copied().collect()
    }

    pub(super) fn hosted(&self, group: GroupId) -> Option<Arc<Hosted>> {
        self.groups.read().get(&group).cloned()
    }

    /// Whether entries of other leaders are taken: not while a full disk has filled the memory too.
    pub(super) fn takes_entries(&self) -> bool {
        self.store.takes_entries()
    }
}

impl fmt::Debug for RaftHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftHost")
            .field("cluster_id", &self.cluster_id)
            .field("node_id", &self.node_id)
            .field("groups", &self.groups())
            .finish()
    }
}
