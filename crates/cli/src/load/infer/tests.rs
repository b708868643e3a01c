use std::io::Write;
use std::path::PathBuf;

use ::parquet::arrow::ArrowWriter;
use arrow::array::{ArrayRef, Int32Array, LargeStringArray, ListArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::scan::infer_all;
use super::*;
use tidewater_readers::input::inspect;

/// Infers the columns of files with these names and contents, in text form; `missing` marks columns
/// with missing values.
fn infer(files: &[(&str, &[u8])]) -> Result<Vec<String>, InferError> {
    infer_with(files, &[], 0)
}

fn infer_with(
    files: &[(&str, &[u8])],
    given: &[&str],
    skip_bad: u64,
) -> Result<Vec<String>, InferError> {
    let directory = tempfile::tempdir().unwrap();
    let mut inputs = Vec::new();
    for (name, bytes) in files {
        let path: PathBuf = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        inputs.extend(inspect(&path)?);
    }
    let options = InferOptions {
        nulls: vec!["NA".to_owned()].into(),
        delimiter: Delimiter::default(),
        given: Arc::new(given.iter().map(|name| (*name).to_owned()).collect()),
        skip_bad,
    };
    let columns = infer_all(&inputs, &options, &Arc::default(), &mut |_| {})?;
    columns
        .iter()
        .map(|column| {
            let data_type = if given.contains(&column.name.as_str()) {
                ColumnType::Utf8
            } else {
                column.data_type()?
            };
            let missing = column.missing(&data_type);
            let missing = missing.map(|place| format!(" missing at {}", place.position));
            Ok(format!("{} {data_type}{}", column.name, missing.unwrap_or_default()))
        })
        .collect()
}

fn error(files: &[(&str, &[u8])]) -> (InferError, String) {
    let error = infer(files).unwrap_err();
    let message = error.to_string();
    (error, message)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let settings = zip::write::SimpleFileOptions::default();
    writer.start_file(name, settings).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap().into_inner()
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

const CSV: &[u8] = b"id,code,at,score,day,ok\n\
                     1,7,2013-01-01T10:00:00Z,1,2013-01-01,true\n\
                     2,007,2013-01-01T10:00:00.25Z,NA,,false\n\
                     3,9,2013-01-01T10:00:00Z,2.5,2013-01-02,\n";
const CSV_COLUMNS: [&str; 6] = [
    "id int64",
    "code utf8",
    "at timestamp(ms, UTC)",
    "score float64 missing at line 3",
    "day date32 missing at line 3",
    "ok bool missing at line 4",
];

const NDJSON: &[u8] = b"{\"id\": 1, \"name\": \"12\", \"at\": \"2013-01-01T10:00:00Z\"}\n\n\
                        {\"id\": 2, \"score\": 1, \"at\": \"\", \"name\": \"\"}\n\
                        {\"id\": 3, \"score\": 1.5, \"name\": null, \"\\u006fk\": true}\n";
const NDJSON_COLUMNS: [&str; 5] = [
    "id int64",
    "name utf8 missing at line 4",
    "at timestamp(s, UTC) missing at line 4",
    "score float64 missing at line 1",
    "ok bool missing at line 1",
];

#[test]
fn csv_columns_are_inferred_from_all_rows() {
    let packed = gzip(CSV);
    let archive = zip("rows.csv", CSV);
    for (name, bytes) in [("a.csv", CSV), ("a.csv.gz", &packed), ("a.zip", &archive)] {
        assert_eq!(infer(&[(name, bytes)]).unwrap(), CSV_COLUMNS, "{name}");
    }
}

#[test]
fn ndjson_columns_have_the_order_of_first_appearance() {
    let packed = gzip(NDJSON);
    let archive = zip("rows.ndjson", NDJSON);
    for (name, bytes) in [("a.ndjson", NDJSON), ("a.ndjson.gz", &packed), ("a.zip", &archive)] {
        assert_eq!(infer(&[(name, bytes)]).unwrap(), NDJSON_COLUMNS, "{name}");
    }
}

#[test]
fn parquet_columns_keep_their_types() {
    let bytes = parquet(vec![
        ("id", Arc::new(Int32Array::from(vec![Some(1), Some(2), None]))),
        ("name", Arc::new(LargeStringArray::from(vec!["a", "b", "c"]))),
    ]);
    let found = infer(&[("a.parquet", &bytes)]).unwrap();
    assert_eq!(found, ["id int32 missing at row 3", "name utf8"]);
}

#[test]
fn types_are_joined_over_all_files() {
    let small = parquet(vec![("id", Arc::new(Int32Array::from(vec![1])))]);
    for (files, expected) in [
        (&[("a.csv", &b"id\n1\n"[..]), ("b.csv", b"id\n1.5\n")][..], "id float64"),
        (&[("a.csv", b"id\n1\n"), ("b.csv", b"id\nx\n")], "id utf8"),
        (&[("a.csv", b"id\n1\n"), ("b.ndjson", b"{\"id\":2}\n")], "id int64"),
        (&[("a.csv", b"id\n1\n"), ("b.parquet", &small)], "id int64"),
        (&[("a.csv", b"id,b\n1,2\n"), ("b.csv", b"b,id\n1,1.5\n")], "id float64"),
    ] {
        assert_eq!(infer(files).unwrap()[0], expected, "{expected}");
    }
}

#[test]
fn types_without_common_type_are_rejected() {
    let small = parquet(vec![("id", Arc::new(Int32Array::from(vec![1])))]);
    for files in [
        [("a.csv", &b"id\nx\n"[..]), ("b.parquet", &small)],
        [("a.csv", b"id\nx\n"), ("b.ndjson", b"{\"id\":2}\n")],
        [("a.csv", b"id\n9007199254740993\n"), ("b.ndjson", b"{\"id\":1.5}\n")],
    ] {
        let (error, message) = error(&files);
        assert!(matches!(error, InferError::Differs { .. }), "{message}");
        assert!(message.contains("`id`") && message.contains("--columns"), "{message}");
    }
}

#[test]
fn files_with_other_columns_are_rejected() {
    let (error, message) = error(&[("a.csv", b"id,b\n1,2\n"), ("b.csv", b"id,c\n1,2\n")]);
    assert!(matches!(error, InferError::Names { .. }), "{message}");
    assert!(message.contains("lacks column `b` and adds column `c`"), "{message}");
}

#[test]
fn column_without_value_needs_a_given_type() {
    for file in [
        ("a.csv", &b"id,x\n1,\n2,NA\n"[..]),
        ("a.csv", b"id,x\n"),
        ("a.ndjson", b"{\"id\":1,\"x\":null}\n"),
    ] {
        let error = infer(&[file]).unwrap_err();
        assert!(matches!(error, InferError::NoValue { .. }), "{error}");
        let found = infer_with(&[file], &["id", "x"], 0).unwrap();
        assert!(found[1].starts_with("x utf8"), "{found:?}");
    }
    let (_, message) = error(&[("a.csv", b"x\nNA\n")]);
    assert_eq!(message, "column `x` has no value: give its type with --columns 'x utf8'");
}

#[test]
fn blank_json_strings_are_values_of_text_columns() {
    let texts = infer(&[("a.ndjson", b"{\"x\":\"\"}\n{\"x\":\"NA\"}\n")]).unwrap();
    assert_eq!(texts, ["x utf8"]);
    let numbers = infer(&[("a.ndjson", b"{\"x\":1}\n{\"x\":\"NA\"}\n")]).unwrap();
    assert_eq!(numbers, ["x int64 missing at line 2"]);
}

#[test]
fn mixed_and_nested_json_errors_name_their_lines() {
    let mixed: &[u8] = b"{\"x\":1}\n\n{\"x\":\"a\"}\n";
    let (found, message) = error(&[("a.ndjson", mixed)]);
    assert!(matches!(found, InferError::Mixed { .. }), "{message}");
    for part in ["`x`", "a.ndjson: line 1 has a number", "a.ndjson: line 3 has a text"] {
        assert!(message.contains(part), "{message}");
    }
    let (found, message) = error(&[("a.ndjson", b"{\"x\":1}\n{\"y\":{\"z\":1}}\n")]);
    assert!(matches!(found, InferError::Nested { .. }), "{message}");
    assert!(message.contains("line 2, column `y`"), "{message}");
}

#[test]
fn nested_parquet_column_is_rejected() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
    let bytes = parquet(vec![("tags", Arc::new(list))]);
    let (error, message) = error(&[("a.parquet", &bytes)]);
    assert!(matches!(&error, InferError::ParquetType { column, .. } if column == "tags"));
    assert!(message.contains("List") && message.contains("a.parquet"), "{message}");
}

#[test]
fn file_without_rows_is_rejected() {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int8, true)]));
    let empty = ArrowWriter::try_new(Vec::new(), schema, None).unwrap().into_inner().unwrap();
    for file in
        [("a.csv", &b"\n\n"[..]), ("a.ndjson", b"\n"), ("a.parquet", &empty), ("a.csv", b"")]
    {
        let (error, message) = error(&[file]);
        assert!(matches!(error, InferError::Load(LoadError::Empty { .. })), "{message}");
    }
}

