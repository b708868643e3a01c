//! Row keys of one table: stored bytes, in-memory comparison, sorting.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt16Array, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use super::value;
use crate::schema::{ColumnType, SchemaError, TableOptions, TableSchema};

/// Keys that cannot be built or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A float in a key.
    #[error("a column of type {0} cannot be part of a key")]
    TypeNotAllowed(ColumnType),
    /// A null in a key column.
    #[error("key column {column:?} is null in row {row}")]
    Null {
        /// The key column's name.
        column: String,
        /// Row within the batch, from 0.
        row: usize,
    },
    /// Columns that are not the table's key columns.
    #[error("key columns do not match the table: {0}")]
    Columns(String),
    /// The bytes end within a value.
    #[error("the key ends within a value")]
    Truncated,
    /// The bytes are not a key of this table.
    #[error("not a key of this table: {0}")]
    Malformed(String),
    /// The options do not fit the schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A computation over columns failed.
    #[error("key columns cannot be compared: {0}")]
    Arrow(#[from] ArrowError),
}

/// Builds, reads and compares the row keys of one table.
#[derive(Debug, Clone)]
pub struct KeyCodec {
    types: Arc<[(String, ColumnType)]>,
    /// Positions of the key columns among all columns.
    indices: Arc<[usize]>,
    hash: Option<Hash>,
    converter: Arc<RowConverter>,
}

#[derive(Debug, Clone)]
struct Hash {
    /// Positions among the key columns.
    columns: Arc<[usize]>,
    vnode_count: u32,
}

impl KeyCodec {
    /// Creates the codec for a table's keys.
    ///
    /// # Errors
    /// [`KeyError::Schema`] when the options do not fit the schema.
    pub fn new(schema: &TableSchema, options: &TableOptions) -> Result<Self, KeyError> {
        options.validate(schema)?;
        let types: Arc<[(String, ColumnType)]> = schema
            .key_indices()
            .iter()
            .map(|index| &schema.columns()[*index])
            .map(|column| (column.name.clone(), column.data_type.clone()))
            .collect();
        let hash = options.hash.as_ref().map(|hash| Hash {
            columns: hash
                .columns
                .iter()
                .filter_map(|id| schema.primary_key().iter().position(|key| key == id))
                .collect(),
            vnode_count: hash.vnode_count,
        });
        let vnode = hash.as_ref().map(|_| SortField::new(DataType::UInt16));
        let fields = types.iter().map(|(_, data_type)| SortField::new(data_type.arrow()));
        let converter = Arc::new(RowConverter::new(vnode.into_iter().chain(fields).collect())?);
        Ok(Self { types, indices: schema.key_indices().into(), hash, converter })
    }

    /// The key columns of a batch that has all columns of the table in schema order.
    pub fn key_columns(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.indices.iter().map(|index| batch.column(*index).clone()).collect()
    }

