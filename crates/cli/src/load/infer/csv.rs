//! Inference from CSV.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::error::InferError;
use super::{Columns, InferOptions, Place};
use tidewater_readers::bad_rows::BadRows;
use tidewater_readers::bytes;
use tidewater_readers::csv::{read_header, record_error};
use tidewater_readers::dialect::check_dialect;
use tidewater_readers::error::{RowError, RowFault, RowPosition};
use tidewater_readers::input::Input;
use tidewater_readers::records::Records;
use tidewater_readers::value::cell_error::CellError;
use tidewater_readers::value::rows::CellProblem;

/// Observes all rows of a CSV input. Calls `observed` after each row.
pub(super) fn observe(
    input: &Input,
    options: &InferOptions,
    bad: &mut BadRows,
    read: &Arc<AtomicU64>,
    observed: &mut dyn FnMut(),
) -> Result<Columns, InferError> {
    let mut records = Records::new(bytes::open(input, read)?, options.delimiter);
    let names = read_header(input, &mut records)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let is_given = |name: &str| options.given.contains(name);
    check_dialect(&input.name, &names, options.delimiter, is_given)?;
    let mut columns = Columns::with_names(&input.name, names.iter().copied(), options)?;
    let file: Arc<str> = Arc::from(input.name.as_str());
    while records.advance().map_err(|error| record_error(input, records.line(), error))? {
        let position = RowPosition::Line(records.line());
        match texts(&records, &names) {
            Ok(texts) => {
                for (column, text) in columns.list.iter_mut().zip(texts) {
                    if options.is_blank(text) {
                        column.observe_missing(|| Place { file: Arc::clone(&file), position });
                    } else {
                        column.observe_text(text);
                    }
                }
            }
            Err(fault) => bad.report(RowError { file: input.name.clone(), position, fault })?,
        }
        observed();
    }
    Ok(columns)
}

/// Returns the cells of the last record.
fn texts<'r>(
    records: &'r Records<bytes::ByteReader>,
    names: &[&str],
) -> Result<impl Iterator<Item = &'r str>, RowFault> {
    if records.cells() != names.len() {
        return Err(RowFault::CellCount { found: records.cells(), expected: names.len() });
    }
    let starts = [0].into_iter().chain(records.ends().iter().copied());
    let text = match std::str::from_utf8(records.text()) {
        Ok(text) if records.ends().iter().all(|end| text.is_char_boundary(*end)) => text,
        _ => {
            let mut cells = starts.zip(records.ends()).zip(names);
            let bad = cells.find(|((start, end), _)| {
                std::str::from_utf8(&records.text()[*start..**end]).is_err()
            });
            let column = bad.map_or("", |(_, name)| name).to_owned();
            return Err(RowFault::Cell(CellProblem { column, problem: CellError::NotUtf8 }));
        }
    };
    Ok(starts.zip(records.ends()).map(move |(start, end)| &text[start..*end]))
}
