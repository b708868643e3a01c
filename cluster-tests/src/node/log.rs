//! Log file of a node, kept across restarts.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::{HarnessError, Result};

const TAIL_LINES: usize = 20;

/// Log file of a node, kept across restarts.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// Length in bytes when the current process started.
    start: u64,
}

impl LogFile {
    /// Names a file, which the first [`Self::append`] creates.
    pub fn new(path: PathBuf) -> Self {
        Self { path, start: 0 }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file for a process that is about to start.
    pub(super) fn append(&mut self) -> Result<File> {
        let what = || format!("open {}", self.path.display());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .map_err(HarnessError::io(what()))?;
        self.start = file.metadata().map_err(HarnessError::io(what()))?.len();
        Ok(file)
    }

    /// Returns the text written by the process that started last.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn since_start(&self) -> Result<String> {
        let text = self.text()?;
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        Ok(text.get(start..).unwrap_or_default().to_owned())
    }

    /// Returns the complete text.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn text(&self) -> Result<String> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(HarnessError::Io {
                what: format!("read {}", self.path.display()),
                source: error,
            }),
        }
    }

    /// Returns the last 20 lines.
    pub fn tail(&self) -> String {
        let text = self.text().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
