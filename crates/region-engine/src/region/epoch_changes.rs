//! Changes of a region between two epochs.
//!
//! A read as of a later epoch shows another version of a key than one as of an earlier epoch if the newest version at the
//! later epoch is of an epoch after the earlier one. Only these versions are read: files without such epochs are skipped.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::stream;
use tidewater_common::ids::Epoch;
use tidewater_common::schema::TableSchema;

use super::Region;
use super::read::Pinned;
use crate::EngineError;
use crate::read::context::{EpochBounds, ReadContext};
use crate::read::memory::ScanAccount;
use crate::read::ranges::KeyRanges;
use crate::read::scan::{Scan, SourceOptions};
use crate::read::shape::Carried;
use crate::read::{AsOf, RowOrder, RowStream, ScanMeter};
use crate::row_versions::RowVersions;
use crate::sst::format::{EPOCH_COLUMN, OP_COLUMN};

/// Options of a read of changes.
#[derive(Debug, Clone)]
pub struct EpochChangeOptions {
    /// Versions of this epoch and of earlier ones are not read. `None`: all rows as of the later epoch.
    pub after: Option<Epoch>,
    /// The later epoch.
    pub as_of: AsOf,
    /// Maximum number of rows of a batch, at least 1.
    pub batch_rows: usize,
    /// Budgets of the memory of the read.
    pub account: ScanAccount,
}

/// Changes of a region, and their columns.
pub struct EpochChanges {
    /// Columns of the batches.
    pub schema: SchemaRef,
    /// The changes: in key order, each key once, and in an append-only table each row once.
    pub rows: RowStream,
}

impl Region {
    /// Reads the newest version of each key that is of an epoch later than `after`, and of `as_of` at the latest. Deletes
    /// are versions, too. Pins the region when it is called.
    ///
    /// Columns: those of the table, all of them nullable except for the keys, since a delete has no other values; `_tw_op`
    /// (UInt8, [`crate::RowOp::code`]) and `_tw_epoch` (UInt64), the epoch of the version. Rows that have expired may be
    /// among them.
    ///
    /// # Errors
    /// [`EngineError::BelowSince`] if versions after the earlier epoch may have been dropped,
    /// [`EngineError::EpochIncomplete`], and those of [`Region::scan`].
    pub fn epoch_changes(
        &self,
        options: &EpochChangeOptions,
        meter: &ScanMeter,
    ) -> Result<EpochChanges, EngineError> {
        let EpochChangeOptions { after, as_of, batch_rows, ref account } = *options;
        let earliest = AsOf { epoch: after.unwrap_or(as_of.epoch).min(as_of.epoch), ..as_of };
        let pinned = self.pin(Some(earliest), None)?;
        // The pinned rows are those of all complete epochs.
        as_of.check(self.id(), earliest.epoch)?;
        let Pinned { shape, .. } = &pinned;
        let ids: Vec<_> = shape.schema.columns().iter().map(|column| column.id).collect();
        let carried = Carried::new(&shape.schema, &ids)?;
        let schema = changes_schema(&shape.schema);
        let context = ReadContext {
            epochs: EpochBounds { after, as_of: Some(as_of.epoch) },
            yields_epochs: true,
            counters: meter.0.clone(),
            ..ReadContext::default()
        };
        let order = RowOrder::Key;
        let sources = SourceOptions { batch_rows, order, account: account.clone() };
        let ranges = KeyRanges::one(&self.spec.range, &self.spec.range);
        let scan = self.open_scan(pinned, &carried, &ranges, sources, &context)?;
        // Without an earlier epoch there is no row that a delete could take away.
        let scan = if after.is_some() { scan.with_deletes() } else { scan };
        let rows = change_stream(scan, schema.clone());
        Ok(EpochChanges { schema, rows })
    }
}

/// Returns the columns of changes of a table.
fn changes_schema(table: &TableSchema) -> SchemaRef {
    let arrow = table.arrow();
    let columns = table.columns().iter().zip(arrow.fields().iter());
    let mut fields: Vec<Arc<Field>> = columns
        .map(|(column, field)| {
            let is_key = table.primary_key().contains(&column.id);
            let nullable = field.is_nullable() || !is_key;
            Arc::new(field.as_ref().clone().with_nullable(nullable))
        })
        .collect();
    fields.push(Arc::new(Field::new(OP_COLUMN, DataType::UInt8, false)));
    fields.push(Arc::new(Field::new(EPOCH_COLUMN, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

fn change_stream(scan: Scan, schema: SchemaRef) -> RowStream {
    Box::pin(stream::try_unfold((scan, schema), |(mut scan, schema)| async move {
        let Some(rows) = scan.next().await? else { return Ok(None) };
        let batch = change_batch(&rows, &schema)?;
        Ok(Some((batch, (scan, schema))))
    }))
}

fn change_batch(rows: &RowVersions, schema: &SchemaRef) -> Result<RecordBatch, EngineError> {
    let stamps = rows.stamps();
    let mut columns = rows.arrays().to_vec();
    let ops: ArrayRef = Arc::new(stamps.ops.to_array(rows.rows()));
    let epochs: ArrayRef = Arc::new(stamps.epochs.to_array(rows.rows()));
    columns.extend([ops, epochs]);
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
