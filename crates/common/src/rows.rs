//! Rows on the wire and in the log: one Arrow IPC record batch, without its schema.
//!
//! Both ends know the schema by its version, so a single row costs only its values and a
//! small header. One encoding serves the wire, the log and snapshots:
//!
//! ```text
//! metadata length   u32, little endian
//! metadata          Arrow IPC `Message` (flatbuffer), padded with zeros to a multiple of 8
//! body              the buffers of the columns
//! ```

mod convert;
mod limits;
mod size;
mod storable;
mod stream;

pub use self::storable::{NotStorable, check_storable};

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use bytes::{BufMut, Bytes, BytesMut};

pub use self::convert::convert_batch;
pub use self::limits::{
    MAX_KEY_BYTES, MAX_WRITE_BYTES, MAX_WRITE_ROWS, RowTooLarge, oversized_rows,
};
pub use self::size::{bytes_of, first_part, rows_within};
pub use self::stream::{decode_stream, encode_stream, is_stream};

const LENGTH_BYTES: usize = 4;
const ALIGNMENT: usize = 8;

/// Rows that cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The batch cannot be expressed as one IPC message.
    #[error("rows cannot be encoded: {0}")]
    Encode(#[source] ArrowError),
    /// The bytes end too early.
    #[error("encoded rows end after {have} bytes where {need} are needed")]
    Truncated {
        /// Bytes available.
        have: usize,
        /// Bytes required by the header.
        need: usize,
    },
    /// The bytes are not a record batch of the schema.
    #[error("encoded rows do not match the table's columns: {0}")]
    Malformed(String),
}

/// Encodes a batch; the schema is not part of it.
///
/// # Errors
/// [`RowsError::Encode`] for types that IPC cannot carry without a dictionary.
pub fn encode_batch(batch: &RecordBatch) -> Result<Bytes, RowsError> {
    let mut tracker = DictionaryTracker::new(false);
    let (_, encoded) = IpcDataGenerator::default()
        .encode(batch, &mut tracker, &IpcWriteOptions::default(), &mut IpcWriteContext::default())
        .map_err(RowsError::Encode)?;
    let metadata = encoded.ipc_message;
    let body = encoded.arrow_data;
    let padded = (LENGTH_BYTES + metadata.len()).next_multiple_of(ALIGNMENT) - LENGTH_BYTES;
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + padded + body.len());
    let length = u32::try_from(padded)
        .map_err(|_| RowsError::Encode(ArrowError::IpcError("metadata above 4 GiB".to_owned())))?;
    out.put_u32_le(length);
    out.put_slice(&metadata);
    out.put_bytes(0, padded - metadata.len());
    out.put_slice(&body);
    Ok(out.freeze())
}

/// Decodes a batch of this schema. The columns share the bytes where alignment allows it.
///
/// # Errors
/// [`RowsError::Truncated`] or [`RowsError::Malformed`]; damaged bytes never panic and never give
/// columns of other types.
pub fn decode_batch(bytes: &Bytes, schema: &SchemaRef) -> Result<RecordBatch, RowsError> {
    let metadata_length = match bytes.first_chunk::<LENGTH_BYTES>() {
        Some(length) => u32::from_le_bytes(*length) as usize,
        None => return Err(RowsError::Truncated { have: bytes.len(), need: LENGTH_BYTES }),
    };
    let body_start = LENGTH_BYTES + metadata_length;
    if bytes.len() < body_start {
        return Err(RowsError::Truncated { have: bytes.len(), need: body_start });
    }
    let metadata = bytes.slice(LENGTH_BYTES..body_start);
    let body = bytes.slice(body_start..);
    let message =
        root_as_message(&metadata).map_err(|error| RowsError::Malformed(error.to_string()))?;
    let header = message
        .header_as_record_batch()
        .ok_or_else(|| RowsError::Malformed("not a record batch".to_owned()))?;
    check_layout(&header, schema, body.len())?;
    read_record_batch(
        &Buffer::from(body),
        header,
        schema.clone(),
        &HashMap::new(),
        None,
        &message.version(),
    )
    .map_err(|error| RowsError::Malformed(error.to_string()))
}

/// Checks counts and sizes against the schema: the decoder slices and allocates by them unchecked,
/// and panics on a mismatch.
fn check_layout(
    header: &arrow::ipc::RecordBatch<'_>,
    schema: &Schema,
    have: usize,
) -> Result<(), RowsError> {
    let malformed = |what: &str| RowsError::Malformed(what.to_owned());
    if header.compression().is_some() {
        return Err(malformed("compressed rows are not accepted"));
    }
    let rows = usize::try_from(header.length()).map_err(|_| malformed("negative row count"))?;
    let mut nodes = header.nodes().into_iter().flatten();
    let mut buffers = header.buffers().into_iter().flatten();
    for field in schema.fields() {
        let node = nodes.next().ok_or_else(|| malformed("too few columns"))?;
        if usize::try_from(node.length()) != Ok(rows) {
            return Err(malformed("a column of another length than the batch"));
        }
        if usize::try_from(node.null_count()).map_or(true, |nulls| nulls > rows) {
            return Err(malformed("more nulls than rows"));
        }
        let without_nulls = node.null_count() == 0;
        for (position, least) in
            least_buffer_sizes(field.data_type(), rows)?.into_iter().enumerate()
        {
            let buffer = buffers.next().ok_or_else(|| malformed("too few buffers"))?;
            let (offset, length) = usize::try_from(buffer.offset())
                .ok()
                .zip(usize::try_from(buffer.length()).ok())
                .ok_or_else(|| malformed("a buffer of negative size"))?;
            let end = offset.checked_add(length).ok_or_else(|| malformed("a buffer too large"))?;
            if end > have {
                return Err(RowsError::Truncated { have, need: end });
            }
            // The decoder reads all of an offsets buffer as 32-bit numbers.
            let offsets = matches!(field.data_type(), DataType::Utf8 | DataType::Binary);
            if offsets && position == 1 && !length.is_multiple_of(4) {
                return Err(malformed("an offsets buffer whose length is not a multiple of 4"));
            }
            let optional = rows == 0 || (position == 0 && without_nulls);
            if length < least && !(optional && length == 0) {
                return Err(malformed("a buffer too small for its rows"));
            }
        }
    }
    if nodes.next().is_some() || buffers.next().is_some() {
        return Err(malformed("too many columns"));
    }
    Ok(())
}

/// Minimum bytes of each buffer of a column, the validity bitmap first.
fn least_buffer_sizes(data_type: &DataType, rows: usize) -> Result<Vec<usize>, RowsError> {
    let too_many = || RowsError::Malformed("too many rows".to_owned());
    let bitmap = rows.div_ceil(8);
    Ok(match data_type {
        DataType::Boolean => vec![bitmap, bitmap],
        DataType::Utf8 | DataType::Binary => {
            let offsets = rows.checked_add(1).and_then(|count| count.checked_mul(4));
            vec![bitmap, offsets.ok_or_else(too_many)?, 0]
        }
        other => match other.primitive_width() {
            Some(width) => vec![bitmap, rows.checked_mul(width).ok_or_else(too_many)?],
            None => {
                return Err(RowsError::Malformed(format!("unsupported Arrow type {other}")));
            }
        },
    })
}

#[cfg(test)]
#[path = "rows/tests.rs"]
mod tests;
