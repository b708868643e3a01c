//! Objects below the prefix of an export (pure): their names, and their contents.
//!
//! - `_export.json`: the export that has claimed the prefix.
//! - `data/STEP/*.parquet`: rows of a step. Files that the object of the step does not name are those of failed attempts.
//! - `_parts/STEP/REGION.json`: the files of a region, until the step is complete.
//! - `_steps/STEP.json`: a completed step, with all of its files.
//!
//! Steps have 20 digits, so that names sort by them.

use serde::{Deserialize, Serialize};
use tidewater_common::ids::{ClusterId, Epoch, RegionId};
use tidewater_proto::v1;
use uuid::Uuid;

use super::json::{FORMAT, JsonObject};

/// Name of the object that identifies the export.
pub(super) const IDENTITY: &str = "_export.json";

/// Returns the prefix of the files of a step.
pub(super) fn data_prefix(step: u64) -> String {
    format!("data/{step:020}")
}

/// Returns the prefix of the part objects of a step.
pub(super) fn parts_prefix(step: u64) -> String {
    format!("_parts/{step:020}")
}

/// Returns the name of the object of a step.
pub(super) fn step_object(step: u64) -> String {
    format!("_steps/{step:020}.json")
}

/// Returns the name of the object of a region in a step.
pub(super) fn part_object(step: u64, region: RegionId) -> String {
    format!("{}/{region}.json", parts_prefix(step))
}

/// Returns the name of a new file of a region in a step.
pub(super) fn data_file(step: u64, region: RegionId, id: Uuid) -> String {
    format!("{}{}.parquet", region_files(step, region), id.simple())
}

/// Returns the prefix of the names of the files of a region in a step.
fn region_files(step: u64, region: RegionId) -> String {
    format!("{}/{region}-", data_prefix(step))
}

/// Identity of the export that has claimed a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExportIdentity {
    format: u32,
    /// Id of the cluster.
    pub(super) cluster: String,
    /// Id of the export.
    pub(super) export: Uuid,
    /// Name of the export when it was created.
    pub(super) name: String,
    /// Name of the table when the export was created.
    pub(super) table: String,
}

impl ExportIdentity {
    pub(super) fn new(cluster: ClusterId, export: Uuid, name: &str, table: &str) -> Self {
        let name = name.to_owned();
        let table = table.to_owned();
        Self { format: FORMAT, cluster: cluster.to_string(), export, name, table }
    }
}

/// File with rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepFile {
    /// Name below the prefix of the export.
    pub(super) path: String,
    /// Number of rows.
    pub(super) rows: u64,
    /// Size in bytes.
    pub(super) bytes: u64,
}

impl From<StepFile> for v1::ExportFile {
    fn from(file: StepFile) -> Self {
        Self { path: file.path, rows: file.rows, bytes: file.bytes }
    }
}

impl From<v1::ExportFile> for StepFile {
    fn from(file: v1::ExportFile) -> Self {
        Self { path: file.path, rows: file.rows, bytes: file.bytes }
    }
}

/// Epochs of a step. Its files have the newest version of each key among the versions of epochs above `after`, up to and
/// including `as_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepEpochs {
    /// Epoch of the step before. `None`: the first step, with all rows as of `as_of`.
    pub(super) after: Option<u64>,
    /// Epoch that the table has after the step.
    pub(super) as_of: u64,
}

impl StepEpochs {
    pub(super) fn after(self) -> Option<Epoch> {
        self.after.map(Epoch)
    }

    pub(super) fn as_of(self) -> Epoch {
        Epoch(self.as_of)
    }
}

/// Object of a part: a region that is written for a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExportPart {
    format: u32,
    /// Id of the export. Nodes may write parts of a dropped export until their tasks end.
    pub(super) export: Uuid,
    #[serde(flatten)]
    pub(super) epochs: StepEpochs,
    pub(super) files: Vec<StepFile>,
}

impl ExportPart {
    pub(super) fn new(export: Uuid, epochs: StepEpochs, files: Vec<StepFile>) -> Self {
        Self { format: FORMAT, export, epochs, files }
    }
}

/// Object of a completed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExportStep {
    format: u32,
    /// Id of the export.
    pub(super) export: Uuid,
    /// Number of the step, from 1.
    pub(super) step: u64,
    #[serde(flatten)]
    pub(super) epochs: StepEpochs,
    /// Rows of all files.
    pub(super) rows: u64,
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Files of all regions, in ascending order of their names.
    pub(super) files: Vec<StepFile>,
}

impl ExportStep {
    pub(super) fn new(
        export: Uuid,
        step: u64,
        epochs: StepEpochs,
        mut files: Vec<StepFile>,
    ) -> Self {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let rows = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.rows));
        let bytes = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes));
        Self { format: FORMAT, export, step, epochs, rows, bytes, files }
    }

    /// Returns whether a file is one of the step.
    /// Returns the files of a region.
    pub(super) fn files_of(&self, region: RegionId) -> Vec<StepFile> {
        let prefix = region_files(self.step, region);
        self.files.iter().filter(|file| file.path.starts_with(&prefix)).cloned().collect()
    }

    pub(super) fn has_file(&self, path: &str) -> bool {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).is_ok()
    }
}

impl JsonObject for ExportIdentity {
    fn format(&self) -> u32 {
        self.format
    }
}

impl JsonObject for ExportPart {
    fn format(&self) -> u32 {
        self.format
    }
}

impl JsonObject for ExportStep {
    fn format(&self) -> u32 {
        self.format
    }
}

#[cfg(test)]
mod tests;
