//! Placement planner: decides the next step of each data group from the state and the observations.
//! Pure.
//!
//! Groups are created as data nodes join, and retired as they leave ([`super::group_count`]), with replicas on up to
//! three nodes. A group with fewer replicas grows as nodes join. A replica on a *lost* node (removed, or down for longer
//! than `replace_after`) or on a draining node is replaced. A group has one step at a time, based on the membership that
//! its leader reported last. When no group needs a step, replicas and leaders are spread over the nodes
//! ([`super::balance`]).

use std::collections::BTreeSet;
use std::time::Duration;

use tidewater_common::agreed_limits::REPLICAS_PER_GROUP;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};
use tidewater_proto::v1::GroupState;

use super::balance::plan_balance;
use super::group_count::plan_group_count;
use super::node_load::NodeLoad;
use super::placement_step::PlacementStep;
use super::{ObservedCluster, ObservedGroup, ObservedReplica};
use crate::catalog::{Group, MetaState};

/// Target number of replicas of a group.
pub(crate) const REPLICAS: usize = REPLICAS_PER_GROUP;
/// Time after which a group that is being created without a leader is abandoned.
pub(crate) const CREATION_LIMIT: Duration = Duration::from_secs(30);
/// Time after which a replica on a node that is not a member is stopped.
const STRAY_LIMIT: Duration = Duration::from_secs(15);
/// Distance of a replica's last log entry from the leader's beyond which it counts as lagging, in entries: far
/// above the distance of two heartbeats.
const MAX_LAG: u64 = 10_000;
/// Maximum age of a leader's report on which a replica may be stopped: a few heartbeats, and far below
/// [`STRAY_LIMIT`].
const MAX_REPORT_AGE: Duration = Duration::from_secs(3);

/// Options of placement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacementOptions {
    /// Delay of new groups after the last registration, so that nodes that start together get full
    /// groups.
    pub(crate) settle: Duration,
    /// Time after which a node that is down is lost.
    pub(crate) replace_after: Duration,
    /// Number of groups for each data node, 1 or more.
    pub(crate) groups_per_node: usize,
}

/// Returns the steps that are due: at most one for each group, and some new groups.
pub(crate) fn plan(
    state: &MetaState,
    observed: &ObservedCluster,
    options: &PlacementOptions,
) -> Vec<PlacementStep> {
    let mut load = NodeLoad::new(state, observed, options);
    let mut steps = plan_group_count(state, observed, options, &mut load);
    for group in state.groups() {
        let step = match group.state {
            GroupState::Creating => plan_creation(group, observed),
            GroupState::Active => plan_membership(group, observed, &mut load),
            _ => None,
        };
        steps.extend(step.or_else(|| plan_stop(group, observed, &load)));
    }
    if steps.is_empty() {
        steps.extend(plan_balance(state, observed, &load));
    }
    steps
}

/// Plans the next step of a group in state creating.
fn plan_creation(group: &Group, observed: &ObservedCluster) -> Option<PlacementStep> {
    if observed.groups.contains_key(&group.id) {
        return Some(PlacementStep::Activate { group: group.id });
    }
    match observed.creating_for.get(&group.id) {
        Some(age) if *age > CREATION_LIMIT => Some(PlacementStep::Abandon { group: group.id }),
        _ => Some(PlacementStep::Start { group: group.id }),
    }
}

/// Plans the next membership step of an active group.
fn plan_membership(
    group: &Group,
    observed: &ObservedCluster,
    load: &mut NodeLoad<'_>,
) -> Option<PlacementStep> {
    let report = observed.groups.get(&group.id)?;
    if !is_current(group, report, observed) || !load.is_up(report.leader) {
        return None;
    }
    let id = group.id;
    let leader = report.leader;
    let on = report.membership;
    let sound = report.voters.iter().filter(|node| load.stays(**node)).count();
    if let Some(step) = plan_learner(group, report, sound, load) {
        return Some(step);
    }
    if let Some(node) = surplus_voter(group, report, sound, load, observed) {
        return Some(PlacementStep::Remove { group: id, leader, node, on });
    }
    // A leader is no surplus voter: another one leads before it is removed.
    if load.is_draining(leader) && sound > 0 {
        let is_ready =
            |node: &NodeId| load.is_usable(*node) && !is_lagging(id, report, *node, observed);
        if let Some(to) = report.voters.iter().copied().find(is_ready) {
            return Some(PlacementStep::Transfer { group: id, leader, to });
        }
    }
    if sound < REPLICAS && report.learners.is_empty() {
        let members = report.voters.union(&report.learners).copied().collect();
        let node = load.replacement(&members).or_else(|| load.candidates(&members).next())?;
        load.add_replica(node);
        return Some(PlacementStep::Add { group: id, leader, node, on });
    }
    None
}

