//! Problems of the cluster, as sentences for operators. Pure.

use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{GroupState, NodeRole, NodeState, TableState};

use crate::catalog::{Group, MetaState};
use crate::leader::{CREATION_LIMIT, ObservedCluster, REPLICAS};

/// Time after which a table in state creating is a problem.
const TABLE_LIMIT: Duration = Duration::from_secs(5);

/// Health of a member of group 0, as known to the leader.
#[derive(Debug, Clone)]
pub(crate) struct MemberHealth {
    pub(crate) node: NodeId,
    /// Time since the member last answered; `None`: it has never answered.
    pub(crate) silent_for: Option<Duration>,
}

/// Returns one sentence for each problem; empty when the cluster is healthy.
pub(crate) fn problems(
    state: &MetaState,
    observed: &ObservedCluster,
    members: &[MemberHealth],
    failure_timeout: Duration,
) -> Vec<String> {
    let mut problems = Vec::new();
    for member in members {
        if member.silent_for.is_none_or(|silent| silent > failure_timeout) {
            problems.push(format!("meta node {} does not answer the meta leader", member.node));
        }
    }
    if let Some(difference) = observed.own_difference {
        problems.push(format!("the meta leader's clock is {difference}: synchronize it (NTP)"));
    }
    for node in state.nodes().filter(|node| node.role != NodeRole::Meta) {
        if node.state == NodeState::Down && hosts_replica(state, node.id) {
            problems.push(format!(
                "{} node {} at {} is down: it sends no heartbeats",
                role(node.role),
                node.id,
                node.address
            ));
        }
        if node.state != NodeState::Removed
            && let Some(reported) = observed.problems.get(&node.id)
        {
            problems.extend(reported.iter().map(|text| format!("node {}: {text}", node.id)));
        }
    }
    let data_nodes = state
        .nodes()
        .filter(|node| node.role == NodeRole::Data && node.state != NodeState::Removed)
        .count();
    if data_nodes > 0 && !state.groups().any(|group| group.state == GroupState::Active) {
        problems.push("no data group is active yet: tables accept no writes".to_owned());
    }
    for group in state.groups() {
        problems.extend(group_problems(state, group, observed, data_nodes));
    }
    problems.extend(table_problems(state, observed));
    problems
}

/// Returns whether an active group has a replica on the node. Other nodes are not a problem when they
/// are down: a compactor keeps no state, and a node with a lost data directory rejoins as a new node,
/// which replaces the old one.
fn hosts_replica(state: &MetaState, node: NodeId) -> bool {
    state
        .groups()
        .filter(|group| group.state == GroupState::Active)
        .any(|group| group.replicas().contains(&node))
}

fn group_problems(
    state: &MetaState,
    group: &Group,
    observed: &ObservedCluster,
    data_nodes: usize,
) -> Vec<String> {
    let id = group.id;
    match group.state {
        GroupState::Creating => {
            let age = observed.creating_for.get(&id).copied().unwrap_or_default();
            return if age > CREATION_LIMIT / 3 {
                vec![format!("group {id} has been in state creating for {} s", age.as_secs())]
            } else {
                Vec::new()
            };
        }
        GroupState::Active => {}
        _ => return Vec::new(),
    }
    let mut problems = Vec::new();
    let leads = |node: NodeId| state.node(node).is_some_and(|node| node.state == NodeState::Up);
    if !group.leader.is_some_and(leads) {
        problems.push(format!("group {id} has no leader: its regions accept no writes"));
    }
    let members =
        if group.voters.is_empty() { group.first_members.len() } else { group.voters.len() };
    let target = REPLICAS.min(data_nodes);
    if members < target {
        problems.push(missing_replicas(state, group, members, target));
    }
    problems
}

