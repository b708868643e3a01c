//! How many bytes rows take, and how many rows fit in so many bytes.
//!
//! Read off the offsets of the columns: no value is touched, so a stretch of rows is measured in the
//! time that its columns take, however many rows it has.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

/// Bytes of these rows in all columns together: the rows' own, not those of buffers that they share
/// with others. Bits that mark nulls are not counted. The rows must lie within the columns.
pub fn bytes_of(columns: &[ArrayRef], rows: Range<usize>) -> usize {
    columns.iter().map(|column| column_bytes(column, rows.clone())).sum()
}

/// How many of these rows, from the first on, take at most `most` bytes together. At least one, also
/// when it takes more alone; none only where `rows` is empty.
pub fn rows_within(columns: &[ArrayRef], rows: Range<usize>, most: usize) -> usize {
    if rows.len() <= 1 || bytes_of(columns, rows.clone()) <= most {
        return rows.len();
    }
    let (mut fits, mut too_many) = (1, rows.len());
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

/// How many of these rows make the first of parts of about the same size, as few as may be, each of at
/// most `most` bytes or a single row: cut where they just fit, the last one would be a row or two.
pub fn first_part(columns: &[ArrayRef], rows: Range<usize>, most: usize) -> usize {
    let bytes = bytes_of(columns, rows.clone());
    let parts = bytes.div_ceil(most.max(1)).max(1);
    rows_within(columns, rows, bytes.div_ceil(parts))
}

fn column_bytes(column: &ArrayRef, rows: Range<usize>) -> usize {
    let count = rows.len();
    match column.data_type() {
        DataType::Utf8 => stretch(column.as_string::<i32>().value_offsets(), rows) + 4 * count,
        DataType::Binary => stretch(column.as_binary::<i32>().value_offsets(), rows) + 4 * count,
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

/// Offsets ascend and are not negative.
fn stretch(offsets: &[i32], rows: Range<usize>) -> usize {
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
    fn rows_are_measured_without_those_around_them() {
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
    fn as_many_rows_fit_as_take_no_more_and_at_least_one() {
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
    fn parts_are_of_about_the_same_size() {
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![7; 101]))];
        let parts = |most: usize| {
            let (mut at, mut parts) = (0, Vec::new());
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
