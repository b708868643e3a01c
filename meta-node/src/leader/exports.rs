//! Export manager: takes the steps of exports.
//!
//! - *Step*: the contents of a table as of an epoch, or its changes from one epoch to another. Its epochs are recorded before it
//!   begins, so that the next leader continues it with the regions that are written.
//! - *Written region*: the leader of its group has written its rows to files below the prefix, and an object that names them.
//!
//! When all regions of the table are written, a data node writes the object of the step, which is created only once; then
//! the step is recorded, and the hold of the export moves to its epoch. A leader whose term is over can neither record a
//! step nor write another object for it.

mod due;
mod step;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::RegionId;
use tokio::task::{self, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use self::due::{StepEpochs, due_step};
use super::leader_term::LeaderTerm;
use crate::catalog::Export;

/// Interval of checks for steps that are due.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of steps at a time.
const MAX_STEPS: usize = 16;
/// Wait before a step that has failed is continued.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

/// Progress of the step of an export, as this leader knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExportProgress {
    /// Regions of the table.
    pub(crate) regions: usize,
    /// Regions that are written.
    pub(crate) done: usize,
    /// Rows written, by region.
    pub(crate) rows: BTreeMap<RegionId, u64>,
    /// Last failure; empty: none since a region was written.
    pub(crate) failure: String,
}

impl LeaderTerm {
    /// Takes the steps of exports until the term ends.
    pub(super) async fn manage_exports(self: Arc<Self>) {
        // Records of earlier terms are in the state from here on, and later ones are refused.
        while let Err(problem) = self.group.linearize().await {
            tracing::debug!(%problem, "export manager is waiting for the quorum");
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut busy: BTreeMap<Uuid, task::Id> = BTreeMap::new();
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut revisions = self.group.view.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // An export was created, or has taken a step.
                _ = revisions.changed() => {}
                Some(ended) = tasks.join_next_with_id() => {
                    let ended = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    busy.retain(|_, task| *task != ended);
                    continue;
                }
            }
            let state = self.group.view.read();
            if state.header().feature_level < FeatureLevel::EXPORTS {
                continue;
            }
            let Some((_, last)) = self.observations.sent_epochs.last(self.term) else { continue };
            let time_ms = state.header().time_ms;
            for export in state.exports().iter() {
                if busy.len() >= MAX_STEPS {
                    break;
                }
                let Some(epochs) = due_step(export, last, time_ms) else { continue };
                if let Entry::Vacant(idle) = busy.entry(export.id) {
                    let step = Arc::clone(&self).carry_out_step(Arc::clone(export), epochs);
                    idle.insert(tasks.spawn(step).id());
                }
            }
        }
    }

    /// Takes a step, with retries, until it is recorded or the export is dropped.
    async fn carry_out_step(self: Arc<Self>, export: Arc<Export>, epochs: StepEpochs) {
        let id = export.id;
        let mut failures = 0;
        while self.is_at_step(&export) {
            let taken = tokio::select! {
                taken = self.take_export_step(&export, epochs) => taken,
                () = self.wait_for_end_of_step(&export) => break,
            };
            let Err(problem) = taken else { break };
            tracing::warn!(export = %export.name, %problem, "step of an export not completed yet; retrying");
            self.observations.exports.lock().entry(id).or_default().failure = problem.to_string();
            failures += 1;
            let pause = BACKOFF.wait(failures, None, self.timing.jitter.bits());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wait_for_end_of_step(&export) => break,
            }
        }
        self.observations.exports.lock().remove(&id);
    }

    /// Returns whether an export exists and has not completed the step after this state of it.
    fn is_at_step(&self, export: &Export) -> bool {
        let state = self.group.view.read();
        state.exports().by_id(export.id).is_some_and(|known| known.steps == export.steps)
    }

    /// Waits until an export is dropped, or has completed its step.
    async fn wait_for_end_of_step(&self, export: &Export) {
        let mut revisions = self.group.view.subscribe();
        loop {
            revisions.mark_unchanged();
            if !self.is_at_step(export) {
                return;
            }
            if revisions.changed().await.is_err() {
                return;
            }
        }
    }
}
