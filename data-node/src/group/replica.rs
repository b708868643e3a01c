//! One replica of a data group on this node: Raft, state, regions, and the tasks around them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, OwnerEpoch, RegionId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_raft_store::types::{LogId, StoredMembership};
use tidewater_raft_store::{Confirmations, Raft, linearize};
use tidewater_region_engine::region::Phase;
use tokio::sync::mpsc;

use super::batcher::{self, BatcherHandle};
use super::entry::Outcome;
use super::hosted::Hosted;
use super::refusals;
use super::shared::Shared;
use super::state_machine::GroupStateMachine;

/// How long a replica's tasks may take to end.
const STOP: Duration = Duration::from_secs(5);

/// See the module's head.
#[derive(Debug)]
pub struct GroupReplica {
    /// Regions, replicated state, memory.
    pub shared: Arc<Shared>,
    pub(crate) raft: Raft<GroupStateMachine>,
    pub(crate) confirmations: Arc<Confirmations>,
    pub(crate) batcher: BatcherHandle,
    pub(crate) owner_requests: mpsc::Sender<crate::owner_request::OwnerRequest>,
    pub(crate) compact_requests: mpsc::Sender<crate::owner_request::CompactionRequest>,
    pub(crate) tasks: tokio_util::task::TaskTracker,
}

/// Who leads, as this replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// Current term.
    pub term: u64,
    /// The leader, when one is known.
    pub leader: Option<NodeId>,
    /// Whether it is this replica.
    pub here: bool,
}

impl GroupReplica {
    /// The group.
    pub fn group(&self) -> GroupId {
        self.shared.group
    }

    /// Who leads, as this replica sees it. A hint: only [`confirm`](Self::confirm) proves it.
    pub fn leadership(&self) -> Leadership {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        Leadership {
            term: metrics.vote.leader_id.term,
            leader: metrics.current_leader.map(NodeId),
            here: metrics.state == ServerState::Leader,
        }
    }

    /// The effective membership and where it stands in the log.
    pub fn membership(&self) -> Arc<StoredMembership> {
        self.raft.server_metrics().borrow_watched().membership_config.clone()
    }

    /// Refuses unless this replica believes that it leads.
    pub fn require_leader(&self) -> Result<(), Refusal> {
        match self.raft.as_leader() {
            Ok(_) => Ok(()),
            Err(forward) => Err(refusals::not_leader(self.group(), &forward)),
        }
    }

    /// Proves with a quorum that this replica leads, and waits until it has applied everything that
    /// was committed before: what is read afterwards is linearizable.
    pub async fn confirm(&self, limit: Duration) -> Result<(), Refusal> {
        let group = self.group();
        let confirm = async {
            linearize(&self.raft, &self.confirmations, self.shared.node)
                .await
                .map_err(|error| refusals::read_refused(group, &error))
        };
        tokio::time::timeout(limit, confirm)
            .await
            .unwrap_or_else(|_| Err(refusals::deadline("a read", group)))
    }

    /// The region, when this group serves it here.
    pub fn region(&self, region: RegionId) -> Result<Hosted, Refusal> {
        self.shared.regions.get(region).ok_or_else(|| {
            Refusal::new(
                Reason::RegionNotFound,
                format!("group {} serves no region {region}: refresh the catalog", self.group()),
            )
        })
    }

    /// Refuses a read of a region that may lack files which the log has published: they are in no
    /// replica's memory, and only the owner of this term knows that nobody was told of them.
    pub fn check_published(&self, hosted: &Hosted) -> Result<(), Refusal> {
        let own = Phase::Owning(OwnerEpoch { move_epoch: 0, term: Term(self.leadership().term) });
        if !hosted.region.lacks_published() || hosted.region.stats().phase == own {
            return Ok(());
        }
        let region = hosted.descriptor.region_id;
        let message = format!("region {region} has yet to read what was loaded into it");
        Err(Refusal::new(Reason::RegionLoading, message).retry_after(Duration::from_millis(50)))
    }

    /// Proposes an entry of one outcome and waits until it is applied here.
    pub async fn propose(&self, entry: Bytes, limit: Duration) -> Result<Outcome, Refusal> {
        let group = self.group();
        let outcomes =
            tokio::time::timeout(limit, batcher::propose_entry(group, &self.raft, entry))
                .await
                .unwrap_or_else(|_| Err(refusals::deadline("a proposal", group)))?;
        outcomes.into_iter().next().ok_or_else(|| {
            Refusal::new(Reason::Internal, format!("an entry of group {group} had no outcome"))
        })
    }

    /// Last entry in this replica's log, and last one applied.
    pub fn positions(&self) -> (LogIndex, LogIndex) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.map_or(0, |id: LogId| id.index);
        (LogIndex(metrics.last_log_index.unwrap_or(0)), LogIndex(applied))
    }

    /// Last entry that is no longer in this replica's log.
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

    /// Regions whose manifests have not been read yet.
    pub fn loading(&self) -> usize {
        let regions = self.shared.regions.all();
        regions.iter().filter(|hosted| hosted.region.stats().phase == Phase::Loading).count()
    }

    /// The other voter that has most of this leader's log; `None` when it leads alone.
    pub fn successor(&self) -> Option<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        replication
            .iter()
            .filter(|(node, _)| **node != self.shared.node.get() && voters.contains(node))
            .max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index))
            .map(|(node, _)| NodeId(*node))
    }

    /// Tasks that have not ended.
    pub fn tasks_left(&self) -> usize {
        self.tasks.len()
    }

    /// Stops the replica: queued writes are refused, proposed ones are answered as unknown, nothing
    /// is flushed.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = %self.group(), %error, "a replica did not stop cleanly");
        }
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            // A flush against a store that does not answer: nothing depends on its end.
            let left = self.tasks_left();
            tracing::warn!(group = %self.group(), left, "a replica's tasks did not end in time");
        }
        self.shared.regions.clear();
    }
}
