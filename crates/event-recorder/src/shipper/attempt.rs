//! One call of the handler, which may hang or panic.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tidewater_events::{EventBatch, EventHandler, Handled};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::problem_log::ProblemLog;
use crate::retry::AttemptFailure;

/// Time between two log lines about a call that does not end.
const STUCK: Duration = Duration::from_secs(60);

/// Outcome of a call of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempted {
    /// The batch is complete.
    Handled(Handled),
    /// It is not; with the reason for the log.
    Failed(AttemptFailure, String),
}

/// Passes a batch to the handler, in a task of its own. After the limit, the call is aborted, and its end is awaited: calls
/// for one table do not overlap.
pub(super) async fn attempt(
    handler: &Arc<dyn EventHandler>,
    batch: EventBatch,
    limit: Duration,
    problems: &ProblemLog,
) -> Attempted {
    let handler = Arc::clone(handler);
    let table = batch.table().to_owned();
    let call = tokio::spawn(async move { handler.handle(&batch).await });
    let mut call = AbortOnDropHandle::new(call);
    let ended = match timeout(limit, &mut call).await {
        Ok(ended) => ended,
        Err(_) => {
            call.abort();
            while timeout(STUCK, &mut call).await.is_err() {
                problems.log(&table, "the handler does not end", &"it blocks its thread");
            }
            let text = format!("the handler did not return within {limit:?}");
            return Attempted::Failed(AttemptFailure::Failed, text);
        }
    };
    match ended {
        Ok(Ok(handled)) => Attempted::Handled(handled),
        Ok(Err(error)) => Attempted::Failed(AttemptFailure::Failed, error.to_string()),
        Err(error) if error.is_panic() => {
            let payload = error.into_panic();
            let text = format!("the handler panicked: {}", panic_text(&*payload));
            Attempted::Failed(AttemptFailure::Panicked, text)
        }
        Err(error) => Attempted::Failed(AttemptFailure::Failed, error.to_string()),
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
