//! Groups, nodes and the header: values with typed ids, and their stored messages.
//!
//! States and roles are the enums of the wire format, which have one meaning everywhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{
    BootNumber, ClusterId, GroupId, Incarnation, LogIndex, NodeId, Revision, TableId, Term,
};
use tidewater_proto::v1::{self, GroupState, NodeRole, NodeState};
use uuid::Uuid;

use super::CatalogError;

/// Singletons of the state: identity, replicated time and counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `None` until the cluster is bootstrapped.
    pub cluster_id: Option<ClusterId>,
    /// Incremented when the cluster is restored; part of region directory names.
    pub incarnation: Incarnation,
    /// Commands that need a higher level are rejected.
    pub feature_level: FeatureLevel,
    /// Replicated time, milliseconds since the Unix epoch; never decreases.
    pub time_ms: u64,
    /// Term of the last entry that advanced replicated time to a time on which the clocks agreed; 0 below
    /// [`FeatureLevel::EXACT_EVENTS`]. In a later term, the cluster may have been off for days since.
    pub agreed_term: Term,
    /// Grows by one with every change that watchers see.
    pub revision: Revision,
    /// Id of the next table.
    pub next_table_id: TableId,
    /// Id of the next group.
    pub next_group_id: GroupId,
    /// Id of the next data or compactor node.
    pub next_node_id: NodeId,
    /// Object store of the first data node; all other nodes must use it too.
    pub object_store_id: Option<Arc<str>>,
}

/// A data group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Unique id, never reused.
    pub id: GroupId,
    /// Creating, active, abandoned or retired.
    pub state: GroupState,
    /// Initial membership, never changed; the first member is the group's home.
    pub first_members: Vec<NodeId>,
    /// Voters, as last reported by the leader.
    pub voters: BTreeSet<NodeId>,
    /// Learners, as last reported by the leader.
    pub learners: BTreeSet<NodeId>,
    /// Log id of the reported membership.
    pub membership: (Term, LogIndex),
    /// Last known leader.
    pub leader: Option<NodeId>,
    /// Term of the last known leader.
    pub leader_term: Term,
    /// An active group that gets no routes, and is retired when it has none.
    pub retiring: bool,
}

impl Group {
    /// Returns whether the group has replicas, or is about to have them: it is neither abandoned nor retired.
    pub fn is_live(&self) -> bool {
        matches!(self.state, GroupState::Creating | GroupState::Active)
    }

    /// Returns whether new routes are placed in the group.
    pub fn takes_routes(&self) -> bool {
        self.state == GroupState::Active && !self.retiring
    }

    /// The first of the first members.
    pub fn home(&self) -> Option<NodeId> {
        self.first_members.first().copied()
    }

    /// Nodes that host, or are about to host, a replica: before the first report, the first members.
    pub fn replicas(&self) -> BTreeSet<NodeId> {
        if self.voters.is_empty() {
            self.first_members.iter().copied().collect()
        } else {
            self.voters.union(&self.learners).copied().collect()
        }
    }
}

impl From<&Group> for v1::Group {
    fn from(group: &Group) -> Self {
        let numbers = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.get()).collect();
        Self {
            group_id: group.id.get(),
            state: group.state.into(),
            first_members: group.first_members.iter().map(|id| id.get()).collect(),
            voters: numbers(&group.voters),
            learners: numbers(&group.learners),
            membership_term: group.membership.0.get(),
            membership_index: group.membership.1.get(),
            leader: group.leader.map_or(0, NodeId::get),
            leader_term: group.leader_term.get(),
            retiring: group.retiring,
        }
    }
}

/// A node of any role. Meta nodes have no directory id: the Raft membership identifies them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique id, never reused.
    pub id: NodeId,
    /// Meta, data or compactor.
    pub role: NodeRole,
    /// host:port.
    pub address: String,
    /// Up, down or removed.
    pub state: NodeState,
    /// A data node that gets no replicas and loses those that it has.
    pub draining: bool,
    /// The node that gets the replicas of a draining node; `None`: any nodes.
    pub replacement: Option<NodeId>,
    /// Id created with the data directory; `None` for meta nodes.
    pub directory_id: Option<Uuid>,
    /// Replicated time of the last state change.
    pub state_since_ms: u64,
    /// Replicated time of the first registration.
    pub registered_ms: u64,
    /// Number of the start that registered last; 0 for nodes that do not count their starts.
    pub boot: BootNumber,
    /// Id of the process that registered with this number.
    pub start_id: Option<Uuid>,
}