    /// The stored key of one row.
    ///
    /// # Errors
    /// Columns of other types, or a null.
    pub fn row_key(&self, key_columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, KeyError> {
        self.check(key_columns)?;
        self.row_key_unchecked(key_columns, row)
    }

    /// Returns the bytes of the longest stored key of these rows without building any key; 0
    /// without rows.
    ///
    /// # Errors
    /// Columns of other types, or a null.
    pub fn longest_key(&self, key_columns: &[ArrayRef]) -> Result<usize, KeyError> {
        self.check(key_columns)?;
        let rows = key_columns.first().map_or(0, |column| column.len());
        let mut fixed = if self.hash.is_some() { 2 } else { 0 };
        let mut offsets = Vec::new();
        for ((_, data_type), column) in self.types.iter().zip(key_columns) {
            match (value::fixed_width(data_type), column.data_type()) {
                (Some(width), _) => fixed += width,
                (None, DataType::Utf8) => offsets.push(column.as_string::<i32>().offsets()),
                (None, _) => offsets.push(column.as_binary::<i32>().offsets()),
            }
        }
        let strings = |row: usize| -> usize {
            offsets.iter().map(|offsets| value::string_width(length_at(offsets, row))).sum()
        };
        Ok((0..rows).map(strings).max().map_or(0, |strings| fixed + strings))
    }

    /// The stored keys of all rows; for a handful of rows, not for the write path.
    pub fn row_keys(&self, key_columns: &[ArrayRef]) -> Result<Vec<Vec<u8>>, KeyError> {
        self.check(key_columns)?;
        let rows = key_columns.first().map_or(0, |column| column.len());
        (0..rows).map(|row| self.row_key_unchecked(key_columns, row)).collect()
    }

    /// Returns the common prefix of the stored keys of all rows whose first key columns have these
    /// values, each an array of one row. `None` for a hash-distributed table: the vnode comes first
    /// and depends on values that may be missing.
    ///
    /// # Errors
    /// Columns of other types, or a null.
    pub fn key_prefix(&self, values: &[ArrayRef]) -> Result<Option<Vec<u8>>, KeyError> {
        if self.hash.is_some() {
            return Ok(None);
        }
        let mut prefix = Vec::with_capacity(12 * values.len());
        for ((name, data_type), value) in self.types.iter().zip(values) {
            if *value.data_type() != data_type.arrow() {
                return Err(KeyError::Columns(format!(
                    "column {name:?} is {} where {data_type} is expected",
                    value.data_type()
                )));
            }
            if value.is_empty() || value.is_null(0) {
                return Err(KeyError::Null { column: name.clone(), row: 0 });
            }
            value::encode(data_type, value.as_ref(), 0, &mut prefix)?;
        }
        Ok(Some(prefix))
    }

    fn row_key_unchecked(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, KeyError> {
        let mut key = Vec::with_capacity(2 + 12 * columns.len());
        if let Some(hash) = &self.hash {
            let vnode = self.vnode(hash, columns, row, &mut Vec::new())?;
            key.extend_from_slice(&vnode.to_be_bytes());
        }
        for ((_, data_type), column) in self.types.iter().zip(columns) {
            value::encode(data_type, column.as_ref(), row, &mut key)?;
        }
        Ok(key)
    }

    /// The key column values of a stored key, each an array of one row.
    ///
    /// # Errors
    /// [`KeyError::Truncated`] or [`KeyError::Malformed`].
    pub fn decode(&self, key: &[u8]) -> Result<Vec<ArrayRef>, KeyError> {
        let mut rest = key;
        if self.hash.is_some() {
            rest = key.get(2..).ok_or(KeyError::Truncated)?;
        }
        let columns = self
            .types
            .iter()
            .map(|(_, data_type)| value::decode(data_type, &mut rest))
            .collect::<Result<Vec<_>, _>>()?;
        if !rest.is_empty() {
            return Err(KeyError::Malformed(format!("{} bytes too many", rest.len())));
        }
        Ok(columns)
    }

    /// In-memory keys of all rows, which compare like the stored keys. Must not be stored.
    ///
    /// # Errors
    /// Columns of other types, or a null.
    pub fn comparable(&self, key_columns: &[ArrayRef]) -> Result<Rows, KeyError> {
        self.check(key_columns)?;
        Ok(match self.vnodes(key_columns)? {
            None => self.converter.convert_columns(key_columns)?,
            Some(vnodes) => {
                let mut columns = Vec::with_capacity(1 + key_columns.len());
                columns.push(vnodes);
                columns.extend_from_slice(key_columns);
                self.converter.convert_columns(&columns)?
            }
        })
    }

    /// Returns whether the rows are in ascending key order (equal keys allowed).
    pub fn is_sorted(&self, key_columns: &[ArrayRef]) -> Result<bool, KeyError> {
        let rows = self.comparable(key_columns)?;
        Ok((1..rows.num_rows()).all(|row| rows.row(row - 1) <= rows.row(row)))
    }

    /// Returns the batch (all columns, in schema order) in key order; rows of equal keys stay in
    /// order. A batch that is already in order is returned unchanged.
    pub fn sorted(&self, batch: &RecordBatch) -> Result<RecordBatch, KeyError> {
        self.sorted_by(batch, &self.key_columns(batch))
    }

    /// Like [`sorted`](Self::sorted), for a batch whose key columns are passed separately.
    pub fn sorted_by(
        &self,
        batch: &RecordBatch,
        key_columns: &[ArrayRef],
    ) -> Result<RecordBatch, KeyError> {
        let rows = self.comparable(key_columns)?;
        if (1..rows.num_rows()).all(|row| rows.row(row - 1) <= rows.row(row)) {
            return Ok(batch.clone());
        }
        let count = u32::try_from(rows.num_rows())
            .map_err(|_| KeyError::Columns("more than 2^32 rows in a batch".to_owned()))?;
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        Ok(take_record_batch(batch, &UInt32Array::from(order))?)
    }

    /// Returns the last row of each key of a sorted batch.
    ///
    /// # Errors
    /// As [`sorted`](Self::sorted).
    pub fn last_of_each_key(&self, sorted: &RecordBatch) -> Result<RecordBatch, KeyError> {
        let rows = self.comparable(&self.key_columns(sorted))?;
        let count = rows.num_rows();
        let last = |row: usize| row + 1 == count || rows.row(row) != rows.row(row + 1);
        if (0..count).all(last) {
            return Ok(sorted.clone());
        }
        let last: BooleanArray = (0..count).map(|row| Some(last(row))).collect();
        Ok(filter_record_batch(sorted, &last)?)
    }

    fn check(&self, columns: &[ArrayRef]) -> Result<(), KeyError> {
        if columns.len() != self.types.len() {
            return Err(KeyError::Columns(format!(
                "{} columns given, but the key has {}",
                columns.len(),
                self.types.len()
            )));
        }
        for ((name, data_type), column) in self.types.iter().zip(columns) {
            if *column.data_type() != data_type.arrow() {
                return Err(KeyError::Columns(format!(
                    "column {name:?} is {} where {data_type} is expected",
                    column.data_type()
                )));
            }
            if column.null_count() > 0 {
                let row = (0..column.len()).find(|row| column.is_null(*row)).unwrap_or(0);
                return Err(KeyError::Null { column: name.clone(), row });
            }
        }
        Ok(())
    }

    fn vnodes(&self, columns: &[ArrayRef]) -> Result<Option<ArrayRef>, KeyError> {
        let Some(hash) = &self.hash else { return Ok(None) };
        let rows = columns.first().map_or(0, |column| column.len());
        let mut scratch = Vec::new();
        let vnodes = (0..rows)
            .map(|row| self.vnode(hash, columns, row, &mut scratch))
            .collect::<Result<Vec<u16>, _>>()?;
        Ok(Some(Arc::new(UInt16Array::from(vnodes))))
    }

    /// crc32 (IEEE) of the hashed columns' memcomparable bytes, modulo the vnode count.
    fn vnode(
        &self,
        hash: &Hash,
        columns: &[ArrayRef],
        row: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<u16, KeyError> {
        scratch.clear();
        for index in hash.columns.iter() {
            value::encode(&self.types[*index].1, columns[*index].as_ref(), row, scratch)?;
        }
        let vnode = crc32fast::hash(scratch) % hash.vnode_count;
        u16::try_from(vnode).map_err(|_| KeyError::Malformed("vnode above 65,535".to_owned()))
    }
}

fn length_at(offsets: &OffsetBuffer<i32>, row: usize) -> usize {
    usize::try_from(offsets[row + 1] - offsets[row]).unwrap_or(0)
}
