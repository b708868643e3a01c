//! Placement steps of a leader term as tasks: one at a time for each subject.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::leader_term::LeaderTerm;
use super::placement_step::{PlacementStep, StepSubject};
use super::step_failures::FailureLevel;

/// Delay after a failed step of a group.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Tasks in progress.
#[derive(Debug, Default)]
pub(super) struct TasksInProgress {
    pub(super) recording: bool,
    subjects: BTreeSet<StepSubject>,
}

impl TasksInProgress {
    /// Subjects of the steps in progress.
    pub(super) fn subjects(&self) -> BTreeSet<StepSubject> {
        self.subjects.clone()
    }

    /// Registers a step; `false` when another step of its subject is in progress.
    fn begin(&mut self, subject: StepSubject) -> bool {
        self.subjects.insert(subject)
    }

    /// Removes a step that has ended, with any outcome.
    fn end(&mut self, subject: StepSubject) {
        self.subjects.remove(&subject);
    }
}

impl LeaderTerm {
    pub(super) fn start_step(self: &Arc<Self>, step: PlacementStep, tasks: &mut JoinSet<()>) {
        let group = step.group();
        let subject = step.subject();
        if !self.busy.lock().begin(subject) {
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
            this.busy.lock().end(subject);
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
    use tidewater_common::ids::{GroupId, NodeId};

    use super::*;

    #[test]
    fn subject_has_one_step_at_a_time() {
        let mut busy = TasksInProgress::default();
        let start = |group| PlacementStep::Start { group: GroupId(group) }.subject();
        let create = |home| {
            PlacementStep::Create { first_members: vec![NodeId(home), NodeId(9)], home_groups: 0 }
                .subject()
        };
        for subject in [start(1), start(2), create(1), create(2)] {
            assert!(busy.begin(subject), "{subject:?}");
        }
        let activate = PlacementStep::Activate { group: GroupId(1) }.subject();
        assert!(!busy.begin(activate) && !busy.begin(create(1)));
        busy.end(activate);
        assert!(busy.begin(start(1)) && !busy.begin(start(2)));
        busy.end(create(2));
        assert!(busy.begin(create(2)) && !busy.begin(create(1)));
        assert_eq!(busy.subjects(), [start(1), start(2), create(1), create(2)].into());
    }
}