impl Node {
    /// Returns whether a process with this number is not the node's newest one: it uses a copy of the
    /// node's directory, or an earlier state of it. A process without a number has an older release.
    pub fn supersedes(&self, boot: BootNumber) -> bool {
        boot != BootNumber(0) && boot < self.boot
    }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            node_id: node.id.get(),
            role: node.role.into(),
            address: node.address.clone(),
            state: node.state.into(),
            // Not in stored deltas, whose bytes would differ between releases: see `publish_starts`.
            boot: 0,
            draining: node.draining,
            replacement_id: node.replacement.map_or(0, NodeId::get),
        }
    }
}

pub(super) fn invalid(kind: &'static str, problem: impl ToString) -> CatalogError {
    CatalogError::InvalidRecord { kind, problem: problem.to_string() }
}

impl From<&Header> for v1::MetaHeader {
    fn from(header: &Header) -> Self {
        Self {
            cluster_id: header.cluster_id.map_or_else(String::new, |id| id.to_string()),
            incarnation: header.incarnation.get(),
            feature_level: header.feature_level.get(),
            time_ms: header.time_ms,
            agreed_term: header.agreed_term.get(),
            revision: header.revision.get(),
            next_table_id: header.next_table_id.get(),
            next_group_id: header.next_group_id.get(),
            next_node_id: header.next_node_id.get(),
            object_store_id: header.object_store_id.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

impl TryFrom<v1::MetaHeader> for Header {
    type Error = CatalogError;

    fn try_from(stored: v1::MetaHeader) -> Result<Self, CatalogError> {
        let cluster_id = match stored.cluster_id.as_str() {
            "" => None,
            text => {
                Some(text.parse().map_err(|_| invalid("header", "its cluster id is not a UUID"))?)
            }
        };
        Ok(Self {
            cluster_id,
            incarnation: Incarnation(stored.incarnation),
            feature_level: FeatureLevel::new(stored.feature_level),
            time_ms: stored.time_ms,
            agreed_term: Term(stored.agreed_term),
            revision: Revision(stored.revision),
            next_table_id: TableId(stored.next_table_id),
            next_group_id: GroupId(stored.next_group_id),
            next_node_id: NodeId(stored.next_node_id),
            object_store_id: (!stored.object_store_id.is_empty())
                .then(|| stored.object_store_id.into()),
        })
    }
}

impl TryFrom<v1::Group> for Group {
    type Error = CatalogError;

    fn try_from(stored: v1::Group) -> Result<Self, CatalogError> {
        let ids = |numbers: &[u64]| numbers.iter().copied().map(NodeId).collect();
        Ok(Self {
            id: GroupId(stored.group_id),
            state: known(GroupState::try_from(stored.state), GroupState::Unspecified, "group")?,
            first_members: stored.first_members.iter().copied().map(NodeId).collect(),
            voters: ids(&stored.voters),
            learners: ids(&stored.learners),
            membership: (Term(stored.membership_term), LogIndex(stored.membership_index)),
            leader: (stored.leader != 0).then_some(NodeId(stored.leader)),
            leader_term: Term(stored.leader_term),
            retiring: stored.retiring,
        })
    }
}

impl From<&Node> for v1::NodeRecord {
    fn from(node: &Node) -> Self {
        Self {
            node: Some(node.into()),
            directory_id: node.directory_id.map_or_else(String::new, |id| id.to_string()),
            state_since_ms: node.state_since_ms,
            registered_ms: node.registered_ms,
            boot: node.boot.get(),
            start_id: node.start_id.map_or_else(String::new, |id| id.to_string()),
        }
    }
}

impl TryFrom<v1::NodeRecord> for Node {
    type Error = CatalogError;

    fn try_from(stored: v1::NodeRecord) -> Result<Self, CatalogError> {
        let node = stored.node.ok_or_else(|| invalid("node", "it has no node"))?;
        let uuid = |text: &str, problem: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| invalid("node", problem)),
        };
        Ok(Self {
            id: NodeId(node.node_id),
            role: known(NodeRole::try_from(node.role), NodeRole::Unspecified, "node")?,
            address: node.address,
            state: known(NodeState::try_from(node.state), NodeState::Unspecified, "node")?,
            draining: node.draining,
            replacement: (node.replacement_id != 0).then_some(NodeId(node.replacement_id)),
            directory_id: uuid(&stored.directory_id, "its directory id is not a UUID")?,
            state_since_ms: stored.state_since_ms,
            registered_ms: stored.registered_ms,
            boot: BootNumber(stored.boot),
            start_id: uuid(&stored.start_id, "the id of its process is not a UUID")?,
        })
    }
}

/// Returns a parsed enum value, unless this release does not know it or it means "absent".
pub(super) fn known<E: PartialEq, X>(
    parsed: Result<E, X>,
    unspecified: E,
    kind: &'static str,
) -> Result<E, CatalogError> {
    parsed
        .ok()
        .filter(|value| *value != unspecified)
        .ok_or_else(|| invalid(kind, "its state or role is unknown"))
}
