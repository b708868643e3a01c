//! Observations: the content and time of heartbeats, from which the leader derives the state of nodes
//! and groups. In memory only.
//!
//! - `observed`: a frozen copy, with ages instead of instants.
//! - `clocks`: the nodes' clocks, and jumps of replicated time.
//! - `loads`: loads of routes in the last windows.
//! - `failures`: connections, garbage collection, operations and problems, with the begin of each.

mod clocks;
mod failures;
mod loads;
mod observed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rpds::RedBlackTreeMapSync as PersistentMap;
use tidewater_common::clock::{ClockDifference, ClusterTime};
use tidewater_common::ids::{GroupId, LogIndex, NodeId, TableId, Term};
use tidewater_common::problem::{Problem, ProblemHistory};
use tidewater_proto::v1;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use self::loads::GroupLoads;
pub(crate) use self::loads::{ObservedLoads, WINDOWS_KEPT};
#[cfg(test)]
pub(crate) use self::loads::{RouteLoad, WindowLoad};
pub(crate) use self::observed::{
    HookReports, MemberDifference, ObservedCluster, ObservedGarbage, ObservedGroup, ObservedReplica,
};
use super::barriers::SentEpochs;
use super::exports::ExportProgress;
use super::problems::TableOperation;
use super::releases::Releases;
use crate::catalog::FIRST_NODE_ID;

/// Maximum number of hook reports used from one heartbeat.
const MAX_HOOKS: usize = 1_000;
/// Maximum number of conditions used from one heartbeat, or one answer of a meta member.
const MAX_CONDITIONS: usize = 64;

/// Content of a node's heartbeats.
#[derive(Debug, Clone, Default)]
struct NodeObservation {
    /// Time of the last heartbeat or registration.
    at: Option<Instant>,
    /// Groups in the last heartbeat.
    hosted: Arc<BTreeMap<GroupId, HostedReplica>>,
    /// Conditions in the last heartbeat.
    conditions: Vec<Problem>,
    /// A heartbeat was received, not only a registration.
    beats: bool,
    hooks: Arc<[v1::HookReport]>,
    compactor: Option<v1::CompactorLoad>,
    /// The node's clock in its last heartbeat; 0: not sent.
    clock_ms: u64,
}

/// A replica in the heartbeats of its node.
#[derive(Debug, Clone, Copy)]
struct HostedReplica {
    /// Time of the first report.
    since: Instant,
    /// Last entry of its log in the last heartbeat.
    last_log: LogIndex,
    /// The node reported to lead the group in the last heartbeat.
    leads: bool,
}

/// Heartbeat timeout of compactors, which send a heartbeat every second. A compactor without a
/// heartbeat for longer gets no jobs.
const COMPACTOR_TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Debug, Default)]
struct ObservationState {
    leading_since: Option<Instant>,
    nodes: BTreeMap<NodeId, NodeObservation>,
    groups: PersistentMap<GroupId, ObservedGroup>,
    reported: PersistentMap<GroupId, Instant>,
    creating: BTreeMap<GroupId, Instant>,
    // Membership after a step: the planner ignores older reports.
    changed: BTreeMap<GroupId, ((Term, LogIndex), Instant)>,
    table_errors: BTreeMap<TableId, String>,
    registered_at: Option<Instant>,
    jumped_at: Option<Instant>,
    own_clock: ClusterTime,
    own_difference: Option<ClockDifference>,
    operations: BTreeMap<TableOperation, Instant>,
    // First failure and last error of the connections to a node that failed in a row.
    unreachable: BTreeMap<NodeId, (Instant, String)>,
    member_differences: BTreeMap<NodeId, MemberDifference>,
    member_conditions: BTreeMap<NodeId, Vec<Problem>>,
    // First failure and last error of the steps of a member's replacement that failed in a row.
    replacement_failing: Option<(Instant, String)>,
    garbage_failing: Option<(Instant, String)>,
    garbage_unreadable: Vec<v1::UnreadableManifest>,
    // Groups that have applied none of the last barriers.
    lagging: BTreeMap<GroupId, Duration>,
    history: ProblemHistory,
    loads: GroupLoads,
}

