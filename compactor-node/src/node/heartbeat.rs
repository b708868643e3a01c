//! Heartbeats to the meta service: liveness, load and hook status of the node. They continue while
//! the node drains: otherwise owners would consider it dead and its jobs lost.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::{Clock, ClockDifference};
use tidewater_common::feature_level::Release;
use tidewater_common::problem::{Problem, ProblemHistory};
use tidewater_common::problems::ProcessProblems;
use tidewater_proto::v1::{HeartbeatRequest, NodeCondition, NodeRole, ProblemKind, Reason};
use tidewater_rpc::MetaLink;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::hooks;
use crate::context::CompactorContext;

/// Periodic sender of heartbeats.
pub(super) struct HeartbeatLoop {
    pub(super) context: Arc<CompactorContext>,
    pub(super) link: MetaLink,
    pub(super) address: String,
    /// Problems of the process.
    pub(super) problems: ProcessProblems,
    /// Begin of the node's problems.
    pub(super) history: Mutex<ProblemHistory>,
    pub(super) interval: Duration,
    /// Notified to send a heartbeat immediately.
    pub(super) beat_now: Arc<Notify>,
}

impl HeartbeatLoop {
    /// Runs until the node closes or is removed from the cluster.
    pub(super) async fn run(self, closing: CancellationToken, fail: watch::Sender<Option<String>>) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reachable = true;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = self.beat_now.notified() => {}
                _ = ticks.tick() => {}
            }
            self.context.handles.lock().expire(Instant::now());
            self.context.sets.forget_unused(Instant::now());
            self.context.observe();
            let request = self.request().await;
            let reply = tokio::select! {
                () = closing.cancelled() => return,
                reply = self.link.heartbeat(&request) => reply,
            };
            match reply {
                Ok(reply) => {
                    self.context.clock.record(reply.replicated_ms, reply.clocks_ms);
                    if !reachable {
                        info!("meta service accepts heartbeats again");
                    }
                    reachable = true;
                }
                Err(problem) if is_final(problem.reason) => {
                    fail.send_replace(Some(format!(
                        "this node is no longer part of the cluster: {problem}"
                    )));
                    closing.cancelled().await;
                    return;
                }
                Err(problem) if reachable => {
                    reachable = false;
                    warn!(
                        tried = self.link.addresses().join(", "),
                        reason = ?problem.reason,
                        %problem,
                        "meta service does not accept this node's heartbeats"
                    );
                }
                Err(problem) => debug!(%problem, "heartbeat failed"),
            }
        }
    }

    async fn request(&self) -> HeartbeatRequest {
        let load = self.context.load().await;
        let mut current = self.problems.list();
        current.extend(node_problems(self.context.clock.check().err(), load.disk_free_bytes));
        let now = Instant::now().into_std();
        let lasting = self.history.lock().record(current, now, 0);
        let lasting: Vec<Problem> = lasting.into_iter().map(Problem::from).collect();
        HeartbeatRequest {
            cluster_id: self.context.cluster.to_string(),
            node_id: self.context.node.get(),
            role: NodeRole::Compactor.into(),
            address: self.address.clone(),
            problems: lasting.iter().map(|problem| problem.detail.clone()).collect(),
            conditions: lasting.iter().map(NodeCondition::from).collect(),
            clock_ms: self.context.clock.wall_ms(),
            hooks: hooks::reports(self.context.sets.status()),
            compactor: Some(load),
            groups: Vec::new(),
            // A compactor is a new node at each start.
            boot: 0,
            release: Some((&Release::own()).into()),
        }
    }
}

/// Returns whether the cluster accepts no more heartbeats of this process.
fn is_final(reason: Reason) -> bool {
    matches!(reason, Reason::NodeRemoved | Reason::ReleaseUnsupported)
}

/// Returns the problems of the node; `difference`: of its clock; `room`: free bytes of a local object store.
fn node_problems(difference: Option<ClockDifference>, room: Option<u64>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(difference) = difference {
        let detail = format!(
            "its clock is {difference}: it accepts no jobs until the clock is synchronized (NTP)"
        );
        problems.push(Problem::new(ProblemKind::ClockDiffers, detail));
    }
    if room == Some(0) {
        let detail =
            "the disk of the object store is full: no jobs are accepted until there is room";
        problems.push(Problem::new(ProblemKind::DiskFull, detail));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_clock_and_full_store_are_problems() {
        let kinds = |difference, room| -> Vec<ProblemKind> {
            node_problems(difference, room).into_iter().map(|problem| problem.kind).collect()
        };
        let difference =
            ClockDifference { difference_ms: 3_600_000, bound_ms: 600_000, since_ms: 1 };
        assert_eq!(kinds(None, None), []);
        assert_eq!(kinds(None, Some(1)), []);
        assert_eq!(kinds(None, Some(0)), [ProblemKind::DiskFull]);
        let both = [ProblemKind::ClockDiffers, ProblemKind::DiskFull];
        assert_eq!(kinds(Some(difference), Some(0)), both);
    }
}
