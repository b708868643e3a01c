//! Stops a replica that is no longer a member, and sets its log aside.
//!
//! A replica without its log could vote for a log that lacks entries that it has acknowledged. The
//! call therefore only names the group: the decision is made on the meta group's record, which holds
//! committed memberships. The record follows heartbeats, which any process can send: the leader that it
//! names must confirm it.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Group, GroupState, Reason, StopReplicaRequest, StopReplicaResponse};
use tidewater_raft_store::types::StoredMembership;

use crate::groups::Groups;

pub(super) async fn call(
    groups: &Arc<Groups>,
    request: StopReplicaRequest,
) -> Result<StopReplicaResponse, Refusal> {
    let group = GroupId(request.group_id);
    if !groups.has_log(group) {
        return Ok(StopReplicaResponse {});
    }
    let record = groups.context().records.read(group).await?;
    let own = groups.node().get();
    let replica = match groups.get(group) {
        Ok(replica) => {
            let effective = replica.membership();
            StoppedReplica {
                leads: replica.require_leader().is_ok(),
                known: effective.log_id().map(|id| (id.leader_id.term, id.index)),
                is_member: effective.nodes().any(|(id, _)| *id == own),
            }
        }
        Err(_) => StoppedReplica::default(),
    };
    let decided = (request.membership_term, request.membership_index);
    let stale = |problem: &str| {
        let text = format!("the replica of group {group} is not stopped: {problem}");
        Refusal::new(Reason::MembershipStale, text)
    };
    let decision = may_stop(record.as_ref(), own, decided, &replica).map_err(stale)?;
    if let StopDecision::Confirm { leader } = decision {
        let answer = groups.context().host.ask_membership(group, NodeId(leader)).await;
        let answer = answer.ok_or_else(|| silent_leader(group, leader))?;
        confirm_removal(own, replica.known, &answer).map_err(stale)?;
    }
    groups.remove(group).await?;
    Ok(StopReplicaResponse {})
}

/// A replica that is to be stopped, as it sees itself.
#[derive(Debug, Clone, Default)]
struct StoppedReplica {
    leads: bool,
    /// Log id of its effective membership; `None`: it has none.
    known: Option<(u64, u64)>,
    /// Whether its effective membership contains it.
    is_member: bool,
}

fn silent_leader(group: GroupId, leader: u64) -> Refusal {
    let text = format!(
        "the replica of group {group} is not stopped: its leader, node {leader}, does not confirm \
         that it was removed"
    );
    Refusal::new(Reason::Unavailable, text).retry_after(Duration::from_millis(500))
}

/// Decision on the stop of a replica that the record does not contradict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopDecision {
    /// The replica is not needed.
    Stop,
    /// The group's leader must confirm that the replica is not a member.
    Confirm { leader: u64 },
}

/// Checks the answer of the group's leader: a committed membership without node `own`. A leader that
/// knows an older membership than the replica has missed changes, and may have been deposed.
fn confirm_removal(
    own: u64,
    known: Option<(u64, u64)>,
    answer: &StoredMembership,
) -> Result<(), &'static str> {
    let id = answer.log_id().map(|id| (id.leader_id.term, id.index));
    if answer.voter_ids().next().is_none() || id < known {
        return Err("the group's leader knows an older membership");
    }
    if answer.nodes().any(|(id, _)| *id == own) {
        return Err("the group's leader has it as a member");
    }
    Ok(())
}

