//! Differences between the rows of a region and those staged in an area: a refresh writes only these.
//!
//! - **Region's rows**: the newest version of each key, pinned when the comparison begins.
//! - **Staged rows**: those of all files of the area, merged by key. A key that occurs twice is an error: no
//!   order of the files decides between two rows.
//! - **Chunk**: changes of adjacent keys, bounded in rows and in bytes. A comparison that is interrupted resumes
//!   after the last key of a chunk.

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

use std::fmt;
use std::ops::{Add, AddAssign};

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use tidewater_common::keys::KeyRange;

use self::comparison::{ChunkLimits, CompareStep, Comparison};
use self::comparison_memory::ComparisonMemory;
use self::key_samples::open_sources;
use self::side::SideName;
use self::sources::check_comparable;
use self::split_keys::split_keys;
use super::Region;
use crate::EngineError;
use crate::manifest::AreaId;
use crate::read::RowStream;
use crate::read::memory::ByteLease;

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
    /// Greatest row key that was compared; empty if there was none, not even in an earlier attempt.
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

/// Comparison in progress.
pub struct ChangeStream {
    comparison: Comparison,
    region: RowStream,
    staged: RowStream,
    has_failed: bool,
    /// Memory of both streams.
    _lease: ByteLease,
}

impl ChangeStream {
    /// Returns the next chunk; `None` after the last one, and after an error.
    ///
    /// # Errors
    /// [`ChangeError::DuplicateKey`], and errors of reading.
    pub async fn next(&mut self) -> Result<Option<ChangeChunk>, ChangeError> {
        if self.has_failed {
            return Ok(None);
        }
        let next = self.compare().await;
        self.has_failed = next.is_err();
        next
    }

    async fn compare(&mut self) -> Result<Option<ChangeChunk>, ChangeError> {
        loop {
            match self.comparison.advance()? {
                CompareStep::Chunk(chunk) => return Ok(Some(*chunk)),
                CompareStep::Done => return Ok(None),
                CompareStep::Feed(side) => {
                    let rows = match side {
                        SideName::Region => self.region.try_next().await?,
                        SideName::Staged => self.staged.try_next().await?,
                    };
                    self.comparison.feed(side, rows.as_ref())?;
                }
            }
        }
    }
}

impl Region {
    /// Compares the region's newest rows with the staged rows of an area. The region's rows are pinned by this
    /// call. Requires ownership: only the owner knows all staged files.
    ///
    /// # Errors
    /// [`ChangeError::AreaNotOpen`]; [`EngineError::NotOwner`], [`EngineError::ScanMemory`], and
    /// [`EngineError::BadRows`] if the table is append-only.
    pub async fn staged_changes(
        &self,
        area: AreaId,
        options: ChangeOptions,
    ) -> Result<ChangeStream, ChangeError> {
        let files = self.staged_file_metas(area)?;
        let shape = self.shape();
        check_comparable(&shape, &files)?;
        let mut range = options.range.intersection(&self.spec.range);
        let reached = options.after.unwrap_or_default();
        if !reached.is_empty() {
            range = range.intersection(&KeyRange::new(key_after(&reached), None));
        }
        let pinned = self.pin(None, Some(shape.clone()))?;
        let (region, staged) = open_sources(&pinned, &files, &range)?;
        drop(pinned);
        let memory = ComparisonMemory::lease(&self.env.scan_memory, region, staged).await?;
        let (region, staged) = self.compared_rows(&shape, files, &range, &memory)?;
        let limits = ChunkLimits { rows: options.chunk_rows, bytes: options.chunk_bytes };
        let comparison = Comparison::new(shape, limits, reached);
        Ok(ChangeStream { comparison, region, staged, has_failed: false, _lease: memory.lease })
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

/// Returns the first key after a key.
fn key_after(key: &[u8]) -> Vec<u8> {
    let mut after = key.to_vec();
    after.push(0);
    after
}

impl fmt::Debug for ChangeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeStream").finish_non_exhaustive()
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
