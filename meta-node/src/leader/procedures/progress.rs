//! Record of the progress of an attempt in the catalog, while its regions are called.

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, meta_command::Kind};
use tokio::time::{Instant, sleep};

use super::operation::{Operation, OperationKey, find};
use crate::leader::attempts::{AttemptNotice, recorded};
use crate::leader::leader_term::LeaderTerm;

/// Interval at which the progress of a step is recorded while its regions are called.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

impl LeaderTerm {
    /// Records every second which regions have completed the step, and its failure. Returns when the operation has ended,
    /// taken another step, or is to be abandoned at its deadline.
    pub(super) async fn follow_progress(&self, operation: &Operation) {
        loop {
            sleep(PROGRESS_INTERVAL).await;
            let state = self.group.view.read();
            let Some(current) = find(&state, operation.key) else { return };
            if current.phase() != operation.phase() || self.is_past_deadline(&state, &current) {
                return;
            }
            drop(state);
            self.record_progress(operation).await;
            let failure = self.step_failure(operation);
            let reason = failure.as_ref().map(|refusal| refusal.reason);
            let notice = self.attempts.lock().note(operation.key, reason);
            log_attempt(operation.key, notice, failure.as_ref());
        }
    }

    /// Records the regions that have completed the step since the last record, and the failure of the step if it has
    /// changed or has ended.
    pub(super) async fn record_progress(&self, operation: &Operation) {
        let OperationKey::Procedure(id) = operation.key else { return };
        let Some(current) = find(&self.group.view.read(), operation.key) else { return };
        let phase = operation.phase();
        if current.phase() != phase {
            return;
        }
        let completed = self.attempts.lock().completed(operation.key, phase);
        let done_regions: Vec<u64> =
            completed.difference(&current.procedure.done).map(|region| region.get()).collect();
        let known = current.procedure.failure.as_ref().map(recorded);
        let failure = match self.attempts.lock().failing(operation.key, phase) {
            Some(failing) => failing.to_record(known.clone(), Instant::now()),
            None => known.clone(),
        };
        if done_regions.is_empty() && failure == known {
            return;
        }
        let report = v1::AdvanceProcedure { done_regions, failure, ..operation.report() };
        if let Err(error) = self.procedure_command(Kind::AdvanceProcedure(report)).await {
            tracing::debug!(procedure = %id, %error, "progress was not recorded");
        }
    }
}

/// Logs a change of the condition of an operation.
pub(super) fn log_attempt(
    key: OperationKey,
    notice: Option<AttemptNotice>,
    failure: Option<&Refusal>,
) {
    let error = failure.map(ToString::to_string).unwrap_or_default();
    // A group raises its feature level up to a second after the cluster.
    let waits = failure.is_some_and(|refusal| refusal.reason == Reason::Unsupported);
    match notice {
        Some(AttemptNotice::Failing) if waits => {
            tracing::info!(operation = ?key, %error, "a step of an operation waits; retrying");
        }
        Some(AttemptNotice::Failing) => {
            tracing::warn!(operation = ?key, %error, "a step of an operation failed; retrying");
        }
        Some(AttemptNotice::Recovered) => {
            tracing::info!(operation = ?key, "an operation continues after failures");
        }
        None => {}
    }
}
