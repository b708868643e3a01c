//! Stops a replica that is no longer a member, and forgets its log.

use std::sync::Arc;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, StopReplicaRequest, StopReplicaResponse};

use crate::groups::Groups;

pub(super) async fn call(
    groups: &Arc<Groups>,
    request: StopReplicaRequest,
) -> Result<StopReplicaResponse, Refusal> {
    let group = GroupId(request.group_id);
    if let Ok(replica) = groups.get(group) {
        // A replica that leads is a member, whatever the caller believes.
        let leads = replica.require_leader().is_ok();
        let membership = replica.membership();
        let known = membership.log_id().map(|id| (id.leader_id.term, id.index));
        let own = groups.node().get();
        let member = membership.nodes().any(|(id, _)| *id == own);
        let decided = (request.membership_term, request.membership_index);
        if leads || !may_stop(decided, known, member) {
            return Err(Refusal::new(
                Reason::MembershipStale,
                format!(
                    "the replica of group {group} is not stopped: it leads, or knows a later \
                     membership than that of term {}, index {}",
                    decided.0, decided.1
                ),
            ));
        }
    }
    groups.remove(group).await?;
    Ok(StopReplicaResponse {})
}

/// Whether a stop that was decided on one membership (term, index), in which this node is not, holds
/// for a replica whose own effective membership is `known`. One that was removed while it lagged
/// never learns of it, so an older membership with itself in it does not count.
fn may_stop(decided: (u64, u64), known: Option<(u64, u64)>, member: bool) -> bool {
    match known {
        None => true,
        Some(known) if known == decided => !member,
        Some(known) => known < decided,
    }
}

#[cfg(test)]
mod tests {
    use super::may_stop;

    #[test]
    fn only_a_later_membership_without_the_node_stops_it() {
        assert!(may_stop((2, 9), None, false));
        assert!(may_stop((2, 9), Some((1, 5)), true), "removed while it lagged");
        assert!(may_stop((2, 9), Some((2, 9)), false));
        assert!(!may_stop((2, 9), Some((2, 9)), true));
        assert!(!may_stop((1, 5), Some((2, 9)), true), "decided on an old leader's report");
        assert!(!may_stop((1, 5), Some((2, 9)), false));
    }
}
