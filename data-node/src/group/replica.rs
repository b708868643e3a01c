//! Replica of a data group on this node: Raft, state, regions, and their tasks.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{Instant as _, ServerState};
use tidewater_common::ids::{GroupId, LogIndex, NodeId, OwnerEpoch, RegionId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_raft_store::types::{LogId, StoredMembership};
use tidewater_raft_store::{Confirmations, Raft, TypeConfig, linearize};
use tidewater_region_engine::region::Phase;
use tokio::sync::mpsc;

use super::batcher::{self, BatcherHandle};
use super::entry::{EncodedEntry, EntryOutcome};
use super::hosted::HostedRegion;
use super::refusals;
use super::shared::ReplicaState;
use super::state_machine::GroupStateMachine;

/// A leader without an answer from a quorum for this time is not reported as leader.
const QUORUM_SILENCE: Duration = Duration::from_secs(3);

/// Time after which a call to a region that the group is about to serve is repeated.
const ARRIVAL_TIME: Duration = Duration::from_millis(50);

/// Time limit for a replica's tasks to end.
const STOP: Duration = Duration::from_secs(5);

/// A running replica, as held by [`Groups`](crate::groups::Groups).
#[derive(Debug)]
pub struct GroupReplica {
    /// Regions, replicated state, memory.
    pub shared: Arc<ReplicaState>,
    pub(crate) raft: Raft<GroupStateMachine>,
    pub(crate) confirmations: Arc<Confirmations>,
    pub(crate) batcher: BatcherHandle,
    pub(crate) owner_requests: mpsc::Sender<crate::owner_request::OwnerRequest>,
    pub(crate) compact_requests: mpsc::Sender<crate::owner_request::CompactionRequest>,
    pub(crate) tasks: tokio_util::task::TaskTracker,
    /// Held by the proposal of a barrier.
    pub(crate) barrier_slot: Arc<tokio::sync::Semaphore>,
}

/// Leadership of a group, as this replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// Current term.
    pub term: u64,
    /// Leader, if one is known.
    pub leader: Option<NodeId>,
    /// True if this replica leads.
    pub is_leader: bool,
}

impl Leadership {
    /// Returns the leadership in the metrics of a replica.
    pub(crate) fn of(metrics: &RaftServerMetrics<TypeConfig>) -> Self {
        Self {
            term: metrics.vote.leader_id.term,
            leader: metrics.current_leader.map(NodeId),
            is_leader: metrics.state == ServerState::Leader,
        }
    }
}

impl GroupReplica {
    /// Id of the group.
    pub fn group(&self) -> GroupId {
        self.shared.group
    }

    /// Leadership as this replica sees it. A hint: only [`confirm`](Self::confirm) proves it.
    pub fn leadership(&self) -> Leadership {
        Leadership::of(&self.raft.server_metrics().borrow_watched())
    }

