//! Leader term: start, tasks and end of one term of leadership.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, NodeId, TableId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, GroupState, NodeState, meta_command::Kind};
use tidewater_raft_store::membership::JointMembershipFinisher;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::clocks::{is_jump, next_tick};
use super::garbage::GarbageOptions;
use super::plan::{PlacementOptions, PlacementStep, plan};
use super::step_failures::{FailureLevel, StepFailures};
use super::tables::unfinished;
use super::{Control, Observations, ObservedCluster, ObservedGroup, detector};
use crate::catalog::{Group, MetaState, TICK_INTERVAL_MS};
use crate::group::MetaGroup;

/// Maximum number of concurrent placement steps.
const MAX_CONCURRENT_STEPS: usize = 32;
/// Maximum number of concurrent table procedures. Separate from the steps: many tables on a node that
/// does not answer must not delay the repair of groups.
const MAX_CONCURRENT_TABLES: usize = 32;
/// Interval between checks for an unfinished membership change of group 0.
const MEMBERSHIP_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Delay after a failed attempt on one table or group.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Intervals and timeouts of the leader. Tests shorten them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaderTiming {
    /// Maximum interval between two rounds; changes start a round earlier.
    pub(crate) round: Duration,
    /// Time without a heartbeat after which a node is down.
    pub(crate) failure_timeout: Duration,
    pub(crate) placement: PlacementOptions,
    pub(crate) garbage: GarbageOptions,
}

impl LeaderTiming {
    pub(crate) fn new(
        failure_timeout: Duration,
        settle: Duration,
        replace_after: Duration,
        garbage: GarbageOptions,
    ) -> Self {
        Self {
            round: Duration::from_millis(200),
            failure_timeout,
            placement: PlacementOptions { settle, replace_after },
            garbage,
        }
    }
}

/// One term of this node as leader.
pub(crate) struct LeaderTerm {
    pub(super) term: Term,
    pub(super) group: Arc<MetaGroup>,
    pub(super) control: Arc<Control>,
    pub(super) observations: Arc<Observations>,
    timing: LeaderTiming,
    busy: Mutex<TasksInProgress>,
    failures: Mutex<StepFailures>,
    steps: Semaphore,
    tables: Semaphore,
}

/// Tasks in progress.
#[derive(Debug, Default)]
struct TasksInProgress {
    creating: bool,
    recording: bool,
    groups: BTreeSet<GroupId>,
    tables: BTreeSet<TableId>,
}

impl TasksInProgress {
    /// Registers a step; `false` when it must wait. Each group has one step at a time, and one new group
    /// is created at a time.
    fn begin(&mut self, group: Option<GroupId>) -> bool {
        match group {
            Some(group) => self.groups.insert(group),
            None => !std::mem::replace(&mut self.creating, true),
        }
    }

    /// Removes a step that has ended, with any outcome.
    fn end(&mut self, group: Option<GroupId>) {
        match group {
            Some(group) => drop(self.groups.remove(&group)),
            None => self.creating = false,
        }
    }
}

/// Starts a leader term when this node begins to lead, and ends it when the node no longer leads.
pub(crate) async fn watch_leadership(
    group: Arc<MetaGroup>,
    control: Arc<Control>,
    observations: Arc<Observations>,
    timing: LeaderTiming,
    stop: CancellationToken,
) {
    let mut current: Option<(Term, CancellationToken)> = None;
    let mut round = interval(Duration::from_millis(50));
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = round.tick() => {}
        }
        let leading = group.leading();
        if current.as_ref().map(|(term, _)| *term) == leading {
            continue;
        }
        if let Some((term, cancel)) = current.take() {
            tracing::info!(%term, "this node no longer leads the meta group");
            cancel.cancel();
        }
        if let Some(term) = leading {
            tracing::info!(%term, node = %group.node_id, "this node leads the meta group");
            observations.restart(Instant::now());
            let cancel = stop.child_token();
            let leader_term = LeaderTerm::new(
                term,
                Arc::clone(&group),
                Arc::clone(&control),
                Arc::clone(&observations),
                timing,
            );
            tokio::spawn(Arc::new(leader_term).run(cancel.clone()));
            current = Some((term, cancel));
        }
    }
    if let Some((_, cancel)) = current {
        cancel.cancel();
    }
}

