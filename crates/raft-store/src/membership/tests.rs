use tempfile::TempDir;

use super::*;
use crate::testing::cluster::{GROUP, Node, start, wait_leader};
use crate::testing::eventually;

/// Node 1 alone, node 2 as its learner, and the log id of this membership.
async fn leader_and_learner(dir: &TempDir) -> (Node, Node, LogId) {
    let mut nodes = start(dir, 1).await;
    wait_leader(&nodes).await;
    let one = nodes.remove(&1).unwrap();
    one.write("it may be changed").await;
    let two = Node::start(2, dir.path().join("2")).await;
    let added = one.raft.add_learner(2, two.member(), true).await.unwrap();
    (one, two, added.log_id)
}

fn promotion() -> ChangeMembers<u64, Member> {
    ChangeMembers::AddVoterIds(BTreeSet::from([2]))
}

fn on(node: &Node) -> Option<LogId> {
    *node.raft.server_metrics().borrow_watched().membership_config.log_id()
}

/// Voters of a membership that is committed and not joint.
fn voters(node: &Node) -> Option<BTreeSet<u64>> {
    let metrics = node.raft.server_metrics();
    let committed = &metrics.borrow_watched().committed_membership_config;
    let membership = committed.membership();
    (!is_joint(membership)).then(|| future_voters(membership))
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_change_continues_after_caller_drops() {
    let dir = TempDir::new().unwrap();
    let (one, _two, on) = leader_and_learner(&dir).await;
    {
        let mut changing = Box::pin(change(&one.raft, promotion(), Some(on)));
        assert!(futures::poll!(&mut changing).is_pending());
    }
    // No finisher runs in this test.
    let both = Some(BTreeSet::from([1, 2]));
    eventually("both are voters, and nothing is joint", || voters(&one) == both).await;
    let late = change(&one.raft, promotion(), Some(on)).await.unwrap_err();
    let late = matches!(late, RaftError::APIError(ClientWriteError::PreconditionFailed(_)));
    assert!(late, "{on} is past");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_finishes_an_interrupted_membership_change() {
    let dir = TempDir::new().unwrap();
    let (one, _two, _) = leader_and_learner(&dir).await;
    {
        // Openraft's own call: both steps run in this future.
        let mut changing = Box::pin(one.raft.change_membership(promotion(), false));
        assert!(futures::poll!(&mut changing).is_pending());
    }
    let metrics = one.raft.server_metrics();
    eventually("the joint membership is committed", || {
        joint_in_effect(&metrics.borrow_watched()).is_some()
    })
    .await;
    let mut finisher = JointMembershipFinisher::default();
    let deadline = Instant::now() + Duration::from_secs(30);
    while voters(&one).is_none() {
        assert!(Instant::now() < deadline, "it stays joint");
        finisher.finish(GROUP, &one.raft).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(voters(&one), Some(BTreeSet::from([1, 2])));
    // Nothing is written without a joint membership.
    let before = on(&one);
    finisher.finish(GROUP, &one.raft).await;
    assert_eq!(on(&one), before);
}
