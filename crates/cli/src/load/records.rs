//! CSV record reader: no allocation per cell, exact line numbers.

use std::io::{self, BufRead};

use csv_core::{ReadRecordResult, Reader};

/// Longest record in bytes. A longer one is taken for an unclosed quote.
pub(crate) const MAX_RECORD: usize = 16 << 20;

/// Reads records in turn; keeps the cells of the last one.
pub(crate) struct Records<R> {
    input: R,
    reader: Reader,
    text: Vec<u8>,
    text_length: usize,
    ends: Vec<usize>,
    cells: usize,
    line: u64,
}

/// Reason why the next record cannot be read.
#[derive(Debug)]
pub(crate) enum RecordError {
    Read(io::Error),
    TooLong,
}

impl<R: BufRead> Records<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            reader: Reader::new(),
            text: vec![0; 4 << 10],
            text_length: 0,
            ends: vec![0; 64],
            cells: 0,
            line: 1,
        }
    }

    /// Line on which the last record begins, from 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Number of cells of the last record.
    pub(crate) fn cells(&self) -> usize {
        self.cells
    }

    /// All cells of the last record, concatenated without separators.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text[..self.text_length]
    }

    /// End offsets of the cells of the last record in [`text`](Self::text).
    pub(crate) fn ends(&self) -> &[usize] {
        &self.ends[..self.cells]
    }

    /// Reads the next record; returns false at the end of the input. Skips empty lines.
    pub(crate) fn advance(&mut self) -> Result<bool, RecordError> {
        self.text_length = 0;
        self.cells = 0;
        self.skip_line_ends().map_err(RecordError::Read)?;
        self.line = self.reader.line();
        loop {
            let input = self.input.fill_buf().map_err(RecordError::Read)?;
            let (result, read, written, ended) = self.reader.read_record(
                input,
                &mut self.text[self.text_length..],
                &mut self.ends[self.cells..],
            );
            self.input.consume(read);
            self.text_length += written;
            self.cells += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.text.len() >= MAX_RECORD => {
                    return Err(RecordError::TooLong);
                }
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// Skips line ends before the next record. The parser leaves the second half of `\r\n`, and empty
    /// lines, to the next record, which would then appear to begin a line too early.
    fn skip_line_ends(&mut self) -> io::Result<()> {
        loop {
            let input = self.input.fill_buf()?;
            let length = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if length == 0 {
                return Ok(());
            }
            let lines = input[..length].iter().filter(|byte| **byte == b'\n').count();
            self.reader.set_line(self.reader.line() + lines as u64);
            self.input.consume(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn records(text: &[u8], buffer: usize) -> Vec<(u64, Vec<String>)> {
        let mut records = Records::new(BufReader::with_capacity(buffer, text));
        let mut found = Vec::new();
        while records.advance().unwrap() {
            let mut start = 0;
            let mut cells = Vec::new();
            for end in records.ends() {
                cells.push(String::from_utf8_lossy(&records.text()[start..*end]).into_owned());
                start = *end;
            }
            found.push((records.line(), cells));
        }
        found
    }

    #[test]
    fn records_report_their_line_numbers() {
        let text = b"a,b\r\n1,\"x\ny\"\r\n\r\n2,\"say \"\"hi\"\"\"\n\n3,last";
        for buffer in [4, 7, 4096] {
            let found = records(text, buffer);
            let expected = [
                (1, vec!["a", "b"]),
                (2, vec!["1", "x\ny"]),
                (5, vec!["2", "say \"hi\""]),
                (7, vec!["3", "last"]),
            ];
            assert_eq!(found.len(), expected.len(), "buffer {buffer}");
            for ((line, cells), (expected_line, expected_cells)) in found.iter().zip(expected) {
                assert_eq!(
                    (*line, cells),
                    (
                        expected_line,
                        &expected_cells.iter().map(|cell| (*cell).to_owned()).collect()
                    ),
                    "buffer {buffer}"
                );
            }
        }
    }

    #[test]
    fn byte_order_mark_is_stripped_from_first_cell() {
        assert_eq!(records(b"\xef\xbb\xbfa,b\n", 4096), [(1, vec!["a".into(), "b".into()])]);
    }

    #[test]
    fn wide_and_long_records_grow_the_buffers() {
        let wide = vec!["x".repeat(100); 500].join(",");
        assert_eq!(records(wide.as_bytes(), 4096)[0].1.len(), 500);
    }

    #[test]
    fn unclosed_quote_stops_at_the_record_limit() {
        let mut text = b"a,b\n1,\"".to_vec();
        text.resize(MAX_RECORD * 2 + 100, b'x');
        let mut records = Records::new(text.as_slice());
        assert!(records.advance().unwrap());
        assert!(matches!(records.advance(), Err(RecordError::TooLong)));
    }
}
