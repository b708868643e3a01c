//! Linearizable reads: proof of leadership first, then all earlier commits.

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::storage::RaftStateMachine;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{ReadPolicy, ServerState};
use tidewater_common::ids::{NodeId, Term};
use tokio::time::Instant;

use crate::network::Confirmations;
use crate::types::{Raft, TypeConfig};

/// Reason why this replica cannot serve a linearizable read.
pub type ReadError = RaftError<TypeConfig, LinearizableReadError<TypeConfig>>;

/// Returns once this replica has applied everything that was acknowledged before the call. Waits
/// until a majority responds: the caller sets the timeout.
///
/// # Errors
/// This replica is not the leader, loses leadership, or its Raft has stopped.
pub async fn linearize<SM>(
    raft: &Raft<SM>,
    confirmations: &Confirmations,
    own: NodeId,
) -> Result<(), ReadError>
where
    SM: RaftStateMachine<TypeConfig>,
{
    let mut metrics = raft.server_metrics();
    loop {
        let leads = led_with(&metrics.borrow_watched());
        let since = Instant::now();
        // Openraft also sends every follower a heartbeat, created after `since`.
        let linearizer = raft.get_read_linearizer(ReadPolicy::ReadIndex).await?;
        // It is the leader, but the metrics do not show it yet.
        let Some((term, voters)) = leads else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::select! {
            () = confirmations.quorum(own, term, since, &voters) => {}
            () = deposed(&mut metrics, term) => continue,
        }
        linearizer.await_ready(raft).await?;
        return Ok(());
    }
}

/// Returns the term that this replica leads, and the voter sets, each of which must confirm it.
fn led_with(now: &RaftServerMetrics<TypeConfig>) -> Option<(Term, Vec<Vec<NodeId>>)> {
    if now.state != ServerState::Leader {
        return None;
    }
    let sets = now.membership_config.membership().get_joint_config();
    let voters = sets.iter().map(|set| set.iter().copied().map(NodeId).collect());
    Some((Term(now.vote.leader_id.term), voters.collect()))
}

/// Resolves when this replica is no longer the leader of `term`, or its Raft has stopped.
async fn deposed(
    metrics: &mut WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    term: Term,
) {
    loop {
        {
            let now = metrics.borrow_watched();
            if now.state != ServerState::Leader || now.vote.leader_id.term != term.get() {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
