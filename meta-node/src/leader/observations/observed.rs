//! A frozen copy of the observations, for pure decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rpds::RedBlackTreeMapSync as PersistentMap;
use tidewater_common::clock::ClockDifference;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, TableId, Term};
use tidewater_common::problem::Problem;
use tidewater_proto::v1;
use tokio::time::Instant;
use uuid::Uuid;

use super::NodeObservation;

/// Hook reports of each node's last heartbeat.
pub(crate) type HookReports = BTreeMap<NodeId, Arc<[v1::HookReport]>>;

/// Last report of a group's leader on the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedGroup {
    pub(crate) term: Term,
    pub(crate) leader: NodeId,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) learners: BTreeSet<NodeId>,
    /// Log id of the committed membership.
    pub(crate) membership: (Term, LogIndex),
    /// Log id of the effective membership; `None` from a node of an older release.
    pub(crate) effective: Option<(Term, LogIndex)>,
    pub(crate) caught_up: BTreeSet<NodeId>,
}

impl ObservedGroup {
    /// Returns whether no change of the members is in progress.
    pub(crate) fn is_settled(&self) -> bool {
        self.effective.is_none_or(|effective| effective == self.membership)
    }
}

/// Difference of a meta member's catalog from the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberDifference {
    /// Log index at which the member found it first.
    pub(crate) first: LogIndex,
    /// Replicated time of that comparison, milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
}

/// Outcome of the last garbage collection passes.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedGarbage {
    /// Time since the first of the passes that failed in a row, and the last error.
    pub(crate) failing: Option<(Duration, String)>,
    /// Manifests that the last pass could not read.
    pub(crate) unreadable: Vec<v1::UnreadableManifest>,
}

/// A replica of a group, as its node reported it last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ObservedReplica {
    /// Time since the node first reported the replica.
    pub(crate) hosted_for: Duration,
    /// Last entry of its log.
    pub(crate) last_log: LogIndex,
    /// The node reports to lead the group.
    pub(crate) leads: bool,
}

/// A frozen copy of the observations for pure decisions, with ages instead of instants.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedCluster {
    /// Time since this node began to lead.
    pub(crate) leading_for: Duration,
    /// Time since the last heartbeat or registration of each node; nodes without one are absent.
    pub(crate) silent_for: BTreeMap<NodeId, Duration>,
    /// Processes whose registration has begun: the last heartbeat of their nodes is that of an earlier process.
    pub(crate) registering: BTreeSet<Uuid>,
    /// Replicas of each group, by node.
    pub(crate) replicas: BTreeMap<GroupId, BTreeMap<NodeId, ObservedReplica>>,
    /// Last reports of group leaders.
    pub(crate) groups: PersistentMap<GroupId, ObservedGroup>,
    /// Time since the last report of each group's leader.
    pub(crate) reported_for: BTreeMap<GroupId, Duration>,
    /// Groups that have applied none of the last barriers, with the ages of their epochs.
    pub(crate) lagging: BTreeMap<GroupId, Duration>,
    /// Time since this leader first observed each group in state creating.
    pub(crate) creating_for: BTreeMap<GroupId, Duration>,
    /// Memberships after recent steps.
    pub(crate) changed: BTreeMap<GroupId, (Term, LogIndex)>,
    /// Time since the last registration of a data node in this term, or since the start of the term.
    pub(crate) quiet_for: Duration,
    /// Nodes with a heartbeat in this term.
    pub(crate) beating: BTreeSet<NodeId>,
    /// Conditions that nodes report.
    pub(crate) conditions: BTreeMap<NodeId, Vec<Problem>>,
    /// Nodes to which connections fail: time since the first failure, and the last error.
    pub(crate) unreachable: BTreeMap<NodeId, (Duration, String)>,
    /// Time since the first failure, and last error, of a member's replacement without progress.
    pub(crate) replacement_failing: Option<(Duration, String)>,
    /// Members of the meta group whose catalogs differ from the leader's.
    pub(crate) member_differences: BTreeMap<NodeId, MemberDifference>,
    /// Conditions that members of the meta group report.
    pub(crate) member_conditions: BTreeMap<NodeId, Vec<Problem>>,
    /// Reports of suspended and broken hooks.
    pub(crate) hooks: HookReports,
    /// Outcome of the last garbage collection passes.
    pub(crate) garbage: ObservedGarbage,
    /// Exports whose steps fail: time since the failure, and the last error.
    pub(crate) failing_exports: BTreeMap<Uuid, (Duration, String)>,
    /// Last error of each table that is not ready.
    pub(crate) table_errors: BTreeMap<TableId, String>,
    /// Difference of this leader's own clock, while it exceeds the bound.
    pub(crate) own_difference: Option<ClockDifference>,
}

impl ObservedCluster {
    /// The replica of a group on a node.
    pub(crate) fn replica(&self, group: GroupId, node: NodeId) -> Option<&ObservedReplica> {
        self.replicas.get(&group)?.get(&node)
    }

    /// Returns whether a node hosts a replica of a group, and does not report to lead it.
    pub(crate) fn is_follower(&self, group: GroupId, node: NodeId) -> bool {
        self.replica(group, node).is_some_and(|replica| !replica.leads)
    }

    /// Adds the last heartbeat of a node.
    pub(super) fn add_node(&mut self, id: NodeId, known: &NodeObservation, now: Instant) {
        if let Some(at) = known.at {
            self.silent_for.insert(id, now.duration_since(at));
        }
        for (group, replica) in known.hosted.iter() {
            let observed = ObservedReplica {
                hosted_for: now.duration_since(replica.since),
                last_log: replica.last_log,
                leads: replica.leads,
            };
            self.replicas.entry(*group).or_default().insert(id, observed);
        }
        if known.beats {
            self.beating.insert(id);
        }
        if !known.conditions.is_empty() {
            self.conditions.insert(id, known.conditions.clone());
        }
        let hooks: Arc<[_]> = known.hooks.iter().filter(is_out_of_order).cloned().collect();
        if !hooks.is_empty() {
            self.hooks.insert(id, hooks);
        }
    }
}

/// Returns whether a node does not call a hook although it is not paused.
fn is_out_of_order(hook: &&v1::HookReport) -> bool {
    matches!(hook.state(), v1::HookState::Suspended | v1::HookState::Broken)
}
