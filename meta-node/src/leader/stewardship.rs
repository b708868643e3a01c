//! One term of leadership: what runs in it, and how it begins and ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, TableId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, GroupState, NodeState, meta_command::Kind};
use tidewater_raft_store::membership::JointMembershipFinisher;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::garbage::GarbageOptions;
use super::plan::{PlacementOptions, Step, plan};
use super::tables::unfinished;
use super::{Control, Observations, Observed, detector};
use crate::catalog::{MetaState, Node, TICK_INTERVAL_MS};
use crate::commands::is_address;
use crate::group::MetaGroup;

/// Steps of groups that run at the same time.
const STEPS: usize = 32;
/// Tables that are worked on at the same time. Apart from the steps: many tables on a node that does
/// not answer must not hold up the repair of groups.
const TABLES: usize = 32;
/// How often it is looked whether a change of group 0's members was cut off.
const MEMBERS: Duration = Duration::from_millis(500);
/// Pause after a failed attempt on one table or group.
const RETRY: Duration = Duration::from_millis(500);

/// How the leader behaves. Tests shorten the times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How often everything is looked at when there is no news.
    pub(crate) round: Duration,
    /// A node that is silent for longer is down.
    pub(crate) failure_timeout: Duration,
    pub(crate) placement: PlacementOptions,
    pub(crate) garbage: GarbageOptions,
}

impl Timing {
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
pub(crate) struct Stewardship {
    pub(super) term: Term,
    pub(super) group: Arc<MetaGroup>,
    pub(super) control: Arc<Control>,
    pub(super) observations: Arc<Observations>,
    timing: Timing,
    busy: Mutex<Busy>,
    steps: Semaphore,
    tables: Semaphore,
}

/// What has a task already.
#[derive(Debug, Default)]
struct Busy {
    creating: bool,
    recording: bool,
    groups: BTreeSet<GroupId>,
    tables: BTreeSet<TableId>,
}

impl Busy {
    /// Whether a step may begin: one at a time for each group, and one new group at a time.
    fn begin(&mut self, group: Option<GroupId>) -> bool {
        match group {
            Some(group) => self.groups.insert(group),
            None => !std::mem::replace(&mut self.creating, true),
        }
    }

    /// The step is over, whatever came of it.
    fn end(&mut self, group: Option<GroupId>) {
        match group {
            Some(group) => drop(self.groups.remove(&group)),
            None => self.creating = false,
        }
    }
}

/// Starts a stewardship whenever this node begins to lead, and ends it when it no longer does.
pub(crate) async fn watch_leadership(
    group: Arc<MetaGroup>,
    control: Arc<Control>,
    observations: Arc<Observations>,
    timing: Timing,
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
            let (group, control) = (Arc::clone(&group), Arc::clone(&control));
            let observations = Arc::clone(&observations);
            let stewardship = Stewardship::new(term, group, control, observations, timing);
            tokio::spawn(Arc::new(stewardship).run(cancel.clone()));
            current = Some((term, cancel));
        }
    }
    if let Some((_, cancel)) = current {
        cancel.cancel();
    }
}

impl Stewardship {
    pub(crate) fn new(
        term: Term,
        group: Arc<MetaGroup>,
        control: Arc<Control>,
        observations: Arc<Observations>,
        timing: Timing,
    ) -> Self {
        Self {
            term,
            group,
            control,
            observations,
            timing,
            busy: Mutex::default(),
            steps: Semaphore::new(STEPS),
            tables: Semaphore::new(TABLES),
        }
    }

