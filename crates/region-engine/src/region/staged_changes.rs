//! Differences between the rows of a region and those staged in an area: a refresh writes only these.
//!
//! - **Region's rows**: the newest version of each key, pinned when the comparison begins, and again when it continues
//!   after others have used its memory. Only the changes that it has returned may be written to its range meanwhile.
//! - **Staged rows**: those of all files of the area, merged by key. A key that occurs twice is an error: no
//!   order of the files decides between two rows.
//! - **Chunk**: changes of adjacent keys, bounded in rows and in bytes. A comparison that is interrupted resumes
//!   after the last key of a chunk. A chunk is complete once the next staged row is known to have another key: a
//!   comparison that resumes would not find a second row of the last one.

mod change_stream;
mod chunk_builder;
mod column_values;
mod comparison;
mod comparison_memory;
mod key_runs;
mod key_samples;
mod key_text;
mod side;
mod sorted_keys;
mod sources;
mod split_keys;

use std::ops::{Add, AddAssign};
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::keys::KeyRange;

pub use self::change_stream::ChangeStream;
use self::comparison::ChunkLimits;
use self::sources::{ComparedSides, check_comparable};
use self::split_keys::split_keys;
use super::Region;
use crate::EngineError;
use crate::manifest::AreaId;

/// Part of a region to compare, and the size of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeOptions {
    /// Row keys to compare; those outside of the region are ignored.
    pub range: KeyRange,
    /// Row key up to which, inclusive, an earlier attempt has compared.
    pub after: Option<Vec<u8>>,
    /// Keys of one chunk, unchanged ones included; at least 1.
    pub chunk_rows: usize,
    /// Bytes of the changed rows of one chunk. A single row may be larger.
    pub chunk_bytes: usize,
}

/// Numbers of rows by the result of their comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// Staged rows whose keys the region lacks.
    pub inserted: u64,
    /// Staged rows that differ from the region's.
    pub updated: u64,
    /// Rows of the region whose keys are not staged.
    pub deleted: u64,
    /// Equal rows.
    pub unchanged: u64,
}

/// Changes of adjacent keys.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeChunk {
    /// Staged rows that are new or differ: all columns of the schema in its order, by row key, each key once.
    pub puts: RecordBatch,
    /// Rows that are not staged: key columns in key order, by row key.
    pub deletes: RecordBatch,
    /// Greatest row key that was compared, with all staged rows of that key; empty if there was none, not even in an
    /// earlier attempt.
    pub reached: Vec<u8>,
    /// True if no key is left. The last chunk has no rows if there were none to compare.
    pub is_last: bool,
    /// Numbers of compared rows.
    pub counts: ChangeCounts,
}

/// Reason why a comparison fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeError {
    /// The staging area was abandoned, published, or never opened.
    #[error("staging area {area} is not open")]
    AreaNotOpen {
        /// Id of the staging area.
        area: AreaId,
    },
    /// Two staged rows have the same key.
    #[error("the source has the key {key} more than once")]
    DuplicateKey {
        /// Names and values of the key columns.
        key: String,
    },
    /// Error of reading the region or the staged files.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Region {
    /// Compares the region's newest rows with the staged rows of an area. The region's rows are pinned by this
    /// call. Requires ownership: only the owner knows all staged files. The stream waits for memory, this call does not.
    ///
    /// # Errors
    /// [`ChangeError::AreaNotOpen`]; [`EngineError::NotOwner`], and [`EngineError::BadRows`] if the table is
    /// append-only.
    pub async fn staged_changes(
        self: &Arc<Self>,
        area: AreaId,
        options: ChangeOptions,
    ) -> Result<ChangeStream, ChangeError> {
        let files = self.staged_file_metas(area)?;
        let shape = self.shape();
        check_comparable(&shape, &files)?;
        let range = options.range.intersection(&self.spec.range);
        let sides = ComparedSides::new(self.clone(), shape, files, range);
        let limits = ChunkLimits { rows: options.chunk_rows, bytes: options.chunk_bytes };
        Ok(ChangeStream::new(sides, limits, options.after.unwrap_or_default())?)
    }

    /// Returns up to `parts - 1` row keys that divide the rows of the region and the staged rows of an area in
    /// about equal parts. They ascend and are inside of the region's range. Reads footers of files, but no rows.
    ///
    /// # Errors
    /// As [`Region::staged_changes`].
    pub async fn staged_split_keys(
        &self,
        area: AreaId,
        parts: usize,
    ) -> Result<Vec<Vec<u8>>, ChangeError> {
        let files = self.staged_file_metas(area)?;
        let shape = self.shape();
        let samples = self.key_samples(&shape, &files).await?;
        Ok(split_keys(samples, &self.spec.range, parts))
    }
}

impl ChangeCounts {
    /// Returns the number of keys that were compared.
    pub fn compared(self) -> u64 {
        self.inserted + self.updated + self.deleted + self.unchanged
    }
}

impl Add for ChangeCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            inserted: self.inserted + other.inserted,
            updated: self.updated + other.updated,
            deleted: self.deleted + other.deleted,
            unchanged: self.unchanged + other.unchanged,
        }
    }
}

impl AddAssign for ChangeCounts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
