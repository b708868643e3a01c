//! Barrier scheduler: begins an epoch in all data groups at an interval.
//!
//! - *Epoch*: logical time of rows. Strictly increasing, also across leaders, since epochs are timestamps of the leader.
//! - *Barrier*: entry in the log of a group, from which on its rows are of the next epoch. It names the epoch before it: a
//!   delayed barrier has no effect.
//! - *Since*: oldest epoch that can be read. It follows the epochs at the distance of the history that is kept.
//!
//! A data node gets one call for all groups that it leads, and one at a time: a node or a group that hangs delays no other
//! one, and gets the newest barrier when it answers again. Nothing of a barrier in between has to be repeated.

mod known_epochs;
mod sent_epochs;
mod table_sinces;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_collections::epoch_before;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    BarrierTarget, GroupState, InjectBarrierRequest, InjectBarrierResponse, TableSince,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

pub(super) use self::known_epochs::KnownEpochs;
use self::known_epochs::epoch_at;
pub(crate) use self::sent_epochs::{ChangeInProgress, SentEpochs};
use self::table_sinces::table_sinces;
use super::leader_term::LeaderTerm;
use crate::meters;

/// Level from which on groups have epochs.
const BARRIER_LEVEL: FeatureLevel = FeatureLevel::new(5);

/// Interval of barriers, and how long epochs can be read.
#[derive(Debug, Clone, Copy)]
pub struct BarrierOptions {
    /// Time between two barriers; more than 0.
    pub interval: Duration,
    /// Time for which an epoch can be read after it has ended; 0: only the newest rows can be read.
    pub history: Duration,
}

impl BarrierOptions {
    /// Default interval.
    pub const INTERVAL: Duration = Duration::from_secs(1);
    /// Default history: files have one version of each key as soon as they are compacted.
    pub const HISTORY: Duration = Duration::ZERO;
}

impl BarrierOptions {
    /// Returns the history in milliseconds.
    pub fn history_ms(&self) -> u64 {
        u64::try_from(self.history.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for BarrierOptions {
    fn default() -> Self {
        Self { interval: Self::INTERVAL, history: Self::HISTORY }
    }
}

/// Barrier that is in progress.
#[derive(Debug, Clone, Copy)]
struct Barrier {
    epoch: Epoch,
    since: Epoch,
}

/// Call of a data node.
#[derive(Debug, Clone)]
struct BarrierCall {
    barrier: Barrier,
    groups: Vec<BarrierTarget>,
    /// Tables whose oldest readable epoch is their own.
    tables: Vec<TableSince>,
    /// False: the call is a repetition for groups that were at another epoch than expected.
    is_first: bool,
}

/// Call of a data node that has ended.
struct EndedCall {
    node: NodeId,
    call: BarrierCall,
    begun: Instant,
    answer: Result<InjectBarrierResponse, Refusal>,
}

/// State of the scheduler of a term.
#[derive(Default)]
struct Scheduler {
    since: Epoch,
    calls: JoinSet<EndedCall>,
    busy: BTreeSet<NodeId>,
}

impl LeaderTerm {
    /// Injects barriers until the term ends.
    pub(super) async fn inject_barriers(self: Arc<Self>) {
        let mut scheduler = Scheduler::default();
        let mut ticks = interval(self.timing.barriers.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => match self.next_barrier(scheduler.since).await {
                    Ok(Some(barrier)) => self.inject(&mut scheduler, barrier),
                    Ok(None) => {}
                    Err(problem) => tracing::debug!(%problem, "barrier deferred"),
                },
                Some(ended) = scheduler.calls.join_next() => {
                    if let Ok(ended) = ended {
                        self.record_call(&mut scheduler, ended);
                    }
                }
                () = self.barrier_wanted.notified() => ticks.reset_immediately(),
            }
        }
    }

    /// Allocates the next barrier; `None` below the level of barriers, and if timestamps are used up for the moment.
    async fn next_barrier(&self, since: Epoch) -> Result<Option<Barrier>, Refusal> {
        if self.group.view.read().header().feature_level < BARRIER_LEVEL {
            return Ok(None);
        }
        let timestamp = self.group.allocate_timestamps(1).await?;
        let Some(epoch) = epoch_at(timestamp) else { return Ok(None) };
        let since = since.max(epoch_before(epoch, self.timing.barriers.history_ms()));
        Ok(Some(Barrier { epoch, since }))
    }

    /// Allocates an epoch: later than those of all barriers so far, and earlier than those of the later ones.
    ///
    /// # Errors
    /// As [`MetaGroup::allocate_timestamps`](crate::group::MetaGroup::allocate_timestamps).
    pub(super) async fn allocate_epoch(&self) -> Result<Epoch, Refusal> {
        loop {
            // A millisecond has fewer epochs than timestamps.
            let timestamp = self.group.allocate_timestamps(1).await?;
            match epoch_at(timestamp) {
                Some(epoch) => return Ok(epoch),
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Sends a barrier to the leaders of all groups.
    fn inject(&self, scheduler: &mut Scheduler, barrier: Barrier) {
        scheduler.since = barrier.since;
        let led = self.led_groups();
        let targets = {
            let mut known = self.epochs.lock();
            meters::set_late_groups(known.late(&led));
            self.observations.record_lagging_groups(known.lagging(&led));
            known.targets(&led, barrier.epoch)
        };
        // In this order: a change that begins after the first line is decided as of this barrier.
        let at = self.observations.sent_epochs.send(self.term, barrier.epoch, barrier.since);
        let mut sinces = table_sinces(&self.group.view.read(), &led, at);
        meters::count_barrier();
        for (node, groups) in targets {
            if scheduler.busy.insert(node) {
                let tables = sinces.remove(&node).unwrap_or_default();
                self.send(scheduler, node, BarrierCall { barrier, groups, tables, is_first: true });
            }
        }
    }

    fn send(&self, scheduler: &mut Scheduler, node: NodeId, call: BarrierCall) {
        let (control, begun) = (self.control.clone(), Instant::now());
        scheduler.calls.spawn(async move {
            let request = InjectBarrierRequest {
                epoch: call.barrier.epoch.get(),
                since: call.barrier.since.get(),
                groups: call.groups.clone(),
                tables: call.tables.clone(),
                ..InjectBarrierRequest::default()
            };
            let answer = control.inject_barrier(node, request).await;
            EndedCall { node, call, begun, answer }
        });
    }

    /// Records the epochs of a node's groups. Groups at another epoch than expected get the barrier again, once.
    fn record_call(&self, scheduler: &mut Scheduler, ended: EndedCall) {
        let EndedCall { node, call, begun, answer } = ended;
        scheduler.busy.remove(&node);
        meters::record_barrier_call(begun.elapsed());
        let answer = match answer {
            Ok(answer) => answer,
            Err(problem) => {
                tracing::debug!(%node, %problem, "barrier not sent");
                return;
            }
        };
        let unexpected = self.epochs.lock().record(&answer.groups, call.barrier.epoch);
        self.epochs_changed.notify_waiters();
        if call.is_first && !unexpected.is_empty() {
            scheduler.busy.insert(node);
            self.send(scheduler, node, BarrierCall { groups: unexpected, is_first: false, ..call });
        }
    }

    /// The groups that take rows, and their leaders.
    fn led_groups(&self) -> Vec<(GroupId, NodeId)> {
        let view = self.group.view.read();
        let groups = view.live_groups().filter(|group| group.state != GroupState::Creating);
        groups
            .filter_map(|group| {
                let observed = self.observations.leader_of(group.id);
                observed.or(group.leader).map(|leader| (group.id, leader))
            })
            .collect()
    }
}