    /// Returns whether a quorum has answered this leader recently.
    pub fn has_quorum(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let own = self.shared.node.get();
        let is_alone = metrics.membership_config.voter_ids().all(|id| id == own);
        let silent = metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed());
        is_alone || silent.is_some_and(|silent| silent <= QUORUM_SILENCE)
    }

    /// Effective membership and its position in the log.
    pub fn membership(&self) -> Arc<StoredMembership> {
        self.raft.server_metrics().borrow_watched().membership_config.clone()
    }

    /// Last membership that this replica knows to be committed, and its position in the log.
    pub fn committed_membership(&self) -> Arc<StoredMembership> {
        self.raft.server_metrics().borrow_watched().committed_membership_config.clone()
    }

    /// Refuses unless this replica believes that it leads.
    pub fn require_leader(&self) -> Result<(), Refusal> {
        match self.raft.as_leader() {
            Ok(_) => Ok(()),
            Err(forward) => Err(refusals::not_leader(self.group(), &forward)),
        }
    }

    /// Proves with a quorum that this replica leads, and waits until it has applied every entry
    /// committed before: a read after this call is linearizable.
    pub async fn confirm(&self, limit: Duration) -> Result<(), Refusal> {
        let group = self.group();
        let confirm = async {
            linearize(&self.raft, &self.confirmations, self.shared.node)
                .await
                .map_err(|error| refusals::read_error(group, &error))
        };
        tokio::time::timeout(limit, confirm)
            .await
            .unwrap_or_else(|_| Err(refusals::deadline_exceeded("a read", group)))
    }

    /// Returns a region if this group serves it.
    pub fn region(&self, region: RegionId) -> Result<HostedRegion, Refusal> {
        if let Some(hosted) = self.shared.regions.get(region) {
            let is_arriving = self.shared.regions.is_arriving(region);
            return if is_arriving { Err(arriving(region)) } else { Ok(hosted) };
        }
        let departure = self.shared.state.read().moves.departure(region);
        Err(match departure {
            Some(departure) => departure.refusal(region).into_refusal(),
            None => Refusal::new(
                Reason::RegionNotFound,
                format!("group {} serves no region {region}: refresh the catalog", self.group()),
            ),
        })
    }

    /// Returns the regions that serve reads of a region, in key order: itself, or the children that have replaced it.
    pub fn serving(&self, region: RegionId) -> Result<Vec<HostedRegion>, Refusal> {
        let hosted = self.shared.regions.serving(region);
        if let Some(serving) = hosted.filter(|_| !self.shared.regions.is_arriving(region)) {
            return Ok(serving);
        }
        self.region(region)?;
        let text = format!("a child of region {region} is not open yet");
        Err(Refusal::new(Reason::RegionLoading, text).retry_after(Duration::from_millis(50)))
    }

    /// Refuses a read of a region that may lack published files: no replica has them in memory, and
    /// only the owner of this term knows that no caller has received their publication's outcome.
    pub fn check_published(&self, hosted: &HostedRegion) -> Result<(), Refusal> {
        if !hosted.region.has_unrecorded_publication() {
            return Ok(());
        }
        let region = hosted.descriptor.region_id;
        let move_epoch = self.shared.move_epoch(region).unwrap_or_default();
        let term = Term(self.leadership().term);
        if hosted.region.stats().phase == Phase::Owning(OwnerEpoch { move_epoch, term }) {
            return Ok(());
        }
        let message = format!("region {region} has yet to read the files that were loaded into it");
        Err(Refusal::new(Reason::RegionLoading, message).retry_after(Duration::from_millis(50)))
    }

    /// Refuses a read as of an epoch from a region that has yet to record published files, also on the owner: the epoch may be
    /// complete, and the rows of the files are of it. Call it after the epochs of the region were read.
    pub fn check_recorded(&self, hosted: &HostedRegion) -> Result<(), Refusal> {
        if !hosted.region.has_unrecorded_publication() {
            return Ok(());
        }
        let region = hosted.descriptor.region_id;
        let message =
            format!("region {region} has yet to record the files that were loaded into it");
        Err(Refusal::new(Reason::RegionLoading, message).retry_after(Duration::from_millis(50)))
    }

    /// Proposes an entry with one outcome and waits until this replica has applied it.
    pub async fn propose(
        &self,
        entry: EncodedEntry,
        limit: Duration,
    ) -> Result<EntryOutcome, Refusal> {
        let group = self.group();
        let outcomes =
            tokio::time::timeout(limit, batcher::propose_entry(&self.shared, &self.raft, entry))
                .await
                .unwrap_or_else(|_| Err(refusals::deadline_exceeded("a proposal", group)))?;
        outcomes.into_iter().next().ok_or_else(|| {
            Refusal::new(Reason::Internal, format!("an entry of group {group} had no outcome"))
        })
    }

    /// Returns the last index in this replica's log and the last applied index.
    pub fn positions(&self) -> (LogIndex, LogIndex) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.map_or(0, |id: LogId| id.index);
        (LogIndex(metrics.last_log_index.unwrap_or(0)), LogIndex(applied))
    }

    /// Last index purged from this replica's log.
    pub fn purged(&self) -> Option<LogIndex> {
        self.raft.data_metrics().borrow_watched().purged.map(|id: LogId| LogIndex(id.index))
    }

    /// Learners that have caught up: within `lag` entries of this leader's log.
    pub fn caught_up(&self, lag: u64) -> Vec<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return Vec::new() };
        let last = metrics.last_log_index.unwrap_or(0);
        let membership = metrics.membership_config.membership();
        let learners: Vec<u64> = membership.learner_ids().collect();
        replication
            .iter()
            .filter(|(node, matched)| {
                learners.contains(node)
                    && matched.as_ref().is_some_and(|id| id.index.saturating_add(lag) >= last)
            })
            .map(|(node, _)| NodeId(*node))
            .collect()
    }

    /// The other voter with the longest log that is not excluded; `None` if there is none.
    pub fn successor(&self, excluded: &[u64]) -> Option<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        replication
            .iter()
            .filter(|(node, _)| **node != self.shared.node.get() && voters.contains(node))
            .filter(|(node, _)| !excluded.contains(node))
            .max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index))
            .map(|(node, _)| NodeId(*node))
    }

    /// Number of tasks that have not ended.
    pub fn tasks_left(&self) -> usize {
        self.tasks.len()
    }

    /// Stops the replica: queued writes are refused, proposed ones are answered as unknown,
    /// memtables are not flushed.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = %self.group(), %error, "replica did not stop cleanly");
        }
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            // A flush may wait for an unresponsive store; its completion is not required.
            let left = self.tasks_left();
            tracing::warn!(group = %self.group(), left, "replica tasks did not end in time");
        }
        self.shared.regions.clear();
    }
}

/// Returns the refusal of a call to a region that the group is about to serve.
fn arriving(region: RegionId) -> Refusal {
    let text = format!("region {region} is about to be served by this group: retry");
    Refusal::new(Reason::RouteWriteFenced, text).retry_after(ARRIVAL_TIME)
}
