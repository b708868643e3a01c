use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tokio::sync::{Mutex, watch};

use super::handler::GroupHandler;
use crate::log_store::LogStore;

/// The groups of one node that answer to other nodes.
pub struct RaftHost {
    cluster_id: ClusterId,
    node_id: NodeId,
    store: Arc<LogStore>,
    groups: RwLock<BTreeMap<GroupId, Arc<Hosted>>>,
    gone: watch::Sender<bool>,
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
        let gone = watch::Sender::new(false);
        Arc::new(Self { cluster_id, node_id, store, groups: RwLock::default(), gone })
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

    /// Says whether the node answers here; streams to it end when it does not.
    pub(super) fn set_gone(&self, gone: bool) {
        self.gone.send_replace(gone);
    }

    /// Resolves when the node answers here no more. A stream that stayed open would hold its caller
    /// to this end of the connection, whoever has the node's address by then.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut gone = self.gone.subscribe();
        async move {
            // An error means that the host itself is no more.
            let _ = gone.wait_for(|gone| *gone).await;
        }
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
