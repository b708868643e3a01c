//! `Barriers`: epochs of the groups that a stub node leads.

use std::sync::Arc;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1::barriers_server::Barriers;
use tidewater_proto::v1::{GroupEpoch, InjectBarrierRequest, InjectBarrierResponse, Reason};
use tonic::{Request, Response, Status};

use crate::stub::node_core::NodeCore;

/// The service of one node.
#[derive(Debug, Clone)]
pub(in crate::stub) struct BarrierService {
    pub(in crate::stub) node: Arc<NodeCore>,
}

#[tonic::async_trait]
impl Barriers for BarrierService {
    async fn inject_barrier(
        &self,
        request: Request<InjectBarrierRequest>,
    ) -> Result<Response<InjectBarrierResponse>, Status> {
        let request = request.into_inner();
        self.node.admit(request.header.as_ref()).await?;
        let mut groups = Vec::with_capacity(request.groups.len());
        for target in request.groups {
            let group = GroupId(target.group_id);
            let barrier = (target.previous, request.epoch);
            let (epoch, refused) = match self.node.world.begin_epoch(self.node.node, group, barrier)
            {
                Ok(epoch) if epoch >= request.epoch => (epoch, Reason::Unspecified),
                Ok(epoch) => (epoch, Reason::EpochIncomplete),
                Err(refusal) => (0, refusal.reason),
            };
            groups.push(GroupEpoch { group_id: target.group_id, epoch, refused: refused.into() });
        }
        Ok(Response::new(InjectBarrierResponse { groups }))
    }
}
