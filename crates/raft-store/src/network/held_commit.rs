//! A request without entries tells a follower only that more is committed. While commands come one
//! after the other, the next one's entries say the same a moment later: then it need not be sent,
//! which halves the messages of a group under such a load.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::types::TypeConfig;

/// How long entries may take to come. Followers apply so much later when none do; nobody waits for
/// them, and a heartbeat tells them the same.
pub(super) const HOLD: Duration = Duration::from_millis(5);

/// At most one such request, and when it is to be sent after all.
#[derive(Debug, Default)]
pub(super) struct HeldCommit {
    request: Option<AppendEntriesRequest<TypeConfig>>,
    // Kept for the next one: a timer costs more to make than to move.
    due: Option<Pin<Box<Sleep>>>,
}

impl HeldCommit {
    /// Holds a request, in place of one before it: what is committed only grows.
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

    /// Gives the request back before its time.
    pub(super) fn take(&mut self) -> Option<AppendEntriesRequest<TypeConfig>> {
        self.request.take()
    }

    /// The request, when it has been held for long enough. Pending while there is none.
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
