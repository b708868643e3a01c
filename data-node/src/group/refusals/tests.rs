use openraft::errors::QuorumNotEnough;
use tidewater_common::refusal::Effect;
use tidewater_raft_store::Member;

use super::*;

const GROUP: GroupId = GroupId(5);

fn forward(leader: Option<u64>, reason: ForwardReason) -> ForwardToLeader<TypeConfig> {
    ForwardToLeader {
        leader_id: leader,
        leader_node: leader.map(|_| Member::new("127.0.0.1:7")),
        reason,
    }
}

// A write that was never appended has definitely failed; an appended and lost one has an unknown
// outcome.
#[test]
fn failures_before_and_after_the_proposal_differ_in_effect() {
    let not = write_error(
        GROUP,
        &ClientWriteError::ForwardToLeader(forward(Some(3), ForwardReason::NotLeader)),
    );
    assert_eq!((not.reason, not.effect()), (Reason::NotLeader, Effect::None));
    let leader = not.leader.unwrap();
    assert_eq!((leader.node_id, leader.address.as_str()), (NodeId(3), "127.0.0.1:7"));
    assert_eq!(not.retry_after, None);

    let lost = write_error(
        GROUP,
        &ClientWriteError::LogEntryDiscarded(forward(Some(3), ForwardReason::NotLeader)),
    );
    assert_eq!((lost.reason, lost.effect()), (Reason::LeadershipLost, Effect::Unknown));
    assert_eq!(deadline_exceeded("a write", GROUP).effect(), Effect::Unknown);
    assert_eq!(raft_error(GROUP, &RaftError::Fatal(Fatal::Stopped)).effect(), Effect::Unknown);
    assert_eq!(replica_stopped(GROUP, &Fatal::Stopped).effect(), Effect::None);
    assert_eq!(replica_stopped(GROUP, &Fatal::Panicked).effect(), Effect::Unknown);
}

#[test]
fn missing_leader_refusal_has_a_retry_delay() {
    let no_leader = not_leader(GROUP, &forward(None, ForwardReason::LeaseExpired));
    assert_eq!(no_leader.leader, None);
    assert!(no_leader.retry_after.is_some());
    let transfer = not_leader(GROUP, &forward(Some(3), ForwardReason::LeadershipTransfer));
    assert!(transfer.leader.is_some() && transfer.retry_after.is_some());
}

#[test]
fn leader_without_a_quorum_serves_no_reads() {
    let quorum = QuorumNotEnough { cluster: "x".into(), got: Default::default() };
    let error = RaftError::APIError(LinearizableReadError::QuorumNotEnough(quorum));
    assert_eq!(read_error(GROUP, &error).reason, Reason::NotLeader);
}
