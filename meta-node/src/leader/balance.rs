//! Balance of a settled cluster: moves replicas to nodes with fewer of them, and leaders to nodes that lead fewer groups.
//! Pure.
//!
//! One step at a time. A difference of one is no reason for a step, so that balancing ends.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::GroupState;

use super::node_load::NodeLoad;
use super::placement_step::PlacementStep;
use super::plan::{REPLICAS, is_current, is_lagging};
use super::{ObservedCluster, ObservedGroup};
use crate::catalog::{Group, MetaState};

/// Time without a registration of a data node, and of this meta leader, after which the cluster is balanced: longer
/// than restarts of its nodes, one after the other, take.
pub(super) const BALANCE_AFTER: Duration = Duration::from_secs(30);

/// Plans a step of the balance, if every group is complete and has a leader.
pub(super) fn plan_balance(
    state: &MetaState,
    observed: &ObservedCluster,
    load: &NodeLoad<'_>,
) -> Option<PlacementStep> {
    if observed.quiet_for < BALANCE_AFTER || observed.leading_for < BALANCE_AFTER {
        return None;
    }
    let groups: Vec<&Group> = state.live_groups().map(|group| group.as_ref()).collect();
    let mut complete = Vec::with_capacity(groups.len());
    for group in groups {
        complete.push((group, complete_group(group, observed, load)?));
    }
    move_replica(&complete, observed, load).or_else(|| move_leader(&complete, observed, load))
}

/// Returns the report of a group that needs no step: its members are those of the catalog, all of them are up, and none is
/// a learner.
fn complete_group<'a>(
    group: &Group,
    observed: &'a ObservedCluster,
    load: &NodeLoad<'_>,
) -> Option<&'a ObservedGroup> {
    let report = observed.groups.get(&group.id)?;
    let is_complete = group.state == GroupState::Active
        && is_current(group, report, observed)
        && report.learners.is_empty()
        && report.voters == group.voters
        && report.voters.iter().all(|node| load.is_usable(*node));
    is_complete.then_some(report)
}

/// Plans a learner on the node with the fewest replicas, for a group with a voter on a node with at least two more. The
/// planner keeps it as long as that is so, promotes it, and removes the voter.
fn move_replica(
    groups: &[(&Group, &ObservedGroup)],
    observed: &ObservedCluster,
    load: &NodeLoad<'_>,
) -> Option<PlacementStep> {
    let (fewest, to) = load.usable().next()?;
    for (most, from) in load.usable().rev() {
        if most < fewest + 2 {
            return None;
        }
        let is_movable = |report: &ObservedGroup| {
            report.voters.len() == REPLICAS
                && report.voters.contains(&from)
                && !report.voters.contains(&to)
        };
        let movable: Vec<_> = groups.iter().filter(|(_, report)| is_movable(report)).collect();
        // A leader is not removed: another voter leads first.
        if let Some((group, report)) = movable.iter().find(|(_, report)| report.leader != from) {
            let (leader, on) = (report.leader, report.membership);
            return Some(PlacementStep::Add { group: group.id, leader, node: to, on });
        }
        if let Some(step) = movable.iter().find_map(|led| transfer_away(led, observed, load)) {
            return Some(step);
        }
    }
    None
}

/// Plans the transfer of a group's leadership to the other voter with the fewest replicas.
fn transfer_away(
    (group, report): &(&Group, &ObservedGroup),
    observed: &ObservedCluster,
    load: &NodeLoad<'_>,
) -> Option<PlacementStep> {
    let leader = report.leader;
    let is_ready =
        |node: &NodeId| *node != leader && !is_lagging(group.id, report, *node, observed);
    let ready = report.voters.iter().copied().filter(is_ready);
    let to = ready.min_by_key(|node| (load.replicas_without(group, *node), *node))?;
    Some(PlacementStep::Transfer { group: group.id, leader, to })
}

/// Plans the transfer of a group's leadership to a voter on a node that leads at least two groups fewer.
fn move_leader(
    groups: &[(&Group, &ObservedGroup)],
    observed: &ObservedCluster,
    load: &NodeLoad<'_>,
) -> Option<PlacementStep> {
    let mut leads: BTreeMap<NodeId, usize> = load.usable().map(|(_, node)| (node, 0)).collect();
    for (_, report) in groups {
        *leads.entry(report.leader).or_default() += 1;
    }
    let count = |node: &NodeId| leads.get(node).copied().unwrap_or(0);
    let transfer = |(group, report): &(&Group, &ObservedGroup)| {
        let is_ready = |node: &NodeId| !is_lagging(group.id, report, *node, observed);
        let ready = report.voters.iter().copied().filter(is_ready);
        let to = ready.min_by_key(|node| (count(node), *node))?;
        let difference = count(&report.leader).checked_sub(count(&to))?;
        let step = PlacementStep::Transfer { group: group.id, leader: report.leader, to };
        (difference >= 2).then_some((difference, step))
    };
    let transfers = groups.iter().filter_map(transfer);
    transfers.max_by_key(|(difference, _)| *difference).map(|(_, step)| step)
}

#[cfg(test)]
mod tests;
