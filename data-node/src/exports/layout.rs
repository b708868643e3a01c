//! Objects below the prefix of an export (pure): their names, and their contents as JSON.
//!
//! - `_export.json`: the export that has the prefix.
//! - `data/STEP/*.parquet`: rows of a step. Files that its object does not name are those of attempts that have failed.
//! - `_parts/STEP/REGION.json`: the files of a region, until the step is complete.
//! - `_steps/STEP.json`: a completed step, with all of its files.
//!
//! Steps have 20 digits, so that names sort by them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidewater_common::ids::{ClusterId, Epoch, RegionId};
use tidewater_proto::v1;
use uuid::Uuid;

/// Name of the object that identifies the export.
pub(super) const IDENTITY: &str = "_export.json";
/// Greatest size of an object of JSON, in bytes: that of a step with 200,000 files.
pub(super) const MAX_JSON_BYTES: u64 = 32 << 20;
/// Version of the objects, which readers check.
const FORMAT: u32 = 1;

/// Returns the folder of the files of a step.
pub(super) fn data_folder(step: u64) -> String {
    format!("data/{step:020}")
}

/// Returns the folder of the parts of a step.
pub(super) fn parts_folder(step: u64) -> String {
    format!("_parts/{step:020}")
}

/// Returns the name of the object of a step.
pub(super) fn step_object(step: u64) -> String {
    format!("_steps/{step:020}.json")
}

/// Returns the name of the object of a region in a step.
pub(super) fn part_object(step: u64, region: RegionId) -> String {
    format!("{}/{region}.json", parts_folder(step))
}

/// Returns the name of a new file of a region in a step.
pub(super) fn data_file(step: u64, region: RegionId, id: Uuid) -> String {
    format!("{}/{region}-{}.parquet", data_folder(step), id.simple())
}

/// The export that has a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    format: u32,
    /// Id of the cluster.
    pub(super) cluster: String,
    /// Id of the export.
    pub(super) export: Uuid,
    /// Name of the export when it was created.
    pub(super) name: String,
    /// Name of the table when it was created.
    pub(super) table: String,
}

impl Identity {
    pub(super) fn new(cluster: ClusterId, export: Uuid, name: &str, table: &str) -> Self {
        let (name, table) = (name.to_owned(), table.to_owned());
        Self { format: FORMAT, cluster: cluster.to_string(), export, name, table }
    }
}

/// File with rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepFile {
    /// Name below the prefix.
    pub(super) path: String,
    pub(super) rows: u64,
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

/// Epochs of a step: its files have the newest version of each key that is of an epoch after the one and of the other at the
/// latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepEpochs {
    /// `None`: all rows as of the other epoch.
    pub(super) after: Option<u64>,
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

/// A region that is written for a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    format: u32,
    #[serde(flatten)]
    pub(super) epochs: StepEpochs,
    pub(super) files: Vec<StepFile>,
}

impl Part {
    pub(super) fn new(epochs: StepEpochs, files: Vec<StepFile>) -> Self {
        Self { format: FORMAT, epochs, files }
    }
}

/// A completed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    format: u32,
    /// Id of the export.
    pub(super) export: Uuid,
    /// Number of the step, from 1.
    pub(super) step: u64,
    #[serde(flatten)]
    pub(super) epochs: StepEpochs,
    /// Sums over the files.
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// In ascending order of their names.
    pub(super) files: Vec<StepFile>,
}

impl Step {
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
}

/// Object of JSON below a prefix.
pub(super) trait JsonObject: Serialize + for<'de> Deserialize<'de> {
    /// Version of the object.
    fn format(&self) -> u32;
}

impl JsonObject for Identity {
    fn format(&self) -> u32 {
        self.format
    }
}

impl JsonObject for Part {
    fn format(&self) -> u32 {
        self.format
    }
}

impl JsonObject for Step {
    fn format(&self) -> u32 {
        self.format
    }
}

/// Error of an object that this release cannot read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("object {name} of the export cannot be read: {problem}")]
pub(super) struct UnreadableObject {
    name: String,
    problem: String,
}

/// Encodes an object.
///
/// # Errors
/// It is larger than 32 MiB: a step has too many files.
pub(super) fn encode(name: &str, object: &impl JsonObject) -> Result<Bytes, UnreadableObject> {
    let problem = |problem: String| UnreadableObject { name: name.to_owned(), problem };
    let bytes = serde_json::to_vec_pretty(object).map_err(|error| problem(error.to_string()))?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(problem(format!("it has {} bytes", bytes.len())));
    }
    Ok(bytes.into())
}

/// Decodes an object.
///
/// # Errors
/// It is damaged, or of another version.
pub(super) fn decode<T: JsonObject>(name: &str, bytes: &[u8]) -> Result<T, UnreadableObject> {
    let problem = |problem: String| UnreadableObject { name: name.to_owned(), problem };
    let object: T = serde_json::from_slice(bytes).map_err(|error| problem(error.to_string()))?;
    if object.format() != FORMAT {
        let text = format!("it has version {}, and this release reads {FORMAT}", object.format());
        return Err(problem(text));
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, rows: u64, bytes: u64) -> StepFile {
        StepFile { path: path.to_owned(), rows, bytes }
    }

    #[test]
    fn names_of_objects_are_frozen() {
        let region = RegionId(7);
        assert_eq!(step_object(12), "_steps/00000000000000000012.json");
        assert_eq!(part_object(12, region), "_parts/00000000000000000012/7.json");
        let id = Uuid::from_u128(5);
        let expected = "data/00000000000000000012/7-00000000000000000000000000000005.parquet";
        assert_eq!(data_file(12, region, id), expected);
        assert!(data_file(12, region, id).starts_with(&data_folder(12)));
    }

    #[test]
    fn form_of_a_step_is_frozen() {
        let epochs = StepEpochs { after: None, as_of: 70 };
        let files = vec![file("data/b", 2, 20), file("data/a", 1, 10)];
        let step = Step::new(Uuid::from_u128(5), 1, epochs, files);
        let bytes = encode("s", &step).unwrap();
        let compact: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let expected = serde_json::json!({
            "format": 1, "export": "00000000-0000-0000-0000-000000000005", "step": 1, "after": null, "as_of": 70,
            "rows": 3, "bytes": 30,
            "files": [{ "path": "data/a", "rows": 1, "bytes": 10 }, { "path": "data/b", "rows": 2, "bytes": 20 }],
        });
        assert_eq!(compact, expected);
        assert_eq!(decode::<Step>("s", &bytes).unwrap(), step);
    }

    #[test]
    fn damaged_and_newer_objects_are_refused_by_name() {
        let identity = Identity::new(ClusterId(Uuid::nil()), Uuid::nil(), "x", "t");
        let bytes = encode(IDENTITY, &identity).unwrap();
        assert_eq!(decode::<Identity>(IDENTITY, &bytes).unwrap(), identity);
        let newer = Identity { format: 2, ..identity };
        let newer = encode(IDENTITY, &newer).unwrap();
        for damaged in [&b"{"[..], b"", b"[]", b"{\"format\": 1}", &newer] {
            let error = decode::<Identity>(IDENTITY, damaged).unwrap_err();
            assert!(error.to_string().contains("_export.json"), "{error}");
        }
    }
}