/// Plans the next step of the first learner: removes it when it is lost or not needed, or when it is down
/// and another node can take its place, promotes it when it has caught up. A learner is no voter yet, so that
/// waiting for a node that is down only delays the repair of the group.
fn plan_learner(
    group: &Group,
    report: &ObservedGroup,
    sound: usize,
    load: &NodeLoad<'_>,
) -> Option<PlacementStep> {
    let node = report.learners.first().copied()?;
    let leader = report.leader;
    let on = report.membership;
    let is_replaceable = || {
        let members = report.voters.union(&report.learners).copied().collect();
        !load.is_up(node) && load.candidates(&members).next().is_some()
    };
    let is_needed = sound < REPLICAS || evens_out(group, report, node, load);
    let group = group.id;
    if !load.stays(node) || !is_needed || is_replaceable() {
        return Some(PlacementStep::Remove { group, leader, node, on });
    }
    (report.caught_up.contains(&node) && load.is_up(node)).then_some(PlacementStep::Promote {
        group,
        leader,
        node,
        on,
    })
}

/// Returns whether a learner takes the place of a voter on a node with at least two replicas more.
fn evens_out(group: &Group, report: &ObservedGroup, learner: NodeId, load: &NodeLoad<'_>) -> bool {
    let without = load.replicas_without(group, learner);
    // The leader would not be removed.
    let mut others = report.voters.iter().filter(|voter| **voter != report.leader);
    others.any(|voter| load.replicas_without(group, *voter) > without)
}

/// Returns a surplus voter to remove, never the leader: lost and draining nodes first; of more than enough sound
/// nodes, those that are down, then those that lag behind, then those with the most replicas, then the highest id.
fn surplus_voter(
    group: &Group,
    report: &ObservedGroup,
    sound: usize,
    load: &NodeLoad<'_>,
    observed: &ObservedCluster,
) -> Option<NodeId> {
    let mut others = report.voters.iter().copied().filter(|node| *node != report.leader);
    if sound < REPLICAS {
        return None;
    }
    if sound < report.voters.len() {
        let lost = others.clone().find(|node| load.is_lost(*node));
        return lost.or_else(|| others.find(|node| load.is_draining(*node)));
    }
    if sound <= REPLICAS {
        return None;
    }
    let key = |node: &NodeId| {
        let lags = is_lagging(group.id, report, *node, observed);
        (!load.is_up(*node), lags, load.replicas_without(group, *node), *node)
    };
    others.by_ref().max_by_key(key)
}

/// Returns whether a report shows the membership after the last step of its group, and no change is in progress.
pub(super) fn is_current(
    group: &Group,
    report: &ObservedGroup,
    observed: &ObservedCluster,
) -> bool {
    let changed = observed.changed.get(&group.id);
    report.is_settled() && changed.is_none_or(|at| report.membership >= *at)
}

/// Returns whether a voter's log ends far before that of the leader.
pub(super) fn is_lagging(
    group: GroupId,
    report: &ObservedGroup,
    node: NodeId,
    observed: &ObservedCluster,
) -> bool {
    let last_log = |node| observed.replica(group, node).map_or(0, |own| own.last_log.get());
    last_log(report.leader).saturating_sub(last_log(node)) > MAX_LAG
}

/// Plans to stop a replica of an abandoned or a retired group, or a replica on a node that is not a member according
/// to the leader's report. A node that is down would not answer.
fn plan_stop(
    group: &Group,
    observed: &ObservedCluster,
    load: &NodeLoad<'_>,
) -> Option<PlacementStep> {
    let (members, on) = match group.state {
        // The greatest log id, so that a replica stops whatever membership it knows.
        GroupState::Abandoned | GroupState::Retired => {
            (BTreeSet::new(), (Term(u64::MAX), LogIndex(u64::MAX)))
        }
        GroupState::Active => {
            let report = observed.groups.get(&group.id)?;
            if observed.changed.get(&group.id).is_some_and(|at| report.membership < *at) {
                return None;
            }
            // An old report may lack a member that was added since.
            let age = observed.reported_for.get(&group.id)?;
            // A leader of an older release reports members that may not be committed.
            if *age > MAX_REPORT_AGE || report.effective != Some(report.membership) {
                return None;
            }
            (report.voters.union(&report.learners).copied().collect(), report.membership)
        }
        _ => return None,
    };
    let mut hosts = observed.replicas.get(&group.id)?.iter();
    let is_stray = |node: &NodeId, own: &ObservedReplica| {
        own.hosted_for > STRAY_LIMIT && !members.contains(node) && load.is_up(*node)
    };
    let (node, _) = hosts.find(|(node, own)| is_stray(node, own))?;
    Some(PlacementStep::Stop { group: group.id, node: *node, on })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
