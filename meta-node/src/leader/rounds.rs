//! Rounds of the planner: comparison of the catalog with the observations, off the runtime's threads.
//!
//! A round takes time for every node and group. It reads a frozen state and a copy of the observations:
//! commands and heartbeats do not wait for it.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1::{GroupState, HotspotMode, ObservedNode, ReportGroup};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::ObservedCluster;
use super::detector;
use super::hotspots::{cold_routes, find_hotspots, is_settled, next_step};
use super::leader_term::LeaderTerm;
use super::member_states;
use super::placement_step::PlacementStep;
use super::plan::plan;
use super::recording::due_reports;
use super::route_balance::{LoadLimits, plan_moves};
use crate::catalog::MetaState;
use crate::meters;

/// Pause after a round, as a multiple of its time: under a steady load of commands, a planner whose rounds take
/// up to 50 ms uses at most a fifth of one processor.
const PAUSE_FACTOR: u32 = 4;
/// Maximum pause: a longer round must not delay the next one for long.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Interval between plans of moves while routes are moved.
const MOVING_PAUSE: Duration = Duration::from_secs(2);
/// Interval between plans of moves while none is due: with 100,000 routes, one takes a part of a second.
const SETTLED_PAUSE: Duration = Duration::from_secs(10);

/// Work that a round has found.
#[derive(Debug, Default)]
struct RoundDecisions {
    node_states: Vec<ObservedNode>,
    reports: Vec<ReportGroup>,
    steps: Vec<PlacementStep>,
}

impl LeaderTerm {
    /// Makes a round whenever something may need one.
    pub(super) async fn plan_rounds(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        loop {
            self.replan.notified().await;
            while tasks.try_join_next().is_some() {}
            let this = Arc::clone(&self);
            let decided = spawn_blocking(move || {
                let begun = Instant::now();
                let decisions = this.decide_round(begun);
                (decisions, begun.elapsed())
            });
            let (decisions, taken) = match decided.await {
                Ok(decided) => decided,
                Err(error) if error.is_panic() => {
                    tracing::error!(%error, "a round of the planner failed; please report it");
                    sleep(MAX_PAUSE).await;
                    self.replan.notify_one();
                    continue;
                }
                // The runtime is shutting down.
                Err(_) => return,
            };
            meters::record_round(taken);
            self.start_decided(decisions, &mut tasks);
            sleep((taken * PAUSE_FACTOR).min(MAX_PAUSE)).await;
        }
    }

    /// Compares state and observations once.
    fn decide_round(&self, now: Instant) -> RoundDecisions {
        // Before the state: it has the effect of every step that has ended by now, and may lack that of others.
        let in_progress = self.busy.lock().subjects();
        let state = self.group.view.read();
        if state.header().cluster_id.is_none() {
            return RoundDecisions::default();
        }
        let creating: Vec<GroupId> = state
            .groups()
            .filter(|group| group.state == GroupState::Creating)
            .map(|group| group.id)
            .collect();
        self.observations.retain_loads(|group| state.group(group).is_some_and(|of| of.is_live()));
        self.observations.retain_nodes(|node| !state.is_forgotten(node));
        self.failures.lock().retain_groups(|group| !state.is_forgotten_group(group));
        self.group_permits.retain_groups(|group| !state.is_forgotten_group(group));
        self.staging_permits.retain_groups(|group| !state.is_forgotten_group(group));
        let observed = self.observations.snapshot(&creating, now);
        let mut steps = plan(&state, &observed, &self.timing.placement);
        steps.extend(self.plan_due_moves(&state, &observed, now));
        steps.retain(|step| !in_progress.contains(&step.subject()));
        let timeout = self.timing.failure_timeout;
        let mut node_states = detector::detect(&state, &observed, timeout);
        let members = self.members.lock().follow(&self.group.member_health(), now);
        node_states.extend(member_states::detect(&state, self.group.node_id, &members, timeout));
        RoundDecisions { node_states, reports: due_reports(&state, &observed), steps }
    }

    /// Plans moves of routes at intervals, since it takes time for every route.
    fn plan_due_moves(
        &self,
        state: &MetaState,
        observed: &ObservedCluster,
        now: Instant,
    ) -> Vec<PlacementStep> {
        let mut next = self.next_moves.lock();
        if next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        let steps = self.plan_route_changes(state, observed, now);
        let is_moving = state.procedures().running().any(|of| of.receiver().is_some());
        let is_busy = is_moving || !steps.is_empty() || state.balance().hotspots == HotspotMode::On;
        let pause = if is_busy { MOVING_PAUSE } else { SETTLED_PAUSE };
        // From the end: a plan may take longer than the pause.
        *next = Some(Instant::now() + pause);
        steps
    }

    /// Plans an operation on a route that its load suggests, if routes follow the load, or moves that spread the routes.
    fn plan_route_changes(
        &self,
        state: &MetaState,
        observed: &ObservedCluster,
        now: Instant,
    ) -> Vec<PlacementStep> {
        if state.balance().hotspots != HotspotMode::On {
            return plan_moves(state, observed, None);
        }
        let loads = self.observations.loads(now);
        let hotspots = find_hotspots(state, observed, &loads);
        if let Some(step) = next_step(state, &hotspots) {
            return vec![step];
        }
        let gathered = cold_routes(state, &loads);
        let is_changing = state.procedures().running().any(|of| !of.routes.is_empty());
        let is_settled = !is_changing && is_settled(state);
        plan_moves(
            state,
            observed,
            Some(&LoadLimits { nodes: &hotspots.nodes, gathered, is_settled }),
        )
    }

    /// Starts tasks for all work that a round has found.
    fn start_decided(self: &Arc<Self>, decisions: RoundDecisions, tasks: &mut JoinSet<()>) {
        let RoundDecisions { node_states, reports, steps } = decisions;
        if !node_states.is_empty() || !reports.is_empty() {
            self.start_recording(node_states, reports, tasks);
        }
        for step in steps {
            self.start_step(step, tasks);
        }
    }
}