impl LeaderTerm {
    pub(crate) fn new(
        term: Term,
        group: Arc<MetaGroup>,
        control: Arc<Control>,
        observations: Arc<Observations>,
        timing: LeaderTiming,
    ) -> Self {
        Self {
            term,
            group,
            control,
            observations,
            timing,
            busy: Mutex::default(),
            failures: Mutex::default(),
            steps: Semaphore::new(MAX_CONCURRENT_STEPS),
            tables: Semaphore::new(MAX_CONCURRENT_TABLES),
        }
    }

    /// Runs until `cancel`, then ends all tasks of the term.
    async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).advance_time());
        tasks.spawn(Arc::clone(&self).finish_membership_changes());
        let this = Arc::clone(&self);
        tasks.spawn(async move { this.collect_garbage(this.timing.garbage).await });
        let rounds = async {
            let mut round = interval(self.timing.round);
            round.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut revisions = self.group.view.subscribe();
            loop {
                tokio::select! {
                    _ = round.tick() => {}
                    () = self.observations.changes.notified() => {}
                    _ = revisions.changed() => {}
                }
                while tasks.try_join_next().is_some() {}
                self.run_round(&mut tasks);
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = rounds => {}
        }
        tasks.shutdown().await;
    }

    /// Bootstraps the cluster, if it is not bootstrapped yet, and advances replicated time.
    async fn advance_time(self: Arc<Self>) {
        let mut ticks = interval(Duration::from_millis(TICK_INTERVAL_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let replicated_ms = {
                let state = self.group.view.read();
                state.header().cluster_id.map(|_| state.header().time_ms)
            };
            let agreed_ms = replicated_ms.and_then(|_| self.agree_on_time(now));
            let kind = match replicated_ms {
                Some(replicated_ms) => {
                    let tick = next_tick(replicated_ms, now.duration_since(last), agreed_ms);
                    if is_jump(replicated_ms, agreed_ms) {
                        // First: no round may expire loads between.
                        self.observations.record_jump(now);
                    }
                    Kind::AdvanceTime(tick)
                }
                // No other clock is known yet, and this one may be ahead: time counts from 0 until the
                // first data node has sent its clock.
                None => {
                    let cluster_id = self.group.cluster_id.to_string();
                    Kind::Bootstrap(v1::BootstrapCluster { cluster_id, now_ms: 0 })
                }
            };
            match self.command(kind).await {
                Ok(()) => {
                    last = now;
                    if agreed_ms.is_some() {
                        self.observations.record_agreement();
                    }
                }
                Err(error) => tracing::debug!(%error, "failed to advance replicated time"),
            }
        }
    }

    /// Compares the known clocks; records the difference of this node's own clock.
    fn agree_on_time(&self, now: Instant) -> Option<u64> {
        let own_ms = self.group.clock.now_ms();
        let agreed_ms = self.group.agreed_ms(&self.observations.clocks(now))?;
        self.observations.record_own_clock(own_ms, agreed_ms, self.group.max_clock_difference);
        Some(agreed_ms)
    }

    /// Finishes membership changes of group 0: the previous leader may have failed between the two steps
    /// of a change.
    async fn finish_membership_changes(self: Arc<Self>) {
        let mut unfinished = JointMembershipFinisher::default();
        let mut ticks = interval(MEMBERSHIP_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            unfinished.finish(GroupId::META, &self.group.raft).await;
        }
    }

    /// Compares state and observations once, and starts tasks for all due work.
    fn run_round(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let (node_states, reports, steps, tables) = {
            let state = self.group.view.read();
            if state.header().cluster_id.is_none() {
                return;
            }
            let creating: Vec<GroupId> = state
                .groups()
                .filter(|group| group.state == GroupState::Creating)
                .map(|group| group.id)
                .collect();
            self.observations.retain_nodes(|node| state.node(node).is_some());
            self.failures.lock().retain_groups(|group| state.group(group).is_some());
            let observed = self.observations.snapshot(&creating, Instant::now());
            (
                detector::detect(&state, &observed, self.timing.failure_timeout),
                due_reports(&state, &observed),
                plan(&state, &observed, &self.timing.placement),
                unfinished(&state),
            )
        };
        if !node_states.is_empty() || !reports.is_empty() {
            self.start_recording(node_states, reports, tasks);
        }
        for step in steps {
            self.start_step(step, tasks);
        }
        for table in tables {
            self.start_table(table, tasks);
        }
    }

    /// Starts a task that records observations in the catalog, unless one is already running.
    fn start_recording(
        self: &Arc<Self>,
        node_states: Vec<(NodeId, NodeState)>,
        reports: Vec<Kind>,
        tasks: &mut JoinSet<()>,
    ) {
        if std::mem::replace(&mut self.busy.lock().recording, true) {
            return;
        }
        let this = Arc::clone(self);
        tasks.spawn(async move {
            for (node, to) in node_states {
                match to {
                    NodeState::Down => {
                        tracing::warn!(%node, "node is down: its heartbeats have stopped");
                    }
                    _ => tracing::info!(%node, "node is up again"),
                }
                let set = v1::SetNodeState { node_id: node.get(), state: to.into() };
                this.try_command(Kind::SetNodeState(set)).await;
            }
            for report in reports {
                this.try_command(report).await;
            }
            this.busy.lock().recording = false;
        });
    }

    fn start_step(self: &Arc<Self>, step: PlacementStep, tasks: &mut JoinSet<()>) {
        let group = step.group();
        if !self.busy.lock().begin(group) {
            return;
        }
        let this = Arc::clone(self);
        tasks.spawn(async move {
            // The permit is released before the delay, so that the delay does not block other groups.
            let result = match this.steps.acquire().await {
                Ok(_permit) => this.perform_step(step.clone()).await,
                Err(_) => return,
            };
            match result {
                Ok(()) => this.failures.lock().clear(group),
                Err(error) => {
                    this.log_failure(&step, &error);
                    sleep(RETRY_DELAY).await;
                }
            }
            this.busy.lock().end(group);
            this.observations.changes.notify_one();
        });
    }

    fn log_failure(&self, step: &PlacementStep, error: &Refusal) {
        let (in_a_row, level) = self.failures.lock().record(step.group(), error.reason);
        match level {
            FailureLevel::Info => {
                tracing::info!(?step, %error, in_a_row, "placement step deferred; planning again");
            }
            FailureLevel::Warn => {
                tracing::warn!(?step, %error, in_a_row, "placement step failed; planning again");
            }
        }
    }

    fn start_table(self: &Arc<Self>, table: TableId, tasks: &mut JoinSet<()>) {
        if !self.busy.lock().tables.insert(table) {
            return;
        }
        let this = Arc::clone(self);
        tasks.spawn(async move {
            let result = match this.tables.acquire().await {
                Ok(_permit) => this.finish_table(table).await,
                Err(_) => return,
            };
            let error = result.err().map(|error| error.to_string());
            this.observations.record_table_error(table, error.clone());
            if let Some(error) = error {
                tracing::warn!(%table, %error, "regions of a table are not ready; retrying");
                sleep(RETRY_DELAY).await;
            }
            this.busy.lock().tables.remove(&table);
            this.observations.changes.notify_one();
        });
    }

    /// Proposes a command that is valid only in this term.
    pub(crate) async fn command(&self, kind: Kind) -> Result<(), Refusal> {
        self.group.propose_in(self.term, kind).await.map(|_| ())
    }

    /// Proposes a command that records an observation. After a failure, a later round proposes it again.
    async fn try_command(&self, kind: Kind) {
        if let Err(error) = self.command(kind).await {
            tracing::debug!(%error, "failed to record an observation");
        }
    }
}

