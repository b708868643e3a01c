//! Observations: the content and time of heartbeats, from which the leader derives the state of nodes
//! and groups. In memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::{ClockDifference, ClusterTime};
use tidewater_common::ids::{GroupId, LogIndex, NodeId, TableId, Term};
use tidewater_common::problem::{LastingProblem, Problem, ProblemHistory};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::problems::TableOperation;
use crate::catalog::FIRST_NODE_ID;

/// Maximum number of hook reports used from one heartbeat.
const MAX_HOOKS: usize = 1_000;
/// Maximum number of conditions used from one heartbeat.
const MAX_CONDITIONS: usize = 64;
/// Maximum number of manifests that are remembered as unreadable.
const MAX_UNREADABLE: usize = 64;

/// Content of a node's heartbeats.
#[derive(Debug, Clone, Default)]
struct NodeObservation {
    /// Time of the last heartbeat or registration.
    at: Option<Instant>,
    /// Groups in the last heartbeat.
    hosted: BTreeMap<GroupId, HostedReplica>,
    /// Groups that the node reported to lead in the last heartbeat.
    leads: BTreeSet<GroupId>,
    /// Conditions in the last heartbeat.
    conditions: Vec<Problem>,
    /// A heartbeat was received, not only a registration.
    beats: bool,
    hooks: Vec<v1::HookReport>,
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
}

/// Heartbeat timeout of compactors, which send a heartbeat every second. A compactor without a
/// heartbeat for longer gets no jobs.
const COMPACTOR_TIMEOUT: Duration = Duration::from_secs(4);
/// Maximum age of a clock in a heartbeat: a clock that jumps meanwhile must not count for longer.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(4);

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

#[derive(Debug, Default)]
struct ObservationState {
    leading_since: Option<Instant>,
    nodes: BTreeMap<NodeId, NodeObservation>,
    groups: BTreeMap<GroupId, ObservedGroup>,
    reported: BTreeMap<GroupId, Instant>,
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
    garbage_failing: Option<(Instant, String)>,
    garbage_unreadable: Vec<v1::UnreadableManifest>,
    history: ProblemHistory,
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

/// Maximum wait for a leader's report on a membership that a step has changed.
const REPORT_WAIT: Duration = Duration::from_secs(5);

/// Time that a loader has for its next call after a jump of replicated time: more than the interval of
/// its calls.
const LOADER_RETURN: Duration = Duration::from_secs(90);

/// Observations of the current leader term.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    inner: Mutex<ObservationState>,
    /// Notified of changes that may need a step.
    pub(crate) changes: Notify,
    /// Whether replicated time has followed the cluster's clocks in this term.
    agreed: watch::Sender<bool>,
}

impl Observations {
    /// Clears all observations at the start of a term.
    pub(crate) fn restart(&self, now: Instant) {
        *self.inner.lock() = ObservationState {
            leading_since: Some(now),
            registered_at: Some(now),
            ..ObservationState::default()
        };
        self.agreed.send_replace(false);
    }

    /// Records that replicated time has followed the agreed time of the clocks.
    pub(crate) fn record_agreement(&self) {
        self.agreed.send_replace(true);
    }

    /// Records that replicated time is about to jump.
    pub(crate) fn record_jump(&self, now: Instant) {
        self.inner.lock().jumped_at = Some(now);
    }

    /// Returns whether a load past its deadline has expired. After a jump of replicated time, its loader
    /// has time for the next call.
    pub(crate) fn may_expire_loads(&self, now: Instant) -> bool {
        let jumped_at = self.inner.lock().jumped_at;
        jumped_at.is_none_or(|at| now.saturating_duration_since(at) >= LOADER_RETURN)
    }

