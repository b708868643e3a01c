//! Attempts on procedures: calls to the regions of a step, then the command that follows.
//!
//! The record in the catalog survives the leader, with the regions that have completed their part, and every call can
//! be repeated. The groups of a step are called at the same time, so that one that does not answer delays no region
//! of another. Operations that releases without procedures have begun are driven in the same way; their tables
//! have no progress.
//!
//! - `calls`: calls of an attempt; `call_queue`: their order, limits and repetitions (pure).
//! - `progress`: record of the progress and of the failure of a step. `operation`: operations with work (pure).

mod call_queue;
mod calls;
mod operation;
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{AbandonCause, Reason, meta_command::Kind};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::operation::{Operation, find, is_overdue};
pub(super) use self::operation::{OperationKey, ProcedurePhase, unfinished};
use self::progress::log_attempt;
use super::leader_term::LeaderTerm;
use crate::catalog::MetaState;
use crate::commands::procedures::kind::StepRegion;

/// End of the calls to the regions of a step.
enum StepCalls {
    /// All regions have completed their part.
    Completed,
    /// A region has not.
    Failed(Refusal),
    /// The operation has ended, or taken another step, or is to be abandoned: its table was dropped, it is cancelled, or
    /// past its deadline.
    Ended,
}

impl LeaderTerm {
    /// Starts the task of an attempt on an operation.
    pub(super) fn start_operation(self: &Arc<Self>, key: OperationKey, tasks: &mut JoinSet<()>) {
        let this = Arc::clone(self);
        tasks.spawn(async move {
            let failed = this.attempt(key).await.err();
            let reason = failed.as_ref().map(|refusal| refusal.reason);
            let bits = this.timing.jitter.bits();
            let notice = this.attempts.lock().end(key, reason, Instant::now(), bits);
            if let OperationKey::Table(table) = key {
                let error = failed.as_ref().map(ToString::to_string);
                this.observations.record_table_error(table, error);
            }
            tracing::debug!(operation = ?key, ?reason, "attempt on an operation ended");
            log_attempt(key, notice, failed.as_ref());
            this.observations.changes.notify_one();
        });
    }

    /// Makes one attempt to complete the step of an operation.
    async fn attempt(&self, key: OperationKey) -> Result<(), Refusal> {
        let state = self.group.view.read();
        let Some(operation) = find(&state, key) else { return Ok(()) };
        let Operation { procedure, kind, .. } = &operation;
        let (table, kind_name, step) = (&procedure.table_name, kind.facts().name, procedure.step);
        if self.is_past_deadline(&state, &operation) {
            self.procedure_command(operation.abandonment(AbandonCause::Deadline)).await?;
            tracing::warn!(
                %table, procedure = %procedure.id, kind = kind_name,
                "procedure is past its deadline; abandoning it"
            );
            return Ok(());
        }
        // Its deadline was extended, or it has reached the step after this round began.
        if kind.is_waiting(procedure) {
            return Ok(());
        }
        let pending = self.pending_regions(&state, &operation);
        let calls = tokio::select! {
            calls = self.call_regions(&state, &operation, pending) => calls,
            () = self.follow_progress(&operation) => StepCalls::Ended,
        };
        match calls {
            StepCalls::Ended => return Ok(()),
            StepCalls::Failed(refusal) if operation.is_superseded(&refusal) => {
                self.procedure_command(operation.abandonment(AbandonCause::Superseded)).await?;
                tracing::warn!(
                    %table, procedure = %procedure.id, kind = kind_name, step, %refusal,
                    "procedure ended in the middle: a region has taken a later step"
                );
                return Ok(());
            }
            StepCalls::Failed(refusal) => {
                self.record_progress(&operation).await;
                return Err(refusal);
            }
            StepCalls::Completed => {}
        }
        self.procedure_command(operation.completion()).await?;
        tracing::info!(
            %table, procedure = %procedure.id, kind = kind_name, step, "step of a procedure completed"
        );
        Ok(())
    }

    /// Returns whether an operation is to be abandoned at its deadline.
    fn is_past_deadline(&self, state: &MetaState, operation: &Operation) -> bool {
        is_overdue(state, &operation.procedure, operation.kind)
            && self.observations.may_pass_deadlines(Instant::now())
    }

    /// Returns the regions that have not completed their part, by group.
    fn pending_regions(
        &self,
        state: &MetaState,
        operation: &Operation,
    ) -> BTreeMap<GroupId, Vec<RegionId>> {
        let regions = operation.kind.regions(state, &operation.procedure);
        let attempts = self.attempts.lock();
        let phase = operation.phase();
        let mut pending: BTreeMap<GroupId, Vec<RegionId>> = BTreeMap::new();
        for StepRegion { region, group } in regions {
            let is_completed = operation.procedure.done.contains(&region)
                || attempts.is_completed(operation.key, phase, region);
            if !is_completed {
                pending.entry(group).or_default().push(region);
            }
        }
        pending
    }

    /// Proposes a command of a procedure, with a permit that is held for the command alone.
    async fn procedure_command(&self, kind: Kind) -> Result<(), Refusal> {
        let closed =
            |_| Refusal::new(Reason::ShuttingDown, "this node no longer leads the meta group");
        let _permit = self.procedure_commands.acquire().await.map_err(closed)?;
        self.command(kind).await
    }
}
