//! Service `GroupControl`: what the meta leader and other data nodes ask. A file per call.

mod alter_region;
mod change_membership;
mod close_area;
mod copy_region;
mod drop_region;
mod open_area;
mod open_region;
mod request_flush;
pub(crate) mod settle;
mod start_group;
mod stop_replica;
mod transfer_leader;
mod truncate_region;

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

/// See the module's head.
#[derive(Debug, Clone)]
pub struct ControlService {
    groups: Arc<Groups>,
}

impl ControlService {
    /// For the groups of a node.
    pub fn new(groups: Arc<Groups>) -> Self {
        Self { groups }
    }

    /// The gRPC service.
    pub fn into_server(self) -> GroupControlServer<Self> {
        GroupControlServer::new(self)
    }

    fn check(&self, header: Option<&CallHeader>) -> Result<(), Refusal> {
        let parts = self.groups.parts();
        check_header(parts.cluster, parts.node, header)
    }
}

macro_rules! calls {
    ($($name:ident: $request:ident => $response:ident;)*) => {
        #[tonic::async_trait]
        impl GroupControl for ControlService {
            $(
                async fn $name(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    let request = request.into_inner();
                    self.check(request.header.as_ref())?;
                    Ok(Response::new($name::call(&self.groups, request).await?))
                }
            )*
        }
    };
}

calls! {
    start_group: StartGroupRequest => StartGroupResponse;
    change_membership: ChangeMembershipRequest => ChangeMembershipResponse;
    transfer_leader: TransferLeaderRequest => TransferLeaderResponse;
    stop_replica: StopReplicaRequest => StopReplicaResponse;
    open_region: OpenRegionRequest => OpenRegionResponse;
    alter_region: AlterRegionRequest => AlterRegionResponse;
    truncate_region: TruncateRegionRequest => TruncateRegionResponse;
    open_area: OpenAreaRequest => OpenAreaResponse;
    close_area: CloseAreaRequest => CloseAreaResponse;
    copy_region: CopyRegionRequest => CopyRegionResponse;
    drop_region: DropRegionRequest => DropRegionResponse;
    request_flush: RequestFlushRequest => RequestFlushResponse;
}
