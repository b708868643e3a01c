//! Proposal of a change of collections. Barriers wait for the change until its outcome is known, also if the caller leaves.

use std::time::Duration;

use tidewater_common::ids::Term;
use tidewater_common::reason::Effect;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, Reason, change_collections::Change};
use tokio::time::sleep;

use crate::leader::barriers::ChangeInProgress;
use crate::services::RunningReplica;

/// Pause before another command that shows the outcome of an earlier one.
const PAUSE: Duration = Duration::from_millis(500);

/// Proposes a change, and waits for its reply.
pub(super) async fn propose(
    running: &RunningReplica,
    term: Term,
    in_progress: ChangeInProgress,
    command: v1::ChangeCollections,
) -> Result<(), Refusal> {
    let running = running.clone();
    // A task: the entry may be in the log when the call is dropped.
    let proposal = tokio::spawn(async move {
        let proposed = running.group.propose_in(term, Kind::ChangeCollections(command)).await;
        match proposed {
            Err(refusal) if refusal.effect() == Effect::Unknown => {
                tokio::spawn(wait_for_outcome(running, term, in_progress));
                Err(refusal)
            }
            other => other.map(drop),
        }
    });
    proposal.await.unwrap_or_else(|error| {
        Err(Refusal::new(Reason::Internal, format!("a change of collections has ended: {error}")))
    })
}

/// Waits until a later command is applied in the term, or the term is over: the change is applied or discarded then.
async fn wait_for_outcome(running: RunningReplica, term: Term, in_progress: ChangeInProgress) {
    loop {
        if running.group.term() != term {
            break;
        }
        let record = v1::ChangeCollections {
            upper: in_progress.epoch().get(),
            change: Some(Change::Record(v1::RecordSinces {})),
            ..v1::ChangeCollections::default()
        };
        match running.group.propose_in(term, Kind::ChangeCollections(record)).await {
            Ok(_) => break,
            Err(problem) => tracing::debug!(%problem, "outcome of a change of collections unknown"),
        }
        sleep(PAUSE).await;
    }
    drop(in_progress);
}
