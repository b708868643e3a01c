use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::{Column, TableOptions, TableSchema};

use super::super::error::{RowFault, RowPosition};
use super::super::input::inspect;
use super::super::parquet::ParquetBatches;
use super::*;
use crate::delimiter::Delimiter;
use crate::value::cell_error::CellError;

/// Key `id` (int64), `name` (utf8), `score` (float64), `at` (timestamp); all but the key nullable.
fn table() -> Arc<TableSchema> {
    let column = |id: u32, name: &str, data_type: &str, nullable: bool| Column {
        id: ColumnId(id),
        name: name.into(),
        data_type: data_type.parse().unwrap(),
        nullable,
        default: None,
    };
    let columns = vec![
        column(1, "id", "int64", false),
        column(2, "name", "utf8", true),
        column(3, "score", "float64", true),
        column(4, "at", "timestamp(ms, +00:00)", true),
    ];
    let key = vec![ColumnId(1)];
    Arc::new(TableSchema::new(SchemaVersion(1), columns, key, None, ColumnId(5)).unwrap())
}

fn options(batch_rows: usize) -> ReadOptions {
    let codec = KeyCodec::new(&table(), &TableOptions::upsert()).unwrap();
    ReadOptions {
        table: table(),
        codec,
        nulls: vec!["NA".to_owned()].into(),
        batch_rows,
        delimiter: Delimiter::default(),
    }
}

