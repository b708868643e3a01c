//! Events that can never be persisted: lines of a file in the spool's directory, which any tool can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidewater_events::RecordedEvent;
use tidewater_events::json_lines::json_of;

/// Name of the file.
pub const SET_ASIDE_FILE: &str = "set-aside.jsonl";

/// Name of the file before it, when the file has reached its limit.
const EARLIER_FILE: &str = "set-aside.1.jsonl";

/// An event that is set aside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SetAside {
    /// The handler cannot persist it.
    Event {
        /// The event.
        event: RecordedEvent,
        /// The handler's reason.
        reason: String,
    },
    /// Its record in the spool cannot be read.
    Record {
        /// Table of the event.
        table: String,
        /// The record.
        record: Vec<u8>,
        /// The damage.
        reason: String,
    },
}

/// Writer of the file. It has one line for each event, with the reason; after a crash, an event may be there twice.
#[derive(Debug)]
pub(crate) struct SetAsideFile {
    directory: PathBuf,
    limit: u64,
    /// Held while the files are written.
    lock: Mutex<()>,
}

impl SetAsideFile {
    /// The file of a directory. `limit`: bytes after which the file is replaced; one earlier file is kept.
    pub(crate) fn new(directory: &Path, limit: u64) -> Self {
        Self { directory: directory.to_owned(), limit, lock: Mutex::default() }
    }

    /// Appends events, durably. Blocking.
    pub(crate) fn append(&self, events: &[SetAside]) -> io::Result<()> {
        let mut lines = Vec::new();
        for event in events {
            lines.extend_from_slice(event.document().to_string().as_bytes());
            lines.push(b'\n');
        }
        let _one_at_a_time = self.lock.lock();
        let path = self.directory.join(SET_ASIDE_FILE);
        let mut file = open(&path)?;
        let mut length = file.metadata()?.len();
        if length > 0 && length + lines.len() as u64 > self.limit {
            std::fs::rename(&path, self.directory.join(EARLIER_FILE))?;
            file = open(&path)?;
            length = 0;
        }
        if length > 0 && !ends_with_newline(&mut file)? {
            // A crash has cut off the last line.
            lines.insert(0, b'\n');
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        File::open(&self.directory)?.sync_all()
    }
}

impl SetAside {
    fn document(&self) -> Value {
        match self {
            Self::Event { event, reason } => {
                json!({ "reason": reason, "table": event.table, "event": json_of(event) })
            }
            Self::Record { table, record, reason } => {
                let record: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
                json!({ "reason": reason, "table": table, "record": record })
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(path)
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use tidewater_events::testing::TestEvent;
    use uuid::Uuid;

    use super::*;

    fn event(number: usize) -> SetAside {
        let event = RecordedEvent::new(&TestEvent::numbered(number), Uuid::nil(), 0, 1_000);
        SetAside::Event { event: event.unwrap(), reason: "it does not fit".to_owned() }
    }

    fn documents(directory: &Path) -> Vec<Result<Value, serde_json::Error>> {
        let text = std::fs::read_to_string(directory.join(SET_ASIDE_FILE)).unwrap();
        text.lines().map(serde_json::from_str).collect()
    }

    #[test]
    fn set_aside_events_are_lines_of_bounded_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = SetAsideFile::new(directory.path(), 1_000);
        for _ in 0..50 {
            file.append(&[event(5)]).unwrap();
        }
        let documents = documents(directory.path());
        let first = documents[0].as_ref().unwrap();
        assert_eq!(
            (&first["reason"], &first["event"]["payload"]),
            (&json!("it does not fit"), &json!(5))
        );
        assert!(documents.len() < 10, "{}", documents.len());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn cut_line_does_not_damage_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = SetAsideFile::new(directory.path(), 1_000_000);
        file.append(&[event(1)]).unwrap();
        let path = directory.path().join(SET_ASIDE_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();
        let record = SetAside::Record {
            table: "events".to_owned(),
            record: vec![0, 255],
            reason: "damaged".to_owned(),
        };
        file.append(&[event(2), record]).unwrap();
        let documents = documents(directory.path());
        assert!(documents[0].is_err() && documents.len() == 3);
        assert_eq!(documents[1].as_ref().unwrap()["event"]["payload"], json!(2));
        assert_eq!(documents[2].as_ref().unwrap()["record"], json!("00ff"));
    }
}
