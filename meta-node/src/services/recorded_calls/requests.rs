//! The requests that are recorded, with their names and subjects.

use tidewater_proto::v1::{self, change_meta_member_request::Change};

use super::RecordedRequest;

macro_rules! recorded_requests {
    ($( $request:ident = $call:literal, |$this:ident| $subject:expr; )*) => {
        $(
            impl RecordedRequest for v1::$request {
                const CALL: &'static str = $call;

                fn subject(&self) -> Option<String> {
                    let $this = self;
                    $subject
                }
            }
        )*
    };
}

recorded_requests! {
    DropTableRequest = "DropTable", |this| Some(this.name.clone());
    TruncateTableRequest = "TruncateTable", |this| Some(this.name.clone());
    OpenTableRequest = "OpenTable", |this| Some(this.name.clone());
    CloneTableRequest = "CloneTable", |this| Some(format!("{} as {}", this.name, this.new_name));
    ReserveTableRequest = "ReserveTable", |this| {
        this.definition.as_ref().map(|definition| definition.name.clone())
    };
    SaveRoutesRequest = "SaveRoutes", |this| Some(format!("table {}", this.table_id));
    SplitRouteRequest = "SplitRoute", |this| Some(format!("route {}", this.route_id));
    MergeRoutesRequest = "MergeRoutes", |this| {
        Some(format!("routes {} and {}", this.route_id, this.neighbour_id))
    };
    MoveRouteRequest = "MoveRoute", |this| {
        Some(format!("route {} to group {}", this.route_id, this.target_group_id))
    };
    CollectGarbageRequest = "CollectGarbage", |this| this.table.clone();
    ChangeMetaMemberRequest = "ChangeMetaMember", |this| {
        this.change.as_ref().map(|change| match change {
            Change::AddLearner(member) => format!("add node {}", member.node_id),
            Change::Promote(node) => format!("promote node {node}"),
            Change::Remove(node) => format!("remove node {node}"),
        })
    };
    ReplaceMetaMemberRequest = "ReplaceMetaMember", |this| {
        let cancelled = cancelled(this.cancel);
        Some(format!("node {} by node {}{cancelled}", this.old_node_id, this.new_node_id))
    };
    TransferGroupLeaderRequest = "TransferGroupLeader", |this| {
        Some(format!("group {} to node {}", this.group_id, this.to_node))
    };
    DrainNodeRequest = "DrainNode", |this| {
        Some(format!("node {}{}", this.node_id, cancelled(this.cancel)))
    };
    RemoveNodeRequest = "RemoveNode", |this| Some(format!("node {}", this.node_id));
    SetBalanceRequest = "SetBalance", |_this| None;
    AddHookRequest = "AddHook", |this| Some(this.name.clone());
    SetHookPausedRequest = "SetHookPaused", |this| {
        Some(format!("{}, {}", this.name, if this.paused { "paused" } else { "resumed" }))
    };
    RemoveHookRequest = "RemoveHook", |this| Some(this.name.clone());
    CancelProcedureRequest = "CancelProcedure", |this| Some(this.procedure_id.clone());
    RefreshRequest = "StartRefresh", |this| Some(format!("table {}", this.table_id));
    CancelRefreshRequest = "CancelRefresh", |this| Some(this.table.clone());
    AlterRefreshRequest = "AlterRefresh", |this| Some(this.table.clone());
}

impl RecordedRequest for v1::CreateTableRequest {
    const CALL: &'static str = "CreateTable";

    fn subject(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn is_of_node(&self) -> bool {
        self.holds_events
    }
}

impl RecordedRequest for v1::AlterTableRequest {
    const CALL: &'static str = "AlterTable";

    fn subject(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn is_of_node(&self) -> bool {
        self.by_node
    }
}

fn cancelled(is_cancelled: bool) -> &'static str {
    if is_cancelled { ", cancelled" } else { "" }
}
