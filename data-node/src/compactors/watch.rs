//! A job that a compactor has accepted, watched to its end.

use std::time::Duration;

use tidewater_common::ids::ManifestVersion;
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::compaction_client::CompactionClient;
use tidewater_proto::compaction::v1::{self as wire, CompactionEvent, compaction_event::Event};
use tidewater_proto::v1::{CallHeader, Reason};
use tidewater_region_engine::compaction::{Attempt, ProgressSnapshot};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::call::{End, FAREWELL};

/// A job that was cancelled ends within this, if not within what it may go without progress.
const END: Duration = Duration::from_secs(10);

/// See the module's head.
pub(super) struct Watch<'a> {
    pub(super) client: CompactionClient<Channel>,
    pub(super) header: Option<CallHeader>,
    pub(super) job_id: String,
    /// Without any progress for so long, it is given up.
    pub(super) patience: Duration,
    pub(super) attempt: &'a Attempt,
}

impl Watch<'_> {
    /// To its end, or until it is given up.
    pub(super) async fn run(&mut self, mut events: Streaming<CompactionEvent>) -> End {
        let (mut seen, mut deadline) = (None, Instant::now() + self.patience);
        let mut cancelled = false;
        loop {
            let next = tokio::select! {
                next = timeout_at(deadline, events.message()) => next,
                () = self.attempt.cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    deadline = Instant::now() + END.min(self.patience);
                    self.cancel().await;
                    continue;
                }
            };
            let event = match next {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return self.lost(&Status::aborted("its events ended")).await,
                Ok(Err(status)) => return self.lost(&status).await,
                Err(_) if cancelled => {
                    // It may be committing: then it goes on.
                    let what = "was cancelled, and its compactor does not say how it ended";
                    return End::Lost(self.refusal(Reason::Unavailable, what));
                }
                Err(_) => {
                    // It may hang, or sleep: whatever it still does, the manifest decides.
                    self.cancel().await;
                    let what = format!("made no progress for {:?}", self.patience);
                    return End::Lost(self.refusal(Reason::DeadlineExceeded, &what));
                }
            };
            // Of another job, or nothing at all: what is not ours is ignored.
            let Some(event) = event.event.filter(|_| event.job_id == self.job_id) else { continue };
            match event {
                Event::Accepted(_) => {}
                Event::Progress(done) => {
                    let done = ProgressSnapshot::from(done);
                    self.attempt.progress.set(&done);
                    if seen != Some(done) && !cancelled {
                        deadline = Instant::now() + self.patience;
                    }
                    seen = Some(done);
                }
                Event::Committed(committed) => {
                    if let Some(done) = committed.done {
                        self.attempt.progress.set(&done.into());
                    }
                    let version = ManifestVersion(committed.manifest_version);
                    return End::Committed { version, files_out: committed.files_out.len() };
                }
                Event::Failed(failed) => return ended(failed, cancelled),
            }
        }
    }

    /// Has it ended, if it runs.
    pub(super) async fn cancel(&mut self) {
        let request = wire::CancelCompactionRequest {
            header: self.header.clone(),
            job_id: self.job_id.clone(),
        };
        // Whether it was heard shows in the events, or not at all.
        let _ = timeout(FAREWELL, self.client.cancel_compaction(request)).await;
    }

    /// Whoever was to hear of it is gone: it is not to take a slot any longer.
    async fn lost(&mut self, status: &Status) -> End {
        self.cancel().await;
        let what = format!("was not heard of to its end: {}", status.message());
        End::Lost(self.refusal(Reason::Unavailable, &what))
    }

    fn refusal(&self, reason: Reason, what: &str) -> Refusal {
        Refusal::new(reason, format!("compaction {} {what}", self.job_id))
    }
}

/// What a failure that the compactor reports means.
fn ended(failed: wire::CompactionFailed, cancelled: bool) -> End {
    let reason = Reason::try_from(failed.reason).unwrap_or(Reason::Unspecified);
    let refusal = Refusal::new(reason, failed.message);
    match reason {
        // Handed back by a compactor that is being stopped.
        Reason::ShuttingDown if !failed.manifest_may_be_written => End::HandedBack(refusal),
        Reason::JobCancelled if cancelled => End::Cancelled(refusal),
        Reason::InputsGone | Reason::BelowFloor | Reason::RegionNotFound
            if !failed.manifest_may_be_written =>
        {
            End::Void(refusal)
        }
        _ => End::Lost(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: Reason, manifest_may_be_written: bool) -> wire::CompactionFailed {
        let (reason, message) = (reason.into(), "x".to_owned());
        wire::CompactionFailed { reason, message, manifest_may_be_written }
    }

    #[test]
    fn what_a_failure_means_depends_on_its_reason_and_on_the_manifest() {
        let refusal = |reason| Refusal::new(reason, "x");
        let cases = [
            (Reason::InputsGone, false, false, End::Void as fn(Refusal) -> End),
            (Reason::BelowFloor, false, false, End::Void),
            (Reason::RegionNotFound, false, false, End::Void),
            (Reason::ShuttingDown, false, false, End::HandedBack),
            (Reason::ShuttingDown, true, false, End::Lost),
            (Reason::InputsGone, true, false, End::Lost),
            (Reason::JobCancelled, false, true, End::Cancelled),
            // Somebody else has cancelled it, there.
            (Reason::JobCancelled, false, false, End::Lost),
            (Reason::ObjectStoreUnavailable, false, false, End::Lost),
            (Reason::Unavailable, true, false, End::Lost),
            (Reason::Corrupt, false, true, End::Lost),
        ];
        for (reason, may_be_written, cancelled, expected) in cases {
            let end = ended(failed(reason, may_be_written), cancelled);
            assert_eq!(end, expected(refusal(reason)), "{reason:?} {may_be_written} {cancelled}");
        }
        let unknown = wire::CompactionFailed { reason: 9_999, ..failed(Reason::Internal, false) };
        assert!(matches!(ended(unknown, false), End::Lost(_)));
    }
}
