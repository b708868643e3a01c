//! CSV record reader: no allocation per cell, exact line numbers.

use std::io::{self, BufRead};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::delimiter::Delimiter;

/// Longest record in bytes. A longer one is taken for an unclosed quote.
pub const MAX_RECORD: usize = 16 << 20;

/// Longest record in bytes as written, with its delimiters and quotes.
const MAX_WRITTEN: u64 = 4 * MAX_RECORD as u64;

/// Most cells of a header.
const MAX_CELLS: usize = 65_536;

const LINE_END: &[u8] = b"\n";

/// Reads records in turn; keeps the cells of the last one.
pub struct Records<R> {
    input: R,
    reader: Reader,
    text: Vec<u8>,
    text_length: usize,
    ends: Vec<usize>,
    cells: usize,
    /// Cells beyond `most_cells`, which are counted and not kept: each takes 8 bytes of memory, but
    /// only one byte of a file, or a thousandth of a byte of a compressed one.
    cells_beyond: usize,
    most_cells: usize,
    line: u64,
    /// True after the line end added at the end of the input.
    ended: bool,
}

/// Reason why the next record cannot be read.
#[derive(Debug)]
pub enum RecordError {
    /// The input cannot be read.
    Read(io::Error),
    /// The record is longer than the limit.
    TooLong,
    /// The input ends within a quoted cell.
    UnclosedQuote,
}

impl<R: BufRead> Records<R> {
    /// Creates a reader before its first record.
    pub fn new(input: R, delimiter: Delimiter) -> Self {
        Self {
            input,
            reader: ReaderBuilder::new().delimiter(delimiter.0).build(),
            text: vec![0; 4 << 10],
            text_length: 0,
            ends: vec![0; 64],
            cells: 0,
            cells_beyond: 0,
            most_cells: MAX_CELLS,
            line: 1,
            ended: false,
        }
    }

    /// Line on which the last record begins, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Number of cells of the last record, including those that are not kept.
    pub fn cells(&self) -> usize {
        self.cells.saturating_add(self.cells_beyond)
    }

    /// Keeps at most this number of cells of each later record: the number of columns in the header.
    pub fn limit_cells(&mut self, most: usize) {
        self.most_cells = most;
    }

    /// All kept cells of the last record, concatenated without separators.
    pub fn text(&self) -> &[u8] {
        &self.text[..self.text_length]
    }

    /// End offsets of the cells of the last record in [`text`](Self::text).
    pub fn ends(&self) -> &[usize] {
        &self.ends[..self.cells]
    }