/// Returns commands for reports of group leaders that the catalog does not have yet.
fn due_reports(state: &MetaState, observed: &ObservedCluster) -> Vec<Kind> {
    let mut due = Vec::new();
    for (id, report) in &observed.groups {
        let Some(known) = state.group(*id) else { continue };
        if known.state != GroupState::Abandoned && !report.voters.is_empty() {
            due.extend(due_group_report(known, report, &observed.followers));
        }
    }
    due
}

/// Returns the command that brings a group's record in line with its leader's report, if they differ.
///
/// The term orders reports. An older report replaces the record only when the node that the record
/// names as leader has reported otherwise since: the record is wrong, and would never be replaced.
fn due_group_report(
    known: &Group,
    report: &ObservedGroup,
    followers: &BTreeSet<(NodeId, GroupId)>,
) -> Option<Kind> {
    let is_contradicted = known
        .leader
        .is_some_and(|leader| leader == report.leader || followers.contains(&(leader, known.id)));
    let is_older = report.term < known.leader_term;
    let has_older_members = report.membership < known.membership;
    let corrects = is_contradicted && report.is_settled() && (is_older || has_older_members);
    let takes_members = corrects || !has_older_members;
    let differs = known.leader != Some(report.leader)
        || known.leader_term != report.term
        || (takes_members
            && (known.membership != report.membership
                || known.voters != report.voters
                || known.learners != report.learners));
    if !differs || (is_older && !corrects) {
        return None;
    }
    Some(Kind::ReportGroup(v1::ReportGroup {
        group_id: known.id.get(),
        term: report.term.get(),
        leader: report.leader.get(),
        voters: report.voters.iter().map(|id| id.get()).collect(),
        learners: report.learners.iter().map(|id| id.get()).collect(),
        membership_term: report.membership.0.get(),
        membership_index: report.membership.1.get(),
        replaces_term: corrects.then_some(known.leader_term.get()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::{run, with_groups};
    use tidewater_common::ids::LogIndex;

    fn observed(leader: u64, term: u64, index: u64) -> ObservedGroup {
        let at = (Term(1), LogIndex(index));
        ObservedGroup {
            term: Term(term),
            leader: NodeId(leader),
            voters: BTreeSet::from([NodeId(101), NodeId(102)]),
            learners: BTreeSet::new(),
            membership: at,
            effective: Some(at),
            caught_up: BTreeSet::new(),
        }
    }

    #[test]
    fn leader_corrects_a_wrong_group_record() {
        let mut state = with_groups(3, 1);
        let group = |state: &MetaState| Group::clone(state.group(GroupId(1)).unwrap());
        let none = BTreeSet::new();
        let first = due_group_report(&group(&state), &observed(101, 5, 9), &none).unwrap();
        run(&mut state, first).unwrap();
        let known = group(&state);
        let due = |report: ObservedGroup, followers: &[(u64, u64)]| {
            let followers =
                followers.iter().map(|(node, group)| (NodeId(*node), GroupId(*group))).collect();
            match due_group_report(&known, &report, &followers) {
                Some(Kind::ReportGroup(report)) => Some(report.replaces_term),
                Some(other) => panic!("{other:?}"),
                None => None,
            }
        };
        assert_eq!(due(observed(101, 5, 9), &[]), None, "nothing differs");
        assert_eq!(due(observed(102, 6, 9), &[]), Some(None), "a new leader");
        assert_eq!(due(observed(102, 6, 3), &[]), Some(None), "one that knows older members");
        assert_eq!(due(observed(102, 4, 9), &[]), None, "a deposed leader");
        assert_eq!(due(observed(102, 4, 9), &[(103, 1)]), None);
        assert_eq!(due(observed(102, 4, 9), &[(101, 1)]), Some(Some(5)), "101 denies it");
        assert_eq!(due(observed(101, 4, 9), &[]), Some(Some(5)), "its own later report");
        assert_eq!(due(observed(101, 5, 3), &[]), Some(Some(5)), "its own later members");
        let changing = ObservedGroup { effective: None, ..observed(101, 4, 9) };
        assert!(due(changing, &[]).is_some());
    }

    #[test]
    fn group_has_one_step_at_a_time() {
        let mut busy = TasksInProgress::default();
        let one = Some(GroupId(1));
        let two = Some(GroupId(2));
        assert!(busy.begin(one) && busy.begin(two) && busy.begin(None));
        assert!(!busy.begin(one) && !busy.begin(None));
        busy.end(one);
        assert!(busy.begin(one) && !busy.begin(two));
        busy.end(None);
        assert!(busy.begin(None));
    }
}