/// Checks that a replica of node `own` may stop, given the meta group's record and the membership on
/// which the caller decided.
///
/// A replica that was removed while it lagged never receives its removal, so that an older
/// membership of its own does not count, even one that is joint or contains it: the record's is
/// committed.
fn may_stop(
    record: Option<&Group>,
    own: u64,
    decided: (u64, u64),
    replica: &StoppedReplica,
) -> Result<StopDecision, &'static str> {
    let Some(record) = record else { return Err("the meta group does not know the group") };
    match record.state() {
        // It never served a region, or serves none any more, whatever its replicas believe.
        GroupState::Abandoned | GroupState::Retired => return Ok(StopDecision::Stop),
        GroupState::Active => {}
        _ => return Err("the group is being created"),
    }
    let recorded = (record.membership_term, record.membership_index);
    if record.voters.is_empty() || record.voters.contains(&own) || record.learners.contains(&own) {
        return Err("the meta group has it as a member");
    }
    if recorded < decided {
        return Err("the meta group has yet to record the membership without it");
    }
    if replica.leads {
        return Err("it leads");
    }
    match replica.known {
        Some(known) if known > recorded => Err("it has a later membership"),
        Some(known) if known == recorded && replica.is_member => Err("it is a member"),
        _ => Ok(StopDecision::Confirm { leader: record.leader }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidewater_raft_store::Member;
    use tidewater_raft_store::types::{Membership, log_id};

    use super::*;

    const OWN: u64 = 3;

    fn record(state: GroupState, voters: &[u64], learners: &[u64]) -> Group {
        Group {
            group_id: 5,
            state: state.into(),
            leader: 1,
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            membership_term: 2,
            membership_index: 9,
            ..Group::default()
        }
    }

    #[test]
    fn leader_confirms_a_removal_by_its_committed_members() {
        let answer = |index, nodes: &[u64]| {
            let members: BTreeMap<u64, Member> =
                nodes.iter().map(|id| (*id, Member::new("n:1"))).collect();
            let voters = vec![nodes.iter().copied().collect()];
            let membership = Membership::new(voters, members).unwrap();
            StoredMembership::new(Some(log_id(2, index)), membership)
        };
        let known = Some((2, 9));
        let cases = [
            (known, answer(11, &[1, 2]), true),
            (known, answer(9, &[1, 2]), true),
            (None, answer(9, &[1, 2]), true),
            (known, answer(11, &[1, 2, OWN]), false),
            (known, answer(8, &[1, 2]), false),
            (Some((3, 1)), answer(11, &[1, 2]), false),
            (None, StoredMembership::default(), false),
        ];
        for (known, answer, confirmed) in cases {
            assert_eq!(confirm_removal(OWN, known, &answer).is_ok(), confirmed, "{answer:?}");
        }
    }

    fn replica(leads: bool, known: Option<(u64, u64)>, is_member: bool) -> StoppedReplica {
        StoppedReplica { leads, known, is_member }
    }

    #[test]
    fn replica_stops_when_the_meta_group_removed_it() {
        use GroupState::{Abandoned, Active, Creating, Retired};
        let removed = || Some(record(Active, &[1, 2], &[4]));
        let lagging = replica(false, Some((1, 5)), true);
        let cases = [
            (removed(), (2, 9), lagging.clone(), true),
            (removed(), (2, 9), replica(false, None, false), true),
            (removed(), (2, 9), replica(false, Some((2, 9)), false), true),
            (removed(), (1, 5), lagging.clone(), true),
            // Forged or early calls.
            (Some(record(Active, &[1, 2, 3], &[])), (9, 99), lagging.clone(), false),
            (Some(record(Active, &[1, 2], &[3])), (2, 9), lagging.clone(), false),
            (Some(record(Active, &[], &[])), (2, 9), lagging.clone(), false),
            (Some(record(Creating, &[1, 2], &[])), (2, 9), lagging.clone(), false),
            (removed(), (2, 10), lagging.clone(), false),
            (None, (9, 99), lagging.clone(), false),
            // The replica knows better than the record.
            (removed(), (2, 9), replica(true, Some((1, 5)), true), false),
            (removed(), (2, 9), replica(false, Some((2, 9)), true), false),
            (removed(), (2, 9), replica(false, Some((2, 11)), false), false),
            (removed(), (2, 9), replica(false, Some((3, 1)), true), false),
            // An abandoned and a retired group.
            (
                Some(record(Retired, &[1, 2, 3], &[])),
                (u64::MAX, u64::MAX),
                replica(true, Some((2, 9)), true),
                true,
            ),
            (Some(record(Abandoned, &[3], &[])), (u64::MAX, u64::MAX), lagging, true),
            (
                Some(record(Abandoned, &[], &[])),
                (u64::MAX, u64::MAX),
                replica(true, Some((1, 0)), true),
                true,
            ),
        ];
        for (record, decided, replica, stops) in cases {
            let stopped = may_stop(record.as_ref(), OWN, decided, &replica);
            assert_eq!(stopped.is_ok(), stops, "{record:?} {decided:?} {replica:?}: {stopped:?}");
            let ended = record.is_some_and(|group| matches!(group.state(), Abandoned | Retired));
            let needed = StopDecision::Confirm { leader: 1 };
            let expected = if ended { StopDecision::Stop } else { needed };
            assert!(stopped.is_err() || stopped == Ok(expected), "{stopped:?}");
        }
    }
}
