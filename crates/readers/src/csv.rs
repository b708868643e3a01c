//! Reader of CSV files with a header.
//!
//! An empty cell, or a cell that equals a `--null` text, is a missing value. In a text column that is
//! not null and not part of the key, an empty cell is the empty text.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::RecordBatch;

use super::bad_rows::BadRows;
use super::bytes::{self, ByteReader};
use super::dialect::check_dialect;
use super::error::{LoadError, RowError, RowFault, RowPosition};
use super::header::{Positions, match_columns};
use super::input::Input;
use super::records::{MAX_RECORD, RecordError, Records};
use super::row_numbers::RowNumbers;
use super::{ReadOptions, RowSource};
use crate::value::cell_error::CellError;
use crate::value::rows::RowsBuilder;

/// A CSV input after its header.
pub struct CsvSource {
    input: Input,
    records: Records<ByteReader>,
    positions: Positions,
    header_cells: usize,
    options: ReadOptions,
    rows: RowsBuilder,
    /// Lines of the good rows since the last batch.
    lines: RowNumbers,
}

impl CsvSource {
    /// Opens `input` and matches its header with the table.
    pub fn open(
        input: Input,
        options: ReadOptions,
        read: &Arc<AtomicU64>,
    ) -> Result<Self, LoadError> {
        let mut records = Records::new(bytes::open(&input, read)?, options.delimiter);
        let names = read_header(&input, &mut records)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let is_column = |name: &str| options.table.column_named(name).is_some();
        check_dialect(&input.name, &names, options.delimiter, is_column)?;
        let positions = match_columns(&input.name, &names, &options.table)?;
        let header_cells = names.len();
        let rows = RowsBuilder::new(&options.table, options.batch_rows);
        let lines = RowNumbers::default();
        Ok(Self { input, records, positions, header_cells, options, rows, lines })
    }

    /// Appends the cells of the current record to a row.
    fn take_record(&mut self) -> Result<(), RowFault> {
        let records = &self.records;
        if records.cells() != self.header_cells {
            return Err(RowFault::CellCount {
                found: records.cells(),
                expected: self.header_cells,
            });
        }
        // One check for the whole record; a cell boundary may still split a character.
        let whole = std::str::from_utf8(records.text());
        let ends = records.ends();
        for position in &self.positions {
            let taken = match position {
                None => self.rows.null(),
                Some(position) => {
                    let end = ends[*position];
                    let start = if *position == 0 { 0 } else { ends[*position - 1] };
                    let cell = match &whole {
                        Ok(text) => text.get(start..end),
                        Err(_) => std::str::from_utf8(&records.text()[start..end]).ok(),
                    };
                    match cell {
                        None => Err(self.rows.cell_problem(CellError::NotUtf8)),
                        Some("") => self.rows.empty(),
                        Some(cell) if self.options.nulls.iter().any(|null| null == cell) => {
                            self.rows.null()
                        }
                        Some(cell) => self.rows.text(cell),
                    }
                }
            };
            taken.map_err(RowFault::Cell)?;
        }
        Ok(())
    }
}

impl RowSource for CsvSource {
    fn next_batch(&mut self, bad: &mut BadRows) -> Result<Option<RecordBatch>, LoadError> {
        self.lines.clear();
        loop {
            while self.rows.rows() < self.options.batch_rows {
                match self.records.advance() {
                    Ok(true) => {}
                    Ok(false) => return self.finish(),
                    // The line on which the record begins.
                    Err(error) => {
                        return Err(record_error(&self.input, self.records.line(), error));
                    }
                }
                match self.take_record() {
                    Ok(()) => {
                        self.rows.end_row();
                        self.lines.push(self.records.line());
                    }
                    Err(fault) => {
                        self.rows.abandon_row();
                        bad.report(RowError {
                            file: self.input.name.clone(),
                            position: RowPosition::Line(self.records.line()),
                            fault,
                        })?;
                    }
                }
            }
            if let Some(batch) = self.finish()? {
                return Ok(Some(batch));
            }
        }
    }

    fn position(&self, row: usize) -> RowPosition {
        RowPosition::Line(self.lines.get(row).unwrap_or(0))
    }
}

impl CsvSource {
    fn finish(&mut self) -> Result<Option<RecordBatch>, LoadError> {
        self.rows
            .finish()
            .map_err(|source| LoadError::Batch { file: self.input.name.clone(), source })
    }
}

/// Reads the first record: the names of the columns.
pub fn read_header(
    input: &Input,
    records: &mut Records<ByteReader>,
) -> Result<Vec<String>, LoadError> {
    let advanced = records.advance();
    if !advanced.map_err(|error| record_error(input, records.line(), error))? {
        return Err(LoadError::Empty { file: input.name.clone() });
    }
    if records.cells() > records.ends().len() {
        return Err(LoadError::TooManyCells { file: input.name.clone(), found: records.cells() });
    }
    let mut names = Vec::with_capacity(records.cells());
    let mut start = 0;
    for end in records.ends() {
        let name = std::str::from_utf8(&records.text()[start..*end])
            .map_err(|_| LoadError::HeaderNotUtf8 { file: input.name.clone() })?;
        names.push(name.to_owned());
        start = *end;
    }
    records.limit_cells(names.len());
    Ok(names)
}

/// Returns the load error of a record that begins on `line`.
pub fn record_error(input: &Input, line: u64, error: RecordError) -> LoadError {
    match error {
        RecordError::Read(source) => bytes::read_error(input, source),
        RecordError::TooLong => LoadError::RecordTooLong {
            file: input.name.clone(),
            position: RowPosition::Line(line),
            limit: MAX_RECORD,
        },
        RecordError::UnclosedQuote => {
            LoadError::UnclosedQuote { file: input.name.clone(), position: RowPosition::Line(line) }
        }
    }
}
