//! Serialized runs: the form in which a snapshot carries unflushed rows.
//!
//! The bytes are an Arrow IPC stream with its own schema: the table's columns (field ids in the
//! metadata), `_tw_seq`, `_tw_epoch` and `_tw_op`. A snapshot may be restored under a later schema,
//! so columns are found by id.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, UInt8Type, UInt64Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use tidewater_common::ids::ColumnId;
use tidewater_common::schema::FIELD_ID_KEY;

use super::run::Run;
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};
use crate::sst::format::{EPOCH_COLUMN, OP_COLUMN, SEQUENCE_COLUMN};

/// One run, by reference: creating an image copies nothing.
#[derive(Debug, Clone)]
pub struct RunImage {
    pub(crate) run: Arc<Run>,
}

/// Error of encoding or decoding an image.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// Arrow failed.
    #[error("rows of a snapshot: {0}")]
    Arrow(String),
    /// The bytes are an Arrow stream, but not of a run.
    #[error("rows of a snapshot: {0}")]
    NotARun(String),
}

impl RunImage {
    /// Number of row versions.
    pub fn rows(&self) -> usize {
        self.run.rows()
    }

    /// Bytes of the rows in memory; approximately those of the encoded image.
    pub fn bytes(&self) -> usize {
        self.run.bytes()
    }

    /// Splits the image into images of about `bytes` encoded bytes at most, in order, without
    /// copying rows. A single row is never split.
    pub fn pieces(&self, bytes: usize) -> Vec<Self> {
        let mut parts = Vec::new();
        for rows in self.run.batches() {
            split_into(&rows, bytes, &mut parts);
        }
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        let mut size = 0;
        for rows in parts {
            let next = encoded_bytes(&rows);
            if size + next > bytes && !piece.is_empty() {
                pieces.extend(Self::from_batches(std::mem::take(&mut piece), self.run.unique()));
                size = 0;
            }
            size += next;
            piece.push(rows);
        }
        pieces.extend(Self::from_batches(piece, self.run.unique()));
        pieces
    }

    /// Joins [`pieces`](Self::pieces), in their order, into one image; `None` without any.
    pub fn join(pieces: &[Self]) -> Option<Self> {
        let unique = pieces.iter().all(|piece| piece.run.unique());
        let batches = pieces.iter().flat_map(|piece| piece.run.batches()).collect();
        Self::from_batches(batches, unique)
    }

    fn from_batches(batches: Vec<RowVersions>, unique: bool) -> Option<Self> {
        Run::from_batches(batches, unique).map(|run| Self { run: Arc::new(run) })
    }

    /// Encodes the image.
    ///
    /// # Errors
    /// [`ImageError::Arrow`].
    pub fn encode(&self) -> Result<Bytes, ImageError> {
        let arrow = |error: arrow::error::ArrowError| ImageError::Arrow(error.to_string());
        let Some(first) = self.run.batch(0) else {
            return Err(ImageError::NotARun("no rows".to_owned()));
        };
        let schema = Arc::new(schema_of(&first, self.run.unique()));
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(arrow)?;
        for rows in self.run.batches() {
            let mut arrays: Vec<ArrayRef> = rows.arrays().to_vec();
            let stamps = rows.stamps();
            arrays.push(Arc::new(stamps.sequences.to_array(rows.rows())));
            arrays.push(Arc::new(stamps.epochs.to_array(rows.rows())));
            arrays.push(Arc::new(stamps.ops.to_array(rows.rows())));
            let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(arrow)?;
            writer.write(&batch).map_err(arrow)?;
        }
        writer.into_inner().map(Bytes::from).map_err(arrow)
    }

    /// Decodes an image.
    ///
    /// # Errors
    /// [`ImageError`] for bytes that are not an image.
    pub fn decode(bytes: &Bytes) -> Result<Self, ImageError> {
        let arrow = |error: arrow::error::ArrowError| ImageError::Arrow(error.to_string());
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(arrow)?;
        let schema = reader.schema();
        let unique = schema.metadata().get(UNIQUE_KEY).is_some_and(|value| value == "1");
        let ids = ids_of(&schema)?;
        let mut batches = Vec::new();
        for batch in reader {
            batches.push(rows_of(&batch.map_err(arrow)?, &ids)?);
        }
        Self::from_batches(batches, unique).ok_or_else(|| ImageError::NotARun("no rows".to_owned()))
    }
}

