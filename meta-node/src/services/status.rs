//! What is wrong with the cluster, in an operator's sentences. Pure.

use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{GroupState, NodeRole, NodeState, TableState};

use crate::catalog::{Group, MetaState};
use crate::leader::{CREATION_LIMIT, Observed, REPLICAS};

/// A table that takes longer is worth a sentence.
const TABLE_LIMIT: Duration = Duration::from_secs(5);

/// A member of group 0 as its leader sees it.
#[derive(Debug, Clone)]
pub(crate) struct MemberHealth {
    pub(crate) node: NodeId,
    /// Since it last answered.
    pub(crate) silent_for: Option<Duration>,
}

/// Sentences, each naming what is wrong; none: all is well.
pub(crate) fn problems(
    state: &MetaState,
    observed: &Observed,
    members: &[MemberHealth],
    failure_timeout: Duration,
) -> Vec<String> {
    let mut problems = Vec::new();
    for member in members {
        if member.silent_for.is_none_or(|silent| silent > failure_timeout) {
            problems.push(format!("meta node {} does not answer the meta leader", member.node));
        }
    }
    for node in state.nodes().filter(|node| node.role != NodeRole::Meta) {
        if node.state == NodeState::Down && is_missed(state, node.id) {
            problems.push(format!(
                "{} node {} at {} is down: it sends no heartbeats",
                role(node.role),
                node.id,
                node.address
            ));
        }
        if node.state != NodeState::Removed
            && let Some(complaints) = observed.problems.get(&node.id)
        {
            problems.extend(complaints.iter().map(|text| format!("node {}: {text}", node.id)));
        }
    }
    let data_nodes = state
        .nodes()
        .filter(|node| node.role == NodeRole::Data && node.state != NodeState::Removed)
        .count();
    if data_nodes > 0 && !state.groups().any(|group| group.state == GroupState::Active) {
        problems.push("no data group is active yet: no table can be written to".to_owned());
    }
    for group in state.groups() {
        problems.extend(group_problem(state, group, observed, data_nodes));
    }
    problems.extend(table_problems(state, observed));
    problems
}

/// Whether a group has a replica on the node. Nobody waits for one without: a compactor keeps
/// nothing, and a data directory that was lost is a new node, which replaces the old one.
fn is_missed(state: &MetaState, node: NodeId) -> bool {
    state
        .groups()
        .filter(|group| group.state == GroupState::Active)
        .any(|group| group.replicas().contains(&node))
}

