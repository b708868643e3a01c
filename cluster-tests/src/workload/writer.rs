//! A writer: a client, a table, and a number that identifies its rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, new_null_array};
use tidewater_client::{Client, ClientError, ClientOptions, TableWriter, WriterOptions};

use crate::oracle::{Attempt, Outcome};
use crate::{HarnessError, Result};

/// A writer of a table (writer int64, serial int64, note utf8).
#[derive(Debug)]
pub struct Writer {
    number: i64,
    table: TableWriter,
}

impl Writer {
    /// Connects a new client; `number` identifies the rows.
    ///
    /// # Errors
    /// If no meta node answers or the table does not exist.
    pub async fn connect(options: ClientOptions, table: &str, number: i64) -> Result<Self> {
        let client = Client::connect(options).await.map_err(|error| explain(number, &error))?;
        Self::of_client(&client, table, number).await
    }

    /// Uses a client that other writers share; `number` identifies the rows.
    ///
    /// # Errors
    /// If the table does not exist.
    pub async fn of_client(client: &Client, table: &str, number: i64) -> Result<Self> {
        // One lane: one write in flight, so that the outcome of each is its own.
        let options = WriterOptions { lanes: 1, queue_batches: 1, ..WriterOptions::default() };
        let table = client.writer(table, options).await.map_err(|error| explain(number, &error))?;
        Ok(Self { number, table })
    }

    /// Sends the rows `first..first + rows` as one write and returns its outcome.
    ///
    /// # Errors
    /// If the rows cannot be built, which is a bug of the test.
    pub async fn write(&self, first: i64, rows: i64, note: usize) -> Result<Attempt> {
        let batch = self.batch(first, rows, note)?;
        let outcome = outcome(self.table.put_rows(batch).await.map(drop));
        Ok(Attempt { writer: self.number, first, rows, outcome })
    }

    fn batch(&self, first: i64, rows: i64, note: usize) -> Result<RecordBatch> {
        let serials = first..first + rows;
        let notes = serials.clone().map(|serial| note_text(self.number, serial, note));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(serials.clone().map(|_| self.number))),
            Arc::new(Int64Array::from_iter_values(serials.clone())),
            Arc::new(StringArray::from_iter_values(notes)),
        ];
        let schema = self.table.table().schema.arrow();
        // Columns that were added to the table.
        let added = schema.fields().iter().skip(columns.len());
        let rows = columns[0].len();
        columns.extend(added.map(|field| new_null_array(field.data_type(), rows)));
        RecordBatch::try_new(schema, columns)
            .map_err(|error| HarnessError::violated(format!("build rows: {error}")))
    }
}

fn explain(number: i64, error: &ClientError) -> HarnessError {
    HarnessError::violated(format!("writer {number} cannot start: {error}"))
}

/// Returns a text that depends on the row and does not compress well.
fn note_text(writer: i64, serial: i64, length: usize) -> String {
    let mut state = writer.unsigned_abs() << 40 ^ serial.unsigned_abs().wrapping_add(1);
    let mut note = String::with_capacity(length);
    for _ in 0..length {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        note.push(char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap_or(0)));
    }
    note
}

fn outcome(answer: Result<(), ClientError>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Acknowledged,
        Err(error) if error.maybe_done() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
