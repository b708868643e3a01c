//! `Barriers`: epochs of the groups that a stub node leads.

use std::sync::Arc;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1::barriers_server::Barriers;
use tidewater_proto::v1::{
    BarrierTarget, GroupEpoch, InjectBarrierRequest, InjectBarrierResponse, Reason,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::stub::node_core::NodeCore;

/// The service of one node.
#[derive(Debug, Clone)]
pub(in crate::stub) struct BarrierService {
    pub(in crate::stub) node: Arc<NodeCore>,
}

impl BarrierService {
    /// Begins the epoch of a barrier in one group.
    fn begin(&self, target: &BarrierTarget, epoch: u64) -> GroupEpoch {
        let world = &self.node.world;
        let group = GroupId(target.group_id);
        let (reached, refused) = if world.barriers.is_stalled(group) {
            (target.previous, Reason::DeadlineExceeded)
        } else {
            match world.begin_epoch(self.node.node, group, (target.previous, epoch)) {
                Ok(reached) if reached >= epoch => (reached, Reason::Unspecified),
                Ok(reached) => (reached, Reason::EpochIncomplete),
                Err(refusal) => (0, refusal.reason),
            }
        };
        GroupEpoch { group_id: target.group_id, epoch: reached, refused: refused.into() }
    }
}

#[tonic::async_trait]
impl Barriers for BarrierService {
    async fn inject_barrier(
        &self,
        request: Request<InjectBarrierRequest>,
    ) -> Result<Response<InjectBarrierResponse>, Status> {
        let request = request.into_inner();
        let begun = Instant::now();
        self.node.admit(request.header.as_ref()).await?;
        let begin = |target| self.begin(target, request.epoch);
        let groups: Vec<GroupEpoch> = request.groups.iter().map(begin).collect();
        let applied = groups.iter().filter(|group| group.epoch == request.epoch).count();
        self.node.world.barriers.record(request.epoch, begun, applied);
        Ok(Response::new(InjectBarrierResponse { groups }))
    }
}
