//! Sizes of rows in bytes, and the number of rows that fit into a size.
//!
//! Sizes are computed from the offsets of the columns. No value is read, so the time depends on the
//! number of columns, not of rows.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

/// Returns the bytes of these rows in all columns together: the rows' own, not those of shared
/// buffers. Null bitmaps are not counted. The rows must be within the columns.
pub fn bytes_of(columns: &[ArrayRef], rows: Range<usize>) -> usize {
    columns.iter().map(|column| column_bytes(column, rows.clone())).sum()
}

/// Returns how many of these rows, from the first on, take at most `most` bytes together. At least
/// one, even if it is larger; 0 only when `rows` is empty.
pub fn rows_within(columns: &[ArrayRef], rows: Range<usize>, most: usize) -> usize {
    if rows.len() <= 1 || bytes_of(columns, rows.clone()) <= most {
        return rows.len();
    }
    let mut fits = 1;
    let mut too_many = rows.len();
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        if bytes_of(columns, rows.start..rows.start + middle) <= most {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    fits
}

/// Returns the number of rows in the first part when these rows are split into the fewest parts of
/// about equal size, each of at most `most` bytes or a single row. Filling each part up would leave
/// a last part of a row or two.
pub fn first_part(columns: &[ArrayRef], rows: Range<usize>, most: usize) -> usize {
    let bytes = bytes_of(columns, rows.clone());
    let parts = bytes.div_ceil(most.max(1)).max(1);
    rows_within(columns, rows, bytes.div_ceil(parts))
}

fn column_bytes(column: &ArrayRef, rows: Range<usize>) -> usize {
    let count = rows.len();
    match column.data_type() {
        DataType::Utf8 => value_bytes(column.as_string::<i32>().value_offsets(), rows) + 4 * count,
        DataType::Binary => {
            value_bytes(column.as_binary::<i32>().value_offsets(), rows) + 4 * count
        }
        DataType::Boolean => count.div_ceil(8),
        other => match other.primitive_width() {
            Some(width) => width * count,
            // No column of a table has such a type.
            None => {
                let data = column.slice(rows.start, count).to_data();
                data.get_slice_memory_size().unwrap_or_else(|_| data.get_array_memory_size())
            }
        },
    }
}

/// Bytes of the values of these rows. Offsets ascend and are not negative.
fn value_bytes(offsets: &[i32], rows: Range<usize>) -> usize {
    usize::try_from(offsets[rows.end] - offsets[rows.start]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, BooleanArray, Int64Array, StringArray};

    use super::*;

    fn columns() -> Vec<ArrayRef> {
        vec![
            Arc::new(StringArray::from(vec![Some("a"), None, Some("cccc"), Some("")])),
            Arc::new(BinaryArray::from_vec(vec![b"12345", b"", b"1", b"12"])),
            Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
            Arc::new(BooleanArray::from(vec![true, false, true, false])),
        ]
    }

    #[test]
    fn row_sizes_exclude_surrounding_rows() {
        let columns = columns();
        assert_eq!(bytes_of(&columns, 0..4), 5 + 8 + 4 * 16 + 1);
        assert_eq!(bytes_of(&columns, 2..3), 4 + 1 + 16 + 1);
        assert_eq!(bytes_of(&columns, 1..1), 0);
        assert_eq!(bytes_of(&[], 0..4), 0);
        // A slice has offsets of its own.
        let sliced: Vec<ArrayRef> = columns.iter().map(|column| column.slice(2, 2)).collect();
        assert_eq!(bytes_of(&sliced, 0..2), bytes_of(&columns, 2..4));
    }

    #[test]
    fn rows_within_returns_the_most_rows_that_fit() {
        let columns = columns();
        let each: Vec<usize> = (0..4).map(|row| bytes_of(&columns, row..row + 1)).collect();
        for start in 0..4 {
            for most in 0..120 {
                let fits = rows_within(&columns, start..4, most);
                assert!(fits >= 1);
                assert!(fits == 1 || bytes_of(&columns, start..start + fits) <= most, "{most}");
                let all = start + fits == 4;
                assert!(all || bytes_of(&columns, start..start + fits + 1) > most, "{most}");
            }
        }
        assert_eq!(rows_within(&columns, 0..4, each[0]), 1);
        assert_eq!(rows_within(&columns, 2..2, 100), 0);
        assert_eq!(rows_within(&[], 0..4, 0), 4);
    }

    #[test]
    fn rows_split_into_parts_of_similar_size() {
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![7; 101]))];
        let parts = |most: usize| {
            let mut at = 0;
            let mut parts = Vec::new();
            while at < 101 {
                parts.push(first_part(&columns, at..101, most));
                at += parts[parts.len() - 1];
            }
            parts
        };
        assert_eq!(parts(808), [101]);
        assert_eq!(parts(800), [50, 51]);
        assert_eq!(parts(300), [33, 34, 34]);
        assert_eq!(parts(0), [1; 101]);
        assert_eq!(first_part(&[], 0..4, 0), 4);
        assert_eq!(first_part(&columns, 3..3, 8), 0);
    }
}
