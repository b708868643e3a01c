//! Progress of exports and refreshes: the definition of their table, and their rows (pure).
//!
//! The epoch of the last barrier and the time of the next refresh are left out: they change without progress.

use arrow::array::ArrayRef;
use tidewater_client::admin::NewTable;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1;

use crate::columns::{self, ColumnDefinition, numbers, texts};

/// Name of the table.
pub(crate) const PROGRESS: &str = "collection_progress";

/// Columns. The first two are the key.
const COLUMNS: [ColumnDefinition; 14] = [
    ("kind", "utf8", false),
    ("name", "utf8", false),
    ("table_id", "uint64", false),
    ("table", "utf8", false),
    ("state", "utf8", true),
    ("frontier", "uint64", true),
    ("lag_ms", "uint64", true),
    ("step", "uint64", true),
    ("generation", "uint64", true),
    ("rows", "uint64", true),
    ("bytes", "uint64", true),
    ("rows_done", "uint64", true),
    ("rows_expected", "uint64", true),
    ("error", "utf8", true),
];

/// Direction in which rows are moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ProgressKind {
    /// Out of a table, by an export.
    #[default]
    Export,
    /// Into a table, by its refreshes.
    Refresh,
}

impl ProgressKind {
    const fn text(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Refresh => "refresh",
        }
    }
}

/// Progress of an export, or of the refreshes of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CollectionProgress<'a> {
    pub(crate) kind: ProgressKind,
    /// Name of the export or of the refreshable table.
    pub(crate) name: &'a str,
    /// Id of the table.
    pub(crate) table: TableId,
    /// Name of the table.
    pub(crate) table_name: &'a str,
    /// State of the refreshes; `None`: an export.
    pub(crate) state: Option<&'a str>,
    /// Epoch of the last completed step of an export, or published epoch of a table; `None`: none.
    pub(crate) frontier: Option<Epoch>,
    /// Time from the frontier of an export to the last epoch that can be exported; `None`: one of them has no begin, or a
    /// refresh.
    pub(crate) lag_ms: Option<u64>,
    /// Number of the step of an export that is in progress, from 1; `None`: none.
    pub(crate) step: Option<u64>,
    /// Generation of the last refresh that was begun; `None`: none.
    pub(crate) generation: Option<u64>,
    /// Rows of the completed steps of an export; `None`: a refresh.
    pub(crate) rows: Option<u64>,
    /// Bytes of the objects of the completed steps; `None` as before.
    pub(crate) bytes: Option<u64>,
    /// Rows that the step in progress has written, or rows of the source that the refresh in progress has read or merged;
    /// `None`: there is none, or they are not known.
    pub(crate) rows_done: Option<u64>,
    /// Rows of the source of the refresh in progress; `None`: they are not known.
    pub(crate) rows_expected: Option<u64>,
    /// Failure of the step in progress, or of the last refresh; `None`: none.
    pub(crate) error: Option<&'a str>,
}

/// Returns the progress of exports and refreshes, in this order.
pub(crate) fn progress<'a>(
    exports: &'a [v1::ListedExport],
    refreshes: &'a [v1::RefreshInfo],
) -> Vec<CollectionProgress<'a>> {
    let exports = exports.iter().filter_map(export_progress);
    exports.chain(refreshes.iter().filter_map(refresh_progress)).collect()
}

fn export_progress(listed: &v1::ListedExport) -> Option<CollectionProgress<'_>> {
    let export = listed.export.as_ref()?;
    let begins = Epoch(export.frontier).ms().zip(Epoch(listed.upper).ms());
    let is_in_step = export.step_as_of != 0;
    Some(CollectionProgress {
        kind: ProgressKind::Export,
        name: &export.name,
        table: TableId(export.table_id),
        table_name: &listed.table,
        frontier: known(export.frontier).map(Epoch),
        lag_ms: begins.map(|(frontier_ms, upper_ms)| upper_ms.saturating_sub(frontier_ms)),
        step: is_in_step.then(|| export.steps.saturating_add(1)),
        rows: Some(export.rows),
        bytes: Some(export.bytes),
        rows_done: is_in_step.then_some(listed.step_rows),
        error: Some(listed.failure.as_str()).filter(|error| !error.is_empty()),
        ..CollectionProgress::default()
    })
}

/// Returns the progress of the refreshes of a table; `None`: the table was dropped.
fn refresh_progress(info: &v1::RefreshInfo) -> Option<CollectionProgress<'_>> {
    let record = info.record.as_ref().filter(|_| !info.table.is_empty())?;
    let current = record.current.as_ref();
    let loaded = info.load.as_ref().map(|load| load.rows);
    let merged = current.and_then(|run| run.counts.as_ref()).map(rows_of_source);
    let failure = info.failure.as_ref().map(|failure| failure.message.as_str());
    let last = record.history.first().map(|run| run.error.as_str());
    Some(CollectionProgress {
        kind: ProgressKind::Refresh,
        name: &info.table,
        table: TableId(record.table_id),
        table_name: &info.table,
        state: Some(info.state.as_str()),
        frontier: known(info.published_epoch).map(Epoch),
        generation: known(record.generation),
        rows_done: loaded.or(merged),
        rows_expected: current.and_then(|run| known(run.source_rows)),
        error: failure.or(last).filter(|error| !error.is_empty()),
        ..CollectionProgress::default()
    })
}

/// Returns the number of rows of the source that a merge has compared: those that it deletes are in the table only.
fn rows_of_source(counts: &v1::MergeCounts) -> u64 {
    counts.inserted.saturating_add(counts.updated).saturating_add(counts.unchanged)
}

/// Returns a number that is 0 if it is not known.
fn known(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

/// Returns the definition of the table.
pub(crate) fn definition() -> NewTable {
    columns::definition(PROGRESS, &COLUMNS, 2)
}

/// Returns progress as columns of the table.
pub(crate) fn columns(progress: &[CollectionProgress<'_>]) -> Vec<ArrayRef> {
    vec![
        texts(progress, |of| Some(of.kind.text())),
        texts(progress, |of| Some(of.name)),
        numbers(progress, |of| Some(of.table.get().into())),
        texts(progress, |of| Some(of.table_name)),
        texts(progress, |of| of.state),
        numbers(progress, |of| of.frontier.map(Epoch::get)),
        numbers(progress, |of| of.lag_ms),
        numbers(progress, |of| of.step),
        numbers(progress, |of| of.generation),
        numbers(progress, |of| of.rows),
        numbers(progress, |of| of.bytes),
        numbers(progress, |of| of.rows_done),
        numbers(progress, |of| of.rows_expected),
        texts(progress, |of| of.error),
    ]
}

#[cfg(test)]
mod tests;
