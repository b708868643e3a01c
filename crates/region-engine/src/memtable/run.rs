//! Runs: immutable rows sorted by key.

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::FilterBuilder;
use arrow::datatypes::SchemaRef;
use tidewater_common::ids::{ColumnId, Epoch, Sequence};
use tidewater_common::keys::KeyCodec;
use tidewater_common::rows::check_storable;
use tidewater_common::schema::{TableSchema, WriteMode};

use super::duplicates::last_of_equal_keys;
use crate::EngineError;
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};

/// One write to a region, as its log orders it.
#[derive(Debug, Clone)]
pub struct RowsWrite {
    /// Position of the write within the region; greater than that of every write before it.
    pub sequence: Sequence,
    /// Logical time; 0 until there are barriers.
    pub epoch: Epoch,
    /// Operation of the rows: put or delete.
    pub op: RowOp,
    /// Put: all columns of the schema in its order. Delete: the key columns in key order. Rows in
    /// ascending key order; equal keys in the order in which they were written.
    pub batch: RecordBatch,
}

/// Rows of one write, or merged rows of several runs. Batches follow each other in order: by key,
/// and within a key newest first.
#[derive(Debug)]
pub struct Run {
    batches: Vec<RowVersions>,
    rows: usize,
    bytes: usize,
    deletes: usize,
    min_sequence: u64,
    max_sequence: u64,
    /// True if no key occurs twice.
    unique: bool,
    key_bounds: OnceLock<(Vec<u8>, Vec<u8>)>,
}

impl Run {
    /// Creates the run of one write; `None` when it has no rows.
    pub(crate) fn from_write(
        write: RowsWrite,
        schema: &TableSchema,
        mode: WriteMode,
    ) -> Result<Option<Self>, EngineError> {
        let RowsWrite { sequence, epoch, op, batch } = write;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let (columns, ids): (SchemaRef, Arc<[ColumnId]>) = match op {
            RowOp::Put => (schema.arrow(), schema.columns().iter().map(|c| c.id).collect()),
            RowOp::Delete => (schema.key_arrow(), schema.primary_key().into()),
        };
        if ids.len() != batch.num_columns() {
            return Err(EngineError::BadRows {
                detail: format!(
                    "a write at sequence {sequence} has {} columns, not {}",
                    batch.num_columns(),
                    ids.len()
                ),
            });
        }
        if op == RowOp::Delete && !mode.has_deletes() {
            return Err(EngineError::BadRows {
                detail: format!(
                    "a write at sequence {sequence} deletes from an append-only table: its rows \
                     cannot be deleted"
                ),
            });
        }
        let rows = batch.num_rows();
        let mut arrays = batch.columns().to_vec();
        check_storable(&columns, &arrays)?;
        let mut kept = rows;
        if mode == WriteMode::Upsert {
            let keys = keys_of(&ids, &arrays, schema);
            if let Some(mask) = last_of_equal_keys(&keys)? {
                let filter = FilterBuilder::new(&mask).optimize().build();
                kept = filter.count();
                arrays = arrays.iter().map(|a| filter.filter(a)).collect::<Result<_, _>>()?;
            }
        }
        let stamps = Stamps {
            sequences: Numbers::All(sequence.get()),
            epochs: Numbers::All(epoch.get()),
            ops: Ops::All(op),
        };
        let versions = RowVersions::new(ids, arrays, kept, stamps);
        Ok(Self::from_batches(vec![versions], mode == WriteMode::Upsert))
    }

    /// Creates a run of batches in order; `None` without rows. `unique`: no key occurs twice.
    pub(crate) fn from_batches(batches: Vec<RowVersions>, unique: bool) -> Option<Self> {
        let batches: Vec<RowVersions> = batches.into_iter().filter(|b| b.rows() > 0).collect();
        let mut rows = 0;
        let mut bytes = 0;
        let mut deletes = 0;
        let mut bounds: Option<(u64, u64)> = None;
        for batch in &batches {
            rows += batch.rows();
            bytes += batch.bytes();
            deletes += batch.stamps().ops.deletes(batch.rows());
            if let Some((min, max)) = batch.stamps().sequences.bounds(batch.rows()) {
                bounds = Some(match bounds {
                    None => (min, max),
                    Some((low, high)) => (low.min(min), high.max(max)),
                });
            }
        }
        let (min_sequence, max_sequence) = bounds?;
        Some(Self {
            batches,
            rows,
            bytes,
            deletes,
            min_sequence,
            max_sequence,
            unique,
            key_bounds: OnceLock::new(),
        })
    }

    pub(crate) fn batches(&self) -> &[RowVersions] {
        &self.batches
    }

    /// Number of row versions.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn deletes(&self) -> usize {
        self.deletes
    }

    pub(crate) fn unique(&self) -> bool {
        self.unique
    }

    pub(crate) fn min_sequence(&self) -> u64 {
        self.min_sequence
    }

    pub(crate) fn max_sequence(&self) -> u64 {
        self.max_sequence
    }

    /// Returns the row keys of the first and the last row.
    pub(crate) fn key_bounds(
        &self,
        schema: &TableSchema,
        codec: &KeyCodec,
    ) -> Result<&(Vec<u8>, Vec<u8>), EngineError> {
        if let Some(bounds) = self.key_bounds.get() {
            return Ok(bounds);
        }
        let (Some(first), Some(last)) = (self.batches.first(), self.batches.last()) else {
            return Err(EngineError::BadRows { detail: "a run without rows".to_owned() });
        };
        let low = codec.row_key(&key_columns(first, schema), 0)?;
        let high = codec.row_key(&key_columns(last, schema), last.rows() - 1)?;
        Ok(self.key_bounds.get_or_init(|| (low, high)))
    }
}

/// Returns the key columns of some rows, in key order.
pub(crate) fn key_columns(rows: &RowVersions, schema: &TableSchema) -> Vec<ArrayRef> {
    keys_of(rows.ids(), rows.arrays(), schema)
}

fn keys_of(ids: &[ColumnId], arrays: &[ArrayRef], schema: &TableSchema) -> Vec<ArrayRef> {
    schema
        .primary_key()
        .iter()
        .filter_map(|key| ids.iter().position(|id| id == key).map(|index| arrays[index].clone()))
        .collect()
}