fn group_problem(
    state: &MetaState,
    group: &Group,
    observed: &Observed,
    data_nodes: usize,
) -> Vec<String> {
    let id = group.id;
    match group.state {
        GroupState::Creating => {
            let age = observed.creating_for.get(&id).copied().unwrap_or_default();
            return if age > CREATION_LIMIT / 3 {
                vec![format!("group {id} is being created for {} s", age.as_secs())]
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
        problems.push(format!("group {id} has no leader: its regions take no writes"));
    }
    let members =
        if group.voters.is_empty() { group.first_members.len() } else { group.voters.len() };
    let wanted = REPLICAS.min(data_nodes);
    if members < wanted {
        problems.push(short(state, group, members, wanted));
    }
    problems
}

/// A group that could have more replicas than it has, and what becomes of that.
fn short(state: &MetaState, group: &Group, members: usize, wanted: usize) -> String {
    let (id, learners) = (group.id, group.learners.len());
    let of = if wanted == REPLICAS {
        format!("{REPLICAS} replicas")
    } else {
        format!("the {wanted} replicas that {wanted} data nodes can hold")
    };
    let missing = (wanted - members).saturating_sub(learners);
    let held = group.replicas();
    let free = state
        .nodes()
        .filter(|node| node.role == NodeRole::Data && node.state == NodeState::Up)
        .filter(|node| !held.contains(&node.id))
        .count();
    let mut doing = Vec::new();
    if learners > 0 {
        doing.push(format!("{learners} catching up"));
    }
    if missing.min(free) > 0 {
        doing.push(format!("{} to be added", missing.min(free)));
    }
    match missing.saturating_sub(free) {
        0 => {}
        1 => doing.push("1 waits for a data node to come up".to_owned()),
        nodes => doing.push(format!("{nodes} wait for data nodes to come up")),
    }
    format!("group {id} has {members} of {of}: {}", doing.join(", "))
}

fn table_problems(state: &MetaState, observed: &Observed) -> Vec<String> {
    let mut problems = Vec::new();
    let now = state.header().time_ms;
    for table in state.tables().filter(|table| table.state != TableState::Active) {
        let age = Duration::from_millis(now.saturating_sub(table.created_ms));
        let doing = match table.state {
            TableState::Creating if age > TABLE_LIMIT => "is being created",
            TableState::Dropping => "is being dropped",
            _ => continue,
        };
        match observed.table_errors.get(&table.id) {
            Some(error) => problems.push(format!("table {:?} {doing}: {error}", table.name)),
            None if table.state == TableState::Creating => {
                problems.push(format!("table {:?} {doing} for {} s", table.name, age.as_secs()));
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
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::{self, meta_command::Kind};

    use super::*;
    use crate::commands::testing::{run, table, with_groups};

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn seen(state: &MetaState) -> Vec<String> {
        problems(state, &Observed::default(), &[], TIMEOUT)
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
        };
        run(state, Kind::ReportGroup(report)).unwrap();
    }

    #[test]
    fn a_whole_cluster_has_no_problems() {
        for nodes in 1..=4u64 {
            let mut state = with_groups(nodes, 1);
            let voters: Vec<u64> = (101..101 + nodes.min(3)).collect();
            report(&mut state, &voters, &[]);
            assert_eq!(seen(&state), [""; 0], "{nodes} nodes are as good as it gets");
        }
    }

    /// Else a cluster that was just started would be taken for whole before it can hold a row on
    /// more than one disk.
    #[test]
    fn a_cluster_without_an_active_group_is_not_whole() {
        assert_eq!(seen(&with_groups(0, 0)), [""; 0], "nobody has come yet");
        let first = ["no data group is active yet: no table can be written to"];
        let mut state = with_groups(3, 0);
        assert_eq!(seen(&state), first);
        let create = v1::CreateGroup { first_members: vec![101] };
        run(&mut state, Kind::CreateGroup(create)).unwrap();
        assert_eq!(seen(&state), first);
        run(&mut state, Kind::ActivateGroup(v1::ActivateGroup { group_id: 1 })).unwrap();
        report(&mut state, &[101], &[]);
        assert_eq!(seen(&state), ["group 1 has 1 of 3 replicas: 2 to be added"]);
    }

    fn down(state: &mut MetaState, node_id: u64) {
        let down = v1::SetNodeState { node_id, state: NodeState::Down.into() };
        run(state, Kind::SetNodeState(down)).unwrap();
    }

    #[test]
    fn a_group_that_could_have_more_replicas_is_named() {
        let mut state = with_groups(2, 1);
        report(&mut state, &[101], &[]);
        let of_two = "group 1 has 1 of the 2 replicas that 2 data nodes can hold";
        assert_eq!(seen(&state), [format!("{of_two}: 1 to be added")]);
        report(&mut state, &[101], &[102]);
        assert_eq!(seen(&state), [format!("{of_two}: 1 catching up")]);
        let mut state = with_groups(3, 1);
        report(&mut state, &[101], &[]);
        assert_eq!(seen(&state), ["group 1 has 1 of 3 replicas: 2 to be added"]);
        report(&mut state, &[101], &[102]);
        assert_eq!(seen(&state), ["group 1 has 1 of 3 replicas: 1 catching up, 1 to be added"]);
        report(&mut state, &[101], &[]);
        down(&mut state, 103);
        assert_eq!(
            seen(&state),
            ["group 1 has 1 of 3 replicas: 1 to be added, 1 waits for a data node to come up"]
        );
        down(&mut state, 102);
        assert_eq!(seen(&state), ["group 1 has 1 of 3 replicas: 2 wait for data nodes to come up"]);
    }

    #[test]
    fn what_is_down_is_named() {
        let mut state = with_groups(3, 1);
        assert_eq!(seen(&state), ["group 1 has no leader: its regions take no writes"]);
        report(&mut state, &[101, 102, 103], &[]);
        down(&mut state, 101);
        assert_eq!(
            seen(&state),
            [
                "data node 101 at 127.0.0.1:7001 is down: it sends no heartbeats",
                "group 1 has no leader: its regions take no writes"
            ]
        );
        // Without replicas it is not missed.
        let mut idle = with_groups(4, 1);
        report(&mut idle, &[101, 102, 103], &[]);
        down(&mut idle, 104);
        assert_eq!(seen(&idle), [""; 0]);
        let members = [
            MemberHealth { node: NodeId(1), silent_for: Some(Duration::ZERO) },
            MemberHealth { node: NodeId(2), silent_for: Some(Duration::from_secs(6)) },
            MemberHealth { node: NodeId(3), silent_for: None },
        ];
        let said = problems(&state, &Observed::default(), &members, TIMEOUT);
        assert_eq!(
            said[..2],
            [
                "meta node 2 does not answer the meta leader",
                "meta node 3 does not answer the meta leader"
            ]
        );
    }

    #[test]
    fn a_table_that_does_not_get_ready_is_named_with_the_reason() {
        let mut state = with_groups(1, 1);
        report(&mut state, &[101], &[]);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        assert_eq!(seen(&state), [""; 0]);
        for _ in 0..4 {
            run(&mut state, Kind::AdvanceTime(v1::AdvanceTime { now_ms: u64::MAX })).unwrap();
        }
        assert_eq!(seen(&state), ["table \"t\" is being created for 8 s"]);
        let mut observed = Observed::default();
        observed.table_errors.insert(TableId(1), "group 1 has no leader".into());
        observed.problems.insert(NodeId(101), vec!["the disk is full".into()]);
        assert_eq!(
            problems(&state, &observed, &[], TIMEOUT),
            ["node 101: the disk is full", "table \"t\" is being created: group 1 has no leader"]
        );
    }
}
