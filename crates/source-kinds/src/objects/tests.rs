mod local;
mod stores;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tidewater_common::granted_dirs::DirectoryGrants;
use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::{Column, TableOptions, TableSchema};
use tokio::sync::mpsc;

use crate::{Source, SourceAccess, SourceError, SourceTable, Split, builtin};

/// Key `id`; `name` and `score` are nullable.
fn table() -> SourceTable {
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
    ];
    let key = vec![ColumnId(1)];
    let schema = TableSchema::new(SchemaVersion(1), columns, key, None, ColumnId(4)).unwrap();
    let codec = KeyCodec::new(&schema, &TableOptions::upsert()).unwrap();
    SourceTable { schema: Arc::new(schema), codec }
}

fn rows() -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])),
        Arc::new(Float64Array::from(vec![None, Some(2.5), Some(-1.0)])),
    ];
    RecordBatch::try_new(table().schema.arrow(), columns).unwrap()
}

const CSV: &str = "id,score,name\n1,,a\n2,2.5,\n3,-1,c\n";
const NDJSON: &str = "{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"score\":2.5}\n\
                      {\"name\":\"c\",\"id\":3,\"score\":-1}\n";

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A node that permits sources to read `dir/sources`.
struct Node {
    _dir: tempfile::TempDir,
    sources: PathBuf,
    outside: PathBuf,
    access: SourceAccess,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (sources, outside) = (base.join("sources"), base.join("outside"));
        std::fs::create_dir_all(&sources).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("x.csv"), CSV).unwrap();
        let mut grants = DirectoryGrants::new(&[]);
        let access = SourceAccess::new(Some(&sources), None, &mut grants).unwrap();
        Self { _dir: dir, sources, outside, access }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.sources.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    async fn open_with(&self, kind: &str, config: &Value) -> Result<Box<dyn Source>, SourceError> {
        let kinds = builtin(self.access.clone(), self.outside.join("spool"));
        kinds.open(kind, config, table()).await
    }

    async fn open(&self, kind: &str) -> Box<dyn Source> {
        let url = format!("file://{}", self.sources.display());
        self.open_with(kind, &json!({ "url": url })).await.unwrap()
    }

    /// Writes one file, lists it and reads it.
    async fn read_file(&self, kind: &str, name: &str, bytes: &[u8]) -> Result<Rows, SourceError> {
        let path = self.write(name, bytes);
        let source = self.open(kind).await;
        let listing = source.list().await?;
        let [split] = listing.splits.as_slice() else { panic!("{listing:?}") };
        let rows = read(source.as_ref(), split).await;
        std::fs::remove_file(path).unwrap();
        rows
    }
}

type Rows = Option<RecordBatch>;

/// Reads all rows of a split; `None` if it has none.
async fn read(source: &dyn Source, split: &Split) -> Result<Rows, SourceError> {
    let (sender, mut receiver) = mpsc::channel(1);
    let received = async {
        let mut batches = Vec::new();
        while let Some(batch) = receiver.recv().await {
            batches.push(batch);
        }
        batches
    };
    let (result, batches) = tokio::join!(source.read(split, sender), received);
    result?;
    Ok(batches.first().map(|first| concat_batches(&first.schema(), &batches).unwrap()))
}

#[tokio::test]
async fn every_format_yields_the_written_rows() {
    let node = Node::new();
    for (kind, name, bytes) in [
        ("csv", "x.csv", CSV.as_bytes().to_vec()),
        ("csv", "x.csv.gz", gzip(CSV)),
        ("ndjson", "x.ndjson", NDJSON.as_bytes().to_vec()),
        ("ndjson", "x.json.gz", gzip(NDJSON)),
        ("parquet", "x.parquet", parquet(&rows())),
    ] {
        let read = node.read_file(kind, name, &bytes).await;
        assert_eq!(read, Ok(Some(rows())), "{name}");
    }
}

#[tokio::test]
async fn csv_options_apply_to_rows() {
    let node = Node::new();
    node.write("x.csv", CSV.replace(',', ";").replace(";;", ";NA;").replace("2.5;", "2.5;NA"));
    let url = format!("file://{}", node.sources.display());
    let config = json!({ "url": url, "delimiter": ";", "nulls": ["NA"] });
    let source = node.open_with("csv", &config).await.unwrap();
    let listing = source.list().await.unwrap();
    assert_eq!(read(source.as_ref(), &listing.splits[0]).await, Ok(Some(rows())));
}

