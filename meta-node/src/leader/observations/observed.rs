//! A frozen copy of the observations, for pure decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::clock::ClockDifference;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, TableId, Term};
use tidewater_common::problem::Problem;
use tidewater_proto::v1;

/// Hook reports of each node's last heartbeat.
pub(crate) type HookReports = BTreeMap<NodeId, Vec<v1::HookReport>>;

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

/// Outcome of the last garbage collection passes.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedGarbage {
    /// Time since the first of the passes that failed in a row, and the last error.
    pub(crate) failing: Option<(Duration, String)>,
    /// Manifests that the last pass could not read.
    pub(crate) unreadable: Vec<v1::UnreadableManifest>,
}

/// A frozen copy of the observations for pure decisions, with ages instead of instants.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedCluster {
    /// Time since this node began to lead.
    pub(crate) leading_for: Duration,
    /// Time since the last heartbeat or registration of each node; nodes without one are absent.
    pub(crate) silent_for: BTreeMap<NodeId, Duration>,
    /// Time since each node first reported each group that it currently hosts.
    pub(crate) hosted_for: BTreeMap<(NodeId, GroupId), Duration>,
    /// Last log entry of each replica, as its node reported it last.
    pub(crate) last_log: BTreeMap<(NodeId, GroupId), LogIndex>,
    /// Nodes that host a replica of a group, and did not report to lead it in the last heartbeat.
    pub(crate) followers: BTreeSet<(NodeId, GroupId)>,
    /// Last reports of group leaders.
    pub(crate) groups: BTreeMap<GroupId, ObservedGroup>,
    /// Time since the last report of each group's leader.
    pub(crate) reported_for: BTreeMap<GroupId, Duration>,
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
    /// Reports of suspended and broken hooks.
    pub(crate) hooks: HookReports,
    /// Outcome of the last garbage collection passes.
    pub(crate) garbage: ObservedGarbage,
    /// Last error of each table that is not ready.
    pub(crate) table_errors: BTreeMap<TableId, String>,
    /// Difference of this leader's own clock, while it exceeds the bound.
    pub(crate) own_difference: Option<ClockDifference>,
}