    /// Waits until replicated time has followed the clocks in this term, for at most `limit`. After an
    /// outage, replicated time jumps once: a deadline that was set before would have passed.
    pub(crate) async fn wait_for_agreement(&self, limit: Duration) {
        let mut agreed = self.agreed.subscribe();
        // Otherwise no clocks are known, and time does not jump either.
        let _ = tokio::time::timeout(limit, agreed.wait_for(|agreed| *agreed)).await;
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
            (id, HostedReplica { since, last_log: LogIndex(report.last_log_index) })
        };
        let hosted: BTreeMap<_, _> = request.groups.iter().map(hosted).collect();
        changed |= hosted.len() != known.hosted.len();
        known.hosted = hosted;
        let led = request.groups.iter().filter(|report| report.leader == request.node_id);
        known.leads = led.map(|report| GroupId(report.group_id)).collect();
        known.beats = true;
        known.conditions = conditions(node, request);
        known.hooks.clone_from(&request.hooks);
        known.hooks.truncate(MAX_HOOKS);
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
        let mut inner = self.inner.lock();
        inner.nodes.retain(|node, _| is_known(*node));
        inner.unreachable.retain(|node, _| is_known(*node) || *node < FIRST_NODE_ID);
    }

    /// Last hook reports of all nodes.
    pub(crate) fn hooks(&self) -> HookReports {
        let inner = self.inner.lock();
        inner.nodes.iter().map(|(node, known)| (*node, known.hooks.clone())).collect()
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

    /// Clocks of the nodes with a recent heartbeat at `now`, milliseconds since the Unix epoch.
    pub(crate) fn clocks(&self, now: Instant) -> BTreeMap<NodeId, u64> {
        let inner = self.inner.lock();
        let clock = |(node, known): (&NodeId, &NodeObservation)| {
            let age = now.saturating_duration_since(known.at?);
            let recent = known.clock_ms > 0 && age < CLOCK_TIMEOUT;
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            recent.then_some((*node, known.clock_ms.saturating_add(age_ms)))
        };
        inner.nodes.iter().filter_map(clock).collect()
    }

    /// Records this node's own clock beside the agreed time.
    pub(crate) fn record_own_clock(&self, own_ms: u64, agreed_ms: u64, bound: Duration) {
        let mut inner = self.inner.lock();
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        inner.own_clock.record(0, agreed_ms, Duration::ZERO);
        inner.own_difference = inner.own_clock.difference(own_ms, Duration::ZERO, bound_ms);
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

    /// Records why a table is not ready; `None` when it is ready.
    pub(crate) fn record_table_error(&self, table: TableId, error: Option<String>) {
        let errors = &mut self.inner.lock().table_errors;
        match error {
            Some(error) => drop(errors.insert(table, error)),
            None => drop(errors.remove(&table)),
        }
    }

    /// Records the outcome of a connection to a node; `None`: it succeeded.
    pub(crate) fn record_probe(&self, node: NodeId, error: Option<String>, now: Instant) {
        let unreachable = &mut self.inner.lock().unreachable;
        match error {
            Some(error) => unreachable.entry(node).or_insert((now, String::new())).1 = error,
            None => drop(unreachable.remove(&node)),
        }
    }

    /// Records the outcome of a garbage collection pass over all tables.
    pub(crate) fn record_garbage(
        &self,
        outcome: Result<&v1::GarbageReport, &Refusal>,
        now: Instant,
    ) {
        let mut inner = self.inner.lock();
        match outcome {
            Ok(report) => {
                inner.garbage_failing = None;
                inner.garbage_unreadable.clone_from(&report.unreadable_manifests);
                inner.garbage_unreadable.truncate(MAX_UNREADABLE);
            }
            Err(error) => {
                let since = inner.garbage_failing.as_ref().map_or(now, |(since, _)| *since);
                inner.garbage_failing = Some((since, error.to_string()));
            }
        }
    }

    /// Records the operations on tables that are in progress; returns the age of each.
    pub(crate) fn record_operations(
        &self,
        current: &BTreeSet<TableOperation>,
        now: Instant,
    ) -> BTreeMap<TableOperation, Duration> {
        let known = &mut self.inner.lock().operations;
        known.retain(|operation, _| current.contains(operation));
        let age = |operation: &TableOperation| {
            let begun = *known.entry(*operation).or_insert(now);
            (*operation, now.saturating_duration_since(begun))
        };
        current.iter().map(age).collect()
    }

    /// Records the current problems; returns those that have lasted for their grace. `time_ms`:
    /// replicated time, 0 while it is unknown.
    pub(crate) fn record_problems(
        &self,
        current: Vec<Problem>,
        now: Instant,
        time_ms: u64,
    ) -> Vec<LastingProblem> {
        self.inner.lock().history.record(current, now.into_std(), time_ms)
    }

    /// Returns a frozen copy of the observations at `now`. `creating` are the groups in state creating;
    /// their age counts from the first call that names them.
    pub(crate) fn snapshot(&self, creating: &[GroupId], now: Instant) -> ObservedCluster {
        let mut inner = self.inner.lock();
        inner.creating.retain(|group, _| creating.contains(group));
        for group in creating {
            inner.creating.entry(*group).or_insert(now);
        }
        inner.changed.retain(|_, (_, at)| now.duration_since(*at) < REPORT_WAIT);
        let age = |at: &Instant| now.duration_since(*at);
        let mut observed = ObservedCluster {
            leading_for: inner.leading_since.as_ref().map_or(Duration::ZERO, age),
            groups: inner.groups.clone(),
            reported_for: inner.reported.iter().map(|(id, at)| (*id, age(at))).collect(),
            creating_for: inner.creating.iter().map(|(id, at)| (*id, age(at))).collect(),
            changed: inner.changed.iter().map(|(id, (at, _))| (*id, *at)).collect(),
            quiet_for: inner.registered_at.as_ref().map_or(Duration::ZERO, age),
            table_errors: inner.table_errors.clone(),
            own_difference: inner.own_difference,
            unreachable: inner
                .unreachable
                .iter()
                .map(|(id, (at, error))| (*id, (age(at), error.clone())))
                .collect(),
            garbage: ObservedGarbage {
                failing: inner.garbage_failing.as_ref().map(|(at, text)| (age(at), text.clone())),
                unreadable: inner.garbage_unreadable.clone(),
            },
            ..ObservedCluster::default()
        };
        for (id, known) in &inner.nodes {
            if let Some(at) = &known.at {
                observed.silent_for.insert(*id, age(at));
            }
            for (group, replica) in &known.hosted {
                observed.hosted_for.insert((*id, *group), age(&replica.since));
                observed.last_log.insert((*id, *group), replica.last_log);
                if !known.leads.contains(group) {
                    observed.followers.insert((*id, *group));
                }
            }
            if known.beats {
                observed.beating.insert(*id);
            }
            if !known.conditions.is_empty() {
                observed.conditions.insert(*id, known.conditions.clone());
            }
            let hooks: Vec<_> = known.hooks.iter().filter(is_out_of_order).cloned().collect();
            if !hooks.is_empty() {
                observed.hooks.insert(*id, hooks);
            }
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
    let typed = request.conditions.iter().take(MAX_CONDITIONS);
    typed.map(|condition| Problem::reported(node, condition)).collect()
}

/// Returns whether a node does not call a hook although it is not paused.
fn is_out_of_order(hook: &&v1::HookReport) -> bool {
    matches!(hook.state(), v1::HookState::Suspended | v1::HookState::Broken)
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
        self.reported.insert(id, now);
        let known = self.groups.insert(id, group.clone());
        known != Some(group)
    }

    /// Returns whether a known report counts more than a later one: another node leads in a later term,
    /// and has not reported since that it does not lead.
    fn outranks(&self, id: GroupId, known: &ObservedGroup, later: &ObservedGroup) -> bool {
        let leads = self.nodes.get(&known.leader).is_some_and(|node| node.leads.contains(&id));
        known.leader != later.leader && known.term > later.term && leads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(group_id: u64, term: u64, leader: u64, voters: &[u64]) -> v1::GroupReport {
        let voters = voters.to_vec();
        v1::GroupReport { group_id, term, leader, voters, ..v1::GroupReport::default() }
    }

    fn heartbeat(node_id: u64, groups: Vec<v1::GroupReport>) -> v1::HeartbeatRequest {
        v1::HeartbeatRequest { node_id, groups, ..v1::HeartbeatRequest::default() }
    }

    #[test]
    fn report_of_a_deposed_leader_is_ignored() {
        let observations = Observations::default();
        let now = Instant::now();
        let record = |node, group_report| {
            observations.record_heartbeat(&heartbeat(node, vec![group_report]), now);
        };
        record(102, report(1, 5, 102, &[101, 102]));
        record(101, report(1, 4, 101, &[101]));
        assert_eq!(observations.leader_of(GroupId(1)), Some(NodeId(102)));
        // Reports of followers are ignored, too.
        record(103, report(1, 9, 101, &[101]));
        let observed = observations.snapshot(&[], now);
        assert_eq!(observed.groups[&GroupId(1)].term, Term(5));
        record(101, report(1, 6, 101, &[101]));
        assert_eq!(observations.leader_of(GroupId(1)), Some(NodeId(101)));
    }

    // A forged or mistaken report must not stay for good.
    #[test]
    fn own_later_report_of_a_leader_counts() {
        let observations = Observations::default();
        let now = Instant::now();
        let record = |node, group_report| {
            observations.record_heartbeat(&heartbeat(node, vec![group_report]), now);
        };
        let observed = || observations.snapshot(&[], now).groups[&GroupId(1)].clone();
        record(101, report(1, 900, 101, &[101]));
        record(101, report(1, 5, 101, &[101, 102]));
        assert_eq!((observed().term, observed().voters.len()), (Term(5), 2));
        // Another node in a later term, until that node itself reports that it follows.
        record(102, report(1, 900, 102, &[102]));
        record(101, report(1, 5, 101, &[101, 102]));
        assert_eq!(observed().leader, NodeId(102));
        record(102, report(1, 5, 101, &[]));
        record(101, report(1, 5, 101, &[101, 102]));
        assert_eq!((observed().leader, observed().term), (NodeId(101), Term(5)));
        assert!(observations.snapshot(&[], now).followers.contains(&(NodeId(102), GroupId(1))));
    }

    #[test]
    fn observations_start_empty_in_a_new_term() {
        let observations = Observations::default();
        let begun = Instant::now();
        observations.restart(begun);
        observations.record_heartbeat(&heartbeat(101, vec![report(1, 5, 101, &[101])]), begun);
        observations.record_table_error(TableId(1), Some("no".into()));
        let later = begun + Duration::from_secs(9);
        let observed = observations.snapshot(&[], later);
        assert_eq!(observed.silent_for[&NodeId(101)], Duration::from_secs(9));
        observations.restart(later);
        let observed = observations.snapshot(&[], later + Duration::from_secs(1));
        assert_eq!(observed.leading_for, Duration::from_secs(1));
        assert!(observed.silent_for.is_empty() && observed.groups.is_empty());
        assert!(observed.hosted_for.is_empty() && observed.table_errors.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn agreement_of_clocks_is_awaited_in_each_term() {
        let observations = Observations::default();
        let limit = Duration::from_secs(5);
        let waited = async || {
            let begun = Instant::now();
            observations.wait_for_agreement(limit).await;
            begun.elapsed()
        };
        assert_eq!(waited().await, limit, "no clock is known");
        let agreeing = async {
            tokio::time::sleep(limit / 5).await;
            observations.record_agreement();
        };
        let (first, ()) = tokio::join!(waited(), agreeing);
        assert_eq!((first, waited().await), (limit / 5, Duration::ZERO));
        observations.restart(Instant::now());
        assert_eq!(waited().await, limit);
    }

    #[test]
    fn loads_outlive_a_jump_of_time() {
        let observations = Observations::default();
        let now = Instant::now();
        assert!(observations.may_expire_loads(now));
        observations.record_jump(now);
        let soon = Duration::from_secs(1);
        assert!(!observations.may_expire_loads(now + LOADER_RETURN - soon));
        assert!(observations.may_expire_loads(now + LOADER_RETURN));
        observations.restart(now);
        assert!(observations.may_expire_loads(now));
    }

    #[test]
    fn clocks_age_until_they_are_too_old() {
        let observations = Observations::default();
        let now = Instant::now();
        let sent = v1::HeartbeatRequest { clock_ms: 1_000, ..heartbeat(101, vec![]) };
        observations.record_heartbeat(&sent, now);
        // An older release sends no clock.
        observations.record_heartbeat(&heartbeat(102, vec![]), now);
        let at = |seconds| observations.clocks(now + Duration::from_secs(seconds));
        assert_eq!(at(3), BTreeMap::from([(NodeId(101), 4_000)]));
        assert_eq!(at(4), BTreeMap::new());
    }

    #[test]
    fn observations_of_unknown_nodes_are_removed() {
        let observations = Observations::default();
        let now = Instant::now();
        for node in [101, 102] {
            observations.record_heartbeat(&heartbeat(node, vec![]), now);
        }
        observations.retain_nodes(|node| node == NodeId(101));
        assert_eq!(observations.hooks().into_keys().collect::<Vec<_>>(), [NodeId(101)]);
        assert_eq!(observations.snapshot(&[], now).silent_for.len(), 1);
    }

    // Otherwise the node would count as silent since the start of the term.
    #[test]
    fn registered_node_is_alive_before_its_first_heartbeat() {
        let observations = Observations::default();
        let begun = Instant::now();
        observations.restart(begun);
        let later = begun + Duration::from_secs(60);
        observations.record_registration(NodeId(104), false, later);
        let observed = observations.snapshot(&[], later);
        assert_eq!(observed.silent_for, BTreeMap::from([(NodeId(104), Duration::ZERO)]));
        assert_eq!(observed.quiet_for, Duration::from_secs(60), "no data node has registered");
    }

    #[test]
    fn compactors_are_listed_until_their_heartbeat_timeout() {
        let observations = Observations::default();
        let begun = Instant::now();
        let load = v1::CompactorLoad { slots: 2, ..v1::CompactorLoad::default() };
        let beat = v1::HeartbeatRequest { compactor: Some(load.clone()), ..heartbeat(104, vec![]) };
        observations.record_heartbeat(&beat, begun);
        observations.record_heartbeat(&heartbeat(101, vec![]), begun);
        assert_eq!(observations.compactors(begun), BTreeMap::from([(NodeId(104), load.clone())]));
        let soon = begun + COMPACTOR_TIMEOUT / 2;
        let later = begun + COMPACTOR_TIMEOUT;
        assert_eq!(observations.compactors(soon).len(), 1);
        assert!(observations.compactors(later).is_empty());
        let busy = v1::CompactorLoad { jobs: 2, ..load.clone() };
        let beat = v1::HeartbeatRequest { compactor: Some(busy.clone()), ..beat };
        observations.record_heartbeat(&beat, soon);
        assert_eq!(observations.compactors(later)[&NodeId(104)], busy);
        observations.retain_nodes(|node| node == NodeId(101));
        assert!(observations.compactors(soon).is_empty());
    }

    #[test]
    fn conditions_of_older_releases_are_taken_as_text() {
        let observations = Observations::default();
        let now = Instant::now();
        let texts = vec!["its disk is full".to_owned(), "its clock differs".to_owned()];
        let beat = v1::HeartbeatRequest { problems: texts, ..heartbeat(101, vec![]) };
        let seen = |request: &v1::HeartbeatRequest| {
            observations.record_heartbeat(request, now);
            let observed = observations.snapshot(&[], now);
            assert!(observed.beating.contains(&NodeId(101)));
            observed.conditions.get(&NodeId(101)).cloned().unwrap_or_default()
        };
        let text = "node 101: its disk is full; its clock differs";
        let expected = Problem::new(v1::ProblemKind::Reported, text).of_node(NodeId(101));
        assert_eq!(seen(&beat), [expected]);
        let condition = v1::NodeCondition {
            kind: v1::ProblemKind::DiskFull.into(),
            age_ms: 2_000,
            detail: "full".into(),
            ..v1::NodeCondition::default()
        };
        let conditions = vec![condition; 2 * MAX_CONDITIONS];
        let seen_now = seen(&v1::HeartbeatRequest { conditions, ..beat });
        assert_eq!(seen_now.len(), MAX_CONDITIONS);
        let expected = Problem::new(v1::ProblemKind::DiskFull, "node 101: full")
            .of_node(NodeId(101))
            .lasting(Duration::from_secs(2));
        assert_eq!(seen_now[0], expected);
        assert_eq!(seen(&heartbeat(101, vec![])), []);
    }

    #[test]
    fn failures_of_connections_and_passes_keep_their_begin() {
        let observations = Observations::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        observations.record_heartbeat(&heartbeat(101, vec![]), begin);
        let fail = |second, error: &str| {
            observations.record_probe(NodeId(101), Some(error.to_owned()), at(second));
            let refusal = Refusal::new(v1::Reason::Unavailable, error);
            observations.record_garbage(Err(&refusal), at(second));
        };
        fail(1, "a");
        fail(2, "b");
        let observed = observations.snapshot(&[], at(4));
        let failing = (Duration::from_secs(3), "b".to_owned());
        assert_eq!(observed.unreachable[&NodeId(101)], failing);
        assert_eq!(observed.garbage.failing.map(|(age, _)| age), Some(failing.0));
        observations.record_probe(NodeId(101), None, at(5));
        let manifest = v1::UnreadableManifest { region_id: 7, ..Default::default() };
        let unreadable_manifests = vec![manifest];
        let report = v1::GarbageReport { unreadable_manifests, ..Default::default() };
        observations.record_garbage(Ok(&report), at(5));
        let observed = observations.snapshot(&[], at(6));
        assert!(observed.unreachable.is_empty() && observed.garbage.failing.is_none());
        assert_eq!(observed.garbage.unreadable.len(), 1);
        observations.record_garbage(Ok(&v1::GarbageReport::default()), at(7));
        assert!(observations.snapshot(&[], at(8)).garbage.unreadable.is_empty());
    }

    #[test]
    fn age_of_an_operation_counts_from_its_first_observation() {
        let observations = Observations::default();
        let begin = Instant::now();
        let operation = (TableId(1), v1::TableState::Active, 1);
        let later = (TableId(1), v1::TableState::Active, 2);
        let ages = |operations: &[TableOperation], second: u64| -> Vec<u64> {
            let current = operations.iter().copied().collect();
            let now = begin + Duration::from_secs(second);
            let ages = observations.record_operations(&current, now);
            ages.values().map(Duration::as_secs).collect()
        };
        assert_eq!(ages(&[operation], 0), [0]);
        assert_eq!(ages(&[operation], 7), [7]);
        assert_eq!(ages(&[later], 8), [0], "the next operation on the table");
        assert_eq!(ages(&[], 9), [0; 0]);
    }

    #[test]
    fn membership_after_a_step_is_kept_until_its_timeout() {
        let observations = Observations::default();
        let now = Instant::now();
        let at = (Term(2), LogIndex(7));
        observations.record_membership(GroupId(1), at, now);
        let soon = now + REPORT_WAIT / 2;
        assert_eq!(observations.snapshot(&[], soon).changed.get(&GroupId(1)), Some(&at));
        assert!(observations.snapshot(&[], now + REPORT_WAIT).changed.is_empty());
    }

    #[test]
    fn report_age_counts_from_the_leaders_last_report() {
        let observations = Observations::default();
        let start = Instant::now();
        let record = |node, group_report, after: u64| {
            let at = start + Duration::from_secs(after);
            observations.record_heartbeat(&heartbeat(node, vec![group_report]), at);
        };
        let age = |after: u64| {
            let observed = observations.snapshot(&[], start + Duration::from_secs(after));
            observed.reported_for.get(&GroupId(1)).map(Duration::as_secs)
        };
        assert_eq!(age(0), None);
        record(101, report(1, 2, 101, &[]), 0);
        assert_eq!(age(5), Some(5));
        // A repeated report resets the age; reports of a follower or an old leader do not.
        record(101, report(1, 2, 101, &[]), 5);
        record(102, report(1, 1, 102, &[]), 7);
        record(101, report(1, 2, 0, &[]), 8);
        assert_eq!(age(9), Some(4));
        assert_eq!(observations.leader_of(GroupId(1)), Some(NodeId(101)));
        record(102, report(1, 3, 102, &[]), 9);
        assert_eq!((age(9), observations.leader_of(GroupId(1))), (Some(0), Some(NodeId(102))));
    }
}
