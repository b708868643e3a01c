//! Attempts on procedures: calls to the regions of a step, then the command that follows.
//!
//! The record in the catalog survives the leader, with the regions that have completed their part, and every call can
//! be repeated. The groups of a step are called at the same time, so that one that does not answer delays no region
//! of another. Operations that releases without procedures have begun are driven in the same way; their tables
//! have no progress.

mod operation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, AbandonCause, Reason, meta_command::Kind};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::operation::{Operation, find, is_overdue};
pub(super) use self::operation::{OperationKey, ProcedurePhase, unfinished};
use super::attempts::AttemptNotice;
use super::group_permits::MAX_CALLS_PER_GROUP;
use super::leader_term::LeaderTerm;
use crate::catalog::MetaState;
use crate::commands::procedures::kind::StepRegion;

/// Interval at which the progress of a step is recorded while its regions are called.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// End of the calls to the regions of a step.
enum StepCalls {
    /// All regions have completed their part.
    Completed,
    /// A region has not.
    Failed(Refusal),
    /// The operation has ended, or taken another step: its table was dropped, or it is being abandoned.
    Ended,
}

impl LeaderTerm {
    /// Starts the task of an attempt on an operation.
    pub(super) fn start_operation(self: &Arc<Self>, key: OperationKey, tasks: &mut JoinSet<()>) {
        let this = Arc::clone(self);
        tasks.spawn(async move {
            let failed = this.attempt(key).await.err();
            let error = failed.as_ref().map(ToString::to_string);
            let reason = failed.map(|refusal| refusal.reason);
            let bits = this.timing.jitter.bits();
            let notice = this.attempts.lock().end(key, reason, Instant::now(), bits);
            if let OperationKey::Table(table) = key {
                this.observations.record_table_error(table, error.clone());
            }
            let error = error.unwrap_or_default();
            match notice {
                Some(AttemptNotice::Failing) => {
                    tracing::warn!(operation = ?key, %error, "a step of an operation failed; retrying");
                }
                Some(AttemptNotice::Recovered) => {
                    tracing::info!(operation = ?key, "an operation continues after failures");
                }
                None => tracing::debug!(operation = ?key, %error, "attempt on an operation ended"),
            }
            this.observations.changes.notify_one();
        });
    }

    /// Makes one attempt to complete the step of an operation.
    async fn attempt(&self, key: OperationKey) -> Result<(), Refusal> {
        let state = self.group.view.read();
        let Some(operation) = find(&state, key) else { return Ok(()) };
        let Operation { procedure, kind, .. } = &operation;
        let (table, kind_name, step) = (&procedure.table_name, kind.facts().name, procedure.step);
        if is_overdue(&state, procedure, *kind)
            && self.observations.may_pass_deadlines(Instant::now())
        {
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
                self.record_failure(&operation, &refusal).await;
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

    /// Calls all groups at the same time, each with at most [`MAX_CALLS_PER_GROUP`] calls. A region that fails delays
    /// no other; a group that cannot be reached gets no further calls in this attempt.
    async fn call_regions(
        &self,
        state: &MetaState,
        operation: &Operation,
        pending: BTreeMap<GroupId, Vec<RegionId>>,
    ) -> StepCalls {
        let Operation { key, procedure, kind } = operation;
        let phase = operation.phase();
        let failed: Mutex<Option<Refusal>> = Mutex::new(None);
        let failed_of = &failed;
        let call_one = async |group, region, is_reachable: &AtomicBool| {
            if !is_reachable.load(Ordering::Relaxed) {
                return;
            }
            let call = kind.call(state, procedure, StepRegion { region, group });
            let called = match call {
                Some(call) => self.call_region(group, call).await,
                None => Err(contradiction(region)),
            };
            match called {
                Ok(()) => self.attempts.lock().record_completed(*key, phase, region),
                Err(refusal) => {
                    if refusal.reason != Reason::RegionNotFound {
                        is_reachable.store(false, Ordering::Relaxed);
                    }
                    failed_of.lock().get_or_insert(refusal);
                }
            }
        };
        let call_one = &call_one;
        let groups = pending.into_iter().map(|(group, regions)| async move {
            let is_reachable = AtomicBool::new(true);
            stream::iter(regions)
                .for_each_concurrent(MAX_CALLS_PER_GROUP, |region| {
                    call_one(group, region, &is_reachable)
                })
                .await;
        });
        futures::future::join_all(groups).await;
        failed.into_inner().map_or(StepCalls::Completed, StepCalls::Failed)
    }

    /// Records every second which regions have completed the step. Returns when the operation has ended or taken another
    /// step.
    async fn follow_progress(&self, operation: &Operation) {
        loop {
            sleep(PROGRESS_INTERVAL).await;
            let current = find(&self.group.view.read(), operation.key);
            if current.is_none_or(|current| current.phase() != operation.phase()) {
                return;
            }
            self.record_progress(operation, None).await;
        }
    }

    /// Records the failure of an attempt, unless the same one is recorded and no region has completed its part since.
    async fn record_failure(&self, operation: &Operation, failed: &Refusal) {
        let failure = (i32::from(failed.reason), failed.message.clone());
        self.record_progress(operation, Some(failure)).await;
    }

    /// Records the regions that have completed the step since the last record, and a failure, reason and message, if
    /// another one or none is recorded. `None`: the recorded one stays.
    async fn record_progress(&self, operation: &Operation, failure: Option<(i32, String)>) {
        let OperationKey::Procedure(id) = operation.key else { return };
        let Some(current) = find(&self.group.view.read(), operation.key) else { return };
        if current.phase() != operation.phase() {
            return;
        }
        let completed = self.attempts.lock().completed(operation.key, operation.phase());
        let done_regions: Vec<u64> =
            completed.difference(&current.procedure.done).map(|region| region.get()).collect();
        let recorded = current.procedure.failure.as_ref();
        let recorded = recorded.map(|recorded| (recorded.reason, recorded.message.clone()));
        let is_new = failure.is_some() && failure != recorded;
        if done_regions.is_empty() && !is_new {
            return;
        }
        let failure = failure.or(recorded);
        let failure =
            failure.map(|(reason, message)| v1::ProcedureFailure { reason, message, since_ms: 0 });
        let report = v1::AdvanceProcedure { done_regions, failure, ..operation.report() };
        if let Err(error) = self.procedure_command(Kind::AdvanceProcedure(report)).await {
            tracing::debug!(procedure = %id, %error, "progress was not recorded");
        }
    }

    /// Proposes a command of a procedure, with a permit that is held for the command alone.
    async fn procedure_command(&self, kind: Kind) -> Result<(), Refusal> {
        let closed =
            |_| Refusal::new(Reason::ShuttingDown, "this node no longer leads the meta group");
        let _permit = self.procedure_commands.acquire().await.map_err(closed)?;
        self.command(kind).await
    }
}

fn contradiction(region: RegionId) -> Refusal {
    let text = format!("the catalog contradicts the procedure's part in region {region}");
    Refusal::new(Reason::RegionNotFound, text)
}
