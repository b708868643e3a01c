//! Receipt of a recorded event.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// Outcome of a recorded event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOutcome {
    /// The spool has the event: it is written to its table, also after a crash of the process.
    Spooled,
    /// The event is of a type that is not recorded, or cannot be made a row.
    Filtered,
    /// The queue or the spool is full and has nothing of lower priority, or the spool cannot be written.
    Dropped,
    /// The recorder is closed.
    Closed,
}

/// Receipt of an event: a future of its outcome. It may be ignored.
#[derive(Debug)]
pub struct Receipt(ReceiptState);

#[derive(Debug)]
enum ReceiptState {
    Known(RecordOutcome),
    Pending(oneshot::Receiver<RecordOutcome>),
}

impl Receipt {
    /// Receipt of an event whose outcome is known already.
    pub fn known(outcome: RecordOutcome) -> Self {
        Self(ReceiptState::Known(outcome))
    }

    /// Receipt of an event whose outcome is sent later. Without one, the outcome is [`RecordOutcome::Closed`].
    pub fn pending(outcome: oneshot::Receiver<RecordOutcome>) -> Self {
        Self(ReceiptState::Pending(outcome))
    }
}

impl Future for Receipt {
    type Output = RecordOutcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<RecordOutcome> {
        match &mut self.0 {
            ReceiptState::Known(outcome) => Poll::Ready(*outcome),
            // The sender is dropped without an outcome only when the recorder has ended.
            ReceiptState::Pending(outcome) => {
                Pin::new(outcome).poll(context).map(|sent| sent.unwrap_or(RecordOutcome::Closed))
            }
        }
    }
}