/// Maximum wait for a leader's report on a membership that a step has changed.
const REPORT_WAIT: Duration = Duration::from_secs(5);

/// Observations of the current leader term.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    inner: Mutex<ObservationState>,
    /// Releases of the nodes.
    pub(crate) releases: Releases,
    /// Sources that are being loaded, by table.
    pub(crate) loads_of_sources: Mutex<BTreeMap<TableId, v1::LoadProgress>>,
    /// Steps of exports in progress, by export.
    pub(crate) exports: Mutex<BTreeMap<Uuid, ExportProgress>>,
    /// Epochs of the barriers, and changes of collections in progress.
    pub(crate) sent_epochs: SentEpochs,
    /// Notified of changes that may need a step.
    pub(crate) changes: Notify,
    /// True once replicated time has followed the cluster's clocks in this term.
    agreed: watch::Sender<bool>,
    /// Registrations of processes that have begun: a process may repeat its call.
    registering: Mutex<BTreeMap<Uuid, usize>>,
}

/// A registration from before its command until [`Observations::record_registration`]. Between them, the catalog has the
/// process as up, and its last heartbeat is that of the process before it.
#[derive(Debug)]
pub(crate) struct RegistrationInProgress {
    observations: Arc<Observations>,
    start_id: Option<Uuid>,
}

impl Drop for RegistrationInProgress {
    fn drop(&mut self) {
        let Some(start_id) = self.start_id else { return };
        let mut registering = self.observations.registering.lock();
        if let Some(calls) = registering.get_mut(&start_id) {
            *calls -= 1;
            if *calls == 0 {
                registering.remove(&start_id);
            }
        }
    }
}

impl Observations {
    /// Clears all observations at the start of a term.
    pub(crate) fn restart(&self, now: Instant) {
        *self.inner.lock() = ObservationState {
            leading_since: Some(now),
            registered_at: Some(now),
            ..ObservationState::default()
        };
        self.releases.clear();
        self.loads_of_sources.lock().clear();
        self.exports.lock().clear();
        self.agreed.send_replace(false);
    }

    /// Notes that the registration of a process begins. `None`: a process of a release without ids of starts.
    #[must_use]
    pub(crate) fn begin_registration(
        self: &Arc<Self>,
        start_id: Option<Uuid>,
    ) -> RegistrationInProgress {
        if let Some(start_id) = start_id {
            *self.registering.lock().entry(start_id).or_default() += 1;
        }
        RegistrationInProgress { observations: Arc::clone(self), start_id }
    }

    /// Records a registration, which counts as a sign of life. The registration of a data node also
    /// restarts `quiet_for`, because further data nodes may follow immediately.
    pub(crate) fn record_registration(&self, node: NodeId, data: bool, now: Instant) {
        let mut inner = self.inner.lock();
        inner.nodes.entry(node).or_default().at = Some(now);
        if data {
            inner.registered_at = Some(now);
        }
        drop(inner);
        self.changes.notify_one();
    }

    /// Records a heartbeat.
    pub(crate) fn record_heartbeat(&self, request: &v1::HeartbeatRequest, now: Instant) {
        let node = NodeId(request.node_id);
        let mut inner = self.inner.lock();
        let known = inner.nodes.entry(node).or_default();
        let mut changed = known.at.is_none();
        known.at = Some(now);
        let hosted = |report: &v1::GroupReport| {
            let id = GroupId(report.group_id);
            let since = known.hosted.get(&id).map_or(now, |hosted| hosted.since);
            let leads = report.leader == request.node_id;
            (id, HostedReplica { since, last_log: LogIndex(report.last_log_index), leads })
        };
        let hosted: BTreeMap<_, _> = request.groups.iter().map(hosted).collect();
        changed |= hosted.len() != known.hosted.len();
        known.hosted = Arc::new(hosted);
        known.beats = true;
        known.conditions = conditions(node, request);
        known.hooks = request.hooks.iter().take(MAX_HOOKS).cloned().collect();
        known.compactor = request.compactor.clone();
        known.clock_ms = request.clock_ms;
        for report in request.groups.iter().filter(|report| report.leader == request.node_id) {
            changed |= inner.record_leader_report(node, report, now);
        }
        drop(inner);
        if changed {
            self.changes.notify_one();
        }
    }

