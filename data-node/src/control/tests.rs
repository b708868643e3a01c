use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::{GroupMember, Reason};
use tidewater_raft_store::Member;
use tidewater_raft_store::types::{Membership, StoredMembership, log_id};

use super::change_membership::{MembershipStep, check_removal, plan};

/// Voters 1 and 2, learner 3.
fn membership() -> StoredMembership {
    membership_of(vec![BTreeSet::from([1, 2])])
}

/// A membership with these voters among nodes 1 to 3.
fn membership_of(voters: Vec<BTreeSet<u64>>) -> StoredMembership {
    let nodes: BTreeMap<u64, Member> =
        [1, 2, 3].into_iter().map(|id| (id, Member::new(format!("n{id}:1")))).collect();
    StoredMembership::new(Some(log_id(1, 2)), Membership::new(voters, nodes).unwrap())
}

#[test]
fn completed_membership_change_needs_no_step() {
    let member = |id| GroupMember { node_id: id, address: format!("n{id}:1") };
    let ids = |id| BTreeSet::from([id]);
    let cases = [
        (Change::AddLearner(member(3)), MembershipStep::Nothing),
        (
            Change::AddLearner(member(4)),
            MembershipStep::Change(ChangeMembers::AddNodes(BTreeMap::from([(
                4,
                Member::new("n4:1"),
            )]))),
        ),
        (Change::Promote(1), MembershipStep::Nothing),
        (Change::Promote(3), MembershipStep::Change(ChangeMembers::AddVoterIds(ids(3)))),
        (Change::Remove(2), MembershipStep::Change(ChangeMembers::RemoveVoters(ids(2)))),
        (Change::Remove(3), MembershipStep::Change(ChangeMembers::RemoveNodes(ids(3)))),
        (Change::Remove(9), MembershipStep::Nothing),
    ];
    for (change, step) in cases {
        assert_eq!(plan(&membership(), change.clone()).unwrap(), step, "{change:?}");
    }
    let unknown = plan(&membership(), Change::Promote(9)).unwrap_err();
    assert_eq!(unknown.reason, Reason::MemberNotFound);
}

#[test]
fn joint_membership_change_is_completed() {
    let ids = |id| BTreeSet::from([id]);
    let finish = || MembershipStep::Change(ChangeMembers::AddVoterIds(BTreeSet::new()));
    let promoting = membership_of(vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 2, 3])]);
    let removing = membership_of(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2])]);
    let three = GroupMember { node_id: 3, address: "n3:1".into() };
    let cases = [
        (&promoting, Change::AddLearner(three), finish()),
        (&promoting, Change::Promote(3), finish()),
        (&promoting, Change::Remove(9), finish()),
        (
            &promoting,
            Change::Remove(3),
            MembershipStep::Change(ChangeMembers::RemoveVoters(ids(3))),
        ),
        (&removing, Change::Remove(3), MembershipStep::Change(ChangeMembers::RemoveVoters(ids(3)))),
        // Node 3 still votes, but would no longer after the change is completed.
        (&removing, Change::Promote(3), MembershipStep::Change(ChangeMembers::AddVoterIds(ids(3)))),
    ];
    for (membership, change, step) in cases {
        assert_eq!(plan(membership, change.clone()).unwrap(), step, "{change:?}");
    }
}

#[test]
fn voter_that_the_group_needs_is_not_removed() {
    let members = |voters: &[&[u64]]| {
        let nodes: BTreeMap<u64, Member> =
            (1..=4).map(|id| (id, Member::new(format!("n{id}:1")))).collect();
        let voters = voters.iter().map(|set| set.iter().copied().collect()).collect();
        StoredMembership::new(Some(log_id(1, 2)), Membership::new(voters, nodes).unwrap())
    };
    let cases: [(&[&[u64]], u64, bool, bool); 8] = [
        (&[&[1, 2, 3]], 3, true, false),
        (&[&[1, 2]], 2, true, false),
        (&[&[1, 2, 3]], 3, false, true),
        // A learner, a node that is no member, a superfluous voter, a change between its two steps.
        (&[&[1, 2, 3]], 4, true, true),
        (&[&[1, 2, 3]], 9, true, true),
        (&[&[1, 2, 3, 4]], 4, true, true),
        (&[&[1, 2, 3, 4], &[1, 2, 3]], 4, true, true),
        (&[&[1, 2, 3, 4], &[1, 2, 3]], 3, true, false),
    ];
    for (voters, node, is_up, allowed) in cases {
        let checked = check_removal(&members(voters), node, is_up);
        assert_eq!(checked.is_ok(), allowed, "{voters:?} {node} {is_up}");
    }
}
