//! One writer: a client, a table, and a name for its rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use tidewater_client::{Client, ClientError, ClientOptions, TableWriter, WriterOptions};

use crate::oracle::{Attempt, Outcome};
use crate::{HarnessError, Result};

/// One writer of a table (writer int64, serial int64, note utf8).
#[derive(Debug)]
pub struct Writer {
    number: i64,
    table: TableWriter,
}

impl Writer {
    /// Connects a client of its own; rows are named by `number`.
    ///
    /// # Errors
    /// When no meta node answers or the table is missing.
    pub async fn connect(options: ClientOptions, table: &str, number: i64) -> Result<Self> {
        let explain = |error: ClientError| {
            HarnessError::violated(format!("writer {number} cannot start: {error}"))
        };
        let client = Client::connect(options).await.map_err(explain)?;
        // One producer: one write in flight, so that the outcome of each is its own.
        let options = WriterOptions { lanes: 1, queue_batches: 1, ..WriterOptions::default() };
        let table = client.writer(table, options).await.map_err(explain)?;
        Ok(Self { number, table })
    }

    /// Sends rows `first..first + rows` as one write and says what came of it.
    ///
    /// # Errors
    /// When the rows cannot be built: a fault of the test.
    pub async fn write(&self, first: i64, rows: i64, note: usize) -> Result<Attempt> {
        let batch = self.batch(first, rows, note)?;
        let outcome = outcome(self.table.put_rows(batch).await.map(drop));
        Ok(Attempt { writer: self.number, first, rows, outcome })
    }

    fn batch(&self, first: i64, rows: i64, note: usize) -> Result<RecordBatch> {
        let serials = first..first + rows;
        let notes = serials.clone().map(|serial| note_of(self.number, serial, note));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(serials.clone().map(|_| self.number))),
            Arc::new(Int64Array::from_iter_values(serials.clone())),
            Arc::new(StringArray::from_iter_values(notes)),
        ];
        RecordBatch::try_new(self.table.table().schema.arrow(), columns)
            .map_err(|error| HarnessError::violated(format!("build rows: {error}")))
    }
}

/// Text that depends on the row and does not compress away.
fn note_of(writer: i64, serial: i64, length: usize) -> String {
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
        Err(error) if error.may_have_taken_effect() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