    /// Removes the observations of nodes that are not in the catalog.
    pub(crate) fn retain_nodes(&self, is_known: impl Fn(NodeId) -> bool) {
        self.releases.retain_nodes(&is_known);
        let mut inner = self.inner.lock();
        inner.nodes.retain(|node, _| is_known(*node));
        inner.unreachable.retain(|node, _| is_known(*node) || *node < FIRST_NODE_ID);
    }

    /// Removes the loads of groups that are not live.
    pub(crate) fn retain_loads(&self, is_live: impl Fn(GroupId) -> bool) {
        self.inner.lock().loads.retain(is_live);
    }

    /// Loads of the last windows. Takes time for every group.
    pub(crate) fn loads(&self, now: Instant) -> ObservedLoads {
        self.inner.lock().loads.snapshot(now)
    }

    /// Last hook reports of all nodes.
    pub(crate) fn hooks(&self) -> HookReports {
        let inner = self.inner.lock();
        inner.nodes.iter().map(|(node, known)| (*node, Arc::clone(&known.hooks))).collect()
    }

    /// Last reported loads of compactors with a recent heartbeat.
    pub(crate) fn compactors(&self, now: Instant) -> BTreeMap<NodeId, v1::CompactorLoad> {
        let inner = self.inner.lock();
        let is_recent = |known: &NodeObservation| {
            known.at.is_some_and(|at| now.saturating_duration_since(at) < COMPACTOR_TIMEOUT)
        };
        let nodes = inner.nodes.iter().filter(|(_, known)| is_recent(known));
        nodes.filter_map(|(node, known)| Some((*node, known.compactor.clone()?))).collect()
    }

    /// Time since the last heartbeat or registration of each node.
    pub(crate) fn snapshot_silence(&self, now: Instant) -> BTreeMap<NodeId, Duration> {
        let inner = self.inner.lock();
        let heard = inner.nodes.iter().filter_map(|(node, known)| Some((*node, known.at?)));
        heard.map(|(node, at)| (node, now.saturating_duration_since(at))).collect()
    }

