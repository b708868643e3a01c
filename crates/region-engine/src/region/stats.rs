//! Statistics of a region, for operators and for flush decisions.

use std::time::Duration;

use tidewater_common::ids::{ManifestVersion, Sequence};

use super::{Phase, Region};
use crate::EngineError;
use crate::file_meta::{FileMeta, TimeRange};
use crate::manifest::json::manifest_json;
use crate::sst::writer::time_bounds;

/// Statistics of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionStats {
    /// Phase of the region on this node.
    pub phase: Phase,
    /// Manifest version that reads use.
    pub manifest_version: ManifestVersion,
    /// Every row at or below it is in a file.
    pub flushed_sequence: Sequence,
    /// Greatest applied sequence.
    pub last_sequence: Sequence,
    /// Number of runs in memory.
    pub runs: usize,
    /// Row versions in the runs.
    pub memtable_rows: u64,
    /// Size of the runs in bytes. Parts of divided runs count as much as their rows take.
    pub memtable_bytes: u64,
    /// Arrival time of the oldest unflushed row, milliseconds since the Unix epoch; `None` if all rows
    /// are flushed.
    pub unflushed_since_ms: Option<u64>,
    /// Number of files that reads use.
    pub files: usize,
    /// Row versions in the files.
    pub file_rows: u64,
    /// Size of the files in bytes.
    pub file_bytes: u64,
}

impl RegionStats {
    /// Returns the average size of a row version in bytes, rounded up: in files, or else in memory; 0 without rows.
    pub fn version_bytes(&self) -> u64 {
        let (bytes, rows) = match self.file_rows {
            0 => (self.memtable_bytes, self.memtable_rows),
            rows => (self.file_bytes, rows),
        };
        if rows == 0 { 0 } else { bytes.div_ceil(rows) }
    }
}

impl Region {
    /// Current statistics of the region.
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
            memtable_bytes: contents.runs.iter().map(|run| run.bytes() as u64).sum(),
            unflushed_since_ms: contents.unflushed_since_ms,
            files: files.len(),
            file_rows: files.iter().map(|file| file.rows).sum(),
            file_bytes: files.iter().map(|file| file.size).sum(),
        }
    }

    /// Returns the least and the greatest value of the time column, over all row versions in files and
    /// in memory; `None` without a time column or without times. Reads all times in memory.
    ///
    /// # Errors
    /// [`EngineError::Internal`] if the times in memory are not numbers.
    pub fn time_range(&self) -> Result<Option<TimeRange>, EngineError> {
        // Version and runs of one moment: rows move from runs to files.
        let (version, runs, shape) = {
            let contents = self.contents.lock();
            (contents.version.clone(), contents.runs.clone(), contents.shape.clone())
        };
        let mut range = None;
        let mut widen = |times: Option<TimeRange>| {
            range = times.map(|times| times.and(range)).or(range);
        };
        for file in version.files.iter() {
            widen(file.time);
        }
        for batch in runs.iter().flat_map(|run| run.batches()) {
            widen(time_bounds(&batch, &shape.schema)?);
        }
        Ok(range)
    }

    /// Returns by how much the manifest is dated ahead of the cluster's time. Removed files are kept until
    /// then.
    pub fn manifest_ahead(&self) -> Duration {
        let ahead_ms = self.manifest.state().time_ms.saturating_sub(self.env.clock.now_ms());
        Duration::from_millis(ahead_ms)
    }

    /// Files that reads use, in order of id.
    pub fn files(&self) -> Vec<FileMeta> {
        let version = self.contents.lock().version.clone();
        version.files.iter().map(|file| file.as_ref().clone()).collect()
    }

    /// Reads the stored manifest for operators: its state and its deltas.
    ///
    /// # Errors
    /// Errors of reading the manifest.
    pub async fn manifest_json(&self) -> Result<serde_json::Value, EngineError> {
        manifest_json(&self.env, self.dir).await
    }
}
