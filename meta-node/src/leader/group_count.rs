//! Number of groups: created as data nodes join, retired as they leave. Pure.
//!
//! The cluster has a number of groups for each data node that stays. A new group is at *home* on the node that is the home
//! of the fewest. A surplus group is marked as retiring: new routes are placed in others, its routes are moved
//! to them ([`super::route_balance`]), and it is retired when it has none. A node that is down keeps its share of the
//! groups: only the operator decides that it does not return.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_proto::v1::GroupState;

use super::ObservedCluster;
use super::balance::BALANCE_AFTER;
use super::node_load::NodeLoad;
use super::placement_step::PlacementStep;
use super::plan::{PlacementOptions, REPLICAS};
use crate::catalog::{Group, MetaState};
use crate::commands::groups::has_regions;

/// Level from which on a node is the home of several groups, and groups are retired.
const COUNTED_GROUPS: FeatureLevel = FeatureLevel::new(4);
/// Most groups that one round creates. Many nodes may register together: with one group in each round, 1,000
/// nodes would wait for minutes.
pub(super) const MAX_NEW_GROUPS: usize = 32;

/// Plans the creation, the marking and the retirement of groups.
pub(super) fn plan_group_count(
    state: &MetaState,
    observed: &ObservedCluster,
    options: &PlacementOptions,
    load: &mut NodeLoad<'_>,
) -> Vec<PlacementStep> {
    let is_counted = state.header().feature_level >= COUNTED_GROUPS;
    let per_node = if is_counted { options.groups_per_node.max(1) } else { 1 };
    let wanted = load.lasting().count().saturating_mul(per_node);
    let live: Vec<&Group> = state.live_groups().map(AsRef::as_ref).collect();
    let (retiring, staying): (Vec<&Group>, Vec<&Group>) =
        live.iter().copied().partition(|group| group.retiring);
    let lasting: BTreeSet<NodeId> = load.lasting().collect();
    let mut steps = Vec::new();
    if staying.len() < wanted && observed.quiet_for >= options.settle {
        let missing = wanted - staying.len();
        let mut kept = retiring.clone();
        kept.sort_by_key(|group| retirement_order(group, &lasting));
        // The last ones to retire.
        let kept = kept.iter().rev().take(missing);
        steps.extend(
            kept.map(|group| PlacementStep::SetRetiring { group: group.id, retiring: false }),
        );
        let new = missing.saturating_sub(retiring.len()).min(MAX_NEW_GROUPS);
        steps.extend(new_groups(&live, new, per_node, load));
        return steps;
    }
    let is_quiet = observed.quiet_for >= BALANCE_AFTER && observed.leading_for >= BALANCE_AFTER;
    if is_counted && wanted > 0 && staying.len() > wanted && is_quiet {
        let mut first = staying.clone();
        first.retain(|group| group.state == GroupState::Active);
        first.sort_by_key(|group| retirement_order(group, &lasting));
        let first = first.iter().take(staying.len() - wanted);
        steps.extend(
            first.map(|group| PlacementStep::SetRetiring { group: group.id, retiring: true }),
        );
    }
    let empty = retiring.iter().filter(|group| !has_regions(state, group.id));
    steps.extend(empty.map(|group| PlacementStep::Retire { group: group.id }));
    steps
}

/// Plans new groups on nodes that are the home of fewer than their share. A node that is down gets its share when it
/// has returned.
fn new_groups(
    live: &[&Group],
    new: usize,
    per_node: usize,
    load: &mut NodeLoad<'_>,
) -> Vec<PlacementStep> {
    let mut homes: BTreeMap<NodeId, usize> = load.usable().map(|(_, node)| (node, 0)).collect();
    for home in live.iter().filter_map(|group| group.home()) {
        homes.entry(home).and_modify(|groups| *groups += 1);
    }
    let mut steps = Vec::with_capacity(new);
    // One of each home at a time: the command names the number of its groups.
    let mut by_count: Vec<(usize, NodeId)> =
        homes.into_iter().map(|(node, groups)| (groups, node)).collect();
    by_count.retain(|(groups, _)| *groups < per_node);
    by_count.sort_unstable();
    for (home_groups, home) in by_count.into_iter().take(new) {
        let excluded = BTreeSet::from([home]);
        let others = load.candidates(&excluded);
        let first_members: Vec<NodeId> =
            std::iter::once(home).chain(others).take(REPLICAS).collect();
        first_members.iter().for_each(|node| load.add_replica(*node));
        steps.push(PlacementStep::Create { first_members, home_groups });
    }
    steps
}

/// Order in which groups retire: those whose home leaves, then the newest. Routes do not count: the order stays the same
/// while groups retire.
fn retirement_order(group: &Group, lasting: &BTreeSet<NodeId>) -> (bool, Reverse<GroupId>) {
    let has_home = group.home().is_some_and(|home| lasting.contains(&home));
    (has_home, Reverse(group.id))
}

#[cfg(test)]
mod tests;
