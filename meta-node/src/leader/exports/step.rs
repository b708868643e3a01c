//! An attempt on a step of an export: begin, regions, object, record.

use bytes::Bytes;
use tidewater_common::ids::Epoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, Reason, change_collections::Change, record_export::Progress};
use tokio::time::Instant;

use super::due::{StepEpochs, check_shown};
use super::progress::StepPart;
use super::regions::routes_of;
use crate::catalog::Export;
use crate::leader::leader_term::LeaderTerm;

/// A part of a step has failed. The progress of the export has the error.
#[derive(Debug)]
pub(super) struct StepFailed;

impl LeaderTerm {
    /// Makes an attempt on the next step of an export.
    ///
    /// # Errors
    /// The next attempt continues the step: what was written stays.
    pub(super) async fn attempt_export_step(
        &self,
        export: &Export,
        epochs: StepEpochs,
    ) -> Result<(), StepFailed> {
        let begun = self.begin_export_step(export, epochs).await;
        let as_of = self.note_part(export, StepPart::Begin, begun)?;
        let epochs = StepEpochs { as_of, ..epochs };
        let files = self.write_regions(export, epochs).await?;
        let completed = self.complete_export_step(export, epochs, files).await;
        self.note_part(export, StepPart::Completion, completed)
    }

    /// Records the outcome of a part of a step.
    pub(super) fn note_part<T>(
        &self,
        export: &Export,
        part: StepPart,
        outcome: Result<T, Refusal>,
    ) -> Result<T, StepFailed> {
        let mut exports = self.observations.exports.lock();
        let progress = exports.entry(export.id).or_default();
        let name = &export.name;
        match outcome {
            Ok(value) => {
                if progress.complete(part) {
                    tracing::info!(export = %name, ?part, "export continues after failures");
                }
                Ok(value)
            }
            Err(problem) => {
                if progress.fail(part, &problem, Instant::now()) {
                    tracing::warn!(export = %name, ?part, %problem, "export fails; retrying");
                } else {
                    tracing::debug!(export = %name, ?part, %problem, "export fails; retrying");
                }
                Err(StepFailed)
            }
        }
    }

    /// Records the epoch of the step, unless an earlier attempt has done so. Returns the recorded epoch.
    async fn begin_export_step(
        &self,
        export: &Export,
        epochs: StepEpochs,
    ) -> Result<Epoch, Refusal> {
        if export.step_as_of.is_none() {
            self.record(export, Progress::Begun(epochs.as_of.get())).await?;
        }
        let state = self.group.view.read();
        let known = state.exports().by_id(export.id).filter(|known| known.steps == export.steps);
        known.and_then(|known| known.step_as_of).ok_or_else(|| {
            Refusal::new(Reason::ProcedureSuperseded, "the step of the export is completed")
        })
    }

    /// Returns the target of an export as calls have it.
    pub(super) fn export_target(&self, export: &Export) -> v1::ExportTarget {
        let state = self.group.view.read();
        let table = state.table(export.table).map(|table| table.name.clone()).unwrap_or_default();
        v1::ExportTarget {
            export_id: Bytes::copy_from_slice(export.id.as_bytes()),
            name: export.name.clone(),
            table,
            target: export.target.clone(),
        }
    }

    async fn record(&self, export: &Export, progress: Progress) -> Result<(), Refusal> {
        let record = v1::RecordExport {
            export_id: Bytes::copy_from_slice(export.id.as_bytes()),
            step: export.steps + 1,
            progress: Some(progress),
        };
        let command = v1::ChangeCollections {
            change: Some(Change::RecordExport(record)),
            ..v1::ChangeCollections::default()
        };
        self.command(Kind::ChangeCollections(command)).await
    }

    /// Has the object of the step written, unless the step has no files, and records the step.
    async fn complete_export_step(
        &self,
        export: &Export,
        epochs: StepEpochs,
        files: Vec<v1::ExportFile>,
    ) -> Result<(), Refusal> {
        let completed = if files.is_empty() && epochs.after.is_some() {
            // Nothing has changed: the next step that writes files begins at its epoch.
            let as_of = epochs.as_of.get();
            v1::CompletedExportStep { as_of, ..v1::CompletedExportStep::default() }
        } else {
            self.write_object(export, epochs, files).await?
        };
        self.record(export, Progress::Completed(completed)).await
    }

    async fn write_object(
        &self,
        export: &Export,
        epochs: StepEpochs,
        files: Vec<v1::ExportFile>,
    ) -> Result<v1::CompletedExportStep, Refusal> {
        let group = routes_of(&self.group.view.read(), export).into_values().next();
        let group = group.ok_or_else(|| {
            Refusal::new(Reason::RegionNotFound, "the table of the export has no routes")
        })?;
        let request = v1::CompleteExportStepRequest {
            target: Some(self.export_target(export)),
            step: export.steps + 1,
            after: epochs.after.map(|epoch| epoch.get()),
            as_of: epochs.as_of.get(),
            files,
            ..v1::CompleteExportStepRequest::default()
        };
        let complete = |node| self.control.complete_export_step(node, request.clone());
        let shown = self.follow_leader(group, complete).await?;
        check_shown(request.step, epochs.as_of, Epoch(shown.as_of))?;
        Ok(v1::CompletedExportStep {
            as_of: shown.as_of,
            files: shown.files,
            rows: shown.rows,
            bytes: shown.bytes,
        })
    }
}
