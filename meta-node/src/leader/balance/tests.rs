use std::collections::BTreeSet;

use tidewater_common::ids::{GroupId, LogIndex, Term};
use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

use super::super::ObservedReplica;
use super::*;
use crate::commands::testing::{raise_to_highest, run, with_nodes};
use crate::leader::plan::{PlacementOptions, plan};

const OPTIONS: PlacementOptions = PlacementOptions {
    settle: Duration::from_secs(1),
    replace_after: Duration::from_secs(600),
    groups_per_node: 1,
};

fn ids(numbers: &[u64]) -> BTreeSet<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

/// Groups with these voters, the first of which leads.
struct Cluster {
    state: MetaState,
    observed: ObservedCluster,
}

impl Cluster {
    fn new(nodes: u64, groups: &[&[u64]]) -> Self {
        let mut state = with_nodes(nodes);
        let mut observed = ObservedCluster {
            quiet_for: BALANCE_AFTER,
            leading_for: BALANCE_AFTER,
            ..ObservedCluster::default()
        };
        for (id, voters) in (1..).zip(groups) {
            let first_members = voters.to_vec();
            run(&mut state, Kind::CreateGroup(v1::CreateGroup { first_members, home_groups: 0 }))
                .unwrap();
            let activate = v1::ActivateGroup { group_id: id };
            run(&mut state, Kind::ActivateGroup(activate)).unwrap();
            let report = v1::ReportGroup {
                group_id: id,
                term: 1,
                leader: voters[0],
                voters: voters.to_vec(),
                membership_term: 1,
                membership_index: 4,
                ..v1::ReportGroup::default()
            };
            run(&mut state, Kind::ReportGroup(report)).unwrap();
            let report = ObservedGroup {
                term: Term(1),
                leader: NodeId(voters[0]),
                voters: ids(voters),
                learners: BTreeSet::new(),
                membership: (Term(1), LogIndex(4)),
                effective: Some((Term(1), LogIndex(4))),
                caught_up: BTreeSet::new(),
            };
            observed.groups.insert_mut(GroupId(id), report);
        }
        Self { state, observed }
    }

    /// The same cluster after one node was elected in all groups.
    fn led_by(mut self, leader: u64) -> Self {
        let groups: Vec<_> = self.observed.groups.keys().copied().collect();
        for group in groups {
            let mut report = self.observed.groups.get(&group).unwrap().clone();
            report.leader = NodeId(leader);
            self.observed.groups.insert_mut(group, report);
        }
        self
    }

    fn plan(&self) -> Vec<PlacementStep> {
        plan(&self.state, &self.observed, &OPTIONS)
    }

