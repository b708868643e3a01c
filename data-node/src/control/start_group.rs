//! Starts a replica. Can be repeated.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, StartGroupRequest, StartGroupResponse};
use tidewater_raft_store::Member;

use crate::groups::Groups;

pub(super) async fn call(
    groups: &Arc<Groups>,
    request: StartGroupRequest,
) -> Result<StartGroupResponse, Refusal> {
    let group = GroupId(request.group_id);
    if group == GroupId::META {
        return Err(Refusal::new(
            Reason::InvalidArgument,
            "group 0 is the meta group: data nodes do not host it",
        ));
    }
    let members: BTreeMap<u64, Member> = request
        .first_members
        .into_iter()
        .map(|member| (member.node_id, Member { address: member.address }))
        .collect();
    if request.initialize && !members.contains_key(&groups.context().node.get()) {
        return Err(Refusal::new(
            Reason::InvalidArgument,
            format!("the first members of group {group} must include this node"),
        ));
    }
    let addresses = groups.context().network.addresses();
    for (id, member) in &members {
        addresses.set_if_absent(NodeId(*id), &member.address);
    }
    let replica = groups.start(group).await?;
    if request.initialize {
        groups.initialize(&replica, members).await?;
    }
    Ok(StartGroupResponse {})
}