/// Describes a group with fewer replicas than possible, and the progress of adding them.
fn missing_replicas(state: &MetaState, group: &Group, members: usize, target: usize) -> String {
    let id = group.id;
    let learners = group.learners.len();
    let of = if target == REPLICAS {
        format!("{REPLICAS} replicas")
    } else {
        format!("the {target} replicas that {target} data nodes can host")
    };
    let missing = (target - members).saturating_sub(learners);
    let hosts = group.replicas();
    let free = state
        .nodes()
        .filter(|node| node.role == NodeRole::Data && node.state == NodeState::Up)
        .filter(|node| !hosts.contains(&node.id))
        .count();
    let mut progress = Vec::new();
    if learners > 0 {
        progress.push(format!("{learners} catching up"));
    }
    if missing.min(free) > 0 {
        progress.push(format!("{} to be added", missing.min(free)));
    }
    match missing.saturating_sub(free) {
        0 => {}
        1 => progress.push("1 waiting for a data node to come up".to_owned()),
        nodes => progress.push(format!("{nodes} waiting for data nodes to come up")),
    }
    format!("group {id} has {members} of {of}: {}", progress.join(", "))
}

fn table_problems(state: &MetaState, observed: &ObservedCluster) -> Vec<String> {
    let mut problems = Vec::new();
    let now = state.header().time_ms;
    for table in state.tables().filter(|table| table.state != TableState::Active) {
        let age = Duration::from_millis(now.saturating_sub(table.created_ms));
        let name = &table.name;
        let operation = match table.state {
            TableState::Creating if age > TABLE_LIMIT => "created",
            TableState::Dropping => "dropped",
            _ => continue,
        };
        match observed.table_errors.get(&table.id) {
            Some(error) => problems.push(format!("table {name:?} is being {operation}: {error}")),
            None if table.state == TableState::Creating => {
                let seconds = age.as_secs();
                problems.push(format!("table {name:?} has been in state creating for {seconds} s"));
            }
            None => {}
        }
    }
    problems
}

