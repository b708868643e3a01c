//! Why a command is refused.

use std::time::Duration;

use tidewater_common::ids::{ClusterId, GroupId, NodeId, TableId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::SchemaError;
use tidewater_proto::v1::{GroupState, NodeRole, Reason, TableState};

use crate::catalog::{CatalogError, Table};

/// Why a command is refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Everything but the bootstrap needs a cluster.
    #[error("the cluster is not bootstrapped yet: start one meta node with --bootstrap")]
    NotBootstrapped,
    /// A cluster is made once.
    #[error("the cluster {0} exists already: start the meta nodes without --bootstrap")]
    AlreadyBootstrapped(ClusterId),
    /// A command of a newer release, before all nodes have it.
    #[error("the command needs feature level {needed}, the cluster is at {level}")]
    FeatureLevel {
        /// What the command needs.
        needed: u32,
        /// What the state admits.
        level: u32,
    },
    /// A leader service decided it in an earlier term.
    #[error("decided in term {decided}, but logged in term {entry}: the leader has changed")]
    StaleTerm {
        /// The term of the decision.
        decided: Term,
        /// The term of the log entry.
        entry: Term,
    },
    /// A command without a kind that this release knows.
    #[error("the command is of no known kind")]
    UnknownCommand,
    /// A command that does not decode, or lacks a field.
    #[error("the command is malformed: {0}")]
    Malformed(String),
    /// The caller's identity names another cluster.
    #[error("the caller belongs to cluster {theirs}, this is cluster {ours}")]
    WrongCluster {
        /// What the caller's identity says.
        theirs: String,
        /// This cluster.
        ours: ClusterId,
    },
    /// The identity's node id was not given to its directory.
    #[error("node id {claimed} was not given to the data directory {directory}")]
    WrongDirectory {
        /// The node id that the identity says.
        claimed: NodeId,
        /// The directory's id.
        directory: uuid::Uuid,
    },
    /// A directory that registered in another role.
    #[error("node {node} is a {registered:?} node, it cannot register as {asked:?}")]
    RoleMismatch {
        /// The node.
        node: NodeId,
        /// Its role so far.
        registered: NodeRole,
        /// The role it asks for.
        asked: NodeRole,
    },
    /// A role that does not register.
    #[error("nodes of this role do not register")]
    RoleCannotRegister,
    /// An address that nobody can connect to.
    #[error("{0:?} is no address: give host:port")]
    BadAddress(String),
    /// No object store named.
    #[error("a data node must name its object store")]
    ObjectStoreRequired,
    /// No data node has registered yet.
    #[error("no data node has said yet which object store is the cluster's: start one")]
    ObjectStoreUnknown,
    /// Another object store than the rest of the cluster.
    #[error(
        "the node uses object store {theirs}, the cluster uses {ours}: give all nodes the same --object-store"
    )]
    ObjectStoreMismatch {
        /// The caller's.
        theirs: String,
        /// The cluster's.
        ours: String,
    },
    /// No node of this id.
    #[error("there is no node {0}")]
    NodeNotFound(NodeId),
    /// A node that was removed for good.
    #[error("node {0} was removed from the cluster: wipe its data directory to join as a new node")]
    NodeRemoved(NodeId),
    /// A state that cannot be set.
    #[error("node {0} cannot be set to that state")]
    BadNodeState(NodeId),
    /// First members that do not make a group.
    #[error("no group can be made of these first members: {0}")]
    FirstMembers(String),
    /// No group of this id.
    #[error("there is no group {0}")]
    GroupNotFound(GroupId),
    /// The group is past that step.
    #[error("group {group} is {state:?}")]
    GroupState {
        /// The group.
        group: GroupId,
        /// Its state.
        state: GroupState,
    },
    /// A report that is older than what is known.
    #[error("the report on group {0} is older than what is known")]
    StaleReport(GroupId),
    /// A report that makes no sense.
    #[error("the report on group {0} is malformed")]
    BadReport(GroupId),
    /// A live table has that name.
    #[error("table {0:?} exists already")]
    TableExists(String),
    /// No live table of that name.
    #[error("there is no table {0:?}")]
    TableNotFound(String),
    /// No table of that id.
    #[error("there is no table with id {0}")]
    TableIdNotFound(TableId),
    /// The table is past that step.
    #[error("table {table} is {state:?}")]
    TableState {
        /// The table.
        table: TableId,
        /// Its state.
        state: TableState,
    },
    /// Another change of the table is under way.
    #[error("table {table:?} is being {by}: try again when that is over")]
    TableBusy {
        /// The table.
        table: String,
        /// What is being done to it.
        by: &'static str,
    },
    /// Its rows are being taken over.
    #[error(
        "table {table:?} is being cloned: wait until table {clone:?} is ready, or drop that one"
    )]
    BeingCloned {
        /// The table.
        table: String,
        /// The table that is being made of it.
        clone: String,
    },
    /// No load was begun under that id, or too long ago.
    #[error("no load of table {0:?} has this id")]
    LoadNotFound(String),
    /// The regions have not opened their staging areas yet.
    #[error("the load of table {0:?} has not begun in all regions yet")]
    LoadNotOpen(String),
    /// The load is over, or about to be.
    #[error("the load of table {table:?} was {how}")]
    LoadEnded {
        /// The table.
        table: String,
        /// What became of it.
        how: &'static str,
    },
    /// An alter that changes nothing.
    #[error("nothing to alter in table {0:?}: name a column to add or to drop, or an option")]
    NothingToAlter(String),
    /// Columns, keys or options are wrong.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A name in the request is not a column.
    #[error("{what} {name:?} is not among the table's columns")]
    UnknownColumn {
        /// What named it.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A region count that the key space cannot be split into.
    #[error("a table of this kind can have 1 to {most} regions, not {asked}")]
    Regions {
        /// What was asked for.
        asked: u32,
        /// The most there can be.
        most: u32,
    },
    /// No group to put regions on.
    #[error("no data group is ready: start a data node, or wait until its group is made")]
    NoGroups,
    /// No hook of that name.
    #[error("there is no hook {0:?}")]
    HookNotFound(String),
    /// A hook has that name.
    #[error("hook {0:?} exists already")]
    HookExists(String),
    /// A name that hooks cannot have.
    #[error("{0:?} is no name for a hook: give 1 to 100 of letters, digits, '-', '_' and '.'")]
    HookName(String),
    /// A configuration that is too long to be kept.
    #[error("a hook's configuration may have {0} bytes")]
    HookConfigTooLong(usize),
    /// Every node calls each hook for every event.
    #[error("there are {0} hooks already, which is the most there can be")]
    TooManyHooks(usize),
    /// Each has a cursor for each region.
    #[error("there are {0} durable hooks already, which is the most there can be")]
    TooManyDurableHooks(usize),
    /// More than one command may carry.
    #[error("{0} cursors in one request: at most {most} are taken", most = super::MOST_ADVANCES)]
    TooManyAdvances(usize),
    /// One id for two requests.
    #[error("request id {0} was used for another request")]
    RequestIdReused(uuid::Uuid),
    /// Too many request ids are remembered.
    #[error("too many requests in the last 24 hours: {0} request ids are remembered")]
    OutcomesFull(usize),
    /// Ids of a kind are used up.
    #[error("{0} ids are used up")]
    IdsUsedUp(&'static str),
    /// The catalog cannot take the change.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl CommandError {
    /// Something is being done to the table already.
    pub(super) fn busy(table: &Table, by: &'static str) -> Self {
        Self::TableBusy { table: table.name.clone(), by }
    }

    /// What programs see. No wildcard: a new error needs a decision.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotBootstrapped => Reason::NotBootstrapped,
            Self::AlreadyBootstrapped(_) => Reason::AlreadyBootstrapped,
            Self::FeatureLevel { .. } | Self::UnknownCommand => Reason::Unsupported,
            Self::StaleTerm { .. } => Reason::NotLeader,
            Self::Malformed(_)
            | Self::RoleCannotRegister
            | Self::BadAddress(_)
            | Self::ObjectStoreRequired
            | Self::BadNodeState(_)
            | Self::FirstMembers(_)
            | Self::GroupState { .. }
            | Self::BadReport(_)
            | Self::TableState { .. }
            | Self::NothingToAlter(_)
            | Self::Schema(_)
            | Self::UnknownColumn { .. }
            | Self::Regions { .. }
            | Self::HookName(_)
            | Self::HookConfigTooLong(_)
            | Self::TooManyAdvances(_)
            | Self::RequestIdReused(_) => Reason::InvalidArgument,
            Self::HookExists(_) => Reason::HookExists,
            Self::HookNotFound(_) => Reason::HookNotFound,
            Self::WrongCluster { .. } => Reason::WrongCluster,
            Self::WrongDirectory { .. } => Reason::WrongNode,
            Self::RoleMismatch { .. } => Reason::RoleMismatch,
            Self::ObjectStoreMismatch { .. } => Reason::ObjectStoreMismatch,
            Self::NodeNotFound(_) => Reason::NodeNotFound,
            Self::NodeRemoved(_) => Reason::NodeRemoved,
            Self::GroupNotFound(_) => Reason::GroupNotFound,
            Self::StaleReport(_) => Reason::MembershipStale,
            Self::TableExists(_) => Reason::TableExists,
            Self::TableBusy { .. } | Self::BeingCloned { .. } => Reason::TableBusy,
            Self::LoadNotFound(_) | Self::LoadNotOpen(_) | Self::LoadEnded { .. } => {
                Reason::LoadEnded
            }
            Self::TableNotFound(_) | Self::TableIdNotFound(_) => Reason::TableNotFound,
            Self::NoGroups | Self::ObjectStoreUnknown => Reason::NoDataNodes,
            Self::OutcomesFull(_) => Reason::Overloaded,
            // Definitely not done, and never will be.
            Self::IdsUsedUp(_)
            | Self::TooManyHooks(_)
            | Self::TooManyDurableHooks(_)
            | Self::Catalog(_) => Reason::Unsupported,
        }
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let refusal = Self::new(error.reason(), error.to_string());
        match error {
            CommandError::NoGroups
            | CommandError::ObjectStoreUnknown
            | CommandError::OutcomesFull(_)
            | CommandError::StaleTerm { .. }
            | CommandError::NotBootstrapped => refusal.retry_after(Duration::from_millis(500)),
            _ => refusal,
        }
    }
}
