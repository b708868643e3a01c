//! Leader term: start, tasks and end of one term of leadership.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tidewater_cluster_events::types::LeaderChanged;
use tidewater_common::backoff::Jitter;
use tidewater_common::ids::{GroupId, NodeId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_raft_store::membership::JointMembershipFinisher;
use tidewater_raft_store::{LeaderChange, LeaderHistory, LeaderView, RaftHost};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::attempts::Attempts;
use super::barriers::{BarrierOptions, KnownEpochs};
use super::event_recording::LeaderEvents;
use super::garbage::GarbageOptions;
use super::group_permits::GroupPermits;
use super::member_states::KnownMembers;
use super::placement_tasks::TasksInProgress;
use super::plan::PlacementOptions;
use super::procedures::{OperationKey, ProcedurePhase, unfinished};
use super::step_failures::StepFailures;
use super::{Control, Observations};
use crate::group::MetaGroup;

/// Maximum number of concurrent placement steps.
const MAX_CONCURRENT_STEPS: usize = 32;
/// Maximum number of concurrent commands of procedures. No permit is held during a call to a data node: many
/// procedures on a node that does not answer must delay neither other ones nor the repair of groups.
const MAX_CONCURRENT_PROCEDURE_COMMANDS: usize = 32;
/// Interval between checks for an unfinished membership change of group 0.
const MEMBERSHIP_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Intervals and timeouts of the leader. Tests shorten them.
#[derive(Debug, Clone)]
pub(crate) struct LeaderTiming {
    /// Maximum interval between two rounds; changes start a round earlier.
    pub(crate) round: Duration,
    /// Time without a heartbeat after which a node is down.
    pub(crate) failure_timeout: Duration,
    pub(crate) placement: PlacementOptions,
    pub(crate) garbage: GarbageOptions,
    pub(crate) barriers: BarrierOptions,
    /// Spreads the retries of tables.
    pub(crate) jitter: Jitter,
}

impl LeaderTiming {
    pub(crate) fn new(
        failure_timeout: Duration,
        placement: PlacementOptions,
        garbage: GarbageOptions,
        barriers: BarrierOptions,
    ) -> Self {
        Self {
            round: Duration::from_millis(200),
            failure_timeout,
            placement,
            garbage,
            barriers,
            jitter: Jitter::system(),
        }
    }
}

/// One term of this node as leader.
pub(crate) struct LeaderTerm {
    pub(super) term: Term,
    pub(super) group: Arc<MetaGroup>,
    pub(super) control: Arc<Control>,
    pub(super) observations: Arc<Observations>,
    pub(super) timing: LeaderTiming,
    pub(super) events: LeaderEvents,
    pub(super) busy: Mutex<TasksInProgress>,
    pub(super) members: Mutex<KnownMembers>,
    /// Notified of changes that may need a round of the planner.
    pub(super) replan: Notify,
    pub(super) failures: Mutex<StepFailures>,
    /// Time of the next plan of moves of routes; `None`: the first one is due.
    pub(super) next_moves: Mutex<Option<Instant>>,
    pub(super) steps: Semaphore,
    pub(super) attempts: Mutex<Attempts<OperationKey, ProcedurePhase>>,
    pub(super) procedure_commands: Semaphore,
    pub(super) group_permits: GroupPermits,
    pub(super) staging_permits: GroupPermits,
    /// Epochs of the groups.
    pub(super) epochs: Mutex<KnownEpochs>,
    /// Notified when groups have reported their epochs.
    pub(super) epochs_changed: Notify,
    /// Notified when a barrier is wanted before the next one is due.
    pub(super) barrier_wanted: Notify,
}

/// Starts a leader term when this node begins to lead, and ends it when the node no longer leads.
pub(crate) async fn watch_leadership(
    group: Arc<MetaGroup>,
    control: Arc<Control>,
    observations: Arc<Observations>,
    timing: LeaderTiming,
    events: LeaderEvents,
    host: Arc<RaftHost>,
    stop: CancellationToken,
) {
    let mut current: Option<(Term, CancellationToken)> = None;
    let mut leaders = LeaderHistory::default();
    let mut round = interval(Duration::from_millis(50));
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = round.tick() => {}
        }
        let leading = group.leading();
        let seen = seen_leader(&group, &host, leading);
        if let Some(change) = leaders.observe(seen) {
            drop(events.recorder.record(&leader_changed(group.node_id, change)));
        }
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
                timing.clone(),
                events.clone(),
            );
            tokio::spawn(Arc::new(leader_term).run(cancel.clone()));
            current = Some((term, cancel));
        }
    }
    if let Some((_, cancel)) = current {
        cancel.cancel();
    }
}