#[test]
fn malformed_rows_are_skipped_up_to_the_limit() {
    let csv: &[u8] = b"id,b\n1,2\n3\n4,\xff\n5,6\n";
    let ndjson: &[u8] = b"{\"id\":1}\n{\"id\"\n{\"id\":1,\"id\":\"x\"}\n{\"id\":2}\n";
    for (file, line) in [(("a.csv", csv), "line 3"), (("a.ndjson", ndjson), "line 2")] {
        assert_eq!(infer_with(&[file], &[], 2).unwrap()[0], "id int64");
        let error = infer_with(&[file], &[], 1).unwrap_err();
        assert!(matches!(error, InferError::Load(LoadError::TooManyBad { .. })), "{error}");
        let message = infer(&[file]).unwrap_err().to_string();
        assert!(message.contains(line), "{message}");
    }
}

#[test]
fn number_of_columns_is_bounded() {
    let keys: Vec<String> = (0..=MAX_COLUMNS).map(|at| format!("\"c{at}\":1")).collect();
    let (error, message) = error(&[("a.ndjson", format!("{{{}}}\n", keys.join(",")).as_bytes())]);
    assert!(matches!(error, InferError::TooManyColumns { .. }), "{message}");
}

#[test]
fn header_of_another_dialect_is_rejected() {
    for text in [&b"a;b\n1;2\n"[..], b"a\tb\n1\t2\n", b"a|b\n1|2\n"] {
        let (error, message) = error(&[("a.csv", text)]);
        assert!(matches!(error, InferError::Load(LoadError::Dialect { .. })), "{message}");
        assert!(message.contains("--delimiter"), "{message}");
    }
    let (error, _) = error(&[("a.csv", b"a,a\n1,2\n")]);
    assert!(matches!(error, InferError::Load(LoadError::DuplicateColumn { .. })), "{error}");
}
