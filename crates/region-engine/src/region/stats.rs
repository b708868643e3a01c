//! What a region holds, for operators and for those who decide when to flush.

use tidewater_common::ids::{ManifestVersion, Sequence};

use super::{Phase, Region};
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::manifest::json::manifest_json;

/// A region in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionStats {
    /// Where it stands.
    pub phase: Phase,
    /// The manifest version that reads use.
    pub manifest_version: ManifestVersion,
    /// Every row at or below it lies in a file.
    pub flushed_sequence: Sequence,
    /// Greatest sequence applied.
    pub last_sequence: Sequence,
    /// Runs of the memtable.
    pub runs: usize,
    /// Row versions in them.
    pub memtable_rows: u64,
    /// Bytes of them.
    pub memtable_bytes: u64,
    /// When the oldest unflushed row came, milliseconds since the Unix epoch; `None` without one.
    pub unflushed_since_ms: Option<u64>,
    /// Files that reads see.
    pub files: usize,
    /// Row versions in them.
    pub file_rows: u64,
    /// Bytes of them.
    pub file_bytes: u64,
}

impl Region {
    /// The region in numbers, at this moment.
    pub fn stats(&self) -> RegionStats {
        let contents = self.contents.lock();
        let files = &contents.version.files;
        RegionStats {
            phase: contents.phase,
            manifest_version: contents.version.manifest,
            flushed_sequence: contents.version.flushed,
            last_sequence: contents.last_sequence,
            runs: contents.runs.len(),
            memtable_rows: contents.runs.iter().map(|run| run.rows() as u64).sum(),
            memtable_bytes: self.usage.bytes(),
            unflushed_since_ms: contents.unflushed_since_ms,
            files: files.len(),
            file_rows: files.iter().map(|file| file.rows).sum(),
            file_bytes: files.iter().map(|file| file.size).sum(),
        }
    }

    /// The files that reads see, in order of id.
    pub fn files(&self) -> Vec<FileMeta> {
        let version = self.contents.lock().version.clone();
        version.files.iter().map(|file| file.as_ref().clone()).collect()
    }

    /// The manifest as it is stored now, for operators: its state and its deltas.
    ///
    /// # Errors
    /// Those of reading it.
    pub async fn manifest_json(&self) -> Result<serde_json::Value, EngineError> {
        manifest_json(&self.env, self.dir).await
    }
}
