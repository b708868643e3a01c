//! Uniqueness of the keys of a load, in bounded memory.
//!
//! Of each key, a hash of 128 bits is kept. Two different keys have the same hash with a probability
//! below 2^-76 for all keys up to the limit.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::RecordBatch;
use tidewater_common::keys::{KeyCodec, KeyError};
use tidewater_common::schema::{TableOptions, TableSchema};

/// Keys that are kept; about 1 GiB of memory.
pub(crate) const MAX_KEYS: usize = 50_000_000;

/// Set of the keys of all rows so far.
pub(crate) struct UniqueKeys {
    codec: KeyCodec,
    hashes: HashSet<u128, BuildHasherDefault<FoldHasher>>,
    limit: usize,
    is_complete: bool,
}

impl UniqueKeys {
    /// Creates an empty set for the keys of a table. Keys beyond the first `limit` are not checked.
    pub(crate) fn new(table: &TableSchema, limit: usize) -> Result<Self, KeyError> {
        let codec = KeyCodec::new(table, &TableOptions::upsert())?;
        Ok(Self { codec, hashes: HashSet::default(), limit, is_complete: true })
    }

    /// Returns true if no row was left out.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Adds the keys of a batch. Returns the first row whose key occurred before, with its key.
    pub(crate) fn add(&mut self, rows: &RecordBatch) -> Result<Option<(usize, Vec<u8>)>, KeyError> {
        let columns = self.codec.key_columns(rows);
        for row in 0..rows.num_rows() {
            if self.hashes.len() >= self.limit {
                self.is_complete = false;
                return Ok(None);
            }
            let key = self.codec.row_key(&columns, row)?;
            if !self.hashes.insert(hash(&key)) {
                return Ok(Some((row, key)));
            }
        }
        Ok(None)
    }

    /// Returns the first row of a batch with this key.
    pub(crate) fn find(&self, rows: &RecordBatch, key: &[u8]) -> Result<Option<usize>, KeyError> {
        let columns = self.codec.key_columns(rows);
        for row in 0..rows.num_rows() {
            if self.codec.row_key(&columns, row)? == key {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

fn hash(key: &[u8]) -> u128 {
    let half = |prefix: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(prefix);
        hasher.write(key);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Hasher of a value that is a hash already.
#[derive(Debug, Default)]
pub(crate) struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use tidewater_common::ids::{ColumnId, SchemaVersion};
    use tidewater_common::schema::{Column, ColumnType};

    use super::*;

    fn table() -> TableSchema {
        let column = |id: u32, name: &str, data_type: ColumnType| Column {
            id: ColumnId(id),
            name: name.into(),
            data_type,
            nullable: false,
            default: None,
        };
        let columns = vec![column(1, "a", ColumnType::Utf8), column(2, "b", ColumnType::Int64)];
        let key = vec![ColumnId(2), ColumnId(1)];
        TableSchema::new(SchemaVersion(1), columns, key, None, ColumnId(3)).unwrap()
    }

    fn rows(rows: &[(&str, i64)]) -> RecordBatch {
        let a: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let b: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_new(table().arrow(), vec![a, b]).unwrap()
    }

    #[test]
    fn repeated_key_is_found_across_batches() {
        let mut keys = UniqueKeys::new(&table(), 10).unwrap();
        assert_eq!(keys.add(&rows(&[("x", 1), ("x", 2), ("y", 1)])).unwrap(), None);
        let batch = rows(&[("y", 2), ("x", 2), ("x", 1)]);
        let (row, key) = keys.add(&batch).unwrap().unwrap();
        assert_eq!(row, 1);
        assert_eq!(keys.find(&rows(&[("x", 1), ("x", 2)]), &key).unwrap(), Some(1));
        assert_eq!(keys.find(&rows(&[("x", 1)]), &key).unwrap(), None);
        assert!(keys.is_complete());
    }

    #[test]
    fn number_of_kept_keys_is_bounded() {
        let mut keys = UniqueKeys::new(&table(), 2).unwrap();
        assert_eq!(keys.add(&rows(&[("x", 1), ("x", 2)])).unwrap(), None);
        assert!(keys.is_complete());
        assert_eq!(keys.add(&rows(&[("x", 1), ("x", 1)])).unwrap(), None);
        assert!(!keys.is_complete());
        assert_eq!(keys.hashes.len(), 2);
    }
}
