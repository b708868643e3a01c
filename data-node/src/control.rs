//! Service `GroupControl`: calls of the meta leader and of other data nodes.

mod change_membership;
mod regions;
mod request_flush;
pub(crate) mod settle;
mod start_group;
mod stop_replica;
mod transfer_leader;

pub(crate) use self::transfer_leader::transfer;

use std::sync::Arc;

use tidewater_common::header::check_header;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::group_control_server::{GroupControl, GroupControlServer};
use tidewater_proto::v1::{self, CallHeader};
use tonic::{Request, Response, Status};

use crate::groups::Groups;

#[cfg(test)]
mod tests;

/// The gRPC service `GroupControl` of a node.
#[derive(Debug, Clone)]
pub struct ControlService {
    groups: Arc<Groups>,
}

impl ControlService {
    /// Creates the service for a node's groups.
    pub fn new(groups: Arc<Groups>) -> Self {
        Self { groups }
    }

    /// Wraps the service for tonic.
    pub fn into_server(self) -> GroupControlServer<Self> {
        GroupControlServer::new(self)
    }

    fn check(&self, header: Option<&CallHeader>) -> Result<(), Refusal> {
        let node = self.groups.context();
        check_header(node.cluster, node.node, header)
    }
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
                    self.check(request.header.as_ref())?;
                    Ok(Response::new($call(&self.groups, request).await?))
                }
            )*
        }
    };
}

calls! {
    start_group: StartGroupRequest => StartGroupResponse, start_group::call;
    change_membership: ChangeMembershipRequest => ChangeMembershipResponse, change_membership::call;
    transfer_leader: TransferLeaderRequest => TransferLeaderResponse, transfer_leader::call;
    stop_replica: StopReplicaRequest => StopReplicaResponse, stop_replica::call;
    open_region: OpenRegionRequest => OpenRegionResponse, regions::open;
    alter_region: AlterRegionRequest => AlterRegionResponse, regions::alter;
    truncate_region: TruncateRegionRequest => TruncateRegionResponse, regions::truncate;
    open_area: OpenAreaRequest => OpenAreaResponse, regions::open_area;
    close_area: CloseAreaRequest => CloseAreaResponse, regions::close_area;
    copy_region: CopyRegionRequest => CopyRegionResponse, regions::copy;
    drop_region: DropRegionRequest => DropRegionResponse, regions::drop;
    request_flush: RequestFlushRequest => RequestFlushResponse, request_flush::call;
}
