//! Stream of a scan's rows for the caller.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::error::ClientError;

/// Rows of a scan, in key order. The stream ends after the last row or with one error. After an error the
/// rows before it are incomplete. Dropping the stream aborts the scan.
#[derive(Debug)]
pub struct ScanStream {
    pub(super) schema: SchemaRef,
    pub(super) table: String,
    pub(super) rows: mpsc::Receiver<Item>,
    pub(super) ended: bool,
    pub(super) _task: AbortOnDropHandle<()>,
}

/// A batch, or `None` as the end marker. A closed channel without the marker means that the task ended early.
pub(super) type Item = Result<Option<RecordBatch>, ClientError>;

impl ScanStream {
    /// Schema of every batch.
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

    /// Collects all batches in memory. Intended for small results.
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
    type Item = Result<RecordBatch, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}
