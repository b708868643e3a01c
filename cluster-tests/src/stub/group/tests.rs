use super::*;

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// A group of three nodes that 101 leads.
fn group() -> StubGroup {
    let mut group = StubGroup::default();
    for node in [101, 102, 103] {
        group.host(NodeId(node));
    }
    group.initialize(&[NodeId(101), NodeId(102), NodeId(103)]);
    assert!(group.elect(Some(NodeId(101)), &nodes(&[101, 102, 103])));
    group
}

#[test]
fn group_elects_a_running_voter_with_a_quorum() {
    let mut group = group();
    assert_eq!(group.view().leader, Some(NodeId(101)));
    assert_eq!((group.view().term, group.view().membership), (1, (1, 1)));
    assert!(!group.elect(None, &nodes(&[101])), "the leader runs");
    assert!(!group.elect(None, &nodes(&[103])), "no quorum");
    assert!(group.elect(None, &nodes(&[102, 103])));
    assert_eq!((group.view().leader, group.view().term), (Some(NodeId(102)), 2));
    // A replica that was never started does not vote.
    let mut started = StubGroup::default();
    started.host(NodeId(101));
    started.initialize(&[NodeId(101), NodeId(102), NodeId(103)]);
    assert!(!started.elect(Some(NodeId(101)), &nodes(&[101, 102, 103])));
}

#[test]
fn members_change_on_the_named_membership() {
    use MemberChange::{AddLearner, Promote, Remove};
    let running = nodes(&[101, 102, 103, 104]);
    let mut group = group();
    let new = NodeId(104);
    let mut change = |node: u64, on, change| {
        let changed = group.change_membership(NodeId(node), on, change, &running);
        (changed, group.view())
    };
    assert_eq!(
        change(102, (1, 1), AddLearner(new)).0,
        Err(GroupError::NotLeader(Some(NodeId(101))))
    );
    assert_eq!(change(101, (1, 9), AddLearner(new)).0, Err(GroupError::MembershipStale));
    let (added, view) = change(101, (1, 1), AddLearner(new));
    assert_eq!((added, view.learners), (Ok((1, 2)), vec![104]));
    assert_eq!(change(101, (1, 2), Promote(new)).0, Err(GroupError::NotCaughtUp(new)));
    group.host(new);
    let promoted = group.change_membership(NodeId(101), (1, 2), Promote(new), &running).unwrap();
    let removed = group.change_membership(NodeId(101), promoted, Remove(NodeId(103)), &running);
    assert!(removed.is_ok());
    assert_eq!((group.view().voters, group.view().learners), (vec![101, 102, 104], vec![]));
    assert_eq!(group.stop(NodeId(102), false), Err(GroupError::MembershipStale));
    assert_eq!(group.stop(NodeId(103), false), Ok(()));
}

#[test]
fn nothing_is_committed_without_a_quorum() {
    let mut group = group();
    let region = StubRegion { table: 1, schema_version: 1, step: (0, 0) };
    let before = group.view();
    let alone = nodes(&[101]);
    assert_eq!(group.open(NodeId(101), RegionId(7), region, &alone), Err(GroupError::NoQuorum));
    let learner = MemberChange::AddLearner(NodeId(104));
    let changed = group.change_membership(NodeId(101), (1, 1), learner, &alone);
    assert_eq!(changed, Err(GroupError::NoQuorum));
    assert_eq!(group.view(), before);
}

#[test]
fn regions_keep_the_greatest_step() {
    let mut group = group();
    let all = nodes(&[101, 102, 103]);
    let leader = NodeId(101);
    let id = RegionId(7);
    let region = StubRegion { table: 1, schema_version: 1, step: (0, 0) };
    group.open(leader, id, region, &all).unwrap();
    let step = |number| ProcedureStep { number, step: 1 };
    let mut alter = |number, version| {
        let step = step(number);
        group.apply_step(leader, id, (Some(&step), Some(version)), &all).unwrap();
        group.write(leader, id, &all).unwrap().1.schema_version
    };
    assert_eq!(alter(2, 3), 3);
    assert_eq!(alter(1, 2), 3, "a late step");
    assert_eq!(alter(2, 4), 3, "a repeated step");
    group.drop_region(leader, id, &all).unwrap();
    assert_eq!(group.write(leader, id, &all), Err(GroupError::RegionNotFound(id)));
    assert_eq!(group.open(leader, id, region, &all), Err(GroupError::RegionDropped(id)));
}

#[test]
fn leadership_transfers_to_running_voters() {
    let mut group = group();
    let to = NodeId(103);
    assert_eq!(
        group.transfer(NodeId(101), to, &nodes(&[101, 102])),
        Err(GroupError::NotCaughtUp(to))
    );
    group.transfer(NodeId(101), to, &nodes(&[101, 102, 103])).unwrap();
    assert!(group.is_led_by(to));
    assert_eq!(group.require_leader(NodeId(101)), Err(GroupError::NotLeader(Some(to))));
}