    /// Carries out a step as the groups do.
    fn perform(&mut self, step: &PlacementStep) {
        match *step {
            PlacementStep::SetRetiring { group, retiring } => {
                let command = v1::SetGroupRetiring { group_id: group.get(), retiring };
                run(&mut self.state, Kind::SetGroupRetiring(command)).unwrap();
                return;
            }
            PlacementStep::Retire { group } => {
                let command = v1::RetireGroup { group_id: group.get() };
                run(&mut self.state, Kind::RetireGroup(command)).unwrap();
                self.observed.groups.remove_mut(&group);
                return;
            }
            _ => {}
        }
        let mut report = self.observed.groups.get(&step.group().unwrap()).unwrap().clone();
        match step {
            PlacementStep::Add { node, .. } => {
                report.learners.insert(*node);
                report.caught_up.insert(*node);
            }
            PlacementStep::Promote { node, .. } => {
                report.learners.remove(node);
                report.voters.insert(*node);
            }
            PlacementStep::Remove { node, leader, .. } => {
                assert_ne!(node, leader);
                assert!(report.learners.remove(node) || report.voters.remove(node));
            }
            PlacementStep::Transfer { to, .. } => report.leader = *to,
            other => panic!("{other:?}"),
        }
        let on = LogIndex(report.membership.1.get() + 1);
        report.membership = (Term(1), on);
        report.effective = Some(report.membership);
        let numbers = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.get()).collect();
        let recorded = v1::ReportGroup {
            group_id: step.group().unwrap().get(),
            term: on.get(),
            leader: report.leader.get(),
            voters: numbers(&report.voters),
            learners: numbers(&report.learners),
            membership_term: 1,
            membership_index: on.get(),
            replaces_term: None,
        };
        run(&mut self.state, Kind::ReportGroup(recorded)).unwrap();
        self.observed.groups.insert_mut(step.group().unwrap(), report);
    }

    /// Performs all steps that are planned; returns their number.
    fn settle(&mut self) -> usize {
        for performed in 0..200 {
            let Some(step) = self.plan().first().cloned() else { return performed };
            self.perform(&step);
            let voters = self.observed.groups.values().map(|report| report.voters.len());
            assert!(voters.min() >= Some(REPLICAS), "after {step:?}");
        }
        panic!("balancing does not end: {:?}", self.plan());
    }

    /// Numbers of replicas, and of groups that it leads, of each node.
    fn loads(&self) -> Vec<(usize, usize)> {
        let nodes = self.state.nodes().map(|node| node.id);
        let groups = || self.observed.groups.values();
        let load = |node| {
            let hosted = groups().filter(|report| report.voters.contains(&node)).count();
            (hosted, groups().filter(|report| report.leader == node).count())
        };
        nodes.map(load).collect()
    }
}

const THREE: [&[u64]; 3] = [&[101, 102, 103], &[102, 103, 101], &[103, 101, 102]];

#[test]
fn balanced_cluster_gets_no_step() {
    assert_eq!(Cluster::new(3, &THREE).plan(), []);
    // A difference of one.
    let mut uneven = THREE.to_vec();
    uneven.push(&[104, 101, 102]);
    uneven[0] = &[101, 103, 104];
    uneven[1] = &[102, 103, 104];
    assert_eq!(Cluster::new(4, &uneven).plan(), []);
}

#[test]
fn new_nodes_get_their_share() {
    for (joined, leader) in (1..=4u64).flat_map(|joined| [0, 101, 102].map(|led| (joined, led))) {
        let mut groups = THREE.map(<[u64]>::to_vec).to_vec();
        // Home groups of the new nodes, with the replicas that the planner gives them.
        groups.extend((104..104 + joined).map(|node| vec![node, 101, 102]));
        let groups: Vec<&[u64]> = groups.iter().map(Vec::as_slice).collect();
        let mut cluster = Cluster::new(3 + joined, &groups);
        // After restarts, one node may lead all groups.
        if leader != 0 {
            cluster = cluster.led_by(leader);
        }
        let steps = cluster.settle();
        let (replicas, leaders): (Vec<_>, Vec<_>) = cluster.loads().into_iter().unzip();
        // A group cannot be led by a node without a replica of it.
        for (loads, limit) in [(&replicas, 1), (&leaders, 2)] {
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(most - least <= limit, "{joined} joined: {replicas:?}, {leaders:?}");
        }
        assert!(steps > 0, "{joined} joined");
    }
}

#[test]
fn leaders_are_spread_after_restarts() {
    let mut cluster = Cluster::new(3, &THREE).led_by(101);
    let first = PlacementStep::Transfer { group: GroupId(3), leader: NodeId(101), to: NodeId(102) };
    assert_eq!(cluster.plan(), [first]);
    // Not yet, and not while a node is down.
    let early = Duration::from_secs(29);
    for (quiet_for, leading_for) in [(early, BALANCE_AFTER), (BALANCE_AFTER, early)] {
        let observed = ObservedCluster { quiet_for, leading_for, ..cluster.observed.clone() };
        assert_eq!(plan(&cluster.state, &observed, &OPTIONS), []);
    }
    let mut state = cluster.state.clone();
    let down = v1::SetNodeState { node_id: 103, state: NodeState::Down.into() };
    run(&mut state, Kind::SetNodeState(down)).unwrap();
    assert_eq!(plan(&state, &cluster.observed, &OPTIONS), []);
    assert_eq!(cluster.settle(), 2);
    assert_eq!(cluster.loads(), [(3, 1); 3]);
}

