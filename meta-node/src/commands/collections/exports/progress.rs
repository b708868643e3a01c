//! Progress of exports: a step begins as of an epoch, and is completed when the objects show it.
//!
//! A record that is proposed twice, or by a leader that was deposed, is of a step that is not the next one, or that has not begun,
//! and has no effect.

use tidewater_common::ids::Epoch;
use tidewater_proto::v1::{self, record_export::Progress};
use uuid::Uuid;

use crate::catalog::{CatalogChange, Export};
use crate::commands::CommandError;
use crate::commands::collections::{CollectionsAt, malformed};

/// Records the progress of the next step of an export. Others have no effect.
pub(in crate::commands::collections) fn record(
    at: &CollectionsAt<'_>,
    request: &v1::RecordExport,
) -> Result<CatalogChange, CommandError> {
    let id = Uuid::from_slice(&request.export_id);
    let id = id.map_err(|_| malformed("the id of an export is not a UUID"))?;
    let progress = request.progress.as_ref();
    let progress = progress.ok_or_else(|| malformed("the progress of an export is empty"))?;
    let export = at.state.exports().by_id(id);
    let export = export.filter(|export| export.steps.checked_add(1) == Some(request.step));
    let Some(export) = export else { return Ok(CatalogChange::default()) };
    match progress {
        Progress::Begun(epoch) => begin_step(export, Epoch(*epoch)),
        Progress::Completed(step) => complete_step(export, step, at.state.header().time_ms),
    }
}

/// Begins the next step. One that has begun keeps its epoch: objects may have been written as of it.
fn begin_step(export: &Export, as_of: Epoch) -> Result<CatalogChange, CommandError> {
    if export.step_as_of.is_some() {
        return Ok(CatalogChange::default());
    }
    if !export.is_next_epoch(as_of) {
        let text = "the epoch of a step of an export does not follow that of the last one";
        return Err(malformed(text));
    }
    let begun = Export { step_as_of: Some(as_of), ..export.clone() };
    Ok(CatalogChange { exports: vec![begun], ..CatalogChange::default() })
}

/// Completes the step that has begun, and moves the hold to its epoch.
///
/// Each leader records the epoch of a step before a region is written as of it. The objects of a step are therefore as of the
/// recorded epoch: with another one, the hold would release versions that no object has.
fn complete_step(
    export: &Export,
    step: &v1::CompletedExportStep,
    time_ms: u64,
) -> Result<CatalogChange, CommandError> {
    let Some(begun) = export.step_as_of else { return Ok(CatalogChange::default()) };
    let as_of = Epoch(step.as_of);
    if as_of != begun {
        let text = "a step of an export is completed as of another epoch than it began";
        return Err(malformed(text));
    }
    let completed = Export {
        steps: export.steps + 1,
        frontier: Some(as_of),
        advanced_ms: time_ms,
        step_as_of: None,
        files: export.files.saturating_add(step.files),
        rows: export.rows.saturating_add(step.rows),
        bytes: export.bytes.saturating_add(step.bytes),
        ..export.clone()
    };
    Ok(CatalogChange {
        holds: vec![completed.hold()],
        exports: vec![completed],
        ..CatalogChange::default()
    })
}