fn inspect_all(paths: &[PathBuf]) -> Result<Vec<Input>, LoadError> {
    let inputs = paths.iter().map(|path| inspect(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(inputs.concat())
}

struct Loaded {
    rows: Vec<String>,
    batches: usize,
    bad: BadRows,
}

fn load(path: &Path, batch_rows: usize, skip_bad: u64) -> Result<Loaded, LoadError> {
    let inputs = inspect_all(&[path.to_owned()])?;
    let options = options(batch_rows);
    check_all(&inputs, &options)?;
    let mut bad = BadRows::new(skip_bad);
    let mut rows = Vec::new();
    let mut batches = 0;
    for input in inputs {
        let mut source = open(input, options.clone(), &Arc::default())?;
        while let Some(batch) = source.next_batch(&mut bad)? {
            batches += 1;
            assert!(batch.num_rows() > 0);
            assert_eq!(batch.schema(), options.table.arrow());
            for row in 0..batch.num_rows() {
                let cells: Vec<String> = batch
                    .columns()
                    .iter()
                    .map(|column| array_value_to_string(column, row).unwrap())
                    .collect();
                rows.push(cells.join("|"));
            }
        }
    }
    Ok(Loaded { rows, batches, bad })
}

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn load_text(name: &str, text: &[u8], skip_bad: u64) -> Result<Loaded, LoadError> {
    let (_directory, path) = file(name, text);
    load(&path, 2, skip_bad)
}

fn error_text(name: &str, text: &[u8]) -> String {
    match load_text(name, text, 0) {
        Ok(loaded) => panic!("{name} was loaded: {:?}", loaded.rows),
        Err(error) => error.to_string(),
    }
}

const CSV: &[u8] = b"name,id,at,score\nann,1,2013-01-01T10:00:00Z,1.5\n,2,NA,NA\n\"b,o\nb\",3,,\n";
const ROWS: [&str; 3] = ["1|ann|1.5|2013-01-01T10:00:00Z", "2|||", "3|b,o\nb||"];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(members: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes, deflate) in members {
        let method = if *deflate {
            zip::CompressionMethod::Deflated
        } else {
            zip::CompressionMethod::Stored
        };
        let settings = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file(*name, settings).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn parquet_bytes() -> Vec<u8> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("score", DataType::Float64, true),
        Field::new("id", DataType::Float64, true),
        Field::new("name", DataType::Utf8, true),
    ]));
    let scores: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, None]));
    let ids: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), Some(3.0)]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("ann"), None, Some("bob")]));
    let batch = RecordBatch::try_new(schema.clone(), vec![scores, ids, names]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn csv_loads_the_same_rows_with_any_compression() {
    let crlf = String::from_utf8(CSV.to_vec()).unwrap().replace('\n', "\r\n");
    for (name, bytes) in [
        ("a.csv", CSV.to_vec()),
        ("a.txt", CSV.to_vec()),
        ("a.csv.gz", gzip(CSV)),
        ("a.zip", zip(&[("a.csv", CSV, true)])),
        ("a.csv.zip", zip(&[("a.csv", CSV, false)])),
    ] {
        let loaded = load_text(name, &bytes, 0).unwrap();
        assert_eq!(loaded.rows, ROWS, "{name}");
        assert_eq!(loaded.batches, 2, "{name}");
    }
    let loaded = load_text("crlf.csv", crlf.as_bytes(), 0).unwrap();
    assert_eq!(loaded.rows[..2], ROWS[..2]);
}

#[test]
fn zip_archive_loads_every_member() {
    let other: &[u8] = b"{\"id\": 9, \"name\": \"zoe\"}\n";
    let bytes =
        zip(&[("a.csv", CSV, true), ("__MACOSX/a.csv", b"x", true), ("b.ndjson", other, true)]);
    let loaded = load_text("a.zip", &bytes, 0).unwrap();
    assert_eq!(loaded.rows.len(), 4);
    assert_eq!(loaded.rows[3], "9|zoe||");
}

#[test]
fn ndjson_accepts_values_of_each_kind() {
    let text = b"{\"id\": 1, \"name\": \"ann\", \"score\": 1.5, \"at\": \"2013-01-01T10:00:00Z\"}\n\n\
                 {\"score\": null, \"id\": \"2\"}\n{\"id\": 3, \"name\": \"b,o\\nb\", \"score\": \"NA\"}";
    for (name, bytes) in [("a.ndjson", text.to_vec()), ("a.jsonl.gz", gzip(text))] {
        let loaded = load_text(name, &bytes, 0).unwrap();
        assert_eq!(loaded.rows, ROWS, "{name}");
    }
}

#[test]
fn parquet_columns_are_converted() {
    let loaded = load_text("a.parquet", &parquet_bytes(), 0).unwrap();
    assert_eq!(loaded.rows, ["1|ann|1.5|", "2|||", "3|bob||"]);
}

#[test]
fn bad_value_error_names_file_line_and_column() {
    for (name, text, line, column, problem) in [
        ("a.csv", &b"id,score\n1,1\n\n2,x\n"[..], 4, "score", "`x` is not a value"),
        ("a.csv", b"id,name\n1,\"a\nb\"\n99999999999999999999,\n", 4, "id", "overflows int64"),
        ("a.csv", b"id,at\n1,2013-02-30\n", 2, "at", "`2013-02-30`"),
        ("a.csv", b"id,name\n1,a\n,b\n", 3, "id", "primary key value is missing"),
        ("a.csv", b"id,name\nNA,b\n", 2, "id", "primary key value is missing"),
        ("a.csv", b"id,name\r\n1,a\r\n2,\xff\xfe\r\n", 3, "name", "not valid UTF-8"),
        ("a.ndjson", b"{\"id\":1}\n{\"id\":2,\"score\":true}\n", 2, "score", "found a boolean"),
        ("a.ndjson", b"{\"id\":1}\n{\"id\":2,\"name\":[1]}\n", 2, "name", "found a list"),
        ("a.ndjson", b"{\"id\":1}\n{\"id\":1.5}\n", 2, "id", "`1.5`"),
        ("a.ndjson", b"{\"id\":1}\n{\"name\":\"x\"}\n", 2, "id", "primary key value is missing"),
    ] {
        let message = error_text(name, text);
        let position = format!("{name}: line {line}, column `{column}`: ");
        assert!(message.contains(&position) && message.contains(problem), "{message}");
    }
}

#[test]
fn malformed_row_error_names_file_and_line() {
    for (name, text, part) in [
        ("a.csv", &b"id,name\n1,a\n2,b,c\n"[..], "line 3: found 3 values, but the header names 2"),
        ("a.csv", b"id,name\n1\n", "line 2: found 1 values"),
        ("a.ndjson", b"{\"id\":1}\n{\"id\":2\n", "line 2: not a JSON object"),
        ("a.ndjson", b"{\"id\":1}\n[1]\n", "line 2: not a JSON object"),
        ("a.ndjson", b"{\"id\":1}\n{\"id\":2,\"x\":1}\n", "line 2: the table has no column `x`"),
        ("a.ndjson", b"{\"id\":1}\n{\"id\":2,\"id\":3}\n", "line 2: `id` occurs twice"),
        ("a.ndjson", b"{\"id\":1}\n{\"id\":2,\"name\":\"\xff\"}\n", "not valid UTF-8"),
    ] {
        let message = error_text(name, text);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn unusable_file_is_rejected_with_a_reason() {
    let cut = |bytes: Vec<u8>, keep: usize| bytes[..bytes.len() - keep].to_vec();
    for (name, bytes, part) in [
        ("a.csv", Vec::new(), "the file is empty"),
        ("a.csv", b"\n\n\n".to_vec(), "the file is empty"),
        ("a.csv", b"1,ann,1.5\n2,bob,2\n".to_vec(), "no header"),
        ("a.csv", b"id,name,extra\n1,a,b\n".to_vec(), "no column `extra`"),
        ("a.csv", b"name\nann\n".to_vec(), "lacks column `id`"),
        ("a.csv", b"id,id\n1,2\n".to_vec(), "`id` twice"),
        ("a.csv", b"id,n\xffme\n1,2\n".to_vec(), "header is not valid UTF-8"),
        ("a.csv", b"id;name\n1;2\n".to_vec(), "--delimiter ';'"),
        ("a.csv", b"id\tname\n1\t2\n".to_vec(), "--delimiter 'tab'"),
        (
            "a.csv",
            b"id,name\n1,a\n2,\"b\n3,c\n".to_vec(),
            "line 3 has a quoted value that does not end",
        ),
        ("a.ndjson", b"{\"id\":1,\"x\":2}\n".to_vec(), "no column `x`"),
        ("a.zip", cut(zip(&[("a.csv", CSV, true)]), 30), "not a complete zip archive"),
        ("a.zip", b"id,name\n".to_vec(), "not a complete zip archive"),
        ("a.zip", zip(&[]), "contains no file"),
        ("a.zip", zip(&[("a.parquet", b"PAR1", false)]), "unpack it first"),
        ("a.csv.gz", b"id,name\n1,a\n".to_vec(), "compressed data is damaged"),
        ("a.csv.gz", cut(gzip(CSV), 12), "compressed data is damaged"),
        ("a.parquet", cut(parquet_bytes(), 5), "not a complete Parquet file"),
        ("a.parquet", b"id,name\n1,a\n".to_vec(), "not a complete Parquet file"),
    ] {
        let message = error_text(name, &bytes);
        assert!(message.contains(name) && message.contains(part), "{name}: {message}");
    }
    let missing = inspect_all(&["/nowhere/a.csv".into()]).unwrap_err();
    assert!(missing.to_string().contains("no such file"), "{missing}");
}

#[test]
fn checksum_detects_damage_in_a_zip_archive() {
    let text = "id,name\n".to_owned() + &"1,ann\n".repeat(100);
    let mut bytes = zip(&[("a.csv", text.as_bytes(), false)]);
    let at = bytes.windows(3).rposition(|window| window == b"ann").unwrap();
    bytes[at] = b'x';
    let message = error_text("a.zip", &bytes);
    assert!(message.contains("a.zip:a.csv") && message.contains("damaged"), "{message}");
}

#[test]
fn bad_rows_are_skipped_up_to_the_limit() {
    let text = b"id,score\n1,x\n2,2\n3,y\n4,4\n5,z\n";
    let loaded = load_text("a.csv", text, 3).unwrap();
    assert_eq!(loaded.rows, ["2||2.0|", "4||4.0|"]);
    assert_eq!(loaded.bad.count(), 3);
    let positions: Vec<RowPosition> = loaded.bad.kept().iter().map(|row| row.position).collect();
    assert_eq!(positions, [RowPosition::Line(2), RowPosition::Line(4), RowPosition::Line(6)]);
    let error = load_text("a.csv", text, 2).err().unwrap();
    assert!(matches!(&error, LoadError::TooManyBad { skipped: 2, .. }), "{error}");
}

#[test]
fn parquet_bad_rows_are_numbered_across_batches() {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), None, Some(5)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![ids]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    let loaded = load_text("a.parquet", &bytes, 9).unwrap();
    assert_eq!(loaded.rows, ["1|||", "3|||", "5|||"]);
    let rows: Vec<(RowPosition, bool)> = loaded
        .bad
        .kept()
        .iter()
        .map(|row| {
            let missing =
                matches!(&row.fault, RowFault::Cell(cell) if cell.problem == CellError::MissingKey);
            (row.position, missing)
        })
        .collect();
    assert_eq!(rows, [(RowPosition::Row(2), true), (RowPosition::Row(4), true)]);
}

#[tokio::test]
async fn pipeline_returns_all_rows_and_then_ends() {
    let (_directory, path) = file("a.csv", CSV);
    let inputs = inspect_all(&[path.clone(), path]).unwrap();
    let mut pipeline = Pipeline::start(inputs, options(2), 0).unwrap();
    let mut rows = 0;
    loop {
        match pipeline.next().await.unwrap() {
            Event::Rows(batch) => rows += batch.num_rows(),
            Event::End { result, bad } => {
                result.unwrap();
                assert_eq!(bad.count(), 0);
                break;
            }
        }
    }
    assert_eq!(rows, 6);
    let (read, total) = pipeline.progress();
    assert_eq!((read, total), (2 * CSV.len() as u64, 2 * CSV.len() as u64));
    assert!(pipeline.next().await.is_err());
}

#[test]
fn rows_that_no_write_may_contain_are_bad_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.ndjson");
    let large = "x".repeat(15 << 20);
    // A record of 15 MiB is read, but `large` twice is a row of 30 MiB.
    let text =
        format!("{{\"id\":1,\"name\":\"a\"}}\n{{\"id\":2,\"name\":\"{large}\"}}\n{{\"id\":3}}\n");
    std::fs::write(&path, text).unwrap();
    assert_eq!(load(&path, 2, 0).unwrap().rows.len(), 3);
    let path = directory.path().join("large.parquet");
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", &"y".repeat(17 << 20), "c"]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let Err(LoadError::Row(row)) = load(&path, 100, 0) else { panic!("a row of 17 MiB was read") };
    assert_eq!(row.position, RowPosition::Row(2));
    assert!(matches!(row.fault, RowFault::TooLarge(_)), "{row}");
    let skipped = load(&path, 100, 1).unwrap();
    assert_eq!((skipped.rows.len(), skipped.bad.count()), (2, 1));
}

/// Writes a Parquet file of small rows, then `wide` rows with the one large value of a dictionary, then
/// small rows. Returns its size in bytes.
fn write_expanding(path: &Path, wide: usize, value: &str) -> u64 {
    let keys = std::iter::repeat_n(0, 5_000)
        .chain(std::iter::repeat_n(1, wide))
        .chain(std::iter::repeat_n(0, 5_000));
    let keys = Int32Array::from_iter_values(keys);
    let rows = keys.len() as i64;
    let values: ArrayRef = Arc::new(StringArray::from(vec!["small", value]));
    let names: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let batch = RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_page_size_limit(64 << 20)
        .build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path.metadata().unwrap().len()
}

#[test]
fn expanding_parquet_is_read_in_small_batches() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("expanding.parquet");
    let stored = write_expanding(&path, 100, &"v".repeat(2 << 20));
    assert!(stored < 1 << 20, "{stored} bytes");
    let input = inspect(&path).unwrap().remove(0);
    let mut batches = ParquetBatches::open(&input, 8_192).unwrap();
    let mut rows = 0;
    while let Some(batch) = batches.next_batch().unwrap() {
        assert!(batch.num_rows() <= 16, "{} rows", batch.num_rows());
        assert!(batch.get_array_memory_size() <= 80 << 20, "{}", batch.get_array_memory_size());
        rows += batch.num_rows();
    }
    assert_eq!(rows, 10_100);
    // Values of usual size are read in full batches.
    write_expanding(&path, 10, "value");
    let mut batches = ParquetBatches::open(&input, 8_192).unwrap();
    assert_eq!(batches.next_batch().unwrap().unwrap().num_rows(), 8_192);
}

#[test]
fn parquet_page_beyond_the_limit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.parquet");
    let names: ArrayRef = Arc::new(StringArray::from(vec!["v".repeat((128 << 20) + 1)]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap();
    let compressed = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(compressed)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let error = load(&path, 100, 0).err().unwrap();
    let LoadError::PageTooLarge { column, bytes, limit, .. } = &error else { panic!("{error}") };
    assert_eq!((column.as_str(), *limit), ("name", 128 << 20));
    assert!(*bytes > *limit);
    let text = error.to_string();
    assert!(
        text.contains("write the file with smaller pages") && !text.contains("truncated"),
        "{text}"
    );
}
