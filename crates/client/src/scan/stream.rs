//! The result stream of a scan.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::error::ClientError;

/// Rows of a scan, in key order. Ends after the last row, or with one error, after which the rows
/// before it are incomplete.
#[derive(Debug)]
pub struct ScanStream {
    pub(super) schema: SchemaRef,
    pub(super) table: String,
    pub(super) rows: mpsc::Receiver<ScanItem>,
    pub(super) ended: bool,
    pub(super) _task: AbortOnDropHandle<()>,
}

/// `None` marks the end of the rows. A closed channel does not: the sender may have crashed.
pub(super) type ScanItem = Result<Option<RecordBatch>, ClientError>;

impl ScanStream {
    /// Returns the schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the next batch; `None` after the last.
    pub async fn next_batch(&mut self) -> Option<Result<RecordBatch, ClientError>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<RecordBatch, ClientError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.rows.poll_recv(context));
        self.ended = !matches!(item, Some(Ok(Some(_))));
        Poll::Ready(match item {
            Some(Ok(batch)) => batch.map(Ok),
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(ClientError::Closed(self.table.clone()))),
        })
    }

    /// Returns all rows. For small results.
    ///
    /// # Errors
    /// The error that ended the scan early.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, ClientError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next_batch().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

impl Stream for ScanStream {
    type ScanItem = Result<RecordBatch, ClientError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Self::ScanItem>> {
        self.poll(context)
    }
}
