//! What a replica does because it leads: own regions, flush them, advance manifests. Starts with a
//! term, ends with it.
//!
//! In this order, per term: a quorum confirms the leadership and everything committed before is
//! applied; per region, before its first commit, the manifest is fenced in this term's name
//! ([`owner`]); only then is anything flushed. Reads and writes do not wait for any of this: they
//! are served once the term's first entry is applied.
//!
//! - [`compactions`]: which regions to compact, and the loop that runs the jobs.
//! - [`pick`]: which regions to flush now (pure); [`owner`]: one region's commits; [`adopt`]: files
//!   that others wrote; [`jobs`]: the loop that runs all this; [`indexes`]: their indexes;
//!   [`housekeeping`]: what every replica does, leading or not.

pub mod adopt;
pub mod compactions;
pub mod housekeeping;
pub mod indexes;
pub mod jobs;
pub mod owner;
pub mod pick;

use std::sync::Arc;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use tidewater_common::ids::{RegionId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_raft_store::{Raft, TypeConfig};
use tidewater_region_engine::FlushReport;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::info;

use self::adopt::Adoption;
use self::compactions::CompactionRequest;
use self::compactions::choose::CompactionPolicy;
use self::owner::Owner;
use crate::compactors::Compactors;
use crate::group::shared::ReplicaState;
use crate::group::state_machine::GroupStateMachine;

/// What is asked of the owner of a group's regions.
#[derive(Debug)]
pub enum FlushRequest {
    /// Flush one region and say what came of it.
    Region(RegionId, oneshot::Sender<Result<FlushReport, Refusal>>),
    /// Flush what is large: a snapshot is due.
    Large,
    /// Flush so many bytes: a follower is short of memory.
    Free(u64),
    /// Record in the region's manifest what the log has decided.
    Settle(RegionId, oneshot::Sender<Result<(), Refusal>>),
    /// Commit `Remove` in the region's manifest.
    Remove(RegionId, oneshot::Sender<Result<(), Refusal>>),
    /// Take over files.
    Adopt(Adoption, oneshot::Sender<Result<u32, Refusal>>),
}

/// Requests that wait for the owner.
pub const REQUESTS: usize = 64;

/// What the tasks of a leader need.
#[derive(Debug, Clone)]
pub struct Context {
    /// Regions and state.
    pub shared: Arc<ReplicaState>,
    /// The group's Raft.
    pub raft: Raft<GroupStateMachine>,
    /// When to flush.
    pub policy: pick::FlushPolicy,
    /// When and where to compact.
    pub compactions: CompactionPolicy,
    /// Compactors, and the board of jobs.
    pub compactors: Arc<Compactors>,
    /// Spawns and is waited for when the replica stops.
    pub tasks: TaskTracker,
}

/// Watches who leads, and runs the owner's work while it is this replica. Ends with the replica.
pub async fn run(
    context: Context,
    mut requests: mpsc::Receiver<FlushRequest>,
    mut compact: mpsc::Receiver<CompactionRequest>,
) {
    let mut metrics = context.raft.server_metrics();
    let stopping = context.shared.stopping.clone();
    loop {
        let led = {
            let now = metrics.borrow_watched();
            (now.state == ServerState::Leader).then(|| Term(now.vote.leader_id.term))
        };
        context.shared.set_leads(led.is_some());
        match led {
            None => tokio::select! {
                () = stopping.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
                // Nobody flushes here: askers are told so by their dropped channel.
                request = requests.recv() => if request.is_none() { return },
                request = compact.recv() => if request.is_none() { return },
            },
            Some(term) => {
                info!(group = %context.shared.group, %term, "this node leads the group");
                let over = term_over(&mut metrics, term);
                let owner = Owner::new(context.clone(), term);
                let work = async {
                    jobs::wait_until_served(&context, term).await;
                    let jobs = async {
                        tokio::join!(
                            jobs::run(&context, owner.clone(), &mut requests),
                            compactions::run(&context, owner.clone(), &mut compact),
                        )
                    };
                    tokio::select! {
                        ((), ()) = jobs => {}
                        () = indexes::run(&context, owner.clone()) => {}
                        () = adopt::run(&context, owner.clone()) => {}
                    }
                };
                tokio::select! {
                    // First, so that nothing asks a Raft that has ended: it would wait for its end.
                    biased;
                    () = stopping.cancelled() => return,
                    over = over => if matches!(over, Over::Raft) { return },
                    () = work => {}
                }
                info!(group = %context.shared.group, %term, "this node no longer leads the group");
            }
        }
    }
}

type ServerMetrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;

/// What has ended with a term.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// The leadership.
    Term,
    /// The group's Raft, for good. What it said last, that this replica leads, is void.
    Raft,
}

/// Resolves when this replica no longer leads in `term`.
async fn term_over(metrics: &mut ServerMetrics, term: Term) -> Over {
    loop {
        if metrics.changed().await.is_err() {
            return Over::Raft;
        }
        let now = metrics.borrow_watched();
        if now.state != ServerState::Leader || now.vote.leader_id.term != term.get() {
            return Over::Term;
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
    async fn a_term_is_over_with_its_leadership_and_with_its_raft() {
        let (sender, mut metrics) = TypeConfig::watch_channel(leading(3));
        let follows = RaftServerMetrics { state: ServerState::Follower, ..leading(3) };
        for later in [leading(4), follows] {
            sender.send(leading(3)).unwrap();
            sender.send(later).unwrap();
            assert_eq!(term_over(&mut metrics, Term(3)).await, Over::Term);
        }
        // The last word of a Raft that has ended may be that it leads.
        sender.send(leading(3)).unwrap();
        drop(sender);
        assert_eq!(term_over(&mut metrics, Term(3)).await, Over::Raft);
    }
}