/// Returns the leadership of group 0. `leading`: term in which this node leads and a quorum answers; the term goes on when a
/// quorum answers after a silence.
fn seen_leader(group: &MetaGroup, host: &RaftHost, leading: Option<Term>) -> LeaderView {
    let metrics = group.raft.server_metrics();
    let seen = LeaderView::new(host, GroupId::META, &metrics.borrow_watched());
    LeaderView { leads: leading == Some(seen.term), ..seen }
}

/// Returns the event of a term in which a node leads.
fn leader_changed(node: NodeId, change: LeaderChange) -> LeaderChanged {
    LeaderChanged {
        group_id: GroupId::META.get(),
        node_id: node.get(),
        former_node_id: change.former.map(NodeId::get),
        term: change.term.get(),
        cause: Some(change.cause.as_str().to_owned()),
    }
}

impl LeaderTerm {
    pub(crate) fn new(
        term: Term,
        group: Arc<MetaGroup>,
        control: Arc<Control>,
        observations: Arc<Observations>,
        timing: LeaderTiming,
        events: LeaderEvents,
    ) -> Self {
        Self {
            term,
            group,
            control,
            observations,
            timing,
            events,
            busy: Mutex::default(),
            members: Mutex::default(),
            replan: Notify::new(),
            failures: Mutex::default(),
            next_moves: Mutex::default(),
            steps: Semaphore::new(MAX_CONCURRENT_STEPS),
            attempts: Mutex::default(),
            procedure_commands: Semaphore::new(MAX_CONCURRENT_PROCEDURE_COMMANDS),
            group_permits: GroupPermits::for_calls(),
            staging_permits: GroupPermits::for_staging(),
            epochs: Mutex::default(),
            epochs_changed: Notify::new(),
            barrier_wanted: Notify::new(),
        }
    }

    /// Runs until `cancel`, then ends all tasks of the term.
    async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).advance_time());
        tasks.spawn(Arc::clone(&self).finish_membership_changes());
        tasks.spawn(Arc::clone(&self).raise_levels());
        tasks.spawn(Arc::clone(&self).continue_hook_procedures());
        tasks.spawn(Arc::clone(&self).continue_member_replacement());
        tasks.spawn(Arc::clone(&self).inject_barriers());
        tasks.spawn(Arc::clone(&self).expire_holds());
        tasks.spawn(Arc::clone(&self).learn_sinces());
        tasks.spawn(Arc::clone(&self).drop_empty_collections());
        tasks.spawn(Arc::clone(&self).manage_refreshes());
        tasks.spawn(Arc::clone(&self).manage_exports());
        tasks.spawn(Arc::clone(&self).record_shared_events());
        let this = Arc::clone(&self);
        tasks.spawn(async move { this.collect_garbage(this.timing.garbage).await });
        tasks.spawn(Arc::clone(&self).plan_rounds());
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
                self.replan.notify_one();
                self.start_due_procedures(&mut tasks);
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = rounds => {}
        }
        tasks.shutdown().await;
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

    /// Starts the attempts on procedures that are due. Takes time only for those in progress.
    fn start_due_procedures(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let state = self.group.view.read();
        let due = self.attempts.lock().begin_due(unfinished(&state), Instant::now());
        for operation in due {
            self.start_operation(operation, tasks);
        }
    }

    /// Proposes a command that is valid only in this term.
    pub(crate) async fn command(&self, kind: Kind) -> Result<(), Refusal> {
        self.group.propose_in(self.term, kind).await.map(|_| ())
    }
}
