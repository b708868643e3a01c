//! What a merge is fed with.

use arrow::row::Rows;
use tidewater_common::rows::bytes_of;

use crate::row_versions::RowVersions;

/// A piece of a source.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The rows, with the columns that the output shall have.
    pub(crate) rows: RowVersions,
    /// Their comparable keys.
    pub(crate) keys: Rows,
    /// No key occurs twice in the source that this is a piece of.
    pub(crate) unique: bool,
    /// Bytes of a row, on the average of them; at least 1. Measured once, so that counting what a
    /// batch has gathered costs nothing per row.
    pub(super) row_bytes: usize,
}

impl Chunk {
    pub(crate) fn new(rows: RowVersions, keys: Rows, unique: bool) -> Self {
        let bytes = bytes_of(rows.arrays(), 0..rows.rows());
        let row_bytes = bytes.div_ceil(rows.rows().max(1)).max(1);
        Self { rows, keys, unique, row_bytes }
    }
}
