//! The requests that are recorded, with their names, subjects and ids.

use tidewater_proto::compaction::v1 as compaction;
use tidewater_proto::v1::{self, change_meta_member_request::Change};

use super::RecordedRequest;

/// Implements the trait for requests. The name of a field in brackets: it is the id of the request.
macro_rules! recorded_requests {
    ($( $request:path $([$request_id:ident])? = $call:literal, |$this:ident| $subject:expr; )*) => {
        $(
            impl RecordedRequest for $request {
                const CALL: &'static str = $call;

                fn subject(&self) -> Option<String> {
                    let $this = self;
                    $subject
                }

                $(
                    fn request_id(&self) -> Option<&str> {
                        Some(&self.$request_id)
                    }
                )?
            }
        )*
    };
}

// Calls of meta nodes.
recorded_requests! {
    v1::CreateTableRequest[request_id] = "CreateTable", |this| Some(this.name.clone());
    v1::DropTableRequest[request_id] = "DropTable", |this| Some(this.name.clone());
    v1::AlterTableRequest[request_id] = "AlterTable", |this| Some(this.name.clone());
    v1::TruncateTableRequest[request_id] = "TruncateTable", |this| Some(this.name.clone());
    v1::OpenTableRequest[request_id] = "OpenTable", |this| Some(this.name.clone());
    v1::CloneTableRequest[request_id] = "CloneTable", |this| {
        Some(format!("{} as {}", this.name, this.new_name))
    };
    v1::ReserveTableRequest = "ReserveTable", |this| {
        this.definition.as_ref().map(|definition| definition.name.clone())
    };
    v1::SaveRoutesRequest[request_id] = "SaveRoutes", |this| {
        Some(format!("table {}", this.table_id))
    };
    v1::SplitRouteRequest[request_id] = "SplitRoute", |this| {
        Some(format!("route {}", this.route_id))
    };
    v1::MergeRoutesRequest[request_id] = "MergeRoutes", |this| {
        Some(format!("routes {} and {}", this.route_id, this.neighbour_id))
    };
    v1::MoveRouteRequest[request_id] = "MoveRoute", |this| {
        Some(format!("route {} to group {}", this.route_id, this.target_group_id))
    };
    v1::CollectGarbageRequest = "CollectGarbage", |this| this.table.clone();
    v1::ChangeMetaMemberRequest = "ChangeMetaMember", |this| {
        this.change.as_ref().map(|change| match change {
            Change::AddLearner(member) => format!("add node {}", member.node_id),
            Change::Promote(node) => format!("promote node {node}"),
            Change::Remove(node) => format!("remove node {node}"),
        })
    };
    v1::ReplaceMetaMemberRequest = "ReplaceMetaMember", |this| {
        let cancelled = cancelled(this.cancel);
        Some(format!("node {} by node {}{cancelled}", this.old_node_id, this.new_node_id))
    };
    v1::TransferGroupLeaderRequest = "TransferGroupLeader", |this| {
        Some(format!("group {} to node {}", this.group_id, this.to_node))
    };
    v1::DrainNodeRequest = "DrainNode", |this| {
        Some(format!("node {}{}", this.node_id, cancelled(this.cancel)))
    };
    v1::RemoveNodeRequest = "RemoveNode", |this| Some(format!("node {}", this.node_id));
    v1::SetBalanceRequest = "SetBalance", |_this| None;
    v1::AddHookRequest[request_id] = "AddHook", |this| Some(this.name.clone());
    v1::SetHookPausedRequest = "SetHookPaused", |this| {
        Some(format!("{}, {}", this.name, if this.paused { "paused" } else { "resumed" }))
    };
    v1::RemoveHookRequest[request_id] = "RemoveHook", |this| Some(this.name.clone());
    v1::CancelProcedureRequest = "CancelProcedure", |this| Some(this.procedure_id.clone());
    v1::RefreshRequest[request_id] = "StartRefresh", |this| {
        Some(format!("table {}", this.table_id))
    };
    v1::CancelRefreshRequest = "CancelRefresh", |this| Some(this.table.clone());
    v1::AlterRefreshRequest = "AlterRefresh", |this| Some(this.table.clone());
    v1::AcquireReadHoldRequest[request_id] = "AcquireReadHold", |this| Some(this.name.clone());
    v1::ReleaseReadHoldsRequest = "ReleaseReadHolds", |this| Some(this.names.join(", "));
    v1::SetReadPolicyRequest = "SetReadPolicy", |this| Some(this.table.clone());
    v1::UpdateReadCapabilitiesRequest = "UpdateReadCapabilities", |this| {
        let tables: Vec<&str> = this.changes.iter().map(|of| of.table.as_str()).collect();
        Some(tables.join(", "))
    };
    v1::AllocateIdsRequest[request_id] = "AllocateIds", |this| Some(this.count.to_string());
    v1::CreateCollectionsRequest = "CreateCollections", |this| {
        let names = this.collections.iter().filter_map(|of| of.definition.as_ref());
        let names: Vec<&str> = names.map(|definition| definition.name.as_str()).collect();
        Some(names.join(", "))
    };
    v1::DropCollectionsRequest = "DropCollections", |this| {
        let ids: Vec<String> = this.ids.iter().map(ToString::to_string).collect();
        Some(ids.join(", "))
    };
    v1::PrepareExportRequest[request_id] = "PrepareExport", |this| Some(this.table.clone());
    v1::CancelPrepareExportRequest = "CancelPrepareExport", |this| Some(this.token.clone());
    v1::CreateExportRequest[request_id] = "CreateExport", |this| Some(this.name.clone());
    v1::DropExportRequest = "DropExport", |this| Some(this.name.clone());
}

// Calls of data nodes and compactors.
recorded_requests! {
    v1::FlushRegionRequest = "FlushRegion", |this| Some(region(this.region_id, this.group_id));
    v1::CompactRegionRequest = "CompactRegion", |this| {
        Some(region(this.region_id, this.group_id))
    };
    v1::CancelCompactionRequest = "CancelCompaction", |this| Some(this.job_id.clone());
    compaction::CancelCompactionRequest = "CancelCompaction", |this| Some(this.job_id.clone());
}

// Calls of all nodes.
recorded_requests! {
    v1::SetLogFilterRequest = "SetLogFilter", |this| Some(this.filter.clone());
}

fn cancelled(is_cancelled: bool) -> &'static str {
    if is_cancelled { ", cancelled" } else { "" }
}

fn region(region_id: u64, group_id: u64) -> String {
    format!("region {region_id} of group {group_id}")
}
