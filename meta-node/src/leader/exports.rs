//! Export manager: carries out the steps of exports.
//!
//! - *Step*: the contents of a table as of an epoch, or its changes from one epoch to another. Its epochs are recorded before it
//!   begins, so that the next leader continues it with the regions that are written.
//! - *Written region*: the leader of its group has written its rows to files below the prefix, and an object that names them.
//! - *Attempt*: a task of this leader that continues a step until it is completed or a part of it fails. A step that has failed
//!   waits for its next attempt without a task.
//!
//! When all regions of the table are written, a data node writes the object of the step, which is created only once; then
//! the step is recorded, and the hold of the export moves to its epoch. A leader whose term is over can neither record a
//! step nor write another object for it.
//!
//! - `due`: steps that are due, regions that are written, transient errors (pure). `step_queue`: order and retries of the
//!   attempts (pure). `progress`: progress and failures, for the list of exports and the problems (pure).
//! - `step`: an attempt. `regions`: the regions of a step.

mod due;
mod progress;
mod regions;
mod step;
mod step_queue;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::Epoch;
use tokio::task::{self, AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

pub(crate) use self::due::is_transient;
use self::due::{StepEpochs, due_step};
pub(crate) use self::progress::ExportProgress;
use self::step::StepFailed;
use self::step_queue::{DueStep, StepQueue};
use super::leader_term::LeaderTerm;
use crate::catalog::Export;

/// Interval of checks for steps that are due.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

impl LeaderTerm {
    /// Carries out the steps of exports until the term ends.
    pub(super) async fn manage_exports(self: Arc<Self>) {
        // Records of earlier terms are in the state from here on, and later ones are refused.
        while let Err(problem) = self.group.linearize().await {
            tracing::debug!(%problem, "export manager is waiting for the quorum");
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        let mut attempts: JoinSet<Result<(), StepFailed>> = JoinSet::new();
        let mut busy: BTreeMap<task::Id, (Uuid, AbortHandle)> = BTreeMap::new();
        let mut queue = StepQueue::default();
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(ended) = attempts.join_next_with_id() => {
                    // An attempt that has panicked is retried, too.
                    let (task, has_failed) = match ended {
                        Ok((task, outcome)) => (task, outcome.is_err()),
                        Err(error) => (error.id(), true),
                    };
                    if let Some((export, _)) = busy.remove(&task) {
                        let bits = self.timing.jitter.bits();
                        queue.end(export, has_failed, Instant::now(), bits);
                    }
                }
            }
            self.abort_dropped(busy.values());
            for (export, epochs) in queue.begin_due(self.due_export_steps(), Instant::now()) {
                let id = export.id;
                let attempt = attempts.spawn(Arc::clone(&self).carry_out_step(export, epochs));
                busy.insert(attempt.id(), (id, attempt));
            }
        }
    }

    /// Ends the attempts on exports that were dropped.
    fn abort_dropped<'a>(&self, attempts: impl Iterator<Item = &'a (Uuid, AbortHandle)>) {
        let state = self.group.view.read();
        for (_, attempt) in attempts.filter(|(id, _)| state.exports().by_id(*id).is_none()) {
            attempt.abort();
        }
    }

    /// Returns the steps that are due. Forgets the progress of exports that were dropped.
    fn due_export_steps(&self) -> Vec<DueStep> {
        let state = self.group.view.read();
        let exports = state.exports();
        self.observations.exports.lock().retain(|id, _| exports.by_id(*id).is_some());
        if state.header().feature_level < FeatureLevel::EXPORTS {
            return Vec::new();
        }
        let Some((_, last)) = self.observations.sent_epochs.last(self.term) else {
            return Vec::new();
        };
        let time_ms = state.header().time_ms;
        let due = |export: &Arc<Export>| {
            // The next step of a refreshable table is as of its published epoch.
            let published = state.published_of(export.table).map(Epoch::next);
            let epochs = due_step(export, published.unwrap_or(last), time_ms)?;
            Some((Arc::clone(export), epochs))
        };
        exports.iter().filter_map(due).collect()
    }

    /// Makes an attempt on a step.
    ///
    /// # Errors
    /// Another attempt is due after a backoff. The progress keeps the failure until then.
    async fn carry_out_step(
        self: Arc<Self>,
        export: Arc<Export>,
        epochs: StepEpochs,
    ) -> Result<(), StepFailed> {
        self.attempt_export_step(&export, epochs).await?;
        self.observations.exports.lock().remove(&export.id);
        Ok(())
    }
}
