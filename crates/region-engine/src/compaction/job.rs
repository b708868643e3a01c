//! A compaction job as a plain value.

use tidewater_common::ids::{Epoch, JobId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};

use super::pick::Why;
use crate::file_meta::{FileMeta, hull};
use crate::layout::RegionDir;

/// All there is to know to merge some files of a region, wherever their store can be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionJob {
    /// Names the job; UUIDv7.
    pub job_id: JobId,
    /// The region; outputs go into its directory.
    pub dir: RegionDir,
    /// Columns and keys that the outputs shall have.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// What is merged, each within its clip.
    pub inputs: Vec<FileMeta>,
    /// What a delete among the inputs may have to hide, outside of them.
    pub older: Vec<OlderRows>,
    /// Versions at or below it but the newest of each key are left out.
    pub since: Epoch,
    /// The time by which rows expire, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Outputs get ids that are no older, milliseconds since the Unix epoch.
    pub gc_floor_ms: u64,
    /// What the outputs are like.
    pub output: OutputOptions,
    /// The time window in use, in milliseconds; for the record.
    pub window_ms: Option<u64>,
    /// Why these files.
    pub why: Why,
}

/// What the outputs of a job are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputOptions {
    /// Their level.
    pub level: u32,
    /// Bytes at which a file ends and the next one begins.
    pub target_file_bytes: usize,
}

/// Rows outside of a job that may be older than a delete among its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OlderRows {
    /// First key.
    pub low: Vec<u8>,
    /// Last key.
    pub high: Vec<u8>,
    /// Their sequences are at or above it.
    pub min_sequence: Sequence,
}

impl CompactionJob {
    /// The part of the key space that the outputs may show: what the inputs show together.
    pub fn clip(&self) -> KeyRange {
        hull(self.inputs.iter())
    }

    /// Whether rows that a delete of the inputs hides, or that an expired row outlived, may lie
    /// outside of them within a range.
    pub fn may_hide(&self, range: &KeyRange) -> bool {
        let newest = self
            .inputs
            .iter()
            .filter(|file| range.intersects_inclusive(&file.min_key, &file.max_key))
            .map(FileMeta::max_sequence)
            .max()
            .unwrap_or_default();
        self.older.iter().any(|older| {
            older.min_sequence < newest && range.intersects_inclusive(&older.low, &older.high)
        })
    }

    /// Bytes of the inputs.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.size).sum()
    }

    /// Row versions of the inputs, clipped ones included.
    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|file| file.rows).sum()
    }
}
