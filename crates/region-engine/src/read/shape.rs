//! What the rows of a read look like, and how their keys compare.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use tidewater_common::ids::ColumnId;
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::TableSchema;

use super::merge::Chunk;
use crate::EngineError;
use crate::row_versions::RowVersions;

/// A table's schema with the codec of its keys: what all reads and writes of a region share.
#[derive(Debug)]
pub(crate) struct TableShape {
    pub(crate) schema: TableSchema,
    pub(crate) codec: KeyCodec,
}

/// The columns that a merge carries, beside the keys and stamps that it needs itself.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    pub(crate) ids: Arc<[ColumnId]>,
    pub(crate) types: Arc<[DataType]>,
}

impl Carried {
    /// # Errors
    /// [`EngineError::BadRows`] for a column that the schema does not have.
    pub(crate) fn new(schema: &TableSchema, ids: &[ColumnId]) -> Result<Self, EngineError> {
        let types = ids
            .iter()
            .map(|id| match schema.column(*id) {
                Some(column) => Ok(column.data_type.arrow()),
                None => Err(EngineError::BadRows {
                    detail: format!(
                        "there is no column with id {id} in version {} of the schema",
                        schema.version()
                    ),
                }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { ids: ids.into(), types: types.into() })
    }

    /// All columns of a schema in its order.
    pub(crate) fn all(schema: &TableSchema) -> Self {
        Self {
            ids: schema.columns().iter().map(|column| column.id).collect(),
            types: schema.columns().iter().map(|column| column.data_type.arrow()).collect(),
        }
    }
}

/// What a source yields: rows with the carried columns, and their key columns in key order.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) rows: RowVersions,
    pub(crate) keys: Vec<ArrayRef>,
}

impl Piece {
    /// With comparable keys, for a merge. `unique`: no key occurs twice in the piece's source.
    pub(crate) fn into_chunk(self, codec: &KeyCodec, unique: bool) -> Result<Chunk, EngineError> {
        let keys = codec.comparable(&self.keys)?;
        Ok(Chunk::new(self.rows, keys, unique))
    }
}
