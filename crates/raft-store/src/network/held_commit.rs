//! Requests without entries, held back for a moment.
//!
//! A request without entries only reports a higher committed index. Under a sequence of commands,
//! the entries of the next command report it a moment later. The request then need not be sent,
//! which halves the messages of a group under such a load.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::types::TypeConfig;

/// Time to wait for entries. Without entries, followers apply this much later. No caller waits for
/// them to apply, and a heartbeat reports the same index.
pub(super) const HOLD: Duration = Duration::from_millis(5);

/// At most one held request, and the time at which it is sent without entries.
#[derive(Debug, Default)]
pub(super) struct HeldCommit {
    request: Option<AppendEntriesRequest<TypeConfig>>,
    // Reused for the next request: a timer costs more to create than to reset.
    due: Option<Pin<Box<Sleep>>>,
}

impl HeldCommit {
    /// Holds a request, replacing the one before it: the committed index only grows.
    pub(super) fn hold(&mut self, request: AppendEntriesRequest<TypeConfig>) {
        if self.request.replace(request).is_some() {
            return;
        }
        let due = Instant::now() + HOLD;
        match &mut self.due {
            Some(timer) => timer.as_mut().reset(due),
            None => self.due = Some(Box::pin(sleep_until(due))),
        }
    }

    /// Returns the held request before it is due.
    pub(super) fn take(&mut self) -> Option<AppendEntriesRequest<TypeConfig>> {
        self.request.take()
    }

    /// Returns the held request once it is due. Pending while none is held.
    pub(super) fn poll_due(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<AppendEntriesRequest<TypeConfig>> {
        let (Some(_), Some(timer)) = (&self.request, &mut self.due) else { return Poll::Pending };
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => self.request.take().map_or(Poll::Pending, Poll::Ready),
            Poll::Pending => Poll::Pending,
        }
    }
}
