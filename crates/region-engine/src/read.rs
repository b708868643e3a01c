//! Reads: scans, counts and point reads over memtable runs and files.
//!
//! A read pins the runs and files of one version when it is called. Its sources are put into
//! groups whose key ranges overlap; the groups follow each other in key order, so at most one group
//! is open at a time. A group of one source that holds one version per key is streamed; all others
//! go through a merge. Predicates are looked at after the merge has picked the newest versions,
//! else an old version that matches would show in place of a new one that does not; [`pushdown`]
//! says which of them may keep rows from being read before that, [`prune`] which rows.

pub(crate) mod assemble;
pub(crate) mod context;
pub(crate) mod filter;
pub(crate) mod groups;
pub(crate) mod key_terms;
pub(crate) mod life;
pub(crate) mod merge;
pub(crate) mod prune;
pub(crate) mod pushdown;
pub(crate) mod ranges;
pub(crate) mod run_source;
pub(crate) mod scan;
pub(crate) mod shape;
pub(crate) mod source;
pub(crate) mod stats;
pub(crate) mod stream;

use std::pin::Pin;

use arrow::array::RecordBatch;
use futures::Stream;
use tidewater_common::ids::{ColumnId, Epoch};
use tidewater_common::keys::KeyRange;

pub use self::filter::{CompareOp, Predicate};
pub use self::stats::{ScanMeter, ScanStats};
use crate::EngineError;

/// Rows of a batch unless a scan asks otherwise.
pub const DEFAULT_BATCH_ROWS: usize = 8_192;

/// Bytes of a batch at most, of what a source yields, a merge passes on or a scan shows alike: rows
/// may be wide, and thousands of them would fill a node's memory. A single row may take more.
pub(crate) const BATCH_BYTES: usize = 8 << 20;

/// What a scan shall yield.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Columns in the order wanted; may be empty.
    pub projection: Vec<ColumnId>,
    /// Row keys; what lies outside the region is never shown.
    pub range: KeyRange,
    /// All must hold.
    pub predicates: Vec<Predicate>,
    /// Rows at most.
    pub limit: Option<u64>,
    /// Rows of a batch at most, at least 1; batches may be smaller, and are where rows are wide.
    pub batch_rows: usize,
    /// Row versions of later epochs are passed over; `None`: the newest count.
    pub as_of: Option<Epoch>,
}

impl ScanOptions {
    /// All rows of a region with these columns.
    pub fn all(projection: Vec<ColumnId>) -> Self {
        Self {
            projection,
            range: KeyRange::whole(),
            predicates: Vec::new(),
            limit: None,
            batch_rows: DEFAULT_BATCH_ROWS,
            as_of: None,
        }
    }
}

/// Batches of a scan, in key order; after an error it ends.
pub type RowStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, EngineError>> + Send>>;
