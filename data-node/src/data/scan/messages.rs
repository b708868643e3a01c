//! Messages of a scan: encoded batches with the memory that they occupy until the reader takes them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use futures::Stream;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::{bytes_of, first_part};
use tidewater_proto::v1::{RowsFormat, ScanResponse};
use tidewater_region_engine::read::memory::{BEGUN_WAIT, ByteLease, NestedBudgets};
use tokio::sync::mpsc;
use tonic::Status;

use crate::data::callers::OpenScan;
use crate::data::format;

/// A batch above this size is sent in parts, well below the message limit.
const MESSAGE_TARGET: usize = 8 * 1024 * 1024;
/// Bytes of a message in addition to its rows.
const MESSAGE_BYTES: u64 = 4 << 10;

/// A message with its memory.
#[derive(Debug)]
pub(super) struct LeasedMessage {
    pub(super) message: ScanResponse,
    pub(super) lease: Option<ByteLease>,
}

/// Parts of a batch, each of which becomes a message.
#[derive(Debug)]
pub(super) struct BatchParts {
    batch: RecordBatch,
    start: usize,
}

impl BatchParts {
    pub(super) fn new(batch: RecordBatch) -> Self {
        Self { batch, start: 0 }
    }

    /// Encodes the next part, once there is memory for it; `None` after the last.
    ///
    /// # Errors
    /// No memory became free in time.
    pub(super) async fn next(
        &mut self,
        rows_format: RowsFormat,
        budgets: &NestedBudgets,
    ) -> Result<Option<LeasedMessage>, Refusal> {
        let rest = self.start..self.batch.num_rows();
        if rest.is_empty() {
            return Ok(None);
        }
        let count = first_part(self.batch.columns(), rest.clone(), MESSAGE_TARGET);
        let end = self.start + count;
        let bytes = bytes_of(self.batch.columns(), self.start..end) as u64;
        let bytes = bytes.saturating_add(MESSAGE_BYTES);
        let lease =
            budgets.lease(bytes, bytes, BEGUN_WAIT).await.map_err(|error| Refusal::from(&error))?;
        let rows = format::encode(&self.batch.slice(self.start, count), rows_format)?;
        self.start = end;
        let message = ScanResponse { rows, row_count: count as u64, done: false };
        Ok(Some(LeasedMessage { message, lease: Some(lease) }))
    }
}

/// Messages for the reader. The memory of a message is free when the next one is requested: the
/// response has then been written, but for its last piece (see `paced`).
#[derive(Debug)]
pub(super) struct MessageStream {
    messages: mpsc::Receiver<Result<LeasedMessage, Status>>,
    taken: Option<ByteLease>,
    /// Unread messages hold memory of their caller's share after the last batch was read: until they
    /// are dropped, the scan is open.
    _open: Arc<OpenScan>,
}

impl MessageStream {
    pub(super) fn new(
        messages: mpsc::Receiver<Result<LeasedMessage, Status>>,
        open: Arc<OpenScan>,
    ) -> Self {
        Self { messages, taken: None, _open: open }
    }
}

impl Stream for MessageStream {
    type Item = Result<ScanResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken = None;
        let next = ready!(self.messages.poll_recv(context));
        Poll::Ready(next.map(|next| {
            next.map(|leased| {
                self.taken = leased.lease;
                leased.message
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, BinaryArray, RecordBatchOptions};
    use arrow::datatypes::Schema;
    use futures::StreamExt;
    use tidewater_common::rows::decode_batch;
    use tidewater_region_engine::read::memory::ScanMemory;

    use super::*;
    use crate::data::callers::ScanLimits;

    async fn messages(batch: &RecordBatch) -> Vec<ScanResponse> {
        let mut parts = BatchParts::new(batch.clone());
        let mut messages = Vec::new();
        let unlimited = NestedBudgets::default();
        while let Some(next) = parts.next(RowsFormat::Batch, &unlimited).await.unwrap() {
            messages.push(next.message);
        }
        messages
    }

    fn batch(rows: &[Vec<u8>]) -> RecordBatch {
        let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(rows));
        RecordBatch::try_from_iter([("body", column)]).unwrap()
    }

    #[tokio::test]
    async fn large_batch_is_split_by_bytes() {
        // The large rows are adjacent.
        let rows: Vec<Vec<u8>> = (0..64_usize)
            .map(|row| vec![b'x'; if (16..32).contains(&row) { 3 << 20 } else { 10 }])
            .collect();
        let batch = batch(&rows);
        let parts = messages(&batch).await;
        // Two of the large rows fit in a message, together with the adjacent small ones.
        assert_eq!(parts.len(), 8);
        let mut back = Vec::new();
        for part in parts {
            assert!(part.rows.len() <= MESSAGE_TARGET + 4_096, "{} bytes", part.rows.len());
            let decoded = decode_batch(&part.rows, &batch.schema()).unwrap();
            assert_eq!(decoded.num_rows() as u64, part.row_count);
            back.push(decoded);
        }
        let back = arrow::compute::concat_batches(&batch.schema(), &back).unwrap();
        assert!(back == batch);
    }

    #[tokio::test]
    async fn rows_without_columns_fit_one_message() {
        let options = RecordBatchOptions::new().with_row_count(Some(5));
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
                .unwrap();
        let parts = messages(&batch).await;
        assert_eq!((parts.len(), parts[0].row_count), (1, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn message_is_charged_until_the_next_is_requested() {
        let memory = ScanMemory::new(256 << 20);
        let budget = memory.messages();
        let budgets = memory.account().messages;
        let row = vec![b'x'; 10 << 20];
        let mut parts = BatchParts::new(batch(&[row.clone(), row]));
        let (sender, receiver) = mpsc::channel(2);
        let open = ScanLimits::new(1, Arc::new(ScanMemory::new(1 << 20))).admit(None).unwrap();
        let mut stream = MessageStream::new(receiver, Arc::new(open));
        let next = parts.next(RowsFormat::Batch, &budgets).await.unwrap().unwrap();
        sender.send(Ok(next)).await.unwrap();
        let one = budget.used();
        assert!(one >= 10 << 20, "{one}");
        assert!(stream.next().await.unwrap().is_ok());
        assert_eq!(budget.used(), one, "the reader has yet to take it");
        assert!(futures::poll!(stream.next()).is_pending());
        assert_eq!(budget.used(), 0);
        drop(sender);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn message_without_memory_is_refused() {
        let budgets = ScanMemory::new(8 << 20).account().messages;
        let _held = budgets.lease(3 << 20, 0, BEGUN_WAIT).await.unwrap();
        let mut parts = BatchParts::new(batch(&[vec![b'x'; 10]]));
        let refused = parts.next(RowsFormat::Batch, &budgets).await.unwrap_err();
        assert_eq!(refused.reason, tidewater_proto::v1::Reason::Overloaded);
        assert!(refused.message.contains("--scan-memory"), "{refused}");
    }
}