/// Any members, leaders and draining nodes: the steps end, and no group has fewer than three voters on the way.
#[test]
fn steps_end_in_any_cluster() {
    let mut bits: u64 = 1;
    let mut random = |limit: usize| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(bits >> 33).unwrap() % limit
    };
    for _ in 0..300 {
        let nodes = 4 + random(4);
        let ids: Vec<u64> = (101..).take(nodes).collect();
        let groups: Vec<Vec<u64>> = ids
            .iter()
            .map(|home| {
                let mut others: Vec<u64> = ids.iter().copied().filter(|id| id != home).collect();
                let second = others.remove(random(others.len()));
                vec![*home, second, others[random(others.len())]]
            })
            .collect();
        let groups: Vec<&[u64]> = groups.iter().map(Vec::as_slice).collect();
        let mut cluster = Cluster::new(nodes as u64, &groups);
        for id in 1..=nodes as u64 {
            let mut report = cluster.observed.groups.get(&GroupId(id)).unwrap().clone();
            report.leader = *report.voters.iter().nth(random(REPLICAS)).unwrap();
            cluster.observed.groups.insert_mut(GroupId(id), report);
        }
        raise_to_highest(&mut cluster.state);
        let drained: Vec<u64> = ids.into_iter().take(random(nodes - 2)).collect();
        for node_id in &drained {
            let drain =
                v1::SetNodeDraining { node_id: *node_id, draining: true, replacement_id: 0 };
            run(&mut cluster.state, Kind::SetNodeDraining(drain)).unwrap();
        }
        cluster.settle();
        let loads = cluster.loads();
        let (empty, others) = loads.split_at(drained.len());
        assert!(empty.iter().all(|load| *load == (0, 0)), "{drained:?}: {loads:?}");
        let replicas = || others.iter().map(|(replicas, _)| *replicas);
        assert!(replicas().max() <= replicas().min().map(|least| least + 1), "{loads:?}");
    }
}

#[test]
fn leadership_moves_to_no_lagging_voter() {
    let mut cluster = Cluster::new(3, &THREE).led_by(101);
    let replica =
        |index| ObservedReplica { last_log: LogIndex(index), ..ObservedReplica::default() };
    for group in 1..=3 {
        let replicas = [(101, 20_000), (102, 9_000), (103, 20_000)];
        let replicas = replicas.map(|(node, index)| (NodeId(node), replica(index)));
        cluster.observed.replicas.insert(GroupId(group), replicas.into());
    }
    let steps = cluster.plan();
    assert!(matches!(steps[..], [PlacementStep::Transfer { to: NodeId(103), .. }]), "{steps:?}");
}

#[test]
fn draining_node_loses_all_replicas() {
    for drained in [101, 103] {
        let groups: [&[u64]; 4] =
            [&[101, 102, 103], &[102, 103, 104], &[103, 104, 101], &[104, 101, 102]];
        let mut cluster = Cluster::new(4, &groups);
        raise_to_highest(&mut cluster.state);
        let drain = v1::SetNodeDraining { node_id: drained, draining: true, replacement_id: 0 };
        run(&mut cluster.state, Kind::SetNodeDraining(drain)).unwrap();
        cluster.settle();
        let loads = cluster.loads();
        let at = usize::try_from(drained - 101).unwrap();
        assert_eq!(loads[at], (0, 0), "{loads:?}");
        let (replicas, _): (Vec<_>, Vec<_>) = loads.into_iter().unzip();
        assert_eq!(replicas.iter().sum::<usize>(), 9, "one group is retired");
    }
}
