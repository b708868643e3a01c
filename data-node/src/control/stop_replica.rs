//! Stops a replica that is no longer a member, and forgets its log.

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, StopReplicaRequest, StopReplicaResponse};

use crate::groups::Groups;

pub(super) async fn call(
    groups: &Groups,
    request: StopReplicaRequest,
) -> Result<StopReplicaResponse, Refusal> {
    let group = GroupId(request.group_id);
    // A replica that leads is a member, whatever the caller believes.
    if let Ok(replica) = groups.get(group)
        && replica.require_leader().is_ok()
    {
        return Err(Refusal::new(
            Reason::MembershipStale,
            format!("this node leads group {group}: its replica cannot be stopped"),
        ));
    }
    groups.remove(group).await?;
    Ok(StopReplicaResponse {})
}
