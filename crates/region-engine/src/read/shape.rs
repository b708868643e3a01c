//! Shape of the rows of a read: schema, key codec and carried columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use tidewater_common::ids::ColumnId;
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::{Column, TableOptions, TableSchema, WriteMode};

use super::merge::Chunk;
use crate::EngineError;
use crate::row_versions::RowVersions;

/// A table's schema and options with the codec of its keys, at one version. All reads and writes of
/// a region share it until the table is altered. While it is altered, some reads name the version before.
#[derive(Debug)]
pub struct TableShape {
    pub(crate) schema: TableSchema,
    pub(crate) options: TableOptions,
    pub(crate) codec: KeyCodec,
}

impl TableShape {
    /// Creates the shape of a table.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] when the options do not fit the schema.
    pub fn new(schema: TableSchema, options: TableOptions) -> Result<Self, EngineError> {
        let codec = KeyCodec::new(&schema, &options)?;
        Ok(Self { schema, options, codec })
    }

    /// Codec of the table's row keys.
    pub fn codec(&self) -> &KeyCodec {
        &self.codec
    }

    pub(crate) fn mode(&self) -> WriteMode {
        self.options.write_mode
    }
}

/// The columns that a merge carries, in addition to the keys and stamps that it needs itself.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    pub(crate) ids: Arc<[ColumnId]>,
    pub(crate) types: Arc<[DataType]>,
    /// For each column, the value of rows that were written without it.
    fill: Arc<[ArrayRef]>,
}

impl Carried {
    /// # Errors
    /// [`EngineError::BadRows`] for a column that the schema does not have.
    pub(crate) fn new(schema: &TableSchema, ids: &[ColumnId]) -> Result<Self, EngineError> {
        let columns = ids
            .iter()
            .map(|id| {
                schema.column(*id).ok_or_else(|| EngineError::BadRows {
                    detail: format!(
                        "column id {id} does not exist in version {} of the schema",
                        schema.version()
                    ),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::of(&columns)
    }

    /// Carries all columns of a schema in its order.
    ///
    /// # Errors
    /// As [`Carried::new`].
    pub(crate) fn all(schema: &TableSchema) -> Result<Self, EngineError> {
        Self::of(&schema.columns().iter().collect::<Vec<_>>())
    }

    fn of(columns: &[&Column]) -> Result<Self, EngineError> {
        let fill = columns.iter().map(|column| fill(column)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            ids: columns.iter().map(|column| column.id).collect(),
            types: columns.iter().map(|column| column.data_type.arrow()).collect(),
            fill: fill.into(),
        })
    }

    /// Returns the column at this position for rows that were written without it.
    ///
    /// # Errors
    /// [`EngineError::Internal`] for an error of Arrow.
    pub(crate) fn missing(&self, index: usize, rows: usize) -> Result<ArrayRef, EngineError> {
        let fill = &self.fill[index];
        if fill.null_count() > 0 {
            return Ok(new_null_array(fill.data_type(), rows));
        }
        Ok(take(fill, &UInt32Array::from_value(0, rows), None)?)
    }

    /// Returns the same rows with these columns, in this order. A column that the rows do not have
    /// gets its default.
    ///
    /// # Errors
    /// As [`Carried::missing`].
    pub(crate) fn project(&self, rows: &RowVersions) -> Result<RowVersions, EngineError> {
        let arrays = self
            .ids
            .iter()
            .enumerate()
            .map(|(index, id)| match rows.column(*id) {
                Some(array) => Ok(array.clone()),
                None => self.missing(index, rows.rows()),
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        Ok(RowVersions::new(self.ids.clone(), arrays, rows.rows(), rows.stamps().clone()))
    }
}

/// Bytes of a text of unknown length, at least.
const LEAST_TEXT: u64 = 24;

/// Estimates the bytes of some columns of a row in memory. `texts`: bytes of all texts of a row, where
/// known.
pub(crate) fn estimated_width(schema: &TableSchema, columns: &[ColumnId], texts: u64) -> u64 {
    let mut width: u64 = 0;
    let mut holds_texts = false;
    for column in columns.iter().filter_map(|id| schema.column(*id)) {
        let data_type = column.data_type.arrow();
        let is_text = matches!(data_type, DataType::Utf8 | DataType::Binary);
        holds_texts |= is_text;
        let least = if is_text { LEAST_TEXT } else { 1 };
        width += data_type.primitive_width().map_or(least, |bytes| bytes as u64);
    }
    if holds_texts { width.saturating_add(texts) } else { width }.max(1)
}

fn fill(column: &Column) -> Result<ArrayRef, EngineError> {
    column.missing_value().map_err(|error| EngineError::BadRows {
        detail: format!("default of column {:?}: {error}", column.name),
    })
}

/// Rows that a source yields, with the carried columns, and their key columns in key order.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) rows: RowVersions,
    pub(crate) keys: Vec<ArrayRef>,
}

impl Piece {
    /// Adds comparable keys, for a merge. `unique`: no key occurs twice in the piece's source.
    pub(crate) fn into_chunk(self, codec: &KeyCodec, unique: bool) -> Result<Chunk, EngineError> {
        let keys = codec.comparable(&self.keys)?;
        Ok(Chunk::new(self.rows, keys, unique))
    }
}
