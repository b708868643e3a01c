//! Handler that appends events to files, one JSON document per line: for tests and for nodes without a cluster.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value as Json, json};

use crate::handler::{EventBatch, EventHandler, Handled, HandlerError};
use crate::recorded::RecordedEvent;
use crate::value::Value;

/// Key of the note with the length of the file before the batch.
const LENGTH: &[u8] = b"length";

/// Handler that appends events to files, one for each table. A batch that a crash cut off is removed from its file and
/// written again: each event is there once.
#[derive(Debug)]
pub struct JsonLinesHandler {
    directory: PathBuf,
    /// Makes the entries of a directory durable.
    sync_directory: fn(&Path) -> io::Result<()>,
    /// Locks of the files. A call that was aborted may still write.
    files: parking_lot::Mutex<BTreeMap<String, Arc<parking_lot::Mutex<()>>>>,
}

impl JsonLinesHandler {
    /// Creates a handler of the files of a directory, `TABLE.jsonl`. They must be of this handler alone.
    pub fn new(directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { directory, sync_directory, files: parking_lot::Mutex::default() }
    }

    /// Runs work on the file of a table, after earlier work on it.
    async fn at_file<T: Send + 'static>(
        &self,
        table: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, HandlerError> {
        let lock = Arc::clone(self.files.lock().entry(table.to_owned()).or_default());
        let path = self.directory.join(format!("{table}.jsonl"));
        let work = move || {
            let _one_at_a_time = lock.lock();
            work(&path)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| HandlerError(error.to_string())),
            Err(error) => Err(HandlerError(error.to_string())),
        }
    }
}

#[async_trait]
impl EventHandler for JsonLinesHandler {
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError> {
        let noted = batch.notes().all().await?;
        let noted = noted.get(LENGTH).and_then(|length| <[u8; 8]>::try_from(&**length).ok());
        let length = match noted {
            Some(length) => u64::from_be_bytes(length),
            None => {
                let length =
                    self.at_file(batch.table(), |path| Ok(open(path)?.metadata()?.len())).await?;
                batch.notes().put(LENGTH, &length.to_be_bytes()).await?;
                length
            }
        };
        let mut lines = Vec::new();
        for event in batch.events() {
            lines.extend_from_slice(Json::Object(json_of(event)).to_string().as_bytes());
            lines.push(b'\n');
        }
        let sync_directory = self.sync_directory;
        let write = move |path: &Path| {
            let file = open(path)?;
            if file.metadata()?.len() == 0 {
                // The file may be new, and its events leave the spool: a crash of the machine must not remove it.
                sync_directory(parent(path))?;
            }
            write_at(&file, length, &lines)
        };
        self.at_file(batch.table(), write).await?;
        Ok(Handled::default())
    }
}

/// The event as a JSON document: the columns of all events and the extra ones.
pub fn json_of(event: &RecordedEvent) -> Map<String, Json> {
    let payload = match event.payload.as_str() {
        "" => Json::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned())),
    };
    let mut document = Map::new();
    document.insert("id".to_owned(), json!(event.id));
    document.insert("type".to_owned(), json!(event.event_type));
    document.insert("timestamp".to_owned(), json!(event.timestamp_ns));
    document.insert("payload".to_owned(), payload);
    for (column, value) in &event.extra {
        document.insert(column.name.clone(), json_value(value));
    }
    document
}

fn json_value(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int64(value) | Value::Timestamp(value) => json!(value),
        Value::UInt64(value) => json!(value),
        Value::Float64(value) => json!(value),
        Value::Text(value) => json!(value),
        Value::Binary(value) => {
            Json::String(value.iter().map(|byte| format!("{byte:02x}")).collect())
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Returns the directory of a file.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Writes lines to a file that had this length before them, durably. Lines of an earlier call are replaced; a file with
/// other lines behind them is of a later batch, and stays.
fn write_at(mut file: &File, length: u64, lines: &[u8]) -> io::Result<()> {
    let found = file.metadata()?.len();
    if found > length + lines.len() as u64 {
        return Err(io::Error::other("the file has lines of later events"));
    }
    if found > length {
        file.set_len(length)?;
    }
    file.write_all(lines)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::notes::Notes;
    use crate::testing::TestEvent;

    fn batch(table: &str, numbers: &[usize]) -> EventBatch {
        let events = numbers.iter().map(|number| {
            RecordedEvent::new(&TestEvent::numbered(*number), Uuid::nil(), 0, 1_000).unwrap()
        });
        EventBatch::new(table, events.collect(), Notes::in_memory())
    }

    fn payloads(directory: &Path, table: &str) -> Vec<Json> {
        let text = std::fs::read_to_string(directory.join(format!("{table}.jsonl"))).unwrap();
        let document = |line: &str| serde_json::from_str::<Json>(line).unwrap();
        text.lines().map(|line| document(line)["payload"].clone()).collect()
    }

    #[tokio::test]
    async fn repeated_batch_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let handler = JsonLinesHandler::new(directory.path());
        handler.handle(&batch("events", &[1, 2])).await.unwrap();
        let second = batch("events", &[3, 4]);
        for _ in 0..3 {
            handler.handle(&second).await.unwrap();
        }
        assert_eq!(payloads(directory.path(), "events"), [json!(1), json!(2), json!(3), json!(4)]);
    }

    #[tokio::test]
    async fn repeated_batch_leaves_other_tables_and_later_lines() {
        let directory = tempfile::tempdir().unwrap();
        let handler = JsonLinesHandler::new(directory.path());
        let first = batch("events", &[1]);
        handler.handle(&first).await.unwrap();
        handler.handle(&batch("audit", &[7])).await.unwrap();
        handler.handle(&first).await.unwrap();
        handler.handle(&batch("events", &[2, 3])).await.unwrap();
        // A call that was aborted long ago.
        assert!(handler.handle(&first).await.is_err());
        assert_eq!(payloads(directory.path(), "events"), [json!(1), json!(2), json!(3)]);
        assert_eq!(payloads(directory.path(), "audit"), [json!(7)]);
    }

    // A crash of the machine could remove the file after its events have left the spool.
    #[tokio::test]
    async fn new_file_has_lines_once_its_directory_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        let handler = JsonLinesHandler::new(directory.path());
        let unsynced = JsonLinesHandler {
            sync_directory: |_| Err(io::Error::other("no sync")),
            ..JsonLinesHandler::new(directory.path())
        };
        let first = batch("events", &[1]);
        for _ in 0..2 {
            let failed = unsynced.handle(&first).await.unwrap_err();
            assert!(failed.to_string().contains("no sync"), "{failed}");
            assert_eq!(payloads(directory.path(), "events"), Vec::<Json>::new());
        }
        handler.handle(&first).await.unwrap();
        // The directory has the file.
        unsynced.handle(&batch("events", &[2])).await.unwrap();
        assert_eq!(payloads(directory.path(), "events"), [json!(1), json!(2)]);
    }

    #[test]
    fn directory_of_a_plain_name_is_the_current_one() {
        for (path, expected) in [("events.jsonl", "."), ("/d/events.jsonl", "/d")] {
            assert_eq!(parent(Path::new(path)), Path::new(expected));
        }
        let directory = tempfile::tempdir().unwrap();
        sync_directory(directory.path()).unwrap();
        assert!(sync_directory(&directory.path().join("missing")).is_err());
    }
}
