//! Placement steps of a leader term as tasks: one at a time for each group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::leader_term::LeaderTerm;
use super::plan::PlacementStep;
use super::step_failures::FailureLevel;

/// Delay after a failed step of a group.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Tasks in progress.
#[derive(Debug, Default)]
pub(super) struct TasksInProgress {
    creating: bool,
    pub(super) recording: bool,
    groups: BTreeSet<GroupId>,
}

impl TasksInProgress {
    /// Registers a step; `false` when it must wait. Each group has one step at a time, and one new group
    /// is created at a time.
    fn begin(&mut self, group: Option<GroupId>) -> bool {
        match group {
            Some(group) => self.groups.insert(group),
            None => !std::mem::replace(&mut self.creating, true),
        }
    }

    /// Removes a step that has ended, with any outcome.
    fn end(&mut self, group: Option<GroupId>) {
        match group {
            Some(group) => drop(self.groups.remove(&group)),
            None => self.creating = false,
        }
    }
}

impl LeaderTerm {
    pub(super) fn start_step(self: &Arc<Self>, step: PlacementStep, tasks: &mut JoinSet<()>) {
        let group = step.group();
        if !self.busy.lock().begin(group) {
            return;
        }
        let this = Arc::clone(self);
        tasks.spawn(async move {
            // The permit is released before the delay, so that the delay does not block other groups.
            let result = match this.steps.acquire().await {
                Ok(_permit) => this.perform_step(step.clone()).await,
                Err(_) => return,
            };
            match result {
                Ok(()) => this.failures.lock().clear(group),
                Err(error) => {
                    this.log_failure(&step, &error);
                    sleep(RETRY_DELAY).await;
                }
            }
            this.busy.lock().end(group);
            this.observations.changes.notify_one();
        });
    }

    fn log_failure(&self, step: &PlacementStep, error: &Refusal) {
        let (in_a_row, level) = self.failures.lock().record(step.group(), error.reason);
        match level {
            FailureLevel::Info => {
                tracing::info!(?step, %error, in_a_row, "placement step deferred; planning again");
            }
            FailureLevel::Warn => {
                tracing::warn!(?step, %error, in_a_row, "placement step failed; planning again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_has_one_step_at_a_time() {
        let mut busy = TasksInProgress::default();
        let one = Some(GroupId(1));
        let two = Some(GroupId(2));
        assert!(busy.begin(one) && busy.begin(two) && busy.begin(None));
        assert!(!busy.begin(one) && !busy.begin(None));
        busy.end(one);
        assert!(busy.begin(one) && !busy.begin(two));
        busy.end(None);
        assert!(busy.begin(None));
    }
}
