//! Drain and removal of data nodes.

use std::sync::Arc;

use tidewater_cluster_events::RecordedCall;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

use super::AdminService;
use crate::catalog::Node;
use crate::commands::drains::groups_on;

impl AdminService {
    pub(super) async fn drain(
        &self,
        request: v1::DrainNodeRequest,
        call: &mut RecordedCall,
    ) -> Result<v1::DrainNodeResponse, Refusal> {
        let running = self.slot.get()?;
        let (node_id, draining) = (request.node_id, !request.cancel);
        let replacement_id = request.replacement_id;
        let is_replaced =
            |node: &Node| replacement_id == 0 || node.replacement == Some(NodeId(replacement_id));
        let drains = |node: &Arc<Node>| {
            node.draining && node.state != NodeState::Removed && is_replaced(node)
        };
        let is_draining = running.group.view.read().node(NodeId(node_id)).is_some_and(drains);
        if draining && is_draining {
            // A caller that waits for the end repeats the call every second.
            call.forget();
            running.group.check_leading()?;
            running.group.linearize().await?;
        } else {
            let kind =
                Kind::SetNodeDraining(v1::SetNodeDraining { node_id, draining, replacement_id });
            running.propose_at_level(kind).await?;
        }
        let state = running.group.view.read();
        let groups = groups_on(&state, NodeId(node_id)).map(|group| group.id.get());
        Ok(v1::DrainNodeResponse { group_ids: groups.collect() })
    }

    pub(super) async fn remove(
        &self,
        request: v1::RemoveNodeRequest,
    ) -> Result<v1::RemoveNodeResponse, Refusal> {
        let running = self.slot.get()?;
        let kind = Kind::RemoveNode(v1::RemoveNode { node_id: request.node_id });
        running.propose_at_level(kind).await?;
        Ok(v1::RemoveNodeResponse {})
    }
}
