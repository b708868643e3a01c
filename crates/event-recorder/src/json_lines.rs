//! Handler that appends events to a file, one JSON document per line: for tests and for nodes without a cluster.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Map, Value as Json, json};

use crate::handler::{EventBatch, EventHandler, Handled, HandlerError};
use crate::recorded::RecordedEvent;
use crate::value::Value;

/// Key of the note with the length of the file before the batch.
const LENGTH: &[u8] = b"length";

/// Handler that appends events to a file. A batch that a crash cut off is removed from the file and written again:
/// each event is there once.
#[derive(Debug)]
pub struct JsonLinesHandler {
    path: PathBuf,
}

impl JsonLinesHandler {
    /// Creates a handler of a file, which is created when missing. The file must be of this handler alone.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
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
                let path = self.path.clone();
                let length = blocking(move || Ok(open(&path)?.metadata()?.len())).await?;
                batch.notes().put(LENGTH, &length.to_be_bytes()).await?;
                length
            }
        };
        let mut lines = Vec::new();
        for event in batch.events() {
            lines.extend_from_slice(Json::Object(json_of(event)).to_string().as_bytes());
            lines.push(b'\n');
        }
        let path = self.path.clone();
        blocking(move || write_at(&open(&path)?, length, &lines)).await?;
        Ok(Handled::default())
    }
}

/// The event as a JSON document: the columns of all events and the extra ones.
pub(crate) fn json_of(event: &RecordedEvent) -> Map<String, Json> {
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

/// Appends lines to a file at a length that it had before, durably.
fn write_at(mut file: &File, length: u64, lines: &[u8]) -> io::Result<()> {
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    file.write_all(lines)?;
    file.sync_data()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, HandlerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| HandlerError(error.to_string())),
        Err(error) => Err(HandlerError(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::testing::TestEvent;

    fn batch(numbers: &[usize]) -> EventBatch {
        let events = numbers.iter().map(|number| {
            RecordedEvent::new(&TestEvent::numbered(*number), Uuid::nil(), 0, 1_000).unwrap()
        });
        EventBatch::new("events", events.collect())
    }

    #[tokio::test]
    async fn repeated_batch_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let handler = JsonLinesHandler::new(&path);
        handler.handle(&batch(&[1, 2])).await.unwrap();
        let second = batch(&[3, 4]);
        for _ in 0..3 {
            handler.handle(&second).await.unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let payloads: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<Json>(line).unwrap()["payload"].clone())
            .collect();
        assert_eq!(payloads, [json!(1), json!(2), json!(3), json!(4)]);
    }
}
