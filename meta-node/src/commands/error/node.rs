//! Errors of commands on nodes: registration, drains, removals, and changes of members of the meta group.

use tidewater_common::agreed_limits::REPLICAS_PER_GROUP;
use tidewater_common::ids::{BootNumber, GroupId, NodeId};
use tidewater_common::quote::quoted;
use tidewater_proto::v1::NodeRole;

/// Error of a rejected command; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeCommandError {
    /// The node id in the caller's identity is not the id of its directory.
    #[error("node id {claimed} is not assigned to the data directory {directory}")]
    WrongDirectory {
        /// Node id in the caller's identity.
        claimed: NodeId,
        /// Id of the directory.
        directory: uuid::Uuid,
    },
    /// The data directory is a copy of a node's directory, or an earlier state of it.
    #[error(
        "node {node} was started for the {registered}th time at {address}, and this data directory begins its \
         start {boot}: it is a copy of the node's directory, or was restored from a backup. Its logs may lack \
         acknowledged writes. To join as a new node, use an empty --data-dir"
    )]
    DirectoryCopied {
        /// Id of the node.
        node: NodeId,
        /// Number of the refused start.
        boot: BootNumber,
        /// Number of the start that registered last.
        registered: BootNumber,
        /// Address of the node.
        address: String,
    },
    /// The directory is registered with another role.
    #[error("node {node} is a {registered:?} node, it cannot register as {requested:?}")]
    RoleMismatch {
        /// Id of the node.
        node: NodeId,
        /// Registered role.
        registered: NodeRole,
        /// Requested role.
        requested: NodeRole,
    },
    /// A role that does not register.
    #[error("nodes of this role do not register")]
    RoleCannotRegister,
    /// An invalid address.
    #[error("{address} is not an address: use host:port", address = quoted(.0))]
    BadAddress(String),
    /// A data node without an object store.
    #[error("a data node must name its object store")]
    ObjectStoreRequired,
    /// A compactor before the first data node.
    #[error("the object store of the cluster is unknown: start a data node first")]
    ObjectStoreUnknown,
    /// Another object store than the rest of the cluster.
    #[error(
        "the node uses object store {their_text}, the cluster uses {ours}: give all nodes the same --object-store",
        their_text = quoted(.theirs)
    )]
    ObjectStoreMismatch {
        /// Object store of the caller.
        theirs: String,
        /// Object store of the cluster.
        ours: String,
    },
    /// No node has this id.
    #[error("node {0} does not exist")]
    NodeNotFound(NodeId),
    /// The node that registers was removed permanently.
    #[error("node {0} was removed from the cluster: wipe its data directory to join as a new node")]
    NodeRemoved(NodeId),
    /// A replacement, or its cancellation, of a node that is not a member of the meta group.
    #[error("node {0} is not a member of the meta group")]
    NotAMember(NodeId),
    /// A member that would replace itself or another member, or an id that meta nodes do not have.
    #[error("node {new} cannot replace meta node {old}: {problem}")]
    MemberReplacement {
        /// Member to remove.
        old: NodeId,
        /// Node to add.
        new: NodeId,
        /// Reason.
        problem: &'static str,
    },
    /// A second replacement, or a member change, during a replacement.
    #[error(
        "meta node {old} is being replaced by node {new}: wait until it has ended, or cancel it with `tidewater \
         meta-member replace {old} --cancel`"
    )]
    ReplacementInProgress {
        /// Member to remove.
        old: NodeId,
        /// Node to add.
        new: NodeId,
    },
    /// Cancellation without a replacement of the member.
    #[error("meta node {0} is not being replaced")]
    NotReplaced(NodeId),
    /// A command on a node that was removed permanently.
    #[error("node {0} was removed from the cluster already")]
    NodeAlreadyRemoved(NodeId),
    /// A drain or removal of a node of another role.
    #[error(
        "node {node} is a {role:?} node: only data nodes are drained and removed (`tidewater meta-member` changes meta \
         nodes, and a compactor that is stopped is forgotten)"
    )]
    NotADataNode {
        /// Id of the node.
        node: NodeId,
        /// Its role.
        role: NodeRole,
    },
    /// A removal of a node with replicas.
    #[error("node {node} has replicas of {}: `tidewater node drain {node}` moves them", group_list(.groups))]
    NodeInUse {
        /// Id of the node.
        node: NodeId,
        /// The groups.
        groups: Vec<GroupId>,
    },
    /// A removal of a node that may get a replica.
    #[error("node {0} is up and does not drain: `tidewater node drain {0}` first")]
    NodeNotDraining(NodeId),
    /// A drain of a node whose replicas no other nodes can have.
    #[error(
        "node {node} cannot be drained: {} would have fewer than {REPLICAS_PER_GROUP} replicas on the {others} other \
         data nodes that are not draining. Start another data node first",
        group_list(.groups)
    )]
    NoRoomForGroups {
        /// Id of the node.
        node: NodeId,
        /// The groups.
        groups: Vec<GroupId>,
        /// Number of nodes that could have their replicas.
        others: usize,
    },
    /// An invalid node state.
    #[error("invalid new state of node {0}")]
    BadNodeState(NodeId),
    /// A replacement of a node by one that cannot have its replicas.
    #[error("node {node} cannot be replaced by node {replacement}: {why}")]
    Replacement {
        /// Id of the node.
        node: NodeId,
        /// Id of the other node.
        replacement: NodeId,
        /// Reason, with the remedy.
        why: &'static str,
    },
}

/// Lists groups for a message, at most ten.
fn group_list(groups: &[GroupId]) -> String {
    let listed: Vec<String> = groups.iter().take(10).map(ToString::to_string).collect();
    let more = groups.len().saturating_sub(10);
    let word = if groups.len() == 1 { "group" } else { "groups" };
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{word} {}{rest}", listed.join(", "))
}
