//! `GroupControl`: calls of the meta leader.

use std::sync::Arc;

use tidewater_common::ids::{GroupId, NodeId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::{self, GroupState, ProcedureStep, Reason};
use tonic::{Request, Response, Status};

use crate::stub::group::{MemberChange, StubRegion};
use crate::stub::node_core::NodeCore;

/// The service of one node.
#[derive(Debug, Clone)]
pub(in crate::stub) struct ControlService {
    pub(in crate::stub) node: Arc<NodeCore>,
}

macro_rules! calls {
    ($($name:ident: $request:ident => $response:ident, $call:path;)*) => {
        #[tonic::async_trait]
        impl GroupControl for ControlService {
            $(
                async fn $name(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    let request = request.into_inner();
                    self.node.admit(request.header.as_ref()).await?;
                    Ok(Response::new($call(&self.node, request).await?))
                }
            )*
        }
    };
}

calls! {
    start_group: StartGroupRequest => StartGroupResponse, start_group;
    change_membership: ChangeMembershipRequest => ChangeMembershipResponse, change_membership;
    transfer_leader: TransferLeaderRequest => TransferLeaderResponse, transfer_leader;
    stop_replica: StopReplicaRequest => StopReplicaResponse, stop_replica;
    open_region: OpenRegionRequest => OpenRegionResponse, open_region;
    alter_region: AlterRegionRequest => AlterRegionResponse, alter_region;
    truncate_region: TruncateRegionRequest => TruncateRegionResponse, truncate_region;
    open_area: OpenAreaRequest => OpenAreaResponse, open_area;
    close_area: CloseAreaRequest => CloseAreaResponse, close_area;
    copy_region: CopyRegionRequest => CopyRegionResponse, copy_region;
    hold_region: HoldRegionRequest => HoldRegionResponse, hold_region;
    split_region: SplitRegionRequest => SplitRegionResponse, split_region;
    merge_regions: MergeRegionsRequest => MergeRegionsResponse, merge_regions;
    close_region: CloseRegionRequest => CloseRegionResponse, close_region;
    prepare_region: PrepareRegionRequest => PrepareRegionResponse, prepare_region;
    get_departing_region: GetDepartingRegionRequest => GetDepartingRegionResponse, get_departing_region;
    receive_region: ReceiveRegionRequest => ReceiveRegionResponse, receive_region;
    release_region: ReleaseRegionRequest => ReleaseRegionResponse, release_region;
    activate_region: ActivateRegionRequest => ActivateRegionResponse, activate_region;
    drop_region: DropRegionRequest => DropRegionResponse, drop_region;
    request_flush: RequestFlushRequest => RequestFlushResponse, request_flush;
}

async fn start_group(
    node: &NodeCore,
    request: v1::StartGroupRequest,
) -> Result<v1::StartGroupResponse, Refusal> {
    let members: Vec<NodeId> =
        request.first_members.iter().map(|member| NodeId(member.node_id)).collect();
    node.world.start(node.node, GroupId(request.group_id), &members, request.initialize);
    Ok(v1::StartGroupResponse {})
}

async fn change_membership(
    node: &NodeCore,
    request: v1::ChangeMembershipRequest,
) -> Result<v1::ChangeMembershipResponse, Refusal> {
    let change = match request.change {
        Some(Change::AddLearner(member)) => MemberChange::AddLearner(NodeId(member.node_id)),
        Some(Change::Promote(member)) => MemberChange::Promote(NodeId(member)),
        Some(Change::Remove(member)) => MemberChange::Remove(NodeId(member)),
        None => return Err(Refusal::new(Reason::InvalidArgument, "the call names no change")),
    };
    let on = (request.membership_term, request.membership_index);
    let group = GroupId(request.group_id);
    let changed = node.world.change_membership(node.node, group, on, change)?;
    Ok(v1::ChangeMembershipResponse { membership_term: changed.0, membership_index: changed.1 })
}

async fn transfer_leader(
    node: &NodeCore,
    request: v1::TransferLeaderRequest,
) -> Result<v1::TransferLeaderResponse, Refusal> {
    node.world.transfer(node.node, GroupId(request.group_id), NodeId(request.to_node))?;
    Ok(v1::TransferLeaderResponse {})
}

/// Reads the group from the meta leader first, as a data node does.
async fn stop_replica(
    node: &NodeCore,
    request: v1::StopReplicaRequest,
) -> Result<v1::StopReplicaResponse, Refusal> {
    let read =
        v1::ReadGroupRequest { cluster_id: node.cluster.to_string(), group_id: request.group_id };
    let record = node.link.read_group(&read).await?.group;
    let abandoned = record.is_some_and(|group| group.state() == GroupState::Abandoned);
    node.world.stop(node.node, GroupId(request.group_id), abandoned)?;
    Ok(v1::StopReplicaResponse {})
}

async fn open_region(
    node: &NodeCore,
    request: v1::OpenRegionRequest,
) -> Result<v1::OpenRegionResponse, Refusal> {
    let Some(region) = request.region else {
        return Err(Refusal::new(Reason::InvalidArgument, "the call describes no region"));
    };
    let opened = StubRegion {
        table: region.table_id,
        schema_version: region.schema.map_or(0, |schema| schema.version),
        step: (0, 0),
    };
    let id = RegionId(region.region_id);
    node.world.open(node.node, GroupId(request.group_id), id, opened)?;
    Ok(v1::OpenRegionResponse {})
}

/// Applies the step of a call that changes a region.
fn apply(
    node: &NodeCore,
    (group, region): (u64, u64),
    step: Option<&ProcedureStep>,
    schema_version: Option<u32>,
) -> Result<(), Refusal> {
    let step = (step, schema_version);
    node.world.apply_step(node.node, GroupId(group), RegionId(region), step)
}

async fn alter_region(
    node: &NodeCore,
    request: v1::AlterRegionRequest,
) -> Result<v1::AlterRegionResponse, Refusal> {
    let version = request.schema.as_ref().map(|schema| schema.version);
    // Without a step, the world checks the leader and the region.
    let step = request.step.as_ref().filter(|_| !request.check_only);
    apply(node, (request.group_id, request.region_id), step, version)?;
    Ok(v1::AlterRegionResponse {})
}

async fn truncate_region(
    node: &NodeCore,
    request: v1::TruncateRegionRequest,
) -> Result<v1::TruncateRegionResponse, Refusal> {
    apply(node, (request.group_id, request.region_id), request.step.as_ref(), None)?;
    Ok(v1::TruncateRegionResponse {})
}

async fn open_area(
    node: &NodeCore,
    request: v1::OpenAreaRequest,
) -> Result<v1::OpenAreaResponse, Refusal> {
    apply(node, (request.group_id, request.region_id), request.step.as_ref(), None)?;
    Ok(v1::OpenAreaResponse {})
}

async fn close_area(
    node: &NodeCore,
    request: v1::CloseAreaRequest,
) -> Result<v1::CloseAreaResponse, Refusal> {
    apply(node, (request.group_id, request.region_id), request.step.as_ref(), None)?;
    Ok(v1::CloseAreaResponse {})
}

async fn copy_region(
    node: &NodeCore,
    request: v1::CopyRegionRequest,
) -> Result<v1::CopyRegionResponse, Refusal> {
    apply(node, (request.group_id, request.region_id), request.step.as_ref(), None)?;
    Ok(v1::CopyRegionResponse {})
}

async fn hold_region(
    node: &NodeCore,
    request: v1::HoldRegionRequest,
) -> Result<v1::HoldRegionResponse, Refusal> {
    apply(node, (request.group_id, request.region_id), request.step.as_ref(), None)?;
    Ok(v1::HoldRegionResponse {})
}

async fn split_region(
    node: &NodeCore,
    request: v1::SplitRegionRequest,
) -> Result<v1::SplitRegionResponse, Refusal> {
    let (group, region) = (GroupId(request.group_id), RegionId(request.region_id));
    apply(node, (request.group_id, request.region_id), request.step.as_ref(), None)?;
    let (_, parent) = node.world.write(node.node, group, region)?;
    for child in request.children {
        node.world.open(node.node, group, RegionId(child.region_id), parent)?;
    }
    Ok(v1::SplitRegionResponse {})
}

async fn merge_regions(
    node: &NodeCore,
    request: v1::MergeRegionsRequest,
) -> Result<v1::MergeRegionsResponse, Refusal> {
    let (group, region) = (GroupId(request.group_id), RegionId(request.region_id));
    apply(node, (request.group_id, request.region_id), request.step.as_ref(), None)?;
    let (_, parent) = node.world.write(node.node, group, region)?;
    if let Some(child) = request.child {
        node.world.open(node.node, group, RegionId(child.region_id), parent)?;
    }
    Ok(v1::MergeRegionsResponse {})
}

async fn close_region(
    node: &NodeCore,
    request: v1::CloseRegionRequest,
) -> Result<v1::CloseRegionResponse, Refusal> {
    let region = RegionId(request.region_id);
    node.world.drop_region(node.node, GroupId(request.group_id), region)?;
    Ok(v1::CloseRegionResponse {})
}

async fn prepare_region(
    node: &NodeCore,
    request: v1::PrepareRegionRequest,
) -> Result<v1::PrepareRegionResponse, Refusal> {
    node.world.require_leader(node.node, GroupId(request.group_id))?;
    Ok(v1::PrepareRegionResponse {})
}

async fn get_departing_region(
    node: &NodeCore,
    request: v1::GetDepartingRegionRequest,
) -> Result<v1::GetDepartingRegionResponse, Refusal> {
    let (group, region) = (GroupId(request.group_id), RegionId(request.region_id));
    let (_, left) = node.world.write(node.node, group, region)?;
    // Stubs know these two numbers of a region.
    let done_sequence = u64::from(left.table) << 32 | u64::from(left.schema_version);
    Ok(v1::GetDepartingRegionResponse { done_sequence, ..Default::default() })
}

async fn receive_region(
    node: &NodeCore,
    request: v1::ReceiveRegionRequest,
) -> Result<v1::ReceiveRegionResponse, Refusal> {
    let (group, region) = (GroupId(request.group_id), RegionId(request.region_id));
    let number = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
    let (table, schema_version) =
        (number(request.done_sequence >> 32), number(request.done_sequence));
    let step = request.step.map_or((0, 0), |step| (step.number, step.step));
    node.world.open(node.node, group, region, StubRegion { table, schema_version, step })?;
    Ok(v1::ReceiveRegionResponse {})
}

async fn release_region(
    node: &NodeCore,
    request: v1::ReleaseRegionRequest,
) -> Result<v1::ReleaseRegionResponse, Refusal> {
    let region = RegionId(request.region_id);
    node.world.drop_region(node.node, GroupId(request.group_id), region)?;
    Ok(v1::ReleaseRegionResponse {})
}

async fn activate_region(
    node: &NodeCore,
    request: v1::ActivateRegionRequest,
) -> Result<v1::ActivateRegionResponse, Refusal> {
    node.world.require_leader(node.node, GroupId(request.group_id))?;
    Ok(v1::ActivateRegionResponse {})
}

async fn drop_region(
    node: &NodeCore,
    request: v1::DropRegionRequest,
) -> Result<v1::DropRegionResponse, Refusal> {
    let region = RegionId(request.region_id);
    node.world.drop_region(node.node, GroupId(request.group_id), region)?;
    Ok(v1::DropRegionResponse {})
}

async fn request_flush(
    node: &NodeCore,
    request: v1::RequestFlushRequest,
) -> Result<v1::RequestFlushResponse, Refusal> {
    node.world.require_leader(node.node, GroupId(request.group_id))?;
    Ok(v1::RequestFlushResponse {})
}
