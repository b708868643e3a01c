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

// What was never appended has definitely not happened; what was appended and then lost may happen.
#[test]
fn before_and_after_the_proposal_are_never_mixed_up() {
    let not = write_refused(
        GROUP,
        &ClientWriteError::ForwardToLeader(forward(Some(3), ForwardReason::NotLeader)),
    );
    assert_eq!((not.reason, not.effect()), (Reason::NotLeader, Effect::None));
    let leader = not.leader.unwrap();
    assert_eq!((leader.node_id, leader.address.as_str()), (NodeId(3), "127.0.0.1:7"));
    assert_eq!(not.retry_after, None);

    let lost = write_refused(
        GROUP,
        &ClientWriteError::LogEntryDiscarded(forward(Some(3), ForwardReason::NotLeader)),
    );
    assert_eq!((lost.reason, lost.effect()), (Reason::LeadershipLost, Effect::Unknown));
    assert_eq!(deadline("a write", GROUP).effect(), Effect::Unknown);
    assert_eq!(raft_refused(GROUP, &RaftError::Fatal(Fatal::Stopped)).effect(), Effect::Unknown);
    assert_eq!(stopped(GROUP, &Fatal::Stopped).effect(), Effect::None);
    assert_eq!(stopped(GROUP, &Fatal::Panicked).effect(), Effect::Unknown);
}

#[test]
fn without_a_leader_the_caller_waits() {
    let nobody = not_leader(GROUP, &forward(None, ForwardReason::LeaseExpired));
    assert_eq!(nobody.leader, None);
    assert!(nobody.retry_after.is_some());
    let transfer = not_leader(GROUP, &forward(Some(3), ForwardReason::LeadershipTransfer));
    assert!(transfer.leader.is_some() && transfer.retry_after.is_some());
}

#[test]
fn a_leader_that_cannot_reach_a_quorum_serves_no_read() {
    let quorum = QuorumNotEnough { cluster: "x".into(), got: Default::default() };
    let error = RaftError::APIError(LinearizableReadError::QuorumNotEnough(quorum));
    assert_eq!(read_refused(GROUP, &error).reason, Reason::NotLeader);
}
