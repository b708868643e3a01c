//! Events that can never be persisted: lines of a file in the spool's directory, which any tool can read.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::json_lines::json_of;
use crate::recorded::RecordedEvent;

/// Name of the file.
pub const SET_ASIDE_FILE: &str = "set-aside.jsonl";

/// Name of the file before it, when the file has reached its limit.
const EARLIER_FILE: &str = "set-aside.1.jsonl";

/// Writer of the file. It has one line for each event, with the reason; after a crash, an event may be there twice.
#[derive(Debug, Clone)]
pub(crate) struct SetAsideFile {
    path: PathBuf,
    earlier: PathBuf,
    limit: u64,
}

impl SetAsideFile {
    /// The file of a directory. `limit`: bytes after which the file is replaced; one earlier file is kept.
    pub(crate) fn new(directory: &Path, limit: u64) -> Self {
        Self { path: directory.join(SET_ASIDE_FILE), earlier: directory.join(EARLIER_FILE), limit }
    }

    /// Appends events with their reasons, durably. Blocking.
    pub(crate) fn append(&self, events: &[(RecordedEvent, String)]) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for (event, reason) in events {
            let line = json!({ "reason": reason, "table": event.table, "event": json_of(event) });
            lines.extend_from_slice(line.to_string().as_bytes());
            lines.push(b'\n');
        }
        let mut file = self.open()?;
        if file.metadata()?.len() + lines.len() as u64 > self.limit && file.metadata()?.len() > 0 {
            std::fs::rename(&self.path, &self.earlier)?;
            file = self.open()?;
        }
        file.write_all(&lines)?;
        file.sync_data()
    }

    fn open(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::testing::TestEvent;

    #[test]
    fn set_aside_events_are_lines_of_bounded_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = SetAsideFile::new(directory.path(), 1_000);
        let event = RecordedEvent::new(&TestEvent::numbered(5), Uuid::nil(), 0, 1_000).unwrap();
        for _ in 0..50 {
            file.append(&[(event.clone(), "it does not fit".to_owned())]).unwrap();
        }
        let text = std::fs::read_to_string(directory.path().join(SET_ASIDE_FILE)).unwrap();
        assert!(text.len() <= 1_000, "{}", text.len());
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&line["reason"], &line["event"]["payload"]),
            (&json!("it does not fit"), &json!(5))
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
