//! Refresh manager: begins refreshes that are due, has their sources loaded, and publishes them.
//!
//! - *Load*: a task of this leader, which lists the source once and has its splits loaded by data nodes. It lives in memory
//!   only: a refresh whose load another leader has begun is abandoned and retried, since the files that it has
//!   staged are unknown.
//! - *Publication*: a task that waits until all groups of the table have completed an epoch after the merge. Each leader can
//!   begin it again.
//!
//! The other steps are calls to the regions, which the driver of procedures makes.

mod due;
mod loading;
mod publishing;
mod splits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, AbandonCause, Reason, RefreshOutcome, RefreshTrigger, meta_command::Kind,
};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use self::due::{Work, due_refreshes, due_work, is_at, loading};
use super::attempts::failure_of;
use super::leader_term::LeaderTerm;
use crate::catalog::Procedure;

/// Interval of checks for refreshes that are due.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of loads at a time. Data nodes limit the memory of their rows; a source that hangs takes one of these.
const MAX_LOADS: usize = 64;

impl LeaderTerm {
    /// Manages refreshes until the term ends.
    pub(super) async fn manage_refreshes(self: Arc<Self>) {
        // Commands of earlier terms are in the state from here on, and later ones are refused.
        while let Err(problem) = self.group.linearize().await {
            tracing::debug!(%problem, "refresh manager is waiting for the quorum");
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        // Loads that were begun: by an earlier leader, or by a task that has ended without completing its step.
        let mut begun = loading(&self.group.view.read());
        let mut tasks: JoinSet<Uuid> = JoinSet::new();
        let mut busy: BTreeMap<Uuid, Work> = BTreeMap::new();
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut revisions = self.group.view.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.begin_due().await,
                _ = revisions.changed() => {}
                Some(ended) = tasks.join_next() => {
                    if let Ok(id) = ended {
                        busy.remove(&id);
                    }
                }
            }
            let state = self.group.view.read();
            begun.retain(|id| state.procedures().get(*id).is_some_and(|known| known.is_running()));
            for (procedure, work) in due_work(&state, &begun) {
                let loads = busy.values().filter(|work| **work == Work::Load).count();
                if busy.contains_key(&procedure.id) || (work == Work::Load && loads >= MAX_LOADS) {
                    continue;
                }
                busy.insert(procedure.id, work);
                if work == Work::Load {
                    begun.insert(procedure.id);
                }
                let this = Arc::clone(&self);
                tasks.spawn(async move {
                    let id = procedure.id;
                    this.work_on(procedure, work).await;
                    id
                });
            }
        }
    }

    /// Begins the refreshes that are due by themselves.
    async fn begin_due(&self) {
        let due = due_refreshes(&self.group.view.read());
        for refreshes in due {
            let request_id =
                Uuid::from_u64_pair(self.timing.jitter.bits(), self.timing.jitter.bits());
            let is_retry = refreshes.failures > 0;
            let trigger = if is_retry { RefreshTrigger::Retry } else { RefreshTrigger::Interval };
            let failed = |run: &&v1::RefreshRun| run.outcome() == RefreshOutcome::Failed;
            let last = refreshes.history.first().filter(failed);
            let request = v1::RefreshRequest {
                request_id: request_id.to_string(),
                table_id: refreshes.table.get(),
                associated_source_id: refreshes.source.get(),
                trigger: trigger.into(),
                force: is_retry && last.is_some_and(|run| run.force),
            };
            let begin = v1::BeginProcedure {
                id: Bytes::copy_from_slice(request_id.as_bytes()),
                kind: v1::ProcedureKind::Refresh as u32,
                arguments: request.encode_to_vec().into(),
            };
            if let Err(problem) = self.command(Kind::BeginProcedure(begin)).await {
                tracing::debug!(table = %refreshes.table, %problem, "refresh is due and not begun");
            }
        }
    }

    async fn work_on(&self, procedure: Arc<Procedure>, work: Work) {
        let ended = tokio::select! {
            ended = self.carry_out(&procedure, work) => ended,
            // Cancelled, or dropped with its table: data nodes end what they read for it.
            () = self.wait_for_next_step(&procedure) => Ok(()),
        };
        self.observations.loads_of_sources.lock().remove(&procedure.table);
        let Err(problem) = ended else { return };
        let (table, id) = (&procedure.table_name, procedure.id);
        if work == Work::Publish {
            // The merge is complete: the next attempt publishes it.
            tracing::warn!(%table, procedure = %id, %problem, "refresh not published yet; retrying");
            let failure = Some(failure_of(&problem));
            if let Err(problem) = self.report_failure(&procedure, failure).await {
                tracing::debug!(%table, %problem, "failure of a publication not recorded");
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
            return;
        }
        tracing::warn!(%table, procedure = %id, %problem, "refresh failed");
        if let Err(problem) = self.fail(&procedure, &problem).await {
            tracing::debug!(%table, procedure = %id, %problem, "failure of a refresh not recorded");
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    async fn carry_out(&self, procedure: &Procedure, work: Work) -> Result<(), Refusal> {
        match work {
            Work::Load => self.load(procedure).await,
            Work::Publish => self.publish(procedure).await,
            Work::Abandon => {
                let text =
                    "the meta leader changed, or lost its quorum, while the source was loaded";
                Err(Refusal::new(Reason::LeadershipLost, text))
            }
            Work::Fail => {
                let failure = procedure.failure.as_ref();
                let reason = failure.and_then(|of| Reason::try_from(of.reason).ok());
                let text = failure.map(|of| of.message.clone()).unwrap_or_default();
                Err(Refusal::new(reason.unwrap_or(Reason::Internal), text))
            }
        }
    }

    /// Waits until a refresh has ended or taken another step.
    async fn wait_for_next_step(&self, procedure: &Procedure) {
        let mut revisions = self.group.view.subscribe();
        loop {
            revisions.mark_unchanged();
            if !is_at(&self.group.view.read(), procedure) {
                return;
            }
            if revisions.changed().await.is_err() {
                return;
            }
        }
    }

    /// Records the failure of a step, which is repeated or ends the refresh; `None`: the step does not fail any more.
    async fn report_failure(
        &self,
        procedure: &Procedure,
        failure: Option<v1::ProcedureFailure>,
    ) -> Result<(), Refusal> {
        let report = v1::AdvanceProcedure {
            id: Bytes::copy_from_slice(procedure.id.as_bytes()),
            number: procedure.number,
            step: procedure.step,
            failure,
            ..v1::AdvanceProcedure::default()
        };
        self.command(Kind::AdvanceProcedure(report)).await
    }

    /// Records a failure, and abandons the refresh if it is still at its step.
    async fn fail(&self, procedure: &Procedure, problem: &Refusal) -> Result<(), Refusal> {
        self.report_failure(procedure, Some(failure_of(problem))).await?;
        let abandon = v1::AbandonProcedure {
            id: Bytes::copy_from_slice(procedure.id.as_bytes()),
            number: procedure.number,
            cause: AbandonCause::Failed.into(),
            step: procedure.step,
        };
        self.command(Kind::AbandonProcedure(abandon)).await
    }

    /// Completes a step that waits for this manager.
    async fn complete(
        &self,
        procedure: &Procedure,
        result: &v1::RefreshStepResult,
    ) -> Result<(), Refusal> {
        let completion = v1::AdvanceProcedure {
            id: Bytes::copy_from_slice(procedure.id.as_bytes()),
            number: procedure.number,
            step: procedure.step,
            completed: true,
            requested: true,
            result: result.encode_to_vec().into(),
            ..v1::AdvanceProcedure::default()
        };
        self.command(Kind::AdvanceProcedure(completion)).await
    }
}
