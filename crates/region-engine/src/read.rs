//! Reads: scans, counts and point reads over memtable runs and files.
//!
//! - **Read**: pins the runs and files of one version when it is called, until it ends.
//! - **Source**: a run or a file that yields row versions by key and, within a key, newest first.
//! - **Group**: sources whose key ranges overlap. Groups follow each other in key order, so at most
//!   one group is open at a time. If the rows may be in any order, a group is a set of sources that
//!   may share a key ([`independent`]), for example the files of one time window.
//!
//! A group of one source that holds one version per key is streamed. All others go through a merge.
//! Predicates are evaluated after the merge has picked the newest versions. Otherwise an old
//! version that matches would be returned in place of a new one that does not. [`pushdown`] decides
//! which predicates may skip rows before the merge, [`prune`] which rows they skip.
//!
//! The memory of a scan is bounded: before it opens a group, it gets a part of the budget of all scans
//! ([`memory`]), which determines the pace of the group's sources ([`need`]).

pub(crate) mod assemble;
mod chain;
pub(crate) mod context;
pub(crate) mod filter;
pub(crate) mod groups;
pub(crate) mod independent;
pub(crate) mod key_terms;
pub(crate) mod life;
pub mod memory;
pub(crate) mod merge;
pub(crate) mod need;
pub(crate) mod projection;
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
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::Stream;
use tidewater_common::ids::{ColumnId, Epoch, RegionId};
use tidewater_common::keys::KeyRange;

pub use self::filter::{CompareOp, Predicate};
use self::memory::ScanAccount;
pub use self::shape::TableShape;
pub use self::stats::{ScanMeter, ScanStats};
use crate::EngineError;

/// Default number of rows of a batch.
pub const DEFAULT_BATCH_ROWS: usize = 8_192;

/// Maximum bytes of a batch that a source yields, a merge emits or a scan returns: rows may be
/// wide, and thousands of them would fill a node's memory. A single row may be larger.
pub(crate) const BATCH_BYTES: usize = 8 << 20;

/// Options of a scan.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Columns of the result, in this order; may be empty.
    pub projection: Vec<ColumnId>,
    /// Range of row keys; rows outside the region are never returned.
    pub range: KeyRange,
    /// Predicates, which must all hold.
    pub predicates: Vec<Predicate>,
    /// Maximum number of rows; `None`: unlimited.
    pub limit: Option<u64>,
    /// Maximum number of rows of a batch, at least 1. Batches may be smaller, as they are when rows
    /// are wide.
    pub batch_rows: usize,
    /// Epoch of the read; `None`: the newest rows.
    pub as_of: Option<AsOf>,
    /// Order of the rows.
    pub order: RowOrder,
    /// Budgets of the scan's memory.
    pub account: ScanAccount,
    /// Version of the schema that names and orders the columns; `None`: the current one. With an earlier one, a
    /// column that was dropped since shows the values that are still stored, otherwise its default.
    pub shape: Option<Arc<TableShape>>,
}

/// Epoch of a read: versions of later epochs are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    /// The epoch.
    pub epoch: Epoch,
    /// First epoch that is not complete: rows may still be written in it.
    pub upper: Epoch,
}

impl AsOf {
    /// Checks that the epoch is complete, and that no version of it may have been dropped. `since`: oldest epoch that
    /// can be read.
    ///
    /// # Errors
    /// [`EngineError::BelowSince`] and [`EngineError::EpochIncomplete`].
    pub(crate) fn check(self, region: RegionId, since: Epoch) -> Result<(), EngineError> {
        let Self { epoch: requested, upper } = self;
        if requested < since {
            return Err(EngineError::BelowSince { region, requested, since, upper });
        }
        if requested >= upper {
            return Err(EngineError::EpochIncomplete { region, requested, upper });
        }
        Ok(())
    }
}

/// Order of the rows of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// By row key.
    Key,
    /// Any order. Fewer sources are then open at the same time: time windows, for example, are read
    /// one after the other.
    Any,
}

impl ScanOptions {
    /// Options for all rows of a region with these columns.
    pub fn all(projection: Vec<ColumnId>) -> Self {
        Self {
            projection,
            range: KeyRange::whole(),
            predicates: Vec::new(),
            limit: None,
            batch_rows: DEFAULT_BATCH_ROWS,
            as_of: None,
            order: RowOrder::Key,
            account: ScanAccount::default(),
            shape: None,
        }
    }
}

/// Stream of a scan's batches; it ends after an error.
pub type RowStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, EngineError>> + Send>>;
