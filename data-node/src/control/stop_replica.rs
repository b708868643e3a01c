//! Stops a replica that is no longer a member, and deletes its log.

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
        // A leading replica is a member, whatever membership the caller has seen.
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
                    "the replica of group {group} is not stopped: it leads, or has a later \
                     membership than that of term {}, index {}",
                    decided.0, decided.1
                ),
            ));
        }
    }
    groups.remove(group).await?;
    Ok(StopReplicaResponse {})
}

/// Returns whether a replica may stop, given the membership (term, index) without this node that
/// the caller decided on, and the replica's own effective membership `known`. A replica that was
/// removed while it lagged never receives its removal, so an older membership that includes it does
/// not count.
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
    fn replica_stops_only_for_a_newer_membership_without_it() {
        assert!(may_stop((2, 9), None, false));
        assert!(may_stop((2, 9), Some((1, 5)), true), "removed while it lagged");
        assert!(may_stop((2, 9), Some((2, 9)), false));
        assert!(!may_stop((2, 9), Some((2, 9)), true));
        assert!(!may_stop((1, 5), Some((2, 9)), true), "decided on an old leader's report");
        assert!(!may_stop((1, 5), Some((2, 9)), false));
    }
}
