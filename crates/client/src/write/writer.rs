//! Handle of a writer.

use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1::RowOp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::driver::{BatchRows, Driver, WriterRequest};
use super::lane::{WriterContext, run_blocking};
use super::partition::partition_by_key;
use super::prepare::{PieceLimits, check};
use super::report::WriteReport;
use crate::catalog::TableInfo;
use crate::client::Client;
use crate::error::ClientError;
use crate::options::WriterOptions;

/// Writes rows of one table.
///
/// Dropping it aborts the writes in progress: the outcome of rows that are not settled is unknown.
/// [`TableWriter::close`] waits for them.
#[derive(Debug)]
pub struct TableWriter {
    table: Arc<TableInfo>,
    lanes: usize,
    by_key: bool,
    requests: mpsc::Sender<WriterRequest>,
    total: Arc<Mutex<WriteReport>>,
    _task: AbortOnDropHandle<()>,
    // Keeps the catalog watch running for the lifetime of the writer.
    _client: Client,
}

impl Client {
    /// Returns a writer of a table.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]; [`ClientError::BadInput`] for options of zero.
    pub async fn writer(
        &self,
        table: &str,
        options: WriterOptions,
    ) -> Result<TableWriter, ClientError> {
        self.writer_for(self.table(table).await?, options)
    }

    /// Returns a writer of rows in the schema of `table`, which may have been altered since.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] for options of zero.
    pub fn writer_for(
        &self,
        table: Arc<TableInfo>,
        options: WriterOptions,
    ) -> Result<TableWriter, ClientError> {
        if options.lanes == 0
            || options.queue_batches == 0
            || options.max_write_rows == 0
            || options.max_write_bytes == 0
        {
            return Err(ClientError::BadInput("options of a writer must not be 0".to_owned()));
        }
        let (sender, requests) = mpsc::channel(options.queue_batches);
        let total = Arc::new(Mutex::new(WriteReport::default()));
        let limits = PieceLimits { rows: options.max_write_rows, bytes: options.max_write_bytes };
        let context = WriterContext { core: self.core.clone(), table: table.clone(), limits };
        // A single lane keeps the order of all rows.
        let by_key = table.options.write_mode == WriteMode::Upsert && options.lanes > 1;
        let driver = Driver::new(context, requests, options.lanes, by_key, total.clone());
        Ok(TableWriter {
            table,
            lanes: options.lanes,
            by_key,
            requests: sender,
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
        let options = WriterOptions { lanes: 1, queue_batches: 1, ..WriterOptions::default() };
        self.writer(table, options).await?.delete_rows(keys).await
    }
}

impl TableWriter {
    /// Returns the table as of the creation of the writer. Batches must have its columns, in its order.
    /// After an alter of the table, rows take effect as if written just before it: columns that were added
    /// have their default, and values of columns that were dropped are left out. A new writer has the new
    /// columns.
    pub fn table(&self) -> &Arc<TableInfo> {
        &self.table
    }

    /// Enqueues rows, in any order; waits while the queue is full. [`TableWriter::flush`] and
    /// [`TableWriter::progress`] return the outcome. In an upsert table the last enqueued row of a key
    /// wins.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] if the columns are not those of the table; no row was enqueued.
    pub async fn write(&self, rows: RecordBatch) -> Result<(), ClientError> {
        self.enqueue(RowOp::Put, rows, None).await
    }

    /// Writes rows and waits for their outcome.
    ///
    /// # Errors
    /// [`ClientError::Failed`], [`ClientError::Unknown`] or [`ClientError::Partial`] unless all
    /// took effect.
    pub async fn put_rows(&self, rows: RecordBatch) -> Result<WriteReport, ClientError> {
        self.write_and_wait(RowOp::Put, rows).await
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
        self.write_and_wait(RowOp::Delete, keys).await
    }

    /// Waits until all enqueued rows are settled; returns the report since the creation of the writer.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the writer's task has ended.
    pub async fn flush(&self) -> Result<WriteReport, ClientError> {
        let (reply, settled) = oneshot::channel();
        self.requests.send(WriterRequest::Flush(reply)).await.map_err(|_| self.closed())?;
        settled.await.map_err(|_| self.closed())
    }

    /// Waits until all rows are settled and closes the writer; returns the report of all rows.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the writer's task has ended.
    pub async fn close(self) -> Result<WriteReport, ClientError> {
        self.flush().await
    }

    /// Returns the report of the rows settled so far; to show progress and to stop early.
    pub fn progress(&self) -> WriteReport {
        self.total.lock().clone()
    }

    async fn write_and_wait(
        &self,
        op: RowOp,
        rows: RecordBatch,
    ) -> Result<WriteReport, ClientError> {
        let (reply, settled) = oneshot::channel();
        self.enqueue(op, rows, Some(reply)).await?;
        settled.await.map_err(|_| self.closed())?.into_result(&self.table.name)
    }

    async fn enqueue(
        &self,
        op: RowOp,
        rows: RecordBatch,
        reply: Option<oneshot::Sender<WriteReport>>,
    ) -> Result<(), ClientError> {
        check(&self.table, op, &rows)?;
        let rows = if self.by_key {
            let table = self.table.clone();
            let lanes = self.lanes;
            let count = rows.num_rows() as u64;
            let parts =
                run_blocking(count, move || partition_by_key(&table.codec, op, &rows, lanes))
                    .await?;
            BatchRows::Partitioned(parts)
        } else {
            BatchRows::AnyLane(rows)
        };
        self.requests
            .send(WriterRequest::Write { op, rows, reply })
            .await
            .map_err(|_| self.closed())
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed(self.table.name.clone())
    }
}
