use arrow::array::{Array, AsArray};
use arrow::datatypes::Int32Type;
use tokio_postgres::types::Type;

use super::super::columns::{QueryColumn, match_columns};
use super::super::copy_format::CopyDecoder;
use super::super::testing::table;
use super::*;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// A row of an `int8` and a text.
fn row(id: i64, text: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = [&b"\0\x02\0\0\0\x08"[..], &id.to_be_bytes()].concat();
    let length = text.map_or(-1, |text| i32::try_from(text.len()).unwrap());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.unwrap_or_default());
    bytes
}

/// Batches of a table with `id`, `text` and `more`, of which the query lacks the last.
fn batches(is_nullable: bool, rows: &[Vec<u8>]) -> Result<Vec<RecordBatch>, RowError> {
    let table =
        table(&[("id", "int32", false), ("text", "utf8", is_nullable), ("more", "date32", true)]);
    let query = [("id", Type::INT8), ("text", Type::TEXT)];
    let query = query.map(|(name, data_type)| QueryColumn { name: name.to_owned(), data_type });
    let sources = match_columns(&table, &query).unwrap();
    let mut builder = BatchBuilder::new(Arc::new(table), sources);
    let mut decoder = CopyDecoder::new(2);
    let mut batches = Vec::new();
    decoder.decode(HEADER, |row| builder.append(row))?;
    for bytes in rows {
        decoder.decode(bytes, |row| builder.append(row))?;
        if builder.is_full() {
            batches.extend(builder.finish()?);
        }
    }
    batches.extend(builder.finish()?);
    assert_eq!(builder.finish(), Ok(None));
    Ok(batches)
}

#[test]
fn batches_are_limited_by_rows() {
    let rows: Vec<Vec<u8>> = (0..20_000).map(|id| row(id, Some(b"x"))).collect();
    let batches = batches(false, &rows).unwrap();
    let sizes: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [8_192, 8_192, 3_616]);
    let ids = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values());
    assert!(ids.copied().eq(0..20_000));
}

#[test]
fn batches_are_limited_by_bytes() {
    let text = vec![b'x'; 1 << 20];
    let rows: Vec<Vec<u8>> = (0..9).map(|id| row(id, Some(&text))).collect();
    let batches = batches(false, &rows).unwrap();
    let sizes: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [4, 4, 1]);
}

#[test]
fn batches_have_nulls_where_the_query_has_none() {
    let batches = batches(true, &[row(1, None), row(2, Some(b""))]).unwrap();
    assert_eq!(batches[0].column(1).null_count(), 1);
    assert_eq!(batches[0].column(1).as_string::<i32>().value(1), "");
    assert_eq!(batches[0].column(2).null_count(), 2);
}

#[test]
fn query_without_rows_has_no_batch() {
    assert_eq!(batches(true, &[]).unwrap(), Vec::new());
}

#[test]
fn row_errors_name_column_and_row() {
    let good = || (0..8_200).map(|id| row(id, Some(b"x")));
    for (bad, expected) in [
        (row(1 << 31, Some(b"x")), "the column \"id\" has the value 2147483648 in row 8201"),
        (row(1, None), "the column \"text\" is null in row 8201"),
        (row(1, Some(b"\xff")), "the column \"text\" has a text in row 8201"),
    ] {
        let rows: Vec<Vec<u8>> = good().chain([bad]).collect();
        let error = batches(false, &rows).unwrap_err();
        assert!(matches!(error, RowError::Mismatch(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let damaged = b"\0\x02\0\0\0\x01x\xff\xff\xff\xff".to_vec();
    let error = batches(true, &[damaged]).unwrap_err();
    assert!(matches!(error, RowError::Damaged(_)), "{error}");
    assert!(error.to_string().contains("in the column \"id\" of row 1"), "{error}");
}
