//! Writes a region for a step.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::env::IdSource;
use tidewater_region_engine::read::memory::ScanMemory;

use super::changes;
use super::files::{FileSizes, PartWriter};
use super::layout::{ExportPart, StepEpochs, StepFile, part_object};
use super::open_target::{OpenTarget, UnopenedTarget, encoded, target_error};
use super::parts::PartKey;
use crate::group::replica::GroupReplica;
use crate::meters;

/// Limit for the proof of the leadership.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// A region that is to be written for a step.
pub(super) struct RegionPart {
    pub(super) replica: Arc<GroupReplica>,
    pub(super) target: UnopenedTarget,
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) memory: Arc<ScanMemory>,
    pub(super) key: PartKey,
    pub(super) epochs: StepEpochs,
}

impl RegionPart {
    /// Writes the region, unless that was done before, and returns its files. `rows` counts the written rows.
    ///
    /// # Errors
    /// Those of the read and of the target.
    pub(super) async fn write(self, rows: Arc<AtomicU64>) -> Result<Vec<StepFile>, Refusal> {
        let written = self.write_files(&rows).await;
        written.inspect_err(|problem| meters::record_export_failure(problem.reason))
    }

    async fn write_files(self, rows: &AtomicU64) -> Result<Vec<StepFile>, Refusal> {
        let Self { replica, target, ids, memory, key, epochs } = self;
        replica.confirm(CONFIRM_TIMEOUT).await?;
        // Looked up after the confirmation: its rows are those of a leader.
        let hosted = replica.region(key.region)?;
        let changes = changes::pin(&replica, &hosted, &memory, epochs)?;
        let Some(changes) = changes::peek(changes).await? else {
            // Without a request to the target. A repeated call is cheap: files without later epochs are not read.
            return Ok(Vec::new());
        };
        let target = target.open().await?;
        target.check_claimed().await?;
        if let Some(step) = target.find_step(key.step).await? {
            // Completed, and not recorded yet.
            return Ok(step.files_of(key.region));
        }
        let name = part_object(key.step, key.region);
        if let Some(files) = target.find_part(&name, epochs).await? {
            return Ok(files);
        }
        let writer = PartWriter {
            target: &target.target,
            ids: ids.as_ref(),
            step: key.step,
            region: key.region,
            schema: &hosted.descriptor.schema,
            rows,
            sizes: FileSizes::default(),
        };
        let files = writer.write(changes).await?;
        let recorded = target.record_part(&name, epochs, files.clone()).await?;
        if let Some(step) = target.find_step(key.step).await? {
            // Another leader has written the region, too, and the step was completed during this call.
            let unnamed =
                files.into_iter().map(|file| file.path).filter(|path| !step.has_file(path));
            for name in unnamed.chain([name]) {
                target.remove(name).await;
            }
            return Ok(step.files_of(key.region));
        }
        Ok(recorded)
    }
}

impl OpenTarget {
    /// Returns the files of a region that was written before, possibly by another node. The caller has checked the claim: a
    /// part object of another export is removed. A task of a dropped export has written it.
    ///
    /// # Errors
    /// Those of the target; [`Reason::Corrupt`]: the part is of other epochs.
    async fn find_part(
        &self,
        name: &str,
        epochs: StepEpochs,
    ) -> Result<Option<Vec<StepFile>>, Refusal> {
        let Some(part) = self.read::<ExportPart>(name).await? else { return Ok(None) };
        if part.export == self.export {
            return self.files_of(part, name, epochs).map(Some);
        }
        tracing::debug!(%name, export = %part.export, "part object of a dropped export removed");
        self.target.delete(name).await.map_err(target_error)?;
        Ok(None)
    }

    /// Creates the part object of a region, and returns its files. If another leader has written the region, too, returns
    /// the files of that one. Writes no object without files.
    ///
    /// # Errors
    /// Those of [`Self::find_part`]; [`Reason::MessageTooLarge`].
    async fn record_part(
        &self,
        name: &str,
        epochs: StepEpochs,
        files: Vec<StepFile>,
    ) -> Result<Vec<StepFile>, Refusal> {
        if files.is_empty() {
            return Ok(files);
        }
        let part = ExportPart::new(self.export, epochs, files);
        if self.put_new(name, encoded(name, &part)?).await? {
            return Ok(part.files);
        }
        match self.read::<ExportPart>(name).await? {
            Some(existing) if existing.export == self.export => {
                self.files_of(existing, name, epochs)
            }
            // The object only saves a repeated call the work. It is missing if the step was completed since. It is of another
            // export if that one has claimed the prefix since: the completion of this step fails then.
            Some(_) | None => Ok(part.files),
        }
    }

    /// Returns the files of a part that must be of these epochs.
    fn files_of(
        &self,
        part: ExportPart,
        name: &str,
        epochs: StepEpochs,
    ) -> Result<Vec<StepFile>, Refusal> {
        if part.epochs == epochs {
            return Ok(part.files);
        }
        let url = self.target.url();
        let text = format!("{url}/{name} is of other epochs than its step: remove it");
        Err(Refusal::new(Reason::Corrupt, text))
    }
}

#[cfg(test)]
mod tests;
