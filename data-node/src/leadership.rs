//! Work of a group's leader: owning regions, flushing and compacting them, committing to their
//! manifests. It starts and ends with a term.
//!
//! - *Owner*: the leader of a group for one term. It alone commits flushes to the manifests of the
//!   group's regions.
//! - *Fence*: a commit to a region's manifest in the name of a term. It keeps owners of earlier terms
//!   out and precedes every other commit of its term.
//! - *Manifest advance*: a log entry with a region's manifest version. Replicas that apply it drop the
//!   memtable rows that files hold.
//!
//! Order in each term: a quorum confirms the leadership and everything committed before is applied; the
//! owner fences a region's manifest ([`owner`]); only then does it flush. Reads and writes do not wait
//! for any of this: they are served once the term's first entry is applied.
//!
//! - [`flush_loop`]: the owner's loop; [`flush_policy`]: regions to flush now (pure).
//! - [`owner`]: the commits of one region; [`adopt`]: adoption of existing files; [`indexes`]: index
//!   builds; `routes`: seal, birth and removal of regions that are split or merged; `moves`: take-over of
//!   regions that are moved; `held_regions`: regions that wait for it too long.
//! - [`compactions`]: regions to compact, and the loop that runs the jobs.
//! - `level_raises`: raises of the group's feature level.
//! - [`housekeeping`]: work of every replica, leader or follower; [`file_check`]: missing and damaged files.

pub mod adopt;
pub mod compactions;
pub mod file_check;
pub mod flush_loop;
pub mod flush_policy;
pub mod held_regions;
pub mod housekeeping;
pub mod indexes;
mod level_raises;
mod moves;
pub mod owner;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::Term;
use tidewater_raft_store::{LeaderHistory, LeaderView, Raft, RaftHost, TypeConfig};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use self::compactions::placement::CompactionPolicy;
use self::flush_policy::FlushPolicy;
use self::held_regions::HoldLimits;
use self::owner::Owner;
use crate::compactors::Compactors;
use crate::group::refusals;
use crate::group::shared::ReplicaState;
use crate::group::state_machine::GroupStateMachine;
use crate::node_events::NodeEvents;
use crate::owner_request::{CompactionRequest, OwnerRequest};

/// Pause between attempts to confirm a new leadership.
const CONFIRM_RETRY: Duration = Duration::from_millis(100);

/// Dependencies of a replica's leadership and housekeeping tasks.
#[derive(Debug, Clone)]
pub struct OwnerContext {
    /// Regions and state.
    pub shared: Arc<ReplicaState>,
    /// The group's Raft.
    pub raft: Raft<GroupStateMachine>,
    /// When to flush.
    pub flush_policy: FlushPolicy,
    /// When and where to compact.
    pub compaction_policy: CompactionPolicy,
    /// Longest times for which regions wait for a step of their split or merge.
    pub hold_limits: HoldLimits,
    /// Compactors, and the registry of jobs.
    pub compactors: Arc<Compactors>,
    /// Receiver of calls from other replicas.
    pub host: Arc<RaftHost>,
    /// Feature level of the cluster.
    pub cluster_level: watch::Receiver<FeatureLevel>,
    /// Events of the node.
    pub events: Arc<NodeEvents>,
    /// Spawns tasks that outlive a term; the replica waits for them when it stops.
    pub tasks: TaskTracker,
}

