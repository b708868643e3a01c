//! Infers the columns of all inputs in turn.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::error::InferError;
use super::{Column, Columns, InferOptions, csv, ndjson, parquet};
use tidewater_readers::bad_rows::BadRows;
use tidewater_readers::input::{Format, Input};

/// Rows between two reports of progress.
const REPORT_ROWS: u64 = 8_192;

/// Observes every row of all inputs. All inputs must have columns of the same names; the first one
/// determines their order. Adds the bytes read to `read` and reports the number of rows so far.
pub(crate) fn infer_all(
    inputs: &[Input],
    options: &InferOptions,
    read: &Arc<AtomicU64>,
    report: &mut dyn FnMut(u64),
) -> Result<Vec<Column>, InferError> {
    let mut bad = BadRows::new(options.skip_bad);
    let mut rows = 0_u64;
    let mut reported = 0_u64;
    let mut add = |new: u64| {
        rows += new;
        if rows >= reported + REPORT_ROWS {
            reported = rows;
            report(rows);
        }
    };
    let mut all: Option<(&str, Columns)> = None;
    for input in inputs {
        let columns = match input.format {
            Format::Csv => csv::observe(input, options, &mut bad, read, &mut || add(1))?,
            Format::Ndjson => ndjson::observe(input, options, &mut bad, read, &mut || add(1))?,
            Format::Parquet => parquet::observe(input, options, read, &mut add)?,
        };
        match &mut all {
            None => all = Some((&input.name, columns)),
            Some((first, joined)) => joined.join(first, &input.name, columns)?,
        }
    }
    Ok(all.map(|(_, columns)| columns.list).unwrap_or_default())
}
