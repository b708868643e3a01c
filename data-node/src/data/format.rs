//! Encodings of rows in requests and answers: compact batches, and Arrow IPC streams for clients that
//! have only an Arrow library.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::{
    RowsError, decode_batch, decode_stream, encode_batch, encode_stream, is_stream,
};
use tidewater_proto::v1::{Reason, RowsFormat, WriteRequest};

use crate::group::admission;
use crate::group::descriptor::Descriptor;

/// Returns the format that a request names.
///
/// # Errors
/// [`Reason::Unsupported`] for a format of a newer release.
pub(super) fn requested(number: i32) -> Result<RowsFormat, Refusal> {
    RowsFormat::try_from(number).map_err(|_| {
        Refusal::new(
            Reason::Unsupported,
            format!("rows format {number} is unknown; this node supports 0 (batch) and 1 (stream)"),
        )
    })
}

/// Encodes rows of an answer.
pub(super) fn encode(batch: &RecordBatch, format: RowsFormat) -> Result<Bytes, Refusal> {
    let encoded = match format {
        RowsFormat::Batch => encode_batch(batch),
        RowsFormat::Stream => encode_stream(batch),
    };
    encoded.map_err(|error| Refusal::new(Reason::Internal, error.to_string()))
}

/// Decodes rows of a request, of either format.
pub(super) fn decode(bytes: &Bytes, schema: &SchemaRef) -> Result<RecordBatch, RowsError> {
    if is_stream(bytes) { decode_stream(bytes, schema) } else { decode_batch(bytes, schema) }
}

/// Replaces a stream in a write by the compact batch, which is what the log contains.
///
/// # Errors
/// The schema version differs from the region's, or the stream does not fit the table
/// ([`Reason::SchemaMismatch`]).
pub(super) fn make_compact(
    descriptor: &Arc<Descriptor>,
    write: &mut WriteRequest,
) -> Result<(), Refusal> {
    if !is_stream(&write.rows) {
        return Ok(());
    }
    // Before the columns: a version that differs needs another reaction than wrong columns.
    let descriptor = admission::served(descriptor, write.schema_version)?;
    let mismatch = |error: RowsError| {
        Refusal::new(
            Reason::SchemaMismatch,
            format!("rows do not fit table {}: {error}", descriptor.table_name),
        )
    };
    let batch = decode_stream(&write.rows, &descriptor.row_schema(write.op())).map_err(mismatch)?;
    write.rows = encode_batch(&batch).map_err(mismatch)?;
    Ok(())
}