/// Halves rows until each part fits.
fn split_into(rows: &RowVersions, bytes: usize, parts: &mut Vec<RowVersions>) {
    let count = rows.rows();
    if count <= 1 || encoded_bytes(rows) <= bytes {
        parts.push(rows.clone());
        return;
    }
    split_into(&rows.slice(0, count / 2), bytes, parts);
    split_into(&rows.slice(count / 2, count - count / 2), bytes, parts);
}

/// Approximate size of encoded rows: each has its own sequence, epoch and operation then.
fn encoded_bytes(rows: &RowVersions) -> usize {
    rows.bytes() + rows.rows() * (8 + 8 + 1)
}

const UNIQUE_KEY: &str = "tidewater.unique";

fn schema_of(rows: &RowVersions, unique: bool) -> Schema {
    let mut fields: Vec<Field> = rows
        .ids()
        .iter()
        .zip(rows.arrays())
        .map(|(id, array)| {
            Field::new(format!("c{id}"), array.data_type().clone(), true)
                .with_metadata([(FIELD_ID_KEY.to_owned(), id.to_string())].into())
        })
        .collect();
    fields.push(Field::new(SEQUENCE_COLUMN, DataType::UInt64, false));
    fields.push(Field::new(EPOCH_COLUMN, DataType::UInt64, false));
    fields.push(Field::new(OP_COLUMN, DataType::UInt8, false));
    let unique = if unique { "1" } else { "0" };
    Schema::new(fields).with_metadata([(UNIQUE_KEY.to_owned(), unique.to_owned())].into())
}

fn ids_of(schema: &Schema) -> Result<Arc<[ColumnId]>, ImageError> {
    let columns = schema.fields().len().saturating_sub(3);
    schema
        .fields()
        .iter()
        .take(columns)
        .map(|field| {
            field
                .metadata()
                .get(FIELD_ID_KEY)
                .and_then(|id| id.parse().ok())
                .map(ColumnId)
                .ok_or_else(|| ImageError::NotARun(format!("column {:?} has no id", field.name())))
        })
        .collect()
}

fn rows_of(batch: &RecordBatch, ids: &Arc<[ColumnId]>) -> Result<RowVersions, ImageError> {
    let missing = |name: &str| ImageError::NotARun(format!("column {name} is missing"));
    let numbers = |name: &str| {
        batch
            .column_by_name(name)
            .and_then(|array| array.as_primitive_opt::<UInt64Type>())
            .map(|array| match array.values().first() {
                Some(first) if array.values().iter().all(|value| value == first) => {
                    Numbers::All(*first)
                }
                _ => Numbers::Each(array.clone()),
            })
            .ok_or_else(|| missing(name))
    };
    let codes = batch
        .column_by_name(OP_COLUMN)
        .and_then(|array| array.as_primitive_opt::<UInt8Type>())
        .ok_or_else(|| missing(OP_COLUMN))?;
    if codes.null_count() > 0 || codes.values().iter().any(|code| RowOp::from_code(*code).is_none())
    {
        return Err(ImageError::NotARun("an unknown operation".to_owned()));
    }
    let ops = match codes.values().first().copied() {
        Some(first) if codes.values().iter().all(|code| *code == first) => {
            RowOp::from_code(first).map_or_else(|| Ops::Each(codes.clone()), Ops::All)
        }
        _ => Ops::Each(codes.clone()),
    };
    let stamps =
        Stamps { sequences: numbers(SEQUENCE_COLUMN)?, epochs: numbers(EPOCH_COLUMN)?, ops };
    let arrays = batch.columns()[..ids.len()].to_vec();
    Ok(RowVersions::new(ids.clone(), arrays, batch.num_rows(), stamps))
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
