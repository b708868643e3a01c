//! The rows of a scan, as its reader gets them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::error::ClientError;

/// Rows of a scan, in key order. Ends after the last row, or with one error: then the rows before
/// it are not the whole.
#[derive(Debug)]
pub struct ScanStream {
    pub(super) schema: SchemaRef,
    pub(super) table: String,
    pub(super) rows: mpsc::Receiver<Item>,
    pub(super) ended: bool,
    pub(super) _task: AbortOnDropHandle<()>,
}

/// `None` says that this was all: that the other end went away does not.
pub(super) type Item = Result<Option<RecordBatch>, ClientError>;

impl ScanStream {
    /// The columns of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch; `None` after the last.
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

    /// All rows at once. For small results.
    ///
    /// # Errors
    /// Whatever ended the scan early.
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
