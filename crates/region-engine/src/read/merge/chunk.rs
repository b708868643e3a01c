//! Input of a merge.

use arrow::row::Rows;
use tidewater_common::rows::bytes_of;

use crate::row_versions::RowVersions;

/// A piece of a source with comparable keys.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The rows, with the columns of the output.
    pub(crate) rows: RowVersions,
    /// Their comparable keys.
    pub(crate) keys: Rows,
    /// True if no key occurs twice in the source of this chunk.
    pub(crate) unique: bool,
    /// Average bytes of a row; at least 1. Computed once, so that sizing a batch costs nothing per
    /// row.
    pub(super) row_bytes: usize,
}

impl Chunk {
    pub(crate) fn new(rows: RowVersions, keys: Rows, unique: bool) -> Self {
        let bytes = bytes_of(rows.arrays(), 0..rows.rows());
        let row_bytes = bytes.div_ceil(rows.rows().max(1)).max(1);
        Self { rows, keys, unique, row_bytes }
    }
}
