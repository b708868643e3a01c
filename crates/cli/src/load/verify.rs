//! Check of all rows before a table is created for them: values, missing values, keys.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use tidewater_common::keys::KeyError;

use super::infer::Place;
use super::keys::UniqueKeys;
use tidewater_readers::ReadOptions;
use tidewater_readers::bad_rows::BadRows;
use tidewater_readers::error::LoadError;
use tidewater_readers::input::Input;
use tidewater_readers::pipeline::open;
use tidewater_readers::value::instants::displayed;

/// Characters of a key that a message repeats.
const MAX_QUOTED: usize = 80;

/// Rows that do not fit the table, or not its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error(
        "the primary key is not unique: {first} and {second} both have ({columns}) = ({key}): choose \
         more columns for --primary-key, or leave it out for an append-only table"
    )]
    NotUnique { columns: String, key: String, first: Place, second: Place },
    #[error("{file}: a key cannot be built: {source}")]
    Key { file: String, source: KeyError },
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Reads all rows of the inputs. With `keys`, their keys must be unique. Adds the bytes read to `read`
/// and reports the number of rows so far.
pub(crate) fn verify_all(
    inputs: &[Input],
    options: &ReadOptions,
    skip_bad: u64,
    keys: &mut Option<UniqueKeys>,
    read: &Arc<AtomicU64>,
    report: &mut dyn FnMut(u64),
) -> Result<(), VerifyError> {
    let mut bad = BadRows::new(skip_bad);
    let mut rows = 0;
    for input in inputs {
        let mut source = open(input.clone(), options.clone(), read)?;
        while let Some(batch) = source.next_batch(&mut bad)? {
            if let Some(keys) = keys {
                let failed = |source| VerifyError::Key { file: input.name.clone(), source };
                if let Some((row, key)) = keys.add(&batch).map_err(failed)? {
                    let second =
                        Place { file: input.name.as_str().into(), position: source.position(row) };
                    let first = first_place(inputs, options, skip_bad, keys, &key)?;
                    return Err(VerifyError::NotUnique {
                        columns: key_names(options).join(", "),
                        key: key_text(options, &batch, row),
                        first: first.unwrap_or_else(|| second.clone()),
                        second,
                    });
                }
            }
            rows += batch.num_rows() as u64;
            report(rows);
        }
    }
    Ok(())
}

/// Reads the inputs again up to the first row with this key.
fn first_place(
    inputs: &[Input],
    options: &ReadOptions,
    skip_bad: u64,
    keys: &UniqueKeys,
    key: &[u8],
) -> Result<Option<Place>, VerifyError> {
    let mut bad = BadRows::new(skip_bad);
    for input in inputs {
        let mut source = open(input.clone(), options.clone(), &Arc::default())?;
        while let Some(batch) = source.next_batch(&mut bad)? {
            let failed = |source| VerifyError::Key { file: input.name.clone(), source };
            if let Some(row) = keys.find(&batch, key).map_err(failed)? {
                let file = input.name.as_str().into();
                return Ok(Some(Place { file, position: source.position(row) }));
            }
        }
    }
    Ok(None)
}

fn key_names(options: &ReadOptions) -> Vec<&str> {
    let table = &options.table;
    let columns = table.key_indices().iter().filter_map(|index| table.columns().get(*index));
    columns.map(|column| column.name.as_str()).collect()
}

fn key_text(options: &ReadOptions, batch: &RecordBatch, row: usize) -> String {
    let Ok(shown) = displayed(&batch.slice(row, 1)) else { return String::new() };
    let values = options.table.key_indices().iter().filter_map(|index| shown.columns().get(*index));
    let texts: Vec<String> =
        values.map(|column| array_value_to_string(column, 0).unwrap_or_default()).collect();
    let text = texts.join(", ");
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
