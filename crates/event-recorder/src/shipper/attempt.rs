//! One call of the handler, which may hang or panic.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::handler::{EventBatch, EventHandler, Handled};
use crate::retry::AttemptFailure;

/// Outcome of a call of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempted {
    /// The batch is complete.
    Handled(Handled),
    /// It is not; with the reason for the log.
    Failed(AttemptFailure, String),
}

/// Passes a batch to the handler, in a task of its own.
pub(super) async fn attempt(
    handler: &Arc<dyn EventHandler>,
    batch: &EventBatch,
    limit: Duration,
) -> Attempted {
    let (handler, batch) = (Arc::clone(handler), batch.clone());
    let call = tokio::spawn(async move { handler.handle(&batch).await });
    match timeout(limit, AbortOnDropHandle::new(call)).await {
        Ok(Ok(Ok(handled))) => Attempted::Handled(handled),
        Ok(Ok(Err(error))) => Attempted::Failed(AttemptFailure::Failed, error.to_string()),
        Ok(Err(error)) if error.is_panic() => {
            let payload = error.into_panic();
            let text = format!("the handler panicked: {}", panic_text(&*payload));
            Attempted::Failed(AttemptFailure::Panicked, text)
        }
        Ok(Err(error)) => Attempted::Failed(AttemptFailure::Failed, error.to_string()),
        Err(_) => {
            let text = format!("the handler did not return within {limit:?}");
            Attempted::Failed(AttemptFailure::TimedOut, text)
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "no text"
    }
}
