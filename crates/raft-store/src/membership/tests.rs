use tempfile::TempDir;

use super::*;
use crate::testing::cluster::{GROUP, Node, start, wait_leader};
use crate::testing::eventually;

/// Node 1 alone, node 2 as its learner, and where this membership stands.
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
async fn a_change_goes_on_when_its_caller_goes_away() {
    let dir = TempDir::new().unwrap();
    let (one, _two, on) = leader_and_learner(&dir).await;
    {
        let mut changing = Box::pin(change(&one.raft, promotion(), Some(on)));
        assert!(futures::poll!(&mut changing).is_pending());
    }
    // Nobody looks for what was cut off here.
    let both = Some(BTreeSet::from([1, 2]));
    eventually("both are voters, and nothing is joint", || voters(&one) == both).await;
    let late = change(&one.raft, promotion(), Some(on)).await.unwrap_err();
    let late = matches!(late, RaftError::APIError(ClientWriteError::PreconditionFailed(_)));
    assert!(late, "{on} is past");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leads_finishes_a_change_that_was_cut_off() {
    let dir = TempDir::new().unwrap();
    let (one, _two, _) = leader_and_learner(&dir).await;
    {
        // As openraft offers it: both steps in this future.
        let mut changing = Box::pin(one.raft.change_membership(promotion(), false));
        assert!(futures::poll!(&mut changing).is_pending());
    }
    let metrics = one.raft.server_metrics();
    eventually("the joint membership is committed", || {
        standing(&metrics.borrow_watched()).is_some()
    })
    .await;
    let mut unfinished = Unfinished::default();
    let deadline = Instant::now() + Duration::from_secs(30);
    while voters(&one).is_none() {
        assert!(Instant::now() < deadline, "it stays joint");
        unfinished.finish(GROUP, &one.raft).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(voters(&one), Some(BTreeSet::from([1, 2])));
    // Nothing is written when there is nothing to finish.
    let before = on(&one);
    unfinished.finish(GROUP, &one.raft).await;
    assert_eq!(on(&one), before);
}
