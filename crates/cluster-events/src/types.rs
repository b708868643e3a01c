//! The types of events, one struct for each.

use std::any::Any;

use tidewater_events::{Event, EventError, ExtraColumn, Priority, Value};

use crate::column::ColumnValue;
use crate::define::define_event_types;
use crate::event_type::{ColumnInfo, EventType};

define_event_types! {
    /// A node was registered, or is connected again.
    NodeUp = "node_up", Normal {
        /// Id of the node.
        node_id: u64,
        /// Kind of the node: meta, data or compactor.
        node_kind: String,
        /// Address of the node.
        address: String,
    }
    /// A node is not connected any more.
    NodeDown = "node_down", High {
        /// Id of the node.
        node_id: u64,
        /// Kind of the node: meta, data or compactor.
        node_kind: String,
        /// Address of the node.
        address: String,
        /// Reason.
        cause: String,
    }
    /// A node became the leader of a Raft group.
    LeaderChanged = "leader_changed", High {
        /// Id of the group; 0 is that of the meta nodes.
        group_id: u64,
        /// Id of the new leader.
        node_id: u64,
        /// Id of the leader before it, if the node knows it.
        former_node_id: Option<u64>,
        /// Term of the leader.
        term: u64,
        /// Reason, as far as the new leader knows.
        cause: Option<String>,
    }
    /// A procedure was begun.
    ProcedureBegun = "procedure_begun", Normal {
        /// Id of the procedure.
        procedure_id: String,
        /// Kind of the procedure, e.g. split.
        procedure_kind: String,
        /// Table that it changes.
        table_name: Option<String>,
        /// Subject of the procedure, e.g. the key of a split.
        subject: Option<String>,
    }
    /// A procedure ended.
    ProcedureEnded = "procedure_ended", Normal {
        /// Id of the procedure.
        procedure_id: String,
        /// Kind of the procedure, e.g. split.
        procedure_kind: String,
        /// Table that it changes.
        table_name: Option<String>,
        /// Outcome: completed or failed.
        outcome: String,
        /// Reason of a failure.
        cause: Option<String>,
        /// Milliseconds from its beginning to its end.
        duration_ms: Option<u64>,
    }
    /// A procedure was cancelled by a user or abandoned by the cluster.
    ProcedureCancelled = "procedure_cancelled", Normal {
        /// Id of the procedure.
        procedure_id: String,
        /// Kind of the procedure, e.g. split.
        procedure_kind: String,
        /// Table that it changes.
        table_name: Option<String>,
        /// Reason.
        cause: Option<String>,
        /// Milliseconds from its beginning to its end.
        duration_ms: Option<u64>,
    }
    /// A refresh entered a phase.
    RefreshPhase = "refresh_phase", Normal {
        /// Id of the procedure.
        procedure_id: String,
        /// Table that is refreshed.
        table_name: Option<String>,
        /// The phase.
        phase: String,
        /// Epoch that the refresh publishes, once it is known.
        epoch: Option<u64>,
    }
    /// A route was divided into two.
    RouteSplit = "route_split", Normal {
        /// Id of the procedure.
        procedure_id: String,
        /// Table of the route.
        table_name: Option<String>,
        /// Id of the region that was divided.
        region_id: u64,
        /// Id of the region with the keys from the split key on.
        second_region_id: Option<u64>,
        /// Id of the group that serves the regions.
        group_id: u64,
    }
    /// Another group serves a route.
    RouteMoved = "route_moved", Normal {
        /// Id of the procedure.
        procedure_id: String,
        /// Table of the route.
        table_name: Option<String>,
        /// Id of the region.
        region_id: u64,
        /// Id of the group that serves the region now.
        group_id: u64,
        /// Id of the group that served it before.
        former_group_id: u64,
    }
    /// Two neighbouring routes were replaced by one.
    RoutesMerged = "routes_merged", Normal {
        /// Id of the procedure.
        procedure_id: String,
        /// Table of the routes.
        table_name: Option<String>,
        /// Id of the region that has the keys of both.
        region_id: u64,
        /// Id of the region that was added to it.
        second_region_id: Option<u64>,
        /// Id of the group that serves the region.
        group_id: u64,
    }
    /// A compaction failed too often, and its input files are left out of later ones.
    CompactionQuarantined = "compaction_quarantined", High {
        /// Id of the data node.
        node_id: u64,
        /// Id of the table.
        table_id: u64,
        /// Id of the region.
        region_id: u64,
        /// Id of the compaction job.
        job_id: Option<String>,
        /// Attempts that failed.
        attempts: u64,
        /// Reason of the last failure.
        cause: String,
    }
    /// A hook failed too often and is not called until an operator resumes it.
    HookSuspended = "hook_suspended", High {
        /// Id of the data node or compactor that called the hook.
        node_id: u64,
        /// Id of the table.
        table_id: u64,
        /// Id of the region.
        region_id: u64,
        /// Name of the hook.
        hook: String,
        /// Reason of the last failure.
        cause: String,
    }
    /// A durable hook is behind its region by more than its limit.
    HookLagging = "hook_lagging", Normal {
        /// Id of the data node; null if several leaders of the region may record the event.
        node_id: Option<u64>,
        /// Id of the table.
        table_id: u64,
        /// Id of the region.
        region_id: u64,
        /// Name of the hook.
        hook: String,
        /// Versions of the manifest that wait for the hook when it begins to lag.
        pending: u64,
        /// Reason of the last failure, if a delivery fails.
        cause: Option<String>,
    }
    /// A hook of kind events was called. The payload is the record of the call, without statistics of columns.
    HookEvent = "hook_event", Normal, payload {
        /// Id of the node that called the hook; null for a durable hook, since several nodes may repeat a call.
        node_id: Option<u64>,
        /// Id of the table.
        table_id: u64,
        /// Id of the region.
        region_id: u64,
        /// Name of the hook.
        hook: String,
        /// Trigger of the call, e.g. manifest_updated or files_removed.
        trigger: String,
        /// Version of the region's manifest, if the trigger has one.
        manifest_version: Option<u64>,
        /// Data files that were written, added or staged, or that are live in a bootstrap.
        files_added: u64,
        /// Data files that were removed or deleted, or whose removal is staged.
        files_removed: u64,
    }
    /// A garbage collection pass of the object store ended.
    GarbagePass = "garbage_pass", Low {
        /// Objects that were read in listings.
        listed: u64,
        /// Objects that were deleted.
        deleted: u64,
        /// Outcome: completed, failed, or unknown if the term of the leader or the call ended before the pass.
        outcome: String,
        /// Reason of a failure, or of an unknown outcome.
        cause: Option<String>,
        /// Milliseconds that it took.
        duration_ms: Option<u64>,
    }
    /// An administrative call changed the cluster or a node, or tried to.
    AdminCall = "admin_call", Normal {
        /// Name of the call, e.g. SplitRoute.
        call: String,
        /// Address of the client.
        caller: String,
        /// Subject of the call, e.g. the name of a table or a node.
        subject: Option<String>,
        /// Outcome: completed, failed or unknown.
        outcome: String,
        /// Reason of a failure.
        cause: Option<String>,
        /// Milliseconds that it took.
        duration_ms: Option<u64>,
        /// Id of the request: the same in all events of a call that the client has repeated.
        request_id: Option<String>,
    }
    /// An operation took longer than the limit of slow operations.
    SlowOperation = "slow_operation", Low {
        /// Id of the node.
        node_id: u64,
        /// Kind of the node: data or compactor.
        node_kind: String,
        /// The operation: write, get, scan, flush or compaction.
        operation: String,
        /// Id of the table.
        table_id: Option<u64>,
        /// Id of the region.
        region_id: Option<u64>,
        /// Milliseconds that it took.
        duration_ms: Option<u64>,
        /// The limit, milliseconds.
        limit_ms: u64,
    }
    /// A node refused requests for lack of room. At most one event a minute for each resource.
    RoomRefused = "room_refused", Normal {
        /// Id of the node.
        node_id: u64,
        /// The resource: memory, disk or staging.
        resource: String,
        /// Requests that were refused since the last event.
        refused: u64,
        /// Text of the last refusal.
        cause: String,
    }
}
