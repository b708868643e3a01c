//! Errors of commands.

mod reason;

use tidewater_common::agreed_limits::REPLICAS_PER_GROUP;
use tidewater_common::feature_level::{FeatureLevel, UnsupportedRelease};
use tidewater_common::ids::{
    BootNumber, CatalogVersion, ClusterId, GroupId, NodeId, RegionId, TableId, Term,
};
use tidewater_common::quote::quoted;
use tidewater_common::rows::MAX_KEY_BYTES;
use tidewater_common::schema::SchemaError;
use tidewater_proto::v1::{GroupState, NodeRole, TableState};

use super::procedures::kind_of;
use crate::catalog::{CatalogError, LockHolder, RouteError, RouteState, Table};

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
    /// Invalid first members of a group.
    #[error("invalid first members of a group: {0}")]
    FirstMembers(String),
    /// A second group with the same first member.
    #[error("node {home} already is the home of group {group}")]
    HomeTaken {
        /// First member of both groups.
        home: NodeId,
        /// The first group.
        group: GroupId,
    },
    /// A group whose home has another number of groups than its leader knew.
    #[error("node {home} is the home of {known} groups, not of {expected}")]
    HomeGroups {
        /// First member of the groups.
        home: NodeId,
        /// Number that the leader knew.
        expected: u32,
        /// Current number.
        known: usize,
    },
    /// A retirement of the only group that takes routes.
    #[error("group {0} is the only one that takes routes: it is not retired")]
    LastGroup(GroupId),
    /// A route in a group that retires.
    #[error("group {0} is being retired: choose another one (`tidewater group list`)")]
    Retiring(GroupId),
    /// A retirement of a group with regions.
    #[error("group {0} has regions, or is about to receive one: it is not retired")]
    GroupInUse(GroupId),
    /// A split of a hot route while hotspots are not on.
    #[error(
        "hotspots are not on: `tidewater balance set --hotspots on` lets routes follow the load"
    )]
    HotspotsNotOn,
    /// A setting of the balance outside of its range.
    #[error("{0}")]
    BalanceSetting(&'static str),
    /// A rest of the balance outside of its range, in milliseconds.
    #[error("the balance cannot rest for {0} ms: use 1s to 1h")]
    BalanceRest(u64),
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
    /// No group has this id.
    #[error("group {0} does not exist")]
    GroupNotFound(GroupId),
    /// The state of the group does not permit the command.
    #[error("group {group} is {state:?}")]
    GroupState {
        /// Id of the group.
        group: GroupId,
        /// Current state of the group.
        state: GroupState,
    },
    /// A report older than the recorded one.
    #[error("the report on group {0} is older than the recorded one")]
    StaleReport(GroupId),
    /// An invalid report on a group.
    #[error("the report on group {0} is malformed")]
    BadReport(GroupId),
    /// A live table has this name.
    #[error("table {name} already exists", name = quoted(.0))]
    TableExists(String),
    /// No live table has this name.
    #[error("table {name} does not exist", name = quoted(.0))]
    TableNotFound(String),
    /// No route has this id.
    #[error("route {0} does not exist")]
    RouteNotFound(RegionId),
    /// The state of the route does not permit the command.
    #[error("route {route} is {}: retry when it is active", state.name())]
    RouteNotActive {
        /// Id of the route.
        route: RegionId,
        /// Current state of the route.
        state: RouteState,
    },
    /// A key that no row of the route can have.
    #[error("the split key is not in the range of route {0}: `tidewater route list` shows it")]
    KeyOutsideRoute(RegionId),
    /// A key longer than any row key.
    #[error(
        "a split key of {0} bytes is above the limit of {MAX_KEY_BYTES}: a prefix divides as well"
    )]
    SplitKeyTooLong(usize),
    /// A split that would leave one child without keys.
    #[error("the split key is the first key of route {0}: choose a later one")]
    KeyOnBoundary(RegionId),
    /// Routes that no region can replace.
    #[error("routes {} and {} cannot be merged: {why}", routes[0], routes[1])]
    NotMergeable {
        /// Ids of the routes, in key order.
        routes: [RegionId; 2],
        /// Reason, with the remedy.
        why: &'static str,
    },
    /// The route cannot be moved to the group.
    #[error("route {route} cannot be moved to group {target}: {why}")]
    NotMovable {
        /// Id of the route.
        route: RegionId,
        /// Id of the group.
        target: GroupId,
        /// Reason, with the remedy.
        why: &'static str,
    },
    /// A save of routes that are served.
    #[error(
        "the routes of table {name} are live: `tidewater route split` and `route merge` change them; save the routes of a \
         table that is reserved",
        name = quoted(.0)
    )]
    RouteLive(String),
    /// A save with the id of a route that exists elsewhere, or has existed.
    #[error(
        "route id {0} is used: save the route with id 0, or with one from the next route id on"
    )]
    RouteIdUsed(RegionId),
    /// A save with an id far above those that exist: few others would be left.
    #[error("route id {id} is too high: ids below {bound} can be saved")]
    RouteIdTooHigh {
        /// Id of the route.
        id: RegionId,
        /// Upper bound, exclusive.
        bound: u64,
    },
    /// A save with a bound longer than any key.
    #[error(
        "a bound of {0} bytes is longer than any key: row keys have at most {MAX_KEY_BYTES} bytes"
    )]
    BoundTooLong(usize),
    /// A save with too many routes, or none.
    #[error("a save has 1 to {max} routes, not {routes}")]
    SavedRoutes {
        /// Number of routes.
        routes: usize,
        /// Maximum number of routes.
        max: usize,
    },
    /// Routes that a reserved table cannot have, or cannot be opened with.
    #[error("the routes of a reserved table are invalid: {0}")]
    SavedRoute(RouteError),
    /// The caller has decided on another version of the routes.
    #[error("the catalog has version {version}, not {expected}: list the routes again")]
    VersionMismatch {
        /// Version of the caller.
        expected: u64,
        /// Current version.
        version: CatalogVersion,
    },
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
    /// No data group is active.
    #[error("no data group is ready: start a data node, or wait until its group is created")]
    NoGroups,
    /// No hook has this name.
    #[error("hook {name} does not exist", name = quoted(.0))]
    HookNotFound(String),
    /// A hook has this name.
    #[error("hook {name} already exists", name = quoted(.0))]
    HookExists(String),
    /// An invalid hook name.
    #[error("{name} is not a hook name: use 1 to 100 letters, digits, '-', '_' and '.'", name = quoted(.0))]
    HookName(String),
    /// The configuration of a hook is too long.
    #[error("the configuration of a hook is limited to {0} bytes")]
    HookConfigTooLong(usize),
    /// Name of a hook that is being removed.
    #[error("hook {0} is being removed")]
    HookBeingRemoved(String),
    /// Too many hooks: every node calls each hook for every event.
    #[error("the cluster already has {0} hooks, which is the maximum")]
    TooManyHooks(usize),
    /// Too many durable hooks: each has a cursor for each region.
    #[error("the cluster already has {0} durable hooks, which is the maximum")]
    TooManyDurableHooks(usize),
    /// Too many cursor updates in one command.
    #[error("{0} cursors in one request are too many (maximum {max})", max = super::MAX_ADVANCES)]
    TooManyAdvances(usize),
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
}

impl CommandError {
    /// Creates the error of a table with an operation in progress.
    pub(super) fn busy(table: &Table, operation: &'static str) -> Self {
        Self::TableBusy { table: table.name.clone(), operation }
    }
}

/// Lists groups for a message, at most ten.
fn group_list(groups: &[GroupId]) -> String {
    let listed: Vec<String> = groups.iter().take(10).map(ToString::to_string).collect();
    let more = groups.len().saturating_sub(10);
    let word = if groups.len() == 1 { "group" } else { "groups" };
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{word} {}{rest}", listed.join(", "))
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
