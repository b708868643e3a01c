//! Reader of NDJSON lines: bounded length, exact line numbers.

use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::bytes::{self, ByteReader};
use super::error::{LoadError, RowPosition};
use super::input::Input;
use super::records::MAX_RECORD;

/// Reads lines in turn; keeps the last one.
pub struct Lines {
    bytes: ByteReader,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Opens `input` before its first line.
    pub fn open(input: &Input, read: &Arc<AtomicU64>) -> Result<Self, LoadError> {
        Ok(Self { bytes: bytes::open(input, read)?, line: Vec::new(), number: 0 })
    }

    /// The last line.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Number of the last line, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line that is not blank; returns false at the end. `input` is named in errors.
    pub fn advance(&mut self, input: &Input) -> Result<bool, LoadError> {
        loop {
            self.line.clear();
            let limit = MAX_RECORD as u64 + 1;
            let length = (&mut self.bytes)
                .take(limit)
                .read_until(b'\n', &mut self.line)
                .map_err(|source| bytes::read_error(input, source))?;
            if length == 0 {
                return Ok(false);
            }
            self.number += 1;
            if self.line.len() > MAX_RECORD {
                return Err(LoadError::RecordTooLong {
                    file: input.name.clone(),
                    position: RowPosition::Line(self.number),
                    limit: MAX_RECORD,
                });
            }
            if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}