#[tokio::test]
async fn files_without_rows_yield_none() {
    let node = Node::new();
    for (kind, name, bytes) in [
        ("csv", "x.csv", b"id,name\n".to_vec()),
        ("ndjson", "x.ndjson", Vec::new()),
        ("parquet", "x.parquet", parquet(&rows().slice(0, 0))),
    ] {
        assert_eq!(node.read_file(kind, name, &bytes).await, Ok(None), "{name}");
    }
}

#[tokio::test]
async fn missing_nullable_columns_are_null() {
    let node = Node::new();
    let keys = rows().project(&[0]).unwrap();
    for (kind, name, bytes) in [
        ("csv", "x.csv", b"id\n1\n2\n3\n".to_vec()),
        ("ndjson", "x.jsonl", b"{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n".to_vec()),
        ("parquet", "x.parquet", parquet(&keys)),
    ] {
        let read = node.read_file(kind, name, &bytes).await.unwrap().unwrap();
        assert_eq!(read.column(0), rows().column(0), "{name}");
        assert_eq!((read.column(1).null_count(), read.column(2).null_count()), (3, 3), "{name}");
    }
}

#[tokio::test]
async fn mismatches_name_object_row_and_column() {
    let node = Node::new();
    let with_extra = RecordBatch::try_from_iter([
        ("id", rows().column(0).clone()),
        ("extra", rows().column(0).clone()),
    ])
    .unwrap();
    let null_key: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let null_key = RecordBatch::try_from_iter_with_nullable([("id", null_key, true)]).unwrap();
    let without_key = rows().project(&[1]).unwrap();
    for (kind, name, bytes, parts) in [
        ("csv", "x.csv", b"id,score\n1,1\n2,much\n".to_vec(), &["line 3", "`score`", "`much`"][..]),
        ("csv", "x.csv", b"id,score\n1,NA\n".to_vec(), &["line 2", "add it to `nulls` of the so"]),
        ("csv", "x.csv", b"id;score\n1;1\n".to_vec(), &["`;`", "set `delimiter` of the source"]),
        ("csv", "x.csv", b"id,extra\n1,1\n".to_vec(), &["no column `extra`"]),
        ("csv", "x.csv", b"name\na\n".to_vec(), &["lacks column `id`"]),
        ("csv", "x.csv", b"id,name\n1\n".to_vec(), &["line 2", "found 1 values"]),
        ("csv", "x.csv", Vec::new(), &["no header"]),
        ("csv", "x.csv.gz", gzip(CSV)[..20].to_vec(), &["damaged or truncated"]),
        ("ndjson", "x.json", b"{\"id\":1}\n{\"id\":\"NA\"}\n".to_vec(), &["line 2", "`id`"]),
        ("ndjson", "x.json", b"{\"id\":1}\n{\"id\":2,\"y\":0}\n".to_vec(), &["line 2", "`y`"]),
        ("parquet", "x.parquet", parquet(&with_extra), &["no column `extra`"]),
        ("parquet", "x.parquet", parquet(&without_key), &["lacks column `id`"]),
        ("parquet", "x.parquet", parquet(&null_key), &["row 2", "`id`", "key value is missing"]),
        ("parquet", "x.parquet", b"PAR1".to_vec(), &["not a complete Parquet file"]),
    ] {
        let error = node.read_file(kind, name, &bytes).await.unwrap_err();
        assert!(matches!(error, SourceError::Mismatch(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with(&node.sources.join(name).display().to_string()), "{text}");
        assert!(!text.contains("--"), "{text}");
        for part in parts {
            assert!(text.contains(part), "{text}: {part}");
        }
    }
}

/// A CSV file of several batches.
fn long_csv() -> String {
    (0..40_000).fold("id\n".to_owned(), |text, id| text + &id.to_string() + "\n")
}

#[tokio::test]
async fn read_ends_without_error_when_its_receiver_closes() {
    let node = Node::new();
    node.write("x.csv", long_csv());
    let source = node.open("csv").await;
    let split = source.list().await.unwrap().splits.remove(0);
    let (sender, mut receiver) = mpsc::channel(1);
    let received = async {
        receiver.recv().await.unwrap();
        drop(receiver);
    };
    let (result, ()) = tokio::join!(source.read(&split, sender), received);
    assert_eq!(result, Ok(()));
}
