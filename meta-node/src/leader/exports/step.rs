//! One step of an export: begin, regions, object, record.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tidewater_common::ids::{Epoch, GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, Reason, change_collections::Change, record_export::Progress};
use tokio::time::sleep;

use super::due::{StepEpochs, WrittenRegions, is_passing};
use crate::catalog::{Export, MetaState};
use crate::leader::leader_term::LeaderTerm;

/// Regions of a step that are written at a time.
const CONCURRENT_REGIONS: usize = 8;
/// Pause before a region is asked again.
const POLL: Duration = Duration::from_millis(300);
/// Rounds without a written region, for reasons that pass by themselves, after which the step has failed.
const PASSING_ROUNDS: u32 = 100;

fn routes_of(state: &MetaState, export: &Export) -> BTreeMap<RegionId, GroupId> {
    state.routes_of(export.table).map(|route| (route.route_id, route.group_id)).collect()
}

impl LeaderTerm {
    /// Takes the next step of an export.
    ///
    /// # Errors
    /// The step can be taken again: what was written stays.
    pub(super) async fn take_export_step(
        &self,
        export: &Export,
        epochs: StepEpochs,
    ) -> Result<(), Refusal> {
        if export.step_as_of.is_none() {
            self.record(export, Progress::Begun(epochs.as_of.get())).await?;
        }
        let epochs = StepEpochs { as_of: self.begun(export)?, ..epochs };
        let (files, group) = self.write_regions(export, epochs).await?;
        if files.is_empty() && epochs.after.is_some() {
            // Nothing has changed: the next step that writes files begins at its epoch.
            let completed = v1::CompletedExportStep {
                as_of: epochs.as_of.get(),
                ..v1::CompletedExportStep::default()
            };
            return self.record(export, Progress::Completed(completed)).await;
        }
        let request = v1::CompleteExportStepRequest {
            target: Some(self.target(export)),
            step: export.steps + 1,
            after: epochs.after.map(|epoch| epoch.get()),
            as_of: epochs.as_of.get(),
            files,
            ..v1::CompleteExportStepRequest::default()
        };
        let complete = |node| self.control.complete_export_step(node, request.clone());
        let shown = self.at_leader(group, complete).await?;
        let completed = v1::CompletedExportStep {
            as_of: shown.as_of,
            files: shown.files,
            rows: shown.rows,
            bytes: shown.bytes,
        };
        self.record(export, Progress::Completed(completed)).await
    }

    /// Returns the recorded epoch of the step.
    fn begun(&self, export: &Export) -> Result<Epoch, Refusal> {
        let state = self.group.view.read();
        let known = state.exports().by_id(export.id).filter(|known| known.steps == export.steps);
        known.and_then(|known| known.step_as_of).ok_or_else(|| {
            Refusal::new(Reason::ProcedureSuperseded, "the step of the export is completed")
        })
    }

    fn target(&self, export: &Export) -> v1::ExportTarget {
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

    /// Has all regions of the table written. Returns the files, and one of the groups.
    async fn write_regions(
        &self,
        export: &Export,
        epochs: StepEpochs,
    ) -> Result<(Vec<v1::ExportFile>, GroupId), Refusal> {
        let mut written = WrittenRegions::default();
        let mut passing = 0;
        loop {
            let routes = routes_of(&self.group.view.read(), export);
            let missing = written.missing(&routes);
            self.observe(export, routes.len(), missing.len());
            if missing.is_empty() {
                let group = routes.values().next().copied();
                let group = group.ok_or_else(|| {
                    Refusal::new(Reason::RegionNotFound, "the table of the export has no routes")
                })?;
                return Ok((written.files_of(&routes), group));
            }
            let mut last = None;
            let mut results = stream::iter(missing)
                .map(|(region, group)| async move {
                    (region, self.write_region(export, epochs, region, group).await)
                })
                .buffer_unordered(CONCURRENT_REGIONS);
            while let Some((region, result)) = results.next().await {
                match result {
                    Ok(files) => {
                        written.add(region, files);
                        passing = 0;
                        self.count_region(export);
                    }
                    Err(problem) if is_passing(&problem) => last = Some(problem),
                    Err(problem) => return Err(problem),
                }
            }
            if let Some(problem) = last {
                if problem.reason == Reason::EpochIncomplete {
                    self.barrier_wanted.notify_one();
                }
                passing += 1;
                if passing >= PASSING_ROUNDS {
                    return Err(problem);
                }
                sleep(POLL).await;
            }
        }
    }

    async fn write_region(
        &self,
        export: &Export,
        epochs: StepEpochs,
        region: RegionId,
        group: GroupId,
    ) -> Result<Vec<v1::ExportFile>, Refusal> {
        let request = v1::ExportRegionRequest {
            target: Some(self.target(export)),
            step: export.steps + 1,
            group_id: group.get(),
            region_id: region.get(),
            after: epochs.after.map(|epoch| epoch.get()),
            as_of: epochs.as_of.get(),
            ..v1::ExportRegionRequest::default()
        };
        loop {
            let call = |node| self.control.export_region(node, request.clone());
            let response = self.at_leader(group, call).await?;
            self.count_rows(export, region, response.rows);
            if response.done {
                return Ok(response.files);
            }
            sleep(POLL).await;
        }
    }

    fn observe(&self, export: &Export, regions: usize, missing: usize) {
        let mut exports = self.observations.exports.lock();
        let progress = exports.entry(export.id).or_default();
        progress.regions = regions;
        progress.done = regions - missing;
    }

    fn count_rows(&self, export: &Export, region: RegionId, rows: u64) {
        let mut exports = self.observations.exports.lock();
        exports.entry(export.id).or_default().rows.insert(region, rows);
    }

    fn count_region(&self, export: &Export) {
        let mut exports = self.observations.exports.lock();
        let progress = exports.entry(export.id).or_default();
        progress.done = (progress.done + 1).min(progress.regions);
        progress.failure.clear();
    }
}
