//! Proposal of a change of collections. Barriers wait for the change until its outcome is known, also if the caller leaves.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::Term;
use tidewater_common::reason::Effect;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, Reason, change_collections::Change};
use tokio::time::sleep;

use crate::group::MetaGroup;
use crate::leader::barriers::ChangeInProgress;

/// Pause before another command that shows the outcome of an earlier one.
const PAUSE: Duration = Duration::from_millis(500);

/// Group that changes are proposed to. Tests have a fake one.
pub(super) trait ChangeGroup: Send + Sync + 'static {
    /// Returns the term of this replica.
    fn current_term(&self) -> Term;

    /// Proposes a change that is valid only in a term, and waits until it is applied.
    fn propose_change(
        &self,
        term: Term,
        command: v1::ChangeCollections,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

impl ChangeGroup for MetaGroup {
    fn current_term(&self) -> Term {
        self.term()
    }

    async fn propose_change(
        &self,
        term: Term,
        command: v1::ChangeCollections,
    ) -> Result<(), Refusal> {
        self.propose_in(term, Kind::ChangeCollections(command)).await.map(drop)
    }
}

/// Proposes a change, and waits for its reply.
pub(super) async fn propose<G: ChangeGroup>(
    group: Arc<G>,
    term: Term,
    in_progress: ChangeInProgress,
    command: v1::ChangeCollections,
) -> Result<(), Refusal> {
    // A task: the entry may be in the log when the call is dropped.
    let proposal = tokio::spawn(async move {
        let proposed = group.propose_change(term, command).await;
        match proposed {
            Err(refusal) if refusal.effect() == Effect::Unknown => {
                tokio::spawn(wait_for_outcome(group, term, in_progress));
                Err(refusal)
            }
            other => other,
        }
    });
    proposal.await.unwrap_or_else(|error| {
        Err(Refusal::new(Reason::Internal, format!("a change of collections has ended: {error}")))
    })
}

/// Waits until a later command is applied in the term, or the term is over: the change is applied or discarded then.
async fn wait_for_outcome<G: ChangeGroup>(
    group: Arc<G>,
    term: Term,
    in_progress: ChangeInProgress,
) {
    loop {
        if group.current_term() != term {
            break;
        }
        let record = v1::ChangeCollections {
            upper: in_progress.epoch().get(),
            change: Some(Change::Record(v1::RecordSinces {})),
            ..v1::ChangeCollections::default()
        };
        match group.propose_change(term, record).await {
            Ok(()) => break,
            Err(problem) => tracing::debug!(%problem, "outcome of a change of collections unknown"),
        }
        sleep(PAUSE).await;
    }
    drop(in_progress);
}

#[cfg(test)]
mod tests;
