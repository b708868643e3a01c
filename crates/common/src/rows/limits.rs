//! Limits of one write, which clients check before they send and data nodes before they propose.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

use super::{bytes_of, encode_batch};
use crate::keys::{KeyCodec, KeyError};

/// Rows of one write.
pub const MAX_WRITE_ROWS: usize = 1_000_000;
/// Bytes of encoded rows of one write, and thus of a single row.
pub const MAX_WRITE_BYTES: usize = 16 << 20;
/// Bytes of one row key as stored. Each producer record and each file entry in the manifest holds
/// two keys: without a limit, a region's part of a snapshot exceeds the largest record.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// Bytes by which the encoding of a row may exceed its values: header, offsets, padding.
const ENCODING_BYTES: usize = 1 << 20;

/// A row that no write may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowTooLarge {
    /// The key exceeds [`MAX_KEY_BYTES`].
    #[error(
        "a row key of {bytes} bytes is above the limit of {MAX_KEY_BYTES}: keep long values in \
         columns outside the primary key"
    )]
    Key {
        /// Bytes of the stored key.
        bytes: usize,
    },
    /// The row exceeds [`MAX_WRITE_BYTES`].
    #[error(
        "a row of {bytes} bytes is above the limit of {MAX_WRITE_BYTES}: keep large values in an \
         object store and their addresses in the table"
    )]
    Row {
        /// Bytes of the row, at least.
        bytes: usize,
    },
}

/// Returns the rows of a batch that no write may contain, with their positions. The time depends on
/// the number of text and binary columns; a batch without large values is not encoded.
///
/// # Errors
/// Key columns of other types, or a null in one.
pub fn oversized_rows(
    codec: &KeyCodec,
    batch: &RecordBatch,
) -> Result<Vec<(usize, RowTooLarge)>, KeyError> {
    let keys = codec.key_columns(batch);
    let check_keys = codec.longest_key(&keys)? > MAX_KEY_BYTES;
    let check_rows = largest_row(batch.columns()) > MAX_WRITE_BYTES - ENCODING_BYTES;
    let mut oversized = Vec::new();
    if !check_keys && !check_rows {
        return Ok(oversized);
    }
    for row in 0..batch.num_rows() {
        let key: Vec<ArrayRef> = keys.iter().map(|column| column.slice(row, 1)).collect();
        let bytes = codec.longest_key(&key)?;
        if bytes > MAX_KEY_BYTES {
            oversized.push((row, RowTooLarge::Key { bytes }));
        } else if let Some(problem) = check_rows.then(|| row_problem(batch, row)).flatten() {
            oversized.push((row, problem));
        }
    }
    Ok(oversized)
}

fn row_problem(batch: &RecordBatch, row: usize) -> Option<RowTooLarge> {
    let values = bytes_of(batch.columns(), row..row + 1);
    let bytes = match values {
        small if small <= MAX_WRITE_BYTES - ENCODING_BYTES => return None,
        large if large > MAX_WRITE_BYTES => large,
        // A batch that cannot be encoded is refused when it is sent.
        _ => encode_batch(&batch.slice(row, 1)).map_or(0, |encoded| encoded.len()),
    };
    (bytes > MAX_WRITE_BYTES).then_some(RowTooLarge::Row { bytes })
}

/// Returns an upper bound of the bytes of each row: the largest value of each column, together.
fn largest_row(columns: &[ArrayRef]) -> usize {
    columns.iter().map(largest_value).sum()
}

fn largest_value(column: &ArrayRef) -> usize {
    let longest = |offsets: &[i32]| {
        let lengths = offsets.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        usize::try_from(lengths.max().unwrap_or(0)).unwrap_or(0).saturating_add(4)
    };
    match column.data_type() {
        DataType::Utf8 => longest(column.as_string::<i32>().value_offsets()),
        DataType::Binary => longest(column.as_binary::<i32>().value_offsets()),
        // 16 bytes: the widest type of a table.
        other => other.primitive_width().unwrap_or(16),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, StringArray};

    use super::*;
    use crate::ids::{ColumnId, SchemaVersion};
    use crate::schema::{Column, ColumnType, TableOptions, TableSchema};

    fn table() -> TableSchema {
        let column = |id: u32, name: &str, data_type: ColumnType| Column {
            id: ColumnId(id),
            name: name.into(),
            data_type,
            nullable: false,
            default: None,
        };
        let columns = vec![column(1, "k", ColumnType::Utf8), column(2, "v", ColumnType::Binary)];
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, ColumnId(3)).unwrap()
    }

    fn check(sizes: &[(usize, usize)]) -> Vec<(usize, RowTooLarge)> {
        let table = table();
        let codec = KeyCodec::new(&table, &TableOptions::upsert()).unwrap();
        let keys = sizes.iter().map(|(key, _)| "k".repeat(*key));
        let values: Vec<Vec<u8>> = sizes.iter().map(|(_, value)| vec![7; *value]).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(keys)),
            Arc::new(BinaryArray::from_iter_values(values)),
        ];
        oversized_rows(&codec, &RecordBatch::try_new(table.arrow(), columns).unwrap()).unwrap()
    }

    #[test]
    fn rows_and_keys_above_the_limits_are_found() {
        assert_eq!(check(&[]), []);
        assert_eq!(check(&[(1, 1), (50_000, 15 << 20)]), []);
        let long_key = check(&[(1, 1), (70_000, 1), (2, 2)]);
        assert!(
            matches!(long_key[..], [(1, RowTooLarge::Key { bytes: 70_000.. })]),
            "{long_key:?}"
        );
        let large = check(&[(1, 100 << 20), (1, 1), (70_000, 20 << 20)]);
        assert!(
            matches!(large[..], [(0, RowTooLarge::Row { .. }), (2, RowTooLarge::Key { .. })]),
            "{large:?}"
        );
    }

    #[test]
    fn row_size_includes_its_encoding() {
        let codec = KeyCodec::new(&table(), &TableOptions::upsert()).unwrap();
        for bytes in MAX_WRITE_BYTES - 800..MAX_WRITE_BYTES {
            if bytes % 100 != 0 {
                continue;
            }
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(vec!["k"])),
                Arc::new(BinaryArray::from_iter_values([vec![7; bytes]])),
            ];
            let batch = RecordBatch::try_new(table().arrow(), columns).unwrap();
            let encoded = encode_batch(&batch).unwrap().len();
            let found = oversized_rows(&codec, &batch).unwrap();
            assert_eq!(found.is_empty(), encoded <= MAX_WRITE_BYTES, "{bytes} as {encoded}");
        }
    }
}
