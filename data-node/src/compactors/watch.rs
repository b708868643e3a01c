//! Watches an attempt that a compactor has accepted until it ends.

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

use super::call::{AttemptOutcome, CLOSE_TIMEOUT};

/// Limit for the end of a cancelled attempt; the progress timeout applies as well.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Running attempt.
pub(super) struct AttemptWatch<'a> {
    pub(super) client: CompactionClient<Channel>,
    pub(super) header: Option<CallHeader>,
    pub(super) job_id: String,
    /// Time without progress after which the attempt is aborted.
    pub(super) progress_timeout: Duration,
    pub(super) attempt: &'a Attempt,
}

impl AttemptWatch<'_> {
    /// Follows the events of the attempt until it ends or is aborted.
    pub(super) async fn run(&mut self, mut events: Streaming<CompactionEvent>) -> AttemptOutcome {
        let mut last_progress = None;
        let mut deadline = Instant::now() + self.progress_timeout;
        let mut cancelled = false;
        loop {
            let next = tokio::select! {
                next = timeout_at(deadline, events.message()) => next,
                () = self.attempt.cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    deadline = Instant::now() + CANCEL_TIMEOUT.min(self.progress_timeout);
                    self.cancel().await;
                    continue;
                }
            };
            let event = match next {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => {
                    return self.unknown(&Status::aborted("the stream of events ended")).await;
                }
                Ok(Err(status)) => return self.unknown(&status).await,
                Err(_) if cancelled => {
                    // It may be committing: then it continues.
                    let problem = "was cancelled, but its compactor did not report an outcome";
                    let refusal = self.refusal(Reason::Unavailable, problem);
                    return AttemptOutcome::Unknown(refusal);
                }
                Err(_) => {
                    // It may hang or sleep. The manifest decides, whatever the compactor still does.
                    self.cancel().await;
                    let problem = format!("made no progress for {:?}", self.progress_timeout);
                    let refusal = self.refusal(Reason::DeadlineExceeded, &problem);
                    return AttemptOutcome::Unknown(refusal);
                }
            };
            // Events of other jobs and empty events are ignored.
            let Some(event) = event.event.filter(|_| event.job_id == self.job_id) else { continue };
            match event {
                Event::Accepted(_) => {}
                Event::Progress(done) => {
                    let done = ProgressSnapshot::from(done);
                    self.attempt.progress.set(&done);
                    if last_progress != Some(done) && !cancelled {
                        deadline = Instant::now() + self.progress_timeout;
                    }
                    last_progress = Some(done);
                }
                Event::Committed(committed) => {
                    if let Some(done) = committed.done {
                        self.attempt.progress.set(&done.into());
                    }
                    let version = ManifestVersion(committed.manifest_version);
                    let files_out = committed.files_out.len();
                    return AttemptOutcome::Committed { version, files_out };
                }
                Event::Failed(failed) => return failure_outcome(failed, cancelled),
            }
        }
    }

    /// Sends a cancel to the compactor.
    pub(super) async fn cancel(&mut self) {
        let request = wire::CancelCompactionRequest {
            header: self.header.clone(),
            job_id: self.job_id.clone(),
        };
        // The events show whether the compactor received it.
        let _ = timeout(CLOSE_TIMEOUT, self.client.cancel_compaction(request)).await;
    }

    /// Cancels an attempt whose events ended early, so that it does not occupy a slot any longer.
    async fn unknown(&mut self, status: &Status) -> AttemptOutcome {
        self.cancel().await;
        let problem = format!("ended without a reported outcome: {}", status.message());
        AttemptOutcome::Unknown(self.refusal(Reason::Unavailable, &problem))
    }

    fn refusal(&self, reason: Reason, problem: &str) -> Refusal {
        Refusal::new(reason, format!("compaction {} {problem}", self.job_id))
    }
}

/// Returns the outcome of an attempt whose failure the compactor reported.
fn failure_outcome(failed: wire::CompactionFailed, cancelled: bool) -> AttemptOutcome {
    let reason = Reason::try_from(failed.reason).unwrap_or(Reason::Unspecified);
    let refusal = Refusal::new(reason, failed.message);
    match reason {
        // Returned by a compactor that is being stopped.
        Reason::ShuttingDown if !failed.manifest_may_be_written => {
            AttemptOutcome::Returned(refusal)
        }
        Reason::JobCancelled if cancelled => AttemptOutcome::Cancelled(refusal),
        // The region is sealed for a split or a merge: its children plan the compaction again.
        Reason::InputsGone
        | Reason::BelowFloor
        | Reason::RegionNotFound
        | Reason::RouteWriteFenced
            if !failed.manifest_may_be_written =>
        {
            AttemptOutcome::Discarded(refusal)
        }
        _ => AttemptOutcome::Unknown(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::AttemptOutcome::{Cancelled, Discarded, Returned, Unknown};
    use super::*;

    fn failed(reason: Reason, manifest_may_be_written: bool) -> wire::CompactionFailed {
        wire::CompactionFailed {
            reason: reason.into(),
            message: "x".to_owned(),
            manifest_may_be_written,
        }
    }

    #[test]
    fn reported_reason_and_manifest_determine_the_outcome() {
        let refusal = |reason| Refusal::new(reason, "x");
        let cases = [
            (Reason::InputsGone, false, false, Discarded as fn(Refusal) -> AttemptOutcome),
            (Reason::BelowFloor, false, false, Discarded),
            (Reason::RegionNotFound, false, false, Discarded),
            (Reason::RouteWriteFenced, false, false, Discarded),
            (Reason::ShuttingDown, false, false, Returned),
            (Reason::ShuttingDown, true, false, Unknown),
            (Reason::InputsGone, true, false, Unknown),
            (Reason::JobCancelled, false, true, Cancelled),
            // Cancelled on the compactor, not by this node.
            (Reason::JobCancelled, false, false, Unknown),
            (Reason::ObjectStoreUnavailable, false, false, Unknown),
            (Reason::Unavailable, true, false, Unknown),
            (Reason::Corrupt, false, true, Unknown),
        ];
        for (reason, may_be_written, cancelled, expected) in cases {
            let outcome = failure_outcome(failed(reason, may_be_written), cancelled);
            let case = format!("{reason:?} {may_be_written} {cancelled}");
            assert_eq!(outcome, expected(refusal(reason)), "{case}");
        }
        let unknown = wire::CompactionFailed { reason: 9_999, ..failed(Reason::Internal, false) };
        assert!(matches!(failure_outcome(unknown, false), Unknown(_)));
    }
}