    /// Reads the next record; returns false at the end of the input. Skips empty lines.
    pub fn advance(&mut self) -> Result<bool, RecordError> {
        self.text_length = 0;
        self.cells = 0;
        self.cells_beyond = 0;
        let mut written_bytes = 0_u64;
        self.skip_line_ends().map_err(RecordError::Read)?;
        self.line = self.reader.line();
        loop {
            let input = self.input.fill_buf().map_err(RecordError::Read)?;
            // The parser ends a record at the end of the input even within quotes. A line end before
            // that is taken as text only there.
            let add_line_end = input.is_empty() && !self.ended;
            let input = if add_line_end { LINE_END } else { input };
            let (result, read, written, ended) = self.reader.read_record(
                input,
                &mut self.text[self.text_length..],
                &mut self.ends[self.cells..],
            );
            if add_line_end {
                self.ended = read > 0;
                if written > 0 {
                    return Err(RecordError::UnclosedQuote);
                }
            } else {
                self.input.consume(read);
            }
            self.text_length += written;
            self.cells += ended;
            written_bytes = written_bytes.saturating_add(read as u64);
            if written_bytes > MAX_WRITTEN {
                return Err(RecordError::TooLong);
            }
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.text.len() >= MAX_RECORD => {
                    return Err(RecordError::TooLong);
                }
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() > self.most_cells => {
                    self.drop_cells_beyond();
                }
                ReadRecordResult::OutputEndsFull => {
                    let length = (self.ends.len() * 2).min(self.most_cells.saturating_add(1));
                    self.ends.resize(length.max(self.ends.len() + 1), 0);
                }
                ReadRecordResult::Record => {
                    if self.cells > self.most_cells {
                        self.drop_cells_beyond();
                    }
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// Counts the cells beyond the limit and forgets their ends and texts.
    fn drop_cells_beyond(&mut self) {
        self.cells_beyond += self.cells - self.most_cells;
        self.cells = self.most_cells;
        self.text_length = self.ends().last().copied().unwrap_or(0);
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
        let input = BufReader::with_capacity(buffer, text);
        let mut records = Records::new(input, Delimiter::default());
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
    fn cells_beyond_the_limit_are_counted_and_not_kept() {
        for cells in [3, 4, 64, 65, 66, 1_000, 1 << 20] {
            let text = format!("a,bb\n{}\n1,2\n", vec!["xy"; cells].join(","));
            let mut records = Records::new(text.as_bytes(), Delimiter::default());
            assert!(records.advance().unwrap());
            records.limit_cells(2);
            assert!(records.advance().unwrap());
            assert_eq!((records.cells(), records.ends()), (cells, &[2, 4][..]));
            assert!(records.ends.len() <= 64 && records.text.len() <= 4 << 10, "{cells}");
            assert!(records.advance().unwrap());
            assert_eq!((records.line(), records.cells(), records.text()), (3, 2, &b"12"[..]));
        }
    }

    #[test]
    fn record_of_empty_cells_stops_at_the_record_limit() {
        let text = vec![b','; MAX_WRITTEN as usize + 1_000];
        for header in [true, false] {
            let text = [if header { &b""[..] } else { b"a\n" }, text.as_slice()].concat();
            let mut records = Records::new(text.as_slice(), Delimiter::default());
            if !header {
                assert!(records.advance().unwrap());
                records.limit_cells(1);
            }
            assert!(matches!(records.advance(), Err(RecordError::TooLong)));
            assert!(records.ends.len() <= MAX_CELLS + 1, "{}", records.ends.len());
        }
    }

    #[test]
    fn cells_are_split_at_the_delimiter() {
        let mut records = Records::new(&b"a;\"b;c\";d,e\n"[..], Delimiter(b';'));
        assert!(records.advance().unwrap());
        assert_eq!((records.text(), records.ends()), (&b"ab;cd,e"[..], &[1, 4, 7][..]));
    }

    #[test]
    fn unclosed_quote_at_the_end_is_an_error() {
        for text in ["a\n\"", "a\n\"x", "a\n\"x\n", "a\n1,\"x,y", "a\n\"x\"\"", "a\n\"x\r"] {
            for buffer in [1, 4, 4096] {
                let input = BufReader::with_capacity(buffer, text.as_bytes());
                let mut records = Records::new(input, Delimiter::default());
                assert!(records.advance().unwrap(), "{text}");
                let error = records.advance();
                assert!(matches!(error, Err(RecordError::UnclosedQuote)), "{text}");
                assert_eq!(records.line(), 2, "{text}");
            }
        }
        for text in
            ["\"x\"", "\"x\"\"\"", "x\"", "\"x\"\r", "1,\"x\",", "1,", "5\" pipe", "\"x\n\"\n\n"]
        {
            for buffer in [1, 4, 4096] {
                assert_eq!(records(text.as_bytes(), buffer).len(), 1, "{text}");
            }
        }
    }

    #[test]
    fn unclosed_quote_stops_at_the_record_limit() {
        let mut text = b"a,b\n1,\"".to_vec();
        text.resize(MAX_RECORD * 2 + 100, b'x');
        let mut records = Records::new(text.as_slice(), Delimiter::default());
        assert!(records.advance().unwrap());
        assert!(matches!(records.advance(), Err(RecordError::TooLong)));
    }
}