    /// Runs until cancelled; all tasks end with it.
    async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).tick());
        tasks.spawn(Arc::clone(&self).finish_changes());
        let this = Arc::clone(&self);
        tasks.spawn(async move { this.collect_garbage(this.timing.garbage).await });
        let work = async {
            let mut round = interval(self.timing.round);
            round.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut revisions = self.group.view.subscribe();
            loop {
                tokio::select! {
                    _ = round.tick() => {}
                    () = self.observations.news.notified() => {}
                    _ = revisions.changed() => {}
                }
                while tasks.try_join_next().is_some() {}
                self.round(&mut tasks);
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
        tasks.shutdown().await;
    }

    /// Replicated time, and at first the cluster itself.
    async fn tick(self: Arc<Self>) {
        let mut ticks = interval(Duration::from_millis(TICK_INTERVAL_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now_ms = self.group.clock.now_ms();
            let bootstrapped = self.group.view.read().header().cluster_id.is_some();
            let kind = if bootstrapped {
                Kind::AdvanceTime(v1::AdvanceTime { now_ms })
            } else {
                let cluster_id = self.group.cluster_id.to_string();
                Kind::Bootstrap(v1::BootstrapCluster { cluster_id, now_ms })
            };
            if let Err(error) = self.command(kind).await {
                tracing::debug!(%error, "replicated time was not advanced");
            }
        }
    }

    /// The leader before may have died between the two steps of a change of group 0's members.
    async fn finish_changes(self: Arc<Self>) {
        let mut unfinished = JointMembershipFinisher::default();
        let mut looks = interval(MEMBERS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            unfinished.finish(GroupId::META, &self.group.raft).await;
        }
    }

    /// Looks at everything once, and starts tasks for what is due.
    fn round(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let (verdicts, reports, steps, tables) = {
            let state = self.group.view.read();
            if state.header().cluster_id.is_none() {
                return;
            }
            let creating: Vec<GroupId> = state
                .groups()
                .filter(|group| group.state == GroupState::Creating)
                .map(|group| group.id)
                .collect();
            self.observations.keep(|node| state.node(node).is_some());
            let observed = self.observations.observed(&creating, Instant::now());
            (
                detector::judge(&state, &observed, self.timing.failure_timeout),
                due_reports(&state, &observed),
                plan(&state, &observed, &self.timing.placement),
                unfinished(&state),
            )
        };
        if !verdicts.is_empty() || !reports.is_empty() {
            self.record(verdicts, reports, tasks);
        }
        for step in steps {
            self.start_step(step, tasks);
        }
        for table in tables {
            self.start_table(table, tasks);
        }
    }

    /// One task records all that was observed; until it is done, nothing else is recorded.
    fn record(
        self: &Arc<Self>,
        verdicts: Vec<(tidewater_common::ids::NodeId, NodeState)>,
        reports: Vec<Kind>,
        tasks: &mut JoinSet<()>,
    ) {
        if std::mem::replace(&mut self.busy.lock().recording, true) {
            return;
        }
        let this = Arc::clone(self);
        tasks.spawn(async move {
            for (node, to) in verdicts {
                match to {
                    NodeState::Down => {
                        tracing::warn!(%node, "the node sends no heartbeats: it is down")
                    }
                    _ => tracing::info!(%node, "the node is up again"),
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

    fn start_step(self: &Arc<Self>, step: Step, tasks: &mut JoinSet<()>) {
        let group = step.group();
        if !self.busy.lock().begin(group) {
            return;
        }
        let this = Arc::clone(self);
        tasks.spawn(async move {
            // The pause is nobody else's: without the permit.
            let carried_out = match this.steps.acquire().await {
                Ok(_permit) => this.carry_out(step.clone()).await,
                Err(_) => return,
            };
            if let Err(error) = carried_out {
                tracing::warn!(?step, %error, "a step of placement failed and will be planned again");
                sleep(RETRY).await;
            }
            this.busy.lock().end(group);
            this.observations.news.notify_one();
        });
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
            this.observations.table_error(table, error.clone());
            if let Some(error) = error {
                tracing::warn!(%table, %error, "a table's regions are not ready: trying again");
                sleep(RETRY).await;
            }
            this.busy.lock().tables.remove(&table);
            this.observations.news.notify_one();
        });
    }

    /// Proposes in this term.
    pub(crate) async fn command(&self, kind: Kind) -> Result<(), Refusal> {
        self.group.propose_in(self.term, kind).await.map(|_| ())
    }

    /// What is not recorded now is observed again.
    async fn try_command(&self, kind: Kind) {
        if let Err(error) = self.command(kind).await {
            tracing::debug!(%error, "an observation was not recorded");
        }
    }
}

/// What heartbeats said and the catalog does not show yet: new addresses, reports of leaders.
fn due_reports(state: &MetaState, observed: &Observed) -> Vec<Kind> {
    let mut due = Vec::new();
    for (id, address) in &observed.addresses {
        let moved = |node: &Arc<Node>| node.address != *address && node.state != NodeState::Removed;
        if state.node(*id).is_some_and(moved) && is_address(address) {
            let update = v1::UpdateNode { node_id: id.get(), address: address.clone() };
            due.push(Kind::UpdateNode(update));
        }
    }
    for (id, report) in &observed.groups {
        let Some(known) = state.group(*id) else { continue };
        let newer = report.term >= known.leader_term && report.membership >= known.membership;
        let differs = known.leader != Some(report.leader)
            || known.leader_term != report.term
            || known.membership != report.membership
            || known.voters != report.voters
            || known.learners != report.learners;
        if known.state == GroupState::Abandoned || !newer || !differs || report.voters.is_empty() {
            continue;
        }
        due.push(Kind::ReportGroup(v1::ReportGroup {
            group_id: id.get(),
            term: report.term.get(),
            leader: report.leader.get(),
            voters: report.voters.iter().map(|id| id.get()).collect(),
            learners: report.learners.iter().map(|id| id.get()).collect(),
            membership_term: report.membership.0.get(),
            membership_index: report.membership.1.get(),
        }));
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_one_step_at_a_time() {
        let mut busy = Busy::default();
        let (one, two) = (Some(GroupId(1)), Some(GroupId(2)));
        assert!(busy.begin(one) && busy.begin(two) && busy.begin(None));
        assert!(!busy.begin(one) && !busy.begin(None));
        busy.end(one);
        assert!(busy.begin(one) && !busy.begin(two));
        busy.end(None);
        assert!(busy.begin(None));
    }
}
