//! Reads all inputs in turn on a dedicated thread.
//!
//! Every input is opened once before the first row is returned, so that a file that does not match the
//! table is reported immediately, regardless of its position.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::bad_rows::BadRows;
use super::csv::CsvSource;
use super::error::LoadError;
use super::input::{Format, Input};
use super::ndjson::NdjsonSource;
use super::parquet::ParquetSource;
use super::row_limits::LimitedRows;
use super::{ReadOptions, RowSource};

/// Batches read ahead; the reader thread waits when the channel is full.
const AHEAD: usize = 4;

/// Message of the reader thread.
#[derive(Debug)]
pub enum Event {
    /// Rows of an input, at least one.
    Rows(RecordBatch),
    /// Last event: all inputs were read, or an error ended the load.
    End {
        /// Bad rows of all inputs.
        bad: BadRows,
        /// The error that ended the load.
        result: Result<(), LoadError>,
    },
}

/// Inputs being read.
#[derive(Debug)]
pub struct Pipeline {
    events: mpsc::Receiver<Event>,
    read: Arc<AtomicU64>,
    total: u64,
}

/// Opens one input.
pub fn open(
    input: Input,
    options: ReadOptions,
    read: &Arc<AtomicU64>,
) -> Result<Box<dyn RowSource>, LoadError> {
    let file = input.name.clone();
    let codec = options.codec.clone();
    Ok(match input.format {
        Format::Csv => {
            Box::new(LimitedRows::new(CsvSource::open(input, options, read)?, file, codec))
        }
        Format::Ndjson => {
            Box::new(LimitedRows::new(NdjsonSource::open(input, options, read)?, file, codec))
        }
        Format::Parquet => {
            Box::new(LimitedRows::new(ParquetSource::open(input, options, read)?, file, codec))
        }
    })
}

/// Opens every input and matches its columns with those of the table.
pub fn check_all(inputs: &[Input], options: &ReadOptions) -> Result<(), LoadError> {
    // Only headers are needed: small batches keep memory low.
    let options = ReadOptions { batch_rows: 1, ..options.clone() };
    let uncounted = Arc::new(AtomicU64::new(0));
    for input in inputs {
        open(input.clone(), options.clone(), &uncounted)?;
    }
    Ok(())
}

impl Pipeline {
    /// Starts reading the inputs, which [`check_all`] has accepted.
    pub fn start(
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
            // The receiver is dropped when the load was abandoned.
            let _ = sender.blocking_send(Event::End { bad, result });
        })?;
        Ok(Self { events, read, total })
    }

    /// Returns the next event; an error after the last one.
    pub async fn next(&mut self) -> Result<Event, LoadError> {
        self.events.recv().await.ok_or(LoadError::ReaderStopped)
    }

    /// Returns the bytes read from disk and their total.
    pub fn progress(&self) -> (u64, u64) {
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
