//! A file that a node writes to, across restarts.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::{HarnessError, Result};

const TAIL_LINES: usize = 20;

/// A file that a node writes to, across restarts.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// Length when the running process was started.
    start: u64,
}

impl LogFile {
    /// Nothing is made before the first [`Self::append`].
    pub fn new(path: PathBuf) -> Self {
        Self { path, start: 0 }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for a process that is about to start.
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

    /// What the process that was started last has written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn since_start(&self) -> Result<String> {
        let text = self.text()?;
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        Ok(text.get(start..).unwrap_or_default().to_owned())
    }

    /// All that was written.
    ///
    /// # Errors
    /// When the file cannot be read.
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

    /// The last 20 lines.
    pub fn tail(&self) -> String {
        let text = self.text().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
