//! Errors of commands.

mod collection;
mod group;
mod hook;
mod node;
mod reason;
mod refresh;
mod route;

use tidewater_common::feature_level::{FeatureLevel, UnsupportedRelease};
use tidewater_common::ids::{ClusterId, NodeId, TableId, Term};
use tidewater_common::quote::quoted;
use tidewater_common::schema::SchemaError;
use tidewater_proto::v1::TableState;

pub use self::collection::CollectionCommandError;
pub use self::group::GroupCommandError;
pub use self::hook::HookCommandError;
pub use self::node::NodeCommandError;
pub use self::refresh::RefreshCommandError;
pub use self::route::RouteCommandError;
use super::procedures::kind_of;
use crate::catalog::{CatalogError, LockHolder, RouteError, Table};

/// Error of a rejected command; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A command other than the bootstrap, before the bootstrap.
    #[error("the cluster is not bootstrapped yet: start one meta node with --bootstrap")]
    NotBootstrapped,
    /// A second bootstrap.
    #[error("cluster {0} already exists: start the meta nodes without --bootstrap")]
    AlreadyBootstrapped(ClusterId),
    /// A command of a newer release, before all nodes support it.
    #[error(
        "the command needs feature level {needed}, and the cluster is at level {level}: `tidewater cluster \
         status` shows the nodes that hold back the next level"
    )]
    FeatureLevel {
        /// Feature level of the command.
        needed: FeatureLevel,
        /// Feature level of the state.
        level: FeatureLevel,
    },
    /// A raise to a level that a node may not support.
    #[error("node {node} has not reported that it supports feature level {level}")]
    LevelNotSupported {
        /// Level of the raise.
        level: FeatureLevel,
        /// First node without support.
        node: NodeId,
    },
    /// A raise to a level that this release does not support. Other replicas apply it: this one must stop.
    #[error(
        "the cluster is raised to feature level {0}, and this release supports levels up to {highest}: start a \
         release that supports level {0}",
        highest = FeatureLevel::HIGHEST
    )]
    LevelAboveRelease(FeatureLevel),
    /// A node whose release cannot run at the level of the cluster.
    #[error(transparent)]
    Release(#[from] UnsupportedRelease),
    /// A decision of a leader service in an earlier term.
    #[error("decided in term {decided}, but logged in term {entry}: the leader has changed")]
    StaleTerm {
        /// The term of the decision.
        decided: Term,
        /// The term of the log entry.
        entry: Term,
    },
    /// A command of a kind that this release does not know.
    #[error("the kind of the command is unknown")]
    UnknownCommand,
    /// A command that does not decode, lacks a field, or has an invalid field.
    #[error("the command is malformed: {0}")]
    Malformed(String),
    /// The caller's identity names another cluster.
    #[error("the caller belongs to cluster {their_text}, this is cluster {ours}", their_text = quoted(.theirs))]
    WrongCluster {
        /// Cluster in the caller's identity.
        theirs: String,
        /// Id of this cluster.
        ours: ClusterId,
    },
    /// A live table has this name.
    #[error("table {name} already exists", name = quoted(.0))]
    TableExists(String),
    /// No live table has this name.
    #[error("table {name} does not exist", name = quoted(.0))]
    TableNotFound(String),
    /// No table has this id.
    #[error("table id {0} does not exist")]
    TableIdNotFound(TableId),
    /// The state of the table does not permit the command.
    #[error("table {table} is {state:?}")]
    TableState {
        /// Id of the table.
        table: TableId,
        /// Current state of the table.
        state: TableState,
    },
    /// Another change of the table is in progress.
    #[error("table {table_text} is being {operation}: retry when that is completed", table_text = quoted(.table))]
    TableBusy {
        /// Name of the table.
        table: String,
        /// Past participle of the operation in progress.
        operation: &'static str,
    },
    /// Another operation has locked the table or one of its routes.
    #[error("table {name} {held}", name = quoted(.table), held = held_by(.holder))]
    Locked {
        /// Name of the table.
        table: String,
        /// The operation.
        holder: LockHolder,
    },
    /// No procedure with this id runs or has ended in the last 24 h.
    #[error("procedure {0} does not exist, or ended more than 24 hours ago")]
    ProcedureNotFound(uuid::Uuid),
    /// A procedure that cannot be abandoned any more.
    #[error("procedure {id} cannot be abandoned: {why}")]
    NotAbandonable {
        /// Id of the procedure.
        id: uuid::Uuid,
        /// Cause.
        why: &'static str,
    },
    /// Completion of a step that waits for a request.
    #[error("procedure {0} waits for its caller")]
    NotRequested(uuid::Uuid),
    /// A procedure of a kind of a later release.
    #[error("kind {0} of procedures is unknown to this release: upgrade the meta nodes")]
    UnknownProcedureKind(u32),
    /// The table is the source of a clone in progress.
    #[error(
        "table {table_text} is being cloned: wait until table {clone_text} is ready, or drop {clone_text}", table_text = quoted(.table), clone_text = quoted(.clone))]
    BeingCloned {
        /// Name of the table.
        table: String,
        /// Name of the clone.
        clone: String,
    },
    /// No load has this id, or its record has expired.
    #[error("no load of table {name} has this id", name = quoted(.0))]
    LoadNotFound(String),
    /// The regions have not opened their staging areas yet.
    #[error("the load of table {name} has not begun in all regions yet", name = quoted(.0))]
    LoadNotOpen(String),
    /// The load has ended or is ending.
    #[error("the load of table {table_text} was {outcome}", table_text = quoted(.table))]
    LoadEnded {
        /// Name of the table.
        table: String,
        /// Past participle of the outcome.
        outcome: &'static str,
    },
    /// An alter without a change.
    #[error("nothing to alter in table {name}: name a column to add or to drop, or an option", name = quoted(.0))]
    NothingToAlter(String),
    /// Invalid columns, keys or options.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A name in the request is not the name of a column.
    #[error("{what} {name_text} is not among the table's columns", name_text = quoted(.name))]
    UnknownColumn {
        /// Part of the request that has the name.
        what: &'static str,
        /// Unknown name.
        name: String,
    },
    /// An invalid number of regions.
    #[error("a table of this kind can have 1 to {max} regions, not {requested}")]
    Regions {
        /// Requested number of regions.
        requested: u32,
        /// Maximum number of regions.
        max: u32,
    },
    /// Too many observations in one command.
    #[error("{0} observations in one command are too many (maximum {max})", max = super::MAX_OBSERVATIONS)]
    TooManyObservations(usize),
    /// A request id that was used for another request.
    #[error("request id {0} was used for another request, or with other arguments: use a new id")]
    RequestIdReused(uuid::Uuid),
    /// Too many recorded request ids.
    #[error("too many requests in the last hour: {0} request ids are recorded")]
    OutcomesFull(usize),
    /// All ids of a kind are used.
    #[error("all {0} ids are used")]
    IdsUsedUp(&'static str),
    /// The change would violate an invariant of the catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Errors of commands on nodes: registration, drains, removals, and changes of members of the meta group.
    #[error(transparent)]
    Node(#[from] NodeCommandError),
    /// Errors of commands on data groups and on the balance of their routes.
    #[error(transparent)]
    Group(#[from] GroupCommandError),
    /// A command on a refreshable table.
    #[error(transparent)]
    Refresh(#[from] RefreshCommandError),
    /// A command on readable epochs: holds, policies and capabilities.
    #[error(transparent)]
    Collection(#[from] CollectionCommandError),
    /// Errors of commands on routes: saves, splits, merges and moves.
    #[error(transparent)]
    Route(#[from] RouteCommandError),
    /// Errors of commands on hooks and their cursors.
    #[error(transparent)]
    Hook(#[from] HookCommandError),
}

impl CommandError {
    /// Creates the error of a table with an operation in progress.
    pub(super) fn busy(table: &Table, operation: &'static str) -> Self {
        Self::TableBusy { table: table.name.clone(), operation }
    }
}

/// Describes the operation that holds a lock on a table.
fn held_by(holder: &LockHolder) -> String {
    match holder {
        LockHolder::Procedure { id, kind, table } => {
            let verb =
                kind_of(*kind).map_or("changed by a later release", |kind| kind.facts().verb);
            let subject = if table.is_some() { "is" } else { "has a region that is" };
            format!("{subject} being {verb}: retry when procedure {id} has ended")
        }
        LockHolder::Change { verb } => format!("is being {verb}: retry when that is completed"),
        LockHolder::Clone { target } => {
            let target = quoted(target);
            format!("is being cloned: wait until table {target} is ready, or drop {target}")
        }
    }
}

impl From<RouteError> for CommandError {
    fn from(error: RouteError) -> Self {
        CatalogError::from(error).into()
    }
}
