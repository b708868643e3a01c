use arrow::array::{ArrayRef, Int64Array, StringArray};
use parquet::arrow::ArrowWriter;
use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::{Column, TableOptions, TableSchema};

use super::*;
use tidewater_readers::delimiter::Delimiter;
use tidewater_readers::input::inspect;

/// Key `a`, `b`; `c` is nullable.
fn options() -> ReadOptions {
    options_with("int64")
}

/// The same, with the type of `a`.
fn options_with(key_type: &str) -> ReadOptions {
    let column = |id: u32, name: &str, data_type: &str, nullable: bool| Column {
        id: ColumnId(id),
        name: name.into(),
        data_type: data_type.parse().unwrap(),
        nullable,
        default: None,
    };
    let columns = vec![
        column(1, "a", key_type, false),
        column(2, "b", "utf8", false),
        column(3, "c", "int64", true),
    ];
    let key = vec![ColumnId(1), ColumnId(2)];
    let table = TableSchema::new(SchemaVersion(1), columns, key, None, ColumnId(4)).unwrap();
    let (nulls, delimiter) = (Arc::default(), Delimiter::default());
    let codec = KeyCodec::new(&table, &TableOptions::upsert()).unwrap();
    ReadOptions { table: Arc::new(table), codec, nulls, batch_rows: 2, delimiter }
}

fn verify(files: &[(&str, &str)], skip_bad: u64, check_keys: bool) -> Result<u64, VerifyError> {
    let directory = tempfile::tempdir().unwrap();
    let mut inputs = Vec::new();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        inputs.extend(inspect(&path)?);
    }
    verify_inputs(&inputs, &options(), skip_bad, check_keys)
}

fn verify_inputs(
    inputs: &[Input],
    options: &ReadOptions,
    skip_bad: u64,
    check_keys: bool,
) -> Result<u64, VerifyError> {
    let mut keys = check_keys.then(|| UniqueKeys::new(&options.table, 100).unwrap());
    let mut rows = 0;
    verify_all(inputs, options, skip_bad, &mut keys, &Arc::default(), &mut |now| rows = now)?;
    Ok(rows)
}

const UNIQUE: &str = "a,b,c\n1,x,1\n1,y,1\n\n2,x,\n";

#[test]
fn unique_keys_are_accepted() {
    assert_eq!(verify(&[("a.csv", UNIQUE)], 0, true).unwrap(), 3);
    let other = "{\"a\":2,\"b\":\"y\"}\n";
    assert_eq!(verify(&[("a.csv", UNIQUE), ("b.ndjson", other)], 0, true).unwrap(), 4);
}

#[test]
fn repeated_key_error_names_both_rows() {
    let csv = "a,b,c\n1,x,1\n\n2,x,1\n3,x,1\n4,x,1\n2,x,9\n";
    let ndjson = "\n{\"a\":7,\"b\":\"y\"}\n{\"a\":1,\"b\":\"y\"}\n";
    for (files, first, second) in [
        (&[("a.csv", csv)][..], "a.csv: line 4", "a.csv: line 7"),
        (&[("a.csv", UNIQUE), ("b.ndjson", ndjson)], "a.csv: line 3", "b.ndjson: line 3"),
    ] {
        let error = verify(files, 0, true).unwrap_err();
        assert!(matches!(error, VerifyError::NotUnique { .. }), "{error}");
        let message = error.to_string();
        for part in [first, second, "(a, b) = (", "leave it out"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(verify(files, 0, false).is_ok(), "an append-only table keeps all rows");
    }
}

#[test]
fn repeated_time_is_shown_in_utc() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    let time = "2013-01-01T10:00:00Z";
    std::fs::write(&path, format!("a,b\n{time},x\n{time},y\n{time},y\n")).unwrap();
    let options = options_with("timestamp(s, UTC)");
    let error = verify_inputs(&inspect(&path).unwrap(), &options, 0, true).unwrap_err();
    assert!(error.to_string().contains(&format!("({time}, y)")), "{error}");
}

#[test]
fn repeated_key_positions_leave_out_bad_rows() {
    let csv = "a,b,c\n1,x,1\nx,x,1\n2,x,1\ny,x,1\n3,x,1\n2,x,9\n";
    let message = verify(&[("a.csv", csv)], 2, true).unwrap_err().to_string();
    assert!(message.contains("line 4") && message.contains("line 7"), "{message}");
    // Good and bad rows in one batch.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    std::fs::write(&path, csv).unwrap();
    let options = ReadOptions { batch_rows: 100, ..options() };
    let error = verify_inputs(&inspect(&path).unwrap(), &options, 2, true).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("line 4") && message.contains("line 7"), "{message}");
    let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(2), None, Some(2)]));
    let b: ArrayRef = Arc::new(StringArray::from(vec!["x"; 5]));
    let batch = RecordBatch::try_from_iter([("a", a), ("b", b)]).unwrap();
    let path = directory.path().join("a.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let error = verify_inputs(&inspect(&path).unwrap(), &options, 2, true).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("row 3") && message.contains("row 5"), "{message}");
}

#[test]
fn bad_rows_are_found_before_keys_repeat() {
    let error = verify(&[("a.csv", "a,b,c\n1,x,many\n")], 0, true).unwrap_err();
    assert!(matches!(error, VerifyError::Load(LoadError::Row(_))), "{error}");
}

#[test]
fn long_keys_are_truncated_in_messages() {
    let long = "é".repeat(500);
    let text = format!("a,b,c\n1,{long},\n1,{long},\n");
    let message = verify(&[("a.csv", &text)], 0, true).unwrap_err().to_string();
    assert!(message.len() < 500 && message.contains("..."), "{message}");
}