fn role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Data => "data",
        NodeRole::Compactor => "compactor",
        NodeRole::Meta => "meta",
        NodeRole::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::clock::ClockDifference;
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::{self, meta_command::Kind};

    use super::*;
    use crate::commands::testing::{run, table, with_groups};

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn shown(state: &MetaState) -> Vec<String> {
        problems(state, &ObservedCluster::default(), &[], TIMEOUT)
    }

    fn report(state: &mut MetaState, voters: &[u64], learners: &[u64]) {
        let report = v1::ReportGroup {
            group_id: 1,
            term: 1,
            leader: 101,
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            membership_term: 1,
            membership_index: 1,
            replaces_term: None,
        };
        run(state, Kind::ReportGroup(report)).unwrap();
    }

    #[test]
    fn cluster_with_all_possible_replicas_has_no_problems() {
        for nodes in 1..=4u64 {
            let mut state = with_groups(nodes, 1);
            let voters: Vec<u64> = (101..101 + nodes.min(3)).collect();
            report(&mut state, &voters, &[]);
            assert_eq!(shown(&state), [""; 0], "{nodes} nodes with all possible replicas");
        }
    }

    /// Otherwise a starting cluster would count as healthy before it can store a row on more than one
    /// disk.
    #[test]
    fn cluster_without_an_active_group_has_a_problem() {
        assert_eq!(shown(&with_groups(0, 0)), [""; 0], "no data node has registered yet");
        let first = ["no data group is active yet: tables accept no writes"];
        let mut state = with_groups(3, 0);
        assert_eq!(shown(&state), first);
        let create = v1::CreateGroup { first_members: vec![101] };
        run(&mut state, Kind::CreateGroup(create)).unwrap();
        assert_eq!(shown(&state), first);
        run(&mut state, Kind::ActivateGroup(v1::ActivateGroup { group_id: 1 })).unwrap();
        report(&mut state, &[101], &[]);
        assert_eq!(shown(&state), ["group 1 has 1 of 3 replicas: 2 to be added"]);
    }

    fn down(state: &mut MetaState, node_id: u64) {
        let down = v1::SetNodeState { node_id, state: NodeState::Down.into() };
        run(state, Kind::SetNodeState(down)).unwrap();
    }

    #[test]
    fn group_with_missing_replicas_is_a_problem() {
        let mut state = with_groups(2, 1);
        report(&mut state, &[101], &[]);
        let of_two = "group 1 has 1 of the 2 replicas that 2 data nodes can host";
        assert_eq!(shown(&state), [format!("{of_two}: 1 to be added")]);
        report(&mut state, &[101], &[102]);
        assert_eq!(shown(&state), [format!("{of_two}: 1 catching up")]);
        let mut state = with_groups(3, 1);
        report(&mut state, &[101], &[]);
        assert_eq!(shown(&state), ["group 1 has 1 of 3 replicas: 2 to be added"]);
        report(&mut state, &[101], &[102]);
        assert_eq!(shown(&state), ["group 1 has 1 of 3 replicas: 1 catching up, 1 to be added"]);
        report(&mut state, &[101], &[]);
        down(&mut state, 103);
        assert_eq!(
            shown(&state),
            ["group 1 has 1 of 3 replicas: 1 to be added, 1 waiting for a data node to come up"]
        );
        down(&mut state, 102);
        assert_eq!(
            shown(&state),
            ["group 1 has 1 of 3 replicas: 2 waiting for data nodes to come up"]
        );
    }

    #[test]
    fn down_nodes_with_replicas_are_problems() {
        let mut state = with_groups(3, 1);
        assert_eq!(shown(&state), ["group 1 has no leader: its regions accept no writes"]);
        report(&mut state, &[101, 102, 103], &[]);
        down(&mut state, 101);
        assert_eq!(
            shown(&state),
            [
                "data node 101 at 127.0.0.1:7001 is down: it sends no heartbeats",
                "group 1 has no leader: its regions accept no writes"
            ]
        );
        // A down node without replicas is not a problem.
        let mut idle = with_groups(4, 1);
        report(&mut idle, &[101, 102, 103], &[]);
        down(&mut idle, 104);
        assert_eq!(shown(&idle), [""; 0]);
        let members = [
            MemberHealth { node: NodeId(1), silent_for: Some(Duration::ZERO) },
            MemberHealth { node: NodeId(2), silent_for: Some(Duration::from_secs(6)) },
            MemberHealth { node: NodeId(3), silent_for: None },
        ];
        let reported = problems(&state, &ObservedCluster::default(), &members, TIMEOUT);
        assert_eq!(
            reported[..2],
            [
                "meta node 2 does not answer the meta leader",
                "meta node 3 does not answer the meta leader"
            ]
        );
    }

    #[test]
    fn wrong_clock_of_the_leader_is_a_problem() {
        let mut state = with_groups(1, 1);
        report(&mut state, &[101], &[]);
        let own_difference = Some(ClockDifference {
            difference_ms: 3_600_000,
            bound_ms: 600_000,
            since_ms: 1_700_000_000_000,
        });
        let observed = ObservedCluster { own_difference, ..ObservedCluster::default() };
        assert_eq!(
            problems(&state, &observed, &[], TIMEOUT),
            [
                "the meta leader's clock is 3600 s ahead of the cluster's clocks (allowed: 600 s) since \
              2023-11-14 22:13:20 UTC: synchronize it (NTP)"
            ]
        );
    }

    #[test]
    fn table_that_is_not_ready_is_a_problem() {
        let mut state = with_groups(1, 1);
        report(&mut state, &[101], &[]);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        assert_eq!(shown(&state), [""; 0]);
        for _ in 0..4 {
            run(&mut state, Kind::AdvanceTime(v1::AdvanceTime { now_ms: u64::MAX, agreed_ms: 0 }))
                .unwrap();
        }
        assert_eq!(shown(&state), ["table \"t\" has been in state creating for 8 s"]);
        let mut observed = ObservedCluster::default();
        observed.table_errors.insert(TableId(1), "group 1 has no leader".into());
        observed.problems.insert(NodeId(101), vec!["the disk is full".into()]);
        assert_eq!(
            problems(&state, &observed, &[], TIMEOUT),
            ["node 101: the disk is full", "table \"t\" is being created: group 1 has no leader"]
        );
    }
}