/// Follows the group's leadership, and runs the owner's work while this replica leads. Ends with the
/// replica.
pub async fn run(
    context: OwnerContext,
    mut requests: mpsc::Receiver<OwnerRequest>,
    mut compaction_requests: mpsc::Receiver<CompactionRequest>,
) {
    let mut metrics = context.raft.server_metrics();
    let stopping = context.shared.stopping.clone();
    let mut leaders = LeaderHistory::default();
    let group = context.shared.group;
    loop {
        let now = LeaderView::new(&context.host, group, &metrics.borrow_watched());
        if let Some(change) = leaders.observe(now) {
            context.events.record_leader_change(group, change);
        }
        let led_term = now.leads.then_some(now.term);
        context.shared.set_leads(led_term.is_some());
        match led_term {
            None => tokio::select! {
                () = stopping.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
                // Not the leader: dropping the reply channel notifies the caller.
                request = requests.recv() => if request.is_none() { return },
                request = compaction_requests.recv() => if request.is_none() { return },
            },
            Some(term) => {
                info!(group = %context.shared.group, %term, "leadership acquired");
                let term_end = term_end(&mut metrics, term);
                let owner = Owner::new(context.clone(), term);
                let work = async {
                    wait_until_served(&context, term).await;
                    let loops = async {
                        tokio::join!(
                            flush_loop::run(&context, owner.clone(), &mut requests),
                            compactions::run(&context, owner.clone(), &mut compaction_requests),
                        )
                    };
                    tokio::select! {
                        ((), ()) = loops => {}
                        () = indexes::run(&context, owner.clone()) => {}
                        () = adopt::run(&context, owner.clone()) => {}
                        () = level_raises::run(&context) => {}
                        () = held_regions::run(&context, owner.clone()) => {}
                    }
                };
                tokio::select! {
                    // In this order: no work may send a request to a Raft that has ended, as that would
                    // wait for the Raft's end.
                    biased;
                    () = stopping.cancelled() => return,
                    end = term_end => if matches!(end, TermEnd::RaftStopped) { return },
                    () = work => {}
                }
                info!(group = %context.shared.group, %term, "leadership ended");
            }
        }
    }
}

/// Waits until everything committed before the term is applied. The replica serves from then on.
async fn wait_until_served(context: &OwnerContext, term: Term) {
    let group = context.shared.group;
    loop {
        let linearizer = context.raft.get_read_linearizer(openraft::ReadPolicy::ReadIndex).await;
        let problem = match linearizer {
            Ok(linearizer) => match linearizer.await_ready(&context.raft).await {
                Ok(_) => return,
                Err(fatal) => refusals::replica_stopped(group, &fatal),
            },
            Err(error) => refusals::read_error(group, &error),
        };
        debug!(%group, %term, %problem, "new leadership not confirmed yet; retrying");
        tokio::time::sleep(CONFIRM_RETRY).await;
    }
}

type ServerMetrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;

/// Reason why a term of this replica ended.
#[derive(Debug, PartialEq, Eq)]
enum TermEnd {
    /// The replica no longer leads in this term.
    LeadershipLost,
    /// The group's Raft has stopped permanently. Its last metrics, which name this replica leader, are
    /// void.
    RaftStopped,
}

/// Resolves when this replica no longer leads in `term`.
async fn term_end(metrics: &mut ServerMetrics, term: Term) -> TermEnd {
    loop {
        if metrics.changed().await.is_err() {
            return TermEnd::RaftStopped;
        }
        let now = metrics.borrow_watched();
        if now.state != ServerState::Leader || now.vote.leader_id.term != term.get() {
            return TermEnd::LeadershipLost;
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::async_runtime::WatchSender;
    use openraft::type_config::TypeConfigExt;

    use super::*;

    fn leading(term: u64) -> RaftServerMetrics<TypeConfig> {
        RaftServerMetrics {
            state: ServerState::Leader,
            id: 1,
            vote: tidewater_raft_store::types::Vote::new_committed(term, 1),
            current_leader: Some(1),
            membership_config: Arc::default(),
            committed_membership_config: Arc::default(),
        }
    }

    #[tokio::test]
    async fn term_ends_with_its_leadership_or_its_raft() {
        let (sender, mut metrics) = TypeConfig::watch_channel(leading(3));
        let follows = RaftServerMetrics { state: ServerState::Follower, ..leading(3) };
        for later in [leading(4), follows] {
            sender.send(leading(3)).unwrap();
            sender.send(later).unwrap();
            assert_eq!(term_end(&mut metrics, Term(3)).await, TermEnd::LeadershipLost);
        }
        // The last metrics of a stopped Raft may still name this replica leader.
        sender.send(leading(3)).unwrap();
        drop(sender);
        assert_eq!(term_end(&mut metrics, Term(3)).await, TermEnd::RaftStopped);
    }
}
