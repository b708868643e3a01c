//! All inputs in turn, read on a thread of their own.
//!
//! Every input is opened once before the first row is handed out, so that a file that does not fit
//! the table is found at once, whatever stands before it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::bad_rows::BadRows;
use super::csv::CsvSource;
use super::error::LoadError;
use super::input::{Format, Input, inspect};
use super::ndjson::NdjsonSource;
use super::parquet::ParquetSource;
use super::{ReadOptions, RowSource};

/// Batches that wait to be sent; reading stops when they do.
const AHEAD: usize = 4;

/// What the reading thread says.
#[derive(Debug)]
pub(crate) enum Event {
    Rows(RecordBatch),
    /// The last event: all inputs were read, or why not.
    End {
        bad: BadRows,
        result: Result<(), LoadError>,
    },
}

/// Inputs being read.
#[derive(Debug)]
pub(crate) struct Pipeline {
    events: mpsc::Receiver<Event>,
    read: Arc<AtomicU64>,
    total: u64,
}

/// Opens one input.
pub(crate) fn open(
    input: Input,
    options: ReadOptions,
    read: &Arc<AtomicU64>,
) -> Result<Box<dyn RowSource>, LoadError> {
    Ok(match input.format {
        Format::Csv => Box::new(CsvSource::open(input, options, read)?),
        Format::Ndjson => Box::new(NdjsonSource::open(input, options, read)?),
        Format::Parquet => Box::new(ParquetSource::open(input, options, read)?),
    })
}

/// Looks at all files. Needs no table: a file that does not exist is found before anything else.
pub(crate) fn inspect_all(paths: &[PathBuf]) -> Result<Vec<Input>, LoadError> {
    let mut inputs = Vec::new();
    for path in paths {
        inputs.extend(inspect(path)?);
    }
    Ok(inputs)
}

/// Opens every input and matches its columns with the table.
pub(crate) fn check_all(inputs: &[Input], options: &ReadOptions) -> Result<(), LoadError> {
    // Their headers only: little memory for rows.
    let options = ReadOptions { batch_rows: 1, ..options.clone() };
    let uncounted = Arc::new(AtomicU64::new(0));
    for input in inputs {
        open(input.clone(), options.clone(), &uncounted)?;
    }
    Ok(())
}

impl Pipeline {
    /// Starts reading; the inputs have been checked.
    pub(crate) fn start(
        inputs: Vec<Input>,
        options: ReadOptions,
        skip_bad: u64,
    ) -> Result<Self, std::io::Error> {
        let total = inputs.iter().map(|input| input.size).sum();
        let read = Arc::new(AtomicU64::new(0));
        let (sender, events) = mpsc::channel(AHEAD);
        let counter = Arc::clone(&read);
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let mut bad = BadRows::new(skip_bad);
            let result = read_all(inputs, &options, &counter, &mut bad, &sender);
            // Nobody listens any more when the load was given up.
            let _ = sender.blocking_send(Event::End { bad, result });
        })?;
        Ok(Self { events, read, total })
    }

    /// What comes next; after the end, an error.
    pub(crate) async fn next(&mut self) -> Result<Event, LoadError> {
        self.events.recv().await.ok_or(LoadError::ReaderStopped)
    }

    /// Bytes on disk that were read, and how many there are.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed).min(self.total), self.total)
    }
}

fn read_all(
    inputs: Vec<Input>,
    options: &ReadOptions,
    read: &Arc<AtomicU64>,
    bad: &mut BadRows,
    sender: &mpsc::Sender<Event>,
) -> Result<(), LoadError> {
    for input in inputs {
        let mut source = open(input, options.clone(), read)?;
        while let Some(batch) = source.next_batch(bad)? {
            if sender.blocking_send(Event::Rows(batch)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
