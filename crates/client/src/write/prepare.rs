//! Preparation of pieces: sorts the rows of a write, cuts them by region and encodes them.

use arrow::array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;
use tidewater_common::ids::RegionId;
use tidewater_common::keys::KeyCodec;
use tidewater_common::rows::{
    MAX_WRITE_BYTES, RowTooLarge, check_storable, decode_batch, encode_batch,
};
use tidewater_proto::v1::RowOp;

use super::current_schema::convert;
use crate::catalog::{Catalog, TableInfo};
use crate::error::ClientError;

/// Encoded rows of one region, sorted by key.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Region of the rows in the catalog that the piece was cut by.
    pub(crate) region: RegionId,
    pub(crate) rows: Bytes,
    pub(crate) count: u32,
    pub(crate) first_key: Vec<u8>,
    pub(crate) last_key: Vec<u8>,
}

/// Limits of one piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PieceLimits {
    pub(crate) rows: usize,
    /// Target size, in encoded bytes. A piece that exceeds it by half is cut again.
    pub(crate) bytes: usize,
}

impl PieceLimits {
    pub(super) const NONE: Self = Self { rows: usize::MAX, bytes: usize::MAX };
}

/// Checks that a batch has the columns that the operation needs, and only values that files can
/// store.
///
/// # Errors
/// [`ClientError::BadInput`] names the column and, for a null, the row (from 0).
pub(crate) fn check(table: &TableInfo, op: RowOp, batch: &RecordBatch) -> Result<(), ClientError> {
    let expected = match op {
        RowOp::Put => table.schema.arrow(),
        RowOp::Delete => table.schema.key_arrow(),
    };
    let bad = |text: String| Err(ClientError::BadInput(format!("table {:?}: {text}", table.name)));
    if batch.num_columns() != expected.fields().len() {
        return bad(format!(
            "the batch has {} columns, but {} are expected",
            batch.num_columns(),
            expected.fields().len()
        ));
    }
    for (field, column) in expected.fields().iter().zip(batch.columns()) {
        if column.data_type() != field.data_type() {
            return bad(format!(
                "column {:?} has type {}, but {} is expected",
                field.name(),
                column.data_type(),
                field.data_type()
            ));
        }
        if !field.is_nullable() && column.null_count() > 0 {
            let row = (0..column.len()).find(|row| column.is_null(*row)).unwrap_or(0);
            return bad(format!("column {:?} must not be null, but is in row {row}", field.name()));
        }
    }
    check_storable(&expected, batch.columns()).or_else(|misfit| bad(misfit.to_string()))
}

/// Sorts a batch by row key, cuts it at route boundaries and at `limits`, and encodes each piece.
///
/// # Errors
/// [`ClientError::NoRoute`]; [`ClientError::Key`] for keys that cannot be built;
/// [`ClientError::BadInput`] for rows that cannot be encoded.
pub(crate) fn prepare(
    table: &TableInfo,
    catalog: &Catalog,
    op: RowOp,
    batch: &RecordBatch,
    limits: PieceLimits,
) -> Result<Vec<Piece>, ClientError> {
    let sorted = table.codec.sorted_by(batch, &key_columns(&table.codec, op, batch))?;
    cut(table, catalog, op, &sorted, limits)
}

/// Cuts the rows of a piece along the routes of a newer catalog, and at `limits`. `table`: for which they
/// were encoded; `current`: the table as it is now.
///
/// # Errors
/// As [`prepare`]; [`ClientError::Damaged`] for rows that were not encoded for `table`.
pub(crate) fn recut(
    table: &TableInfo,
    current: &TableInfo,
    catalog: &Catalog,
    op: RowOp,
    rows: &Bytes,
    limits: PieceLimits,
) -> Result<Vec<Piece>, ClientError> {
    let schema = match op {
        RowOp::Put => table.schema.arrow(),
        RowOp::Delete => table.schema.key_arrow(),
    };
    let mut batch = decode_batch(rows, &schema).map_err(|source| ClientError::Damaged {
        what: "cutting a write at new region boundaries".into(),
        source,
    })?;
    if current.schema.version() != table.schema.version() {
        batch = convert(op, &batch, &table.schema, &current.schema)?;
    }
    cut(current, catalog, op, &batch, limits)
}

/// Returns the key columns of a batch of puts or deletes, in key order.
pub(super) fn key_columns(codec: &KeyCodec, op: RowOp, batch: &RecordBatch) -> Vec<ArrayRef> {
    match op {
        RowOp::Put => codec.key_columns(batch),
        RowOp::Delete => batch.columns().to_vec(),
    }
}

fn cut(
    table: &TableInfo,
    catalog: &Catalog,
    op: RowOp,
    sorted: &RecordBatch,
    limits: PieceLimits,
) -> Result<Vec<Piece>, ClientError> {
    let keys = key_columns(&table.codec, op, sorted);
    let rows = sorted.num_rows();
    let most = rows_per_piece(sorted, limits);
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < rows {
        let first_key = table.codec.row_key(&keys, at)?;
        let route = catalog
            .route_for(table.id, &first_key)
            .ok_or_else(|| ClientError::NoRoute(table.name.clone()))?;
        let end = match &route.range.end {
            None => rows,
            Some(bound) => first_at_or_above(&table.codec, &keys, at, rows, bound)?,
        };
        let mut from = at;
        let mut most = most;
        while from < end {
            let to = from.saturating_add(most).min(end);
            let slice = sorted.slice(from, to - from);
            let encoded = encode_batch(&slice).map_err(|error| {
                ClientError::BadInput(format!("table {:?}: {error}", table.name))
            })?;
            if encoded.len() > MAX_WRITE_BYTES && to - from == 1 {
                let problem = RowTooLarge::Row { bytes: encoded.len() };
                return Err(ClientError::BadInput(format!("table {:?}: {problem}", table.name)));
            }
            // `most` is derived from the average size of a row; these rows are larger.
            if encoded.len() / 3 > limits.bytes / 2 && to - from > 1 {
                most = (to - from) / 2;
                continue;
            }
            pieces.push(Piece {
                region: route.region,
                rows: encoded,
                count: u32::try_from(to - from)
                    .map_err(|_| ClientError::BadInput("more than 2^32 rows in a write".into()))?,
                first_key: table.codec.row_key(&keys, from)?,
                last_key: table.codec.row_key(&keys, to - 1)?,
            });
            from = to;
        }
        at = end;
    }
    Ok(pieces)
}

/// Returns the index of the first row from `low` whose key is at or above `bound`; rows are sorted by
/// key.
fn first_at_or_above(
    codec: &KeyCodec,
    keys: &[ArrayRef],
    mut low: usize,
    mut high: usize,
    bound: &[u8],
) -> Result<usize, ClientError> {
    while low < high {
        let middle = low + (high - low) / 2;
        if codec.row_key(keys, middle)?.as_slice() < bound {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn rows_per_piece(batch: &RecordBatch, limits: PieceLimits) -> usize {
    let rows = batch.num_rows().max(1);
    let bytes: usize = batch
        .columns()
        .iter()
        .map(|column| {
            let data = column.to_data();
            data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size())
        })
        .sum();
    let per_row = (bytes / rows).max(1);
    limits.rows.min(limits.bytes / per_row).max(1)
}
