//! Evaluation of the problems: at intervals, so that their begin is known and the metrics are current, and
//! for each status.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::problem::{LastingProblem, Problem};
use tidewater_common::problems::ProcessProblems;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{GroupState, Reason};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{ClusterKnowledge, find_problems, members, tables};
use crate::group::MetaGroup;
use crate::leader::Observations;
use crate::leader::clocks::{KnownClocks, announced_ms, differing};
use crate::meters;

/// Interval between evaluations.
const INTERVAL: Duration = Duration::from_secs(1);

/// The cluster's problems as this node knows them while it leads the meta group.
#[derive(Debug)]
pub(crate) struct ProblemWatch {
    pub(crate) group: Arc<MetaGroup>,
    pub(crate) observations: Arc<Observations>,
    /// Problems of this node's process.
    pub(crate) of_process: ProcessProblems,
    /// Time without a heartbeat or a report after which a node or a leader counts as silent.
    pub(crate) failure_timeout: Duration,
}

impl ProblemWatch {
    /// Returns the problems that have lasted for their grace. Meaningful only on the leader. Takes time for
    /// every node and group, off the runtime's threads.
    ///
    /// # Errors
    /// The evaluation failed: the problems are unknown.
    pub(crate) async fn find(self: &Arc<Self>) -> Result<Vec<LastingProblem>, Refusal> {
        let this = Arc::clone(self);
        let found = spawn_blocking(move || this.current(Instant::now())).await;
        found.map_err(|error| {
            let text = format!("the problems of the cluster were not evaluated: {error}");
            Refusal::new(Reason::Internal, text)
        })
    }

    /// Evaluates the problems at a time. Takes time for every node and group.
    pub(crate) fn current(&self, now: Instant) -> Vec<LastingProblem> {
        let state = self.group.view.read();
        let creating: Vec<GroupId> = state
            .groups()
            .filter(|group| group.state == GroupState::Creating)
            .map(|group| group.id)
            .collect();
        let operations = self.observations.record_operations(&tables::operations(&state), now);
        let observed = self.observations.snapshot(&creating, now);
        let clocks = self.observations.clocks(now);
        let known_clocks = KnownClocks::new(&state, &clocks, self.group.clock.now_ms());
        let agreed_ms = known_clocks.agreed_ms(state.header().time_ms);
        let differing = differing(&clocks, agreed_ms, self.group.max_clock_difference);
        let known = ClusterKnowledge {
            state: &state,
            observed: &observed,
            members: &self.group.member_health(),
            leader: self.group.node_id,
            of_process: &self.own_problems(),
            differing_clocks: &differing.into_iter().map(NodeId).collect::<Vec<_>>(),
            operations: &operations,
            failure_timeout: self.failure_timeout,
        };
        let problems = find_problems(&known);
        self.observations.record_problems(problems, now, announced_ms(state.header().time_ms))
    }

    /// Returns the problems of this node's process and disk, also while it does not lead. Their details do not name the
    /// node.
    pub(crate) fn own_problems(&self) -> Vec<Problem> {
        let disk = members::unusable_disk(&self.group.health.borrow());
        self.of_process.list().into_iter().chain(disk).collect()
    }

    /// Evaluates the problems at intervals while this node leads, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut led = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let leads = self.group.leading().is_some();
            if leads {
                match self.find().await {
                    Ok(problems) => meters::set_problems(&problems),
                    Err(error) => tracing::error!(%error, "please report this"),
                }
            } else if led {
                meters::set_problems(&[]);
            }
            led = leads;
        }
    }
}
