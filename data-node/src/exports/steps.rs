//! Completed steps of an export, as objects of its target.

use futures::stream::{self, StreamExt};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::layout::{ExportStep, data_prefix, parts_prefix, step_object};
use super::open_target::{OpenTarget, encoded};

/// Maximum number of objects of a step that a call looks at below a prefix.
const MAX_LISTED: usize = 100_000;
/// Objects that are removed at a time.
const CONCURRENT_DELETES: usize = 8;

impl OpenTarget {
    /// Creates the object of a step, or returns the one that exists.
    ///
    /// # Errors
    /// Those of [`Self::check_claimed`], [`Reason::MessageTooLarge`].
    pub(super) async fn complete(&self, step: ExportStep) -> Result<ExportStep, Refusal> {
        self.check_claimed().await?;
        let name = step_object(step.step);
        let bytes = encoded(&name, &step)?;
        if self.put_new(&name, bytes).await? {
            return Ok(step);
        }
        self.find_step(step.step).await?.ok_or_else(|| {
            let text = format!("{}/{name} was removed during the call: retry", self.target.url());
            Refusal::new(Reason::ExportTargetUnavailable, text)
        })
    }

    /// Returns a completed step; `None`: its object does not exist.
    ///
    /// # Errors
    /// [`Reason::ExportPrefixInUse`]: the object is of another export; those of [`Self::read`].
    pub(super) async fn find_step(&self, step: u64) -> Result<Option<ExportStep>, Refusal> {
        let name = step_object(step);
        let Some(found) = self.read::<ExportStep>(&name).await? else { return Ok(None) };
        if found.export == self.export && found.step == step {
            return Ok(Some(found));
        }
        let text = format!("{}/{name} is of export {}", self.target.url(), found.export);
        Err(Refusal::new(Reason::ExportPrefixInUse, text))
    }

    /// Removes the objects of a completed step that its object does not name: files of failed attempts, and the part
    /// objects. What cannot be removed remains: a repeated call removes it.
    pub(super) async fn clean(&self, step: &ExportStep) {
        // Since the step was completed, the export may have been dropped, and another one may have claimed the prefix.
        if let Err(problem) = self.check_claimed().await {
            tracing::debug!(%problem, "objects of a step not removed");
            return;
        }
        for prefix in [data_prefix(step.step), parts_prefix(step.step)] {
            let listed = match self.target.list(&prefix, MAX_LISTED).await {
                Ok(listed) => listed,
                Err(problem) => {
                    tracing::debug!(%problem, %prefix, "objects of a step not listed");
                    continue;
                }
            };
            let unnamed: Vec<String> =
                listed.into_iter().filter(|name| !step.has_file(name)).collect();
            let removals = stream::iter(unnamed);
            removals.for_each_concurrent(CONCURRENT_DELETES, |name| self.remove(name)).await;
        }
    }

    /// Removes an object that no step names. What cannot be removed remains.
    pub(super) async fn remove(&self, name: String) {
        if let Err(problem) = self.target.delete(&name).await {
            tracing::debug!(%problem, %name, "object of a step not removed");
        }
    }
}

#[cfg(test)]
mod tests;
