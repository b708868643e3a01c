//! Columns of a read, and their conversion to batches.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use tidewater_common::ids::ColumnId;

use super::filter::Filter;
use super::shape::{Carried, TableShape};
use crate::EngineError;
use crate::row_versions::RowVersions;

/// Returns the columns of a scan: the projection first, then columns that only the filter needs.
pub(crate) fn carried_columns(
    shape: &TableShape,
    projection: &[ColumnId],
    filter: &Filter,
) -> Result<Carried, EngineError> {
    let mut ids = projection.to_vec();
    for id in filter.columns() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Carried::new(&shape.schema, &ids)
}

/// Returns the Arrow schema of a projection.
pub(crate) fn projected_schema(
    shape: &TableShape,
    projection: &[ColumnId],
) -> Result<SchemaRef, EngineError> {
    Carried::new(&shape.schema, projection)?;
    let whole = shape.schema.arrow();
    let fields: Vec<_> = projection
        .iter()
        .filter_map(|id| shape.schema.index_of(*id))
        .map(|index| whole.fields()[index].clone())
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Returns the first columns of some rows as a batch of `schema`.
///
/// # Errors
/// [`EngineError::ColumnDropped`] in a read with an earlier version of the schema, for a column that may not be
/// null and of which rows have no value any more.
pub(crate) fn to_batch(rows: &RowVersions, schema: &SchemaRef) -> Result<RecordBatch, EngineError> {
    let arrays = rows.arrays()[..schema.fields().len()].to_vec();
    let columns = schema.fields().iter().zip(&arrays).zip(rows.ids().iter());
    for ((field, array), column) in columns {
        if !field.is_nullable() && array.null_count() > 0 {
            return Err(EngineError::ColumnDropped { column: *column });
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}