    /// The last node that reported to lead a group.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        self.inner.lock().groups.get(&group).map(|report| report.leader)
    }

    /// Records the membership after a membership step.
    pub(crate) fn record_membership(
        &self,
        group: GroupId,
        membership: (Term, LogIndex),
        now: Instant,
    ) {
        self.inner.lock().changed.insert(group, (membership, now));
    }

    /// Records the groups that have applied none of the last barriers, with the ages of their epochs.
    pub(crate) fn record_lagging_groups(&self, lagging: BTreeMap<GroupId, Duration>) {
        self.inner.lock().lagging = lagging;
    }

    /// Returns a frozen copy of the observations at `now`. `creating` are the groups in state creating;
    /// their age counts from the first call that names them.
    pub(crate) fn snapshot(&self, creating: &[GroupId], now: Instant) -> ObservedCluster {
        let age = |at: &Instant| now.duration_since(*at);
        // Before the times of registrations: one that has ended is among them.
        let registering = self.registering.lock().keys().copied().collect();
        let failing_exports = self.failing_exports(now);
        let mut inner = self.inner.lock();
        let creating: BTreeSet<GroupId> = creating.iter().copied().collect();
        inner.creating.retain(|group, _| creating.contains(group));
        for group in creating {
            inner.creating.entry(group).or_insert(now);
        }
        inner.changed.retain(|_, (_, at)| now.duration_since(*at) < REPORT_WAIT);
        let mut observed = ObservedCluster {
            leading_for: inner.leading_since.as_ref().map_or(Duration::ZERO, age),
            groups: inner.groups.clone(),
            creating_for: inner.creating.iter().map(|(id, at)| (*id, age(at))).collect(),
            changed: inner.changed.iter().map(|(id, (at, _))| (*id, *at)).collect(),
            quiet_for: inner.registered_at.as_ref().map_or(Duration::ZERO, age),
            table_errors: inner.table_errors.clone(),
            lagging: inner.lagging.clone(),
            registering,
            failing_exports,
            own_difference: inner.own_difference,
            replacement_failing: inner
                .replacement_failing
                .as_ref()
                .map(|(since, error)| (now.saturating_duration_since(*since), error.clone())),
            unreachable: inner
                .unreachable
                .iter()
                .map(|(id, (at, error))| (*id, (age(at), error.clone())))
                .collect(),
            member_differences: inner.member_differences.clone(),
            member_conditions: inner.member_conditions.clone(),
            garbage: ObservedGarbage {
                failing: inner.garbage_failing.as_ref().map(|(at, text)| (age(at), text.clone())),
                unreadable: inner.garbage_unreadable.clone(),
            },
            ..ObservedCluster::default()
        };
        let reported = inner.reported.clone();
        let nodes = inner.nodes.clone();
        // Heartbeats are recorded while the copies are evaluated.
        drop(inner);
        observed.reported_for = reported.iter().map(|(id, at)| (*id, age(at))).collect();
        for (id, known) in &nodes {
            observed.add_node(*id, known, now);
        }
        observed
    }
}

/// Returns the conditions in a heartbeat. A node of an older release sends sentences.
fn conditions(node: NodeId, request: &v1::HeartbeatRequest) -> Vec<Problem> {
    if request.conditions.is_empty() && !request.problems.is_empty() {
        let detail = request.problems.join("; ");
        let condition = v1::NodeCondition { detail, ..Default::default() };
        return vec![Problem { age: None, ..Problem::reported(node, &condition) }];
    }
    reported(node, &request.conditions)
}

/// Returns the problems that a node reports.
fn reported(node: NodeId, conditions: &[v1::NodeCondition]) -> Vec<Problem> {
    let used = conditions.iter().take(MAX_CONDITIONS);
    used.map(|condition| Problem::reported(node, condition)).collect()
}

impl ObservationState {
    /// Records a group leader's report, unless another node leads in a later term. Returns whether it
    /// differs from the previous report.
    fn record_leader_report(
        &mut self,
        node: NodeId,
        report: &v1::GroupReport,
        now: Instant,
    ) -> bool {
        let ids = |numbers: &[u64]| numbers.iter().copied().map(NodeId).collect();
        let effective = (Term(report.effective_term), LogIndex(report.effective_index));
        let group = ObservedGroup {
            term: Term(report.term),
            leader: node,
            voters: ids(&report.voters),
            learners: ids(&report.learners),
            membership: (Term(report.membership_term), LogIndex(report.membership_index)),
            effective: (effective != (Term(0), LogIndex(0))).then_some(effective),
            caught_up: ids(&report.caught_up),
        };
        let id = GroupId(report.group_id);
        if self.groups.get(&id).is_some_and(|known| self.outranks(id, known, &group)) {
            return false;
        }
        self.reported.insert_mut(id, now);
        if let Some(load) = &report.load {
            self.loads.record(id, load, now);
        }
        let differs = self.groups.get(&id) != Some(&group);
        if differs {
            self.groups.insert_mut(id, group);
        }
        differs
    }

    /// Returns whether a known report counts more than a later one: another node leads in a later term,
    /// and has not reported since that it does not lead.
    fn outranks(&self, id: GroupId, known: &ObservedGroup, later: &ObservedGroup) -> bool {
        let leader = self.nodes.get(&known.leader);
        let leads = leader.and_then(|node| node.hosted.get(&id)).is_some_and(|own| own.leads);
        known.leader != later.leader && known.term > later.term && leads
    }
}

#[cfg(test)]
mod tests;
