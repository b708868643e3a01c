use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use tidewater_common::ids::{BootNumber, ClusterId, GroupId, NodeId, Term};
use tidewater_common::log_rate::LogRate;
use tidewater_rpc::AddressBook;
use tokio::sync::{Mutex, watch};

use super::confirmed_members::ConfirmedMembers;
use super::handler::GroupHandler;
use crate::log_store::{GroupLog, LogStore};
use crate::types::{LogId, Vote};

/// Time between two lines of the log about refused messages.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Memberships of groups as a group of their own records them.
pub trait MemberRecords: Send + Sync {
    /// Returns the members of a group, voters and learners, and the log id at which their membership was committed.
    /// `None`: not known.
    fn members(&self, group: GroupId) -> Option<(LogId, Vec<NodeId>)>;
}

/// The groups of one node that accept Raft calls.
pub struct RaftHost {
    cluster_id: ClusterId,
    node_id: NodeId,
    store: Arc<LogStore>,
    groups: RwLock<BTreeMap<GroupId, Arc<HostedGroup>>>,
    removed: watch::Sender<bool>,
    addresses: OnceLock<Arc<AddressBook>>,
    records: OnceLock<Arc<dyn MemberRecords>>,
    refusals: LogRate,
}

/// A group that accepts Raft calls.
pub(super) struct HostedGroup {
    pub(super) handler: Arc<dyn GroupHandler>,
    pub(super) snapshots: PathBuf,
    /// Held while a snapshot arrives and is installed: one at a time.
    pub(super) install_lock: Arc<Mutex<()>>,
    pub(super) confirmed: ConfirmedMembers,
    /// Newest term whose leader has announced a transfer; 0: none.
    transferred: AtomicU64,
}

impl HostedGroup {
    /// Records that a leader has announced the transfer of its leadership. Call it before the group receives the message: it
    /// may lead before the call returns.
    pub(super) fn record_transfer(&self, from: &Vote) {
        self.transferred.fetch_max(from.leader_id.term, Ordering::AcqRel);
    }
}

impl RaftHost {
    /// Creates a node without groups.
    pub fn new(cluster_id: ClusterId, node_id: NodeId, store: Arc<LogStore>) -> Arc<Self> {
        Arc::new(Self {
            cluster_id,
            node_id,
            store,
            groups: RwLock::default(),
            removed: watch::Sender::new(false),
            addresses: OnceLock::new(),
            records: OnceLock::new(),
            refusals: LogRate::new(LOG_INTERVAL),
        })
    }

    /// Sets the addresses at which members are asked about nodes that a group does not know. Without
    /// them, the addresses in the group's membership are used. Only the first call has an effect.
    pub fn set_addresses(&self, addresses: Arc<AddressBook>) {
        // Already set: the node has one address book.
        let _ = self.addresses.set(addresses);
    }

    /// Sets the records that name members when all of those that a replica knows have left its group. Only the first
    /// call has an effect.
    pub fn set_records(&self, records: Arc<dyn MemberRecords>) {
        // Already set: the node has one catalog.
        let _ = self.records.set(records);
    }

    pub(super) fn recorded_members(&self, group: GroupId) -> Option<(LogId, Vec<NodeId>)> {
        self.records.get()?.members(group)
    }

    pub(super) fn address(&self, node: NodeId) -> Option<String> {
        self.addresses.get()?.get(node)
    }

    /// Returns the number of a node's newest start; 0: not known.
    pub(super) fn newest_start(&self, node: NodeId) -> BootNumber {
        self.addresses.get().map_or(BootNumber(0), |addresses| addresses.start(node))
    }

    pub(super) fn refusals(&self) -> &LogRate {
        &self.refusals
    }

    /// Returns the id of the node.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Returns the id of the cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Adds a group. Snapshots arrive as files named `incoming-*` in the directory `snapshots`,
    /// which must exist. The state machine's `install_snapshot` must rename the file that it
    /// receives ([`crate::SnapshotFile::rename`]): files with such a name are removed later.
    pub fn add(&self, group: GroupId, handler: Arc<dyn GroupHandler>, snapshots: &Path) {
        let hosted = HostedGroup {
            handler,
            snapshots: snapshots.to_owned(),
            install_lock: Arc::new(Mutex::new(())),
            confirmed: ConfirmedMembers::default(),
            transferred: AtomicU64::new(0),
        };
        self.groups.write().insert(group, Arc::new(hosted));
    }

    /// Removes a group. Does not shut its Raft down.
    pub fn remove(&self, group: GroupId) {
        self.groups.write().remove(&group);
    }

    /// Returns the groups that accept calls.
    pub fn groups(&self) -> Vec<GroupId> {
        self.groups.read().keys().copied().collect()
    }

    /// Returns the newest term whose leader has announced to this node's replica that it transfers its leadership.
    pub fn transferred_term(&self, group: GroupId) -> Option<Term> {
        let term = self.group(group)?.transferred.load(Ordering::Acquire);
        (term > 0).then_some(Term(term))
    }

    pub(super) fn group(&self, group: GroupId) -> Option<Arc<HostedGroup>> {
        self.groups.read().get(&group).cloned()
    }

    /// Sets whether the node was removed from its service; streams to a removed node end.
    pub(super) fn set_removed(&self, removed: bool) {
        self.removed.send_replace(removed);
    }

    /// Resolves when the node is removed from its service. A stream that stayed open would bind its
    /// caller to this end of the connection, even if another node has the address by then.
    pub(super) fn removed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut removed = self.removed.subscribe();
        async move {
            // An error means that the host itself was dropped.
            let _ = removed.wait_for(|removed| *removed).await;
        }
    }

    /// Returns the log of a group.
    pub(super) fn log(&self, group: GroupId) -> GroupLog {
        self.store.group(group)
    }

    /// Returns whether entries of other leaders are accepted: not while the disk is full and half
    /// of the memory for pending writes is used.
    pub(super) fn accepts_entries(&self) -> bool {
        self.store.accepts_entries()
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
