//! The handle of a writer.

use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1::RowOp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::deal::deal;
use super::driver::{Driver, Job, Rows};
use super::lane::{Shared, off_the_runtime};
use super::prepare::{PieceLimits, check};
use super::report::WriteReport;
use crate::catalog::TableInfo;
use crate::client::Client;
use crate::error::ClientError;
use crate::options::WriterOptions;

/// Writes rows of one table.
///
/// Dropping it abandons what is not settled: those rows are in doubt. [`TableWriter::close`] waits
/// for them.
#[derive(Debug)]
pub struct TableWriter {
    table: Arc<TableInfo>,
    lanes: usize,
    by_key: bool,
    jobs: mpsc::Sender<Job>,
    total: Arc<Mutex<WriteReport>>,
    _task: AbortOnDropHandle<()>,
    // Keeps the catalog watched for as long as there is a writer.
    _client: Client,
}

impl Client {
    /// A writer for a table.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]; [`ClientError::BadInput`] for options of zero.
    pub async fn writer(
        &self,
        table: &str,
        options: WriterOptions,
    ) -> Result<TableWriter, ClientError> {
        if options.producers == 0
            || options.queue_batches == 0
            || options.max_write_rows == 0
            || options.max_write_bytes == 0
        {
            return Err(ClientError::BadInput("no option of a writer may be 0".to_owned()));
        }
        let table = self.table(table).await?;
        let (sender, jobs) = mpsc::channel(options.queue_batches);
        let total = Arc::new(Mutex::new(WriteReport::default()));
        let limits = PieceLimits { rows: options.max_write_rows, bytes: options.max_write_bytes };
        let shared = Shared { core: self.core.clone(), table: table.clone(), limits };
        // A single lane keeps the order by itself.
        let by_key = table.options.write_mode == WriteMode::Upsert && options.producers > 1;
        let driver = Driver::new(shared, jobs, options.producers, by_key, total.clone());
        Ok(TableWriter {
            table,
            lanes: options.producers,
            by_key,
            jobs: sender,
            total,
            _task: AbortOnDropHandle::new(tokio::spawn(driver.run())),
            _client: self.clone(),
        })
    }

    /// Deletes rows by key (columns of the primary key, in key order) and waits for the outcome.
    ///
    /// # Errors
    /// See [`TableWriter::delete_rows`].
    pub async fn delete(&self, table: &str, keys: RecordBatch) -> Result<WriteReport, ClientError> {
        let one = WriterOptions { producers: 1, queue_batches: 1, ..WriterOptions::default() };
        self.writer(table, one).await?.delete_rows(keys).await
    }
}

impl TableWriter {
    /// The table as it was when the writer was made. Batches have its columns, in its order.
    pub fn table(&self) -> &Arc<TableInfo> {
        &self.table
    }

    /// Hands rows over, in any order; waits while the queue is full. What became of them is in
    /// [`TableWriter::flush`] and [`TableWriter::progress`]. In an upsert table the row of a key that
    /// was handed over last is the one that stays.
    ///
    /// # Errors
    /// [`ClientError::BadInput`]: the columns are not the table's, and nothing was taken.
    pub async fn write(&self, rows: RecordBatch) -> Result<(), ClientError> {
        self.enqueue(RowOp::Put, rows, None).await
    }

    /// Writes rows and waits for their outcome.
    ///
    /// # Errors
    /// [`ClientError::Failed`], [`ClientError::Unknown`] or [`ClientError::Partial`] unless all
    /// took effect.
    pub async fn put_rows(&self, rows: RecordBatch) -> Result<WriteReport, ClientError> {
        self.and_wait(RowOp::Put, rows).await
    }

    /// Deletes rows by key (columns of the primary key, in key order) and waits for the outcome.
    /// A key without a row is no error.
    ///
    /// # Errors
    /// As [`TableWriter::put_rows`]; [`ClientError::BadInput`] for an append-only table.
    pub async fn delete_rows(&self, keys: RecordBatch) -> Result<WriteReport, ClientError> {
        if self.table.options.write_mode == WriteMode::AppendOnly {
            return Err(ClientError::BadInput(format!(
                "table {:?} is append-only: its rows cannot be deleted",
                self.table.name
            )));
        }
        self.and_wait(RowOp::Delete, keys).await
    }

    /// Waits until everything that was handed over is settled; returns the books since the writer
    /// was made.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the writer's task ended.
    pub async fn flush(&self) -> Result<WriteReport, ClientError> {
        let (done, settled) = oneshot::channel();
        self.jobs.send(Job::Flush(done)).await.map_err(|_| self.closed())?;
        settled.await.map_err(|_| self.closed())
    }

    /// Waits until everything is settled and ends the writer.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the writer's task ended.
    pub async fn close(self) -> Result<WriteReport, ClientError> {
        self.flush().await
    }

    /// The books so far; for showing progress, and for stopping early.
    pub fn progress(&self) -> WriteReport {
        self.total.lock().clone()
    }

    async fn and_wait(&self, op: RowOp, rows: RecordBatch) -> Result<WriteReport, ClientError> {
        let (done, settled) = oneshot::channel();
        self.enqueue(op, rows, Some(done)).await?;
        settled.await.map_err(|_| self.closed())?.into_result(&self.table.name)
    }

    async fn enqueue(
        &self,
        op: RowOp,
        rows: RecordBatch,
        done: Option<oneshot::Sender<WriteReport>>,
    ) -> Result<(), ClientError> {
        check(&self.table, op, &rows)?;
        let rows = if self.by_key {
            let (table, lanes) = (self.table.clone(), self.lanes);
            let count = rows.num_rows() as u64;
            let parts =
                off_the_runtime(count, move || deal(&table.codec, op, &rows, lanes)).await?;
            Rows::Dealt(parts)
        } else {
            Rows::Any(rows)
        };
        self.jobs.send(Job::Write { op, rows, done }).await.map_err(|_| self.closed())
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed(self.table.name.clone())
    }
}
