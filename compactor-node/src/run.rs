//! Life of one job, from `accepted` to its last event. The job continues without its caller, and
//! its slot is released before the caller receives the last event, whatever the outcome.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::compaction_event::Event;
use tidewater_proto::compaction::v1::{
    CompactionAccepted, CompactionCommitted, CompactionEvent, CompactionFailed,
};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::compaction::CommittedCompaction;
use tidewater_region_engine::storage::StoreDisk;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::Status;
use tracing::{info, warn};

use crate::jobs::{EndCause, JobSlot, RunningJob};
use crate::meters;

/// Interval of progress events and of checks of the disk.
const PROGRESS: Duration = Duration::from_millis(500);
/// Capacity of a caller's event queue; further progress events are dropped.
const EVENTS: usize = 8;

type EventMessage = Result<CompactionEvent, Status>;

/// Sender of events to the caller. Never waits for the caller; the last event has a reserved place.
#[derive(Debug)]
pub(crate) struct EventSender {
    sender: mpsc::Sender<EventMessage>,
    last: Option<mpsc::OwnedPermit<EventMessage>>,
}

impl EventSender {
    /// Creates the sender and the receiver that the caller reads.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<EventMessage>) {
        let (sender, receiver) = mpsc::channel(EVENTS);
        // Cannot fail: the queue is empty.
        let last = sender.clone().try_reserve_owned().ok();
        (Self { sender, last }, receiver)
    }

    fn send(&self, job: &RunningJob, event: Event) {
        let _ = self.sender.try_send(Ok(message(job, event)));
    }

    fn finish(mut self, job: &RunningJob, event: Event) {
        if let Some(last) = self.last.take() {
            last.send(Ok(message(job, event)));
        }
    }
}

fn message(job: &RunningJob, event: Event) -> CompactionEvent {
    CompactionEvent { job_id: job.id.to_string(), event: Some(event) }
}

/// Outcome of a job.
#[derive(Debug)]
struct JobOutcome {
    /// Name in metrics and logs.
    name: &'static str,
    event: Event,
}

/// Runs a job: `work` does it, with the attempt of `slot`. Returns whether its commit has an
/// unknown outcome.
pub(crate) async fn run(
    work: impl Future<Output = Result<CommittedCompaction, EngineError>>,
    slot: JobSlot,
    disk: &StoreDisk,
    events: EventSender,
) -> bool {
    let job = slot.job.clone();
    info!(
        job = %job.id,
        region = %job.dir,
        source = %job.source,
        attempt = job.number,
        files_in = job.inputs.len(),
        bytes_in = job.bytes_in,
        parallelism = job.limits.parallelism,
        memory_bytes = job.limits.memory_bytes,
        "compaction started"
    );
    events.send(&job, Event::Accepted(accepted(&job)));
    let work = AssertUnwindSafe(work).catch_unwind();
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let result = loop {
        tokio::select! {
            result = &mut work => break result.ok(),
            _ = ticks.tick() => {
                events.send(&job, Event::Progress(job.attempt.progress.snapshot().into()));
                if disk.room().await == Some(0) {
                    job.end(EndCause::Disk);
                }
            }
        }
    };
    let outcome = job_outcome(&job, result, job.attempt.progress.is_committing());
    let done = job.attempt.progress.snapshot();
    meters::job_ended(outcome.name, done);
    log_outcome(&job, &outcome);
    drop(slot);
    let unknown = matches!(&outcome.event, Event::Failed(failed) if failed.manifest_may_be_written);
    events.finish(&job, outcome.event);
    unknown
}

fn accepted(job: &RunningJob) -> CompactionAccepted {
    CompactionAccepted {
        parallelism: u32::try_from(job.limits.parallelism).unwrap_or(u32::MAX),
        memory_bytes: job.limits.memory_bytes,
    }
}

/// Outcome of a job. `result` is `None` if the work panicked; `committing` states whether the
/// commit had started.
fn job_outcome(
    job: &RunningJob,
    result: Option<Result<CommittedCompaction, EngineError>>,
    committing: bool,
) -> JobOutcome {
    let (name, refusal, unknown) = match result {
        Some(Ok(committed)) => {
            return JobOutcome { name: "committed", event: success(job, committed) };
        }
        Some(Err(error)) => {
            let refusal = refusal_of(job, &error);
            let unknown = matches!(error, EngineError::Unknown { .. });
            (outcome_name(refusal.reason, unknown), refusal, unknown)
        }
        None => {
            // A commit that had started may have succeeded.
            let message = format!("job {} panicked: see the compactor's log", job.id);
            let refusal = Refusal::new(Reason::Internal, message);
            (outcome_name(refusal.reason, committing), refusal, committing)
        }
    };
    let event = CompactionFailed {
        reason: refusal.reason.into(),
        message: refusal.message,
        manifest_may_be_written: unknown,
    };
    JobOutcome { name, event: Event::Failed(event) }
}

/// RPC error of a failed job; an early end caused by this node is reported with its cause.
fn refusal_of(job: &RunningJob, error: &EngineError) -> Refusal {
    let refusal = Refusal::from(error);
    let ended_by = match error {
        EngineError::Cancelled { .. } => job.ended_by(),
        _ => None,
    };
    match ended_by {
        None | Some(EndCause::Cancel) => refusal,
        Some(EndCause::Drain) => Refusal::new(
            Reason::ShuttingDown,
            format!("job {} was aborted: this compactor is shutting down", job.id),
        ),
        Some(EndCause::Disk) => Refusal::new(
            Reason::DiskFull,
            format!("job {} was aborted: the disk of the object store is filling up", job.id),
        ),
    }
}

fn outcome_name(reason: Reason, unknown: bool) -> &'static str {
    match reason {
        _ if unknown => "unknown",
        Reason::InputsGone | Reason::RegionNotFound | Reason::RouteWriteFenced => "inputs_gone",
        Reason::BelowFloor => "below_floor",
        Reason::JobCancelled | Reason::ShuttingDown => "cancelled",
        _ => "failed",
    }
}

fn success(job: &RunningJob, committed: CommittedCompaction) -> Event {
    Event::Committed(CompactionCommitted {
        manifest_version: committed.manifest_version.get(),
        files_in: job.inputs.iter().map(Into::into).collect(),
        files_out: committed.outputs.iter().map(Into::into).collect(),
        done: Some(job.attempt.progress.snapshot().into()),
    })
}

fn log_outcome(job: &RunningJob, outcome: &JobOutcome) {
    let done = job.attempt.progress.snapshot();
    let took_ms = job.began.elapsed().as_millis() as u64;
    match &outcome.event {
        Event::Failed(failed) => warn!(
            job = %job.id,
            region = %job.dir,
            source = %job.source,
            outcome = outcome.name,
            reason = ?failed.reason(),
            rows_read = done.rows_read,
            rows_written = done.rows_written,
            took_ms,
            problem = failed.message,
            "compaction ended without a commit"
        ),
        Event::Committed(committed) => info!(
            job = %job.id,
            region = %job.dir,
            source = %job.source,
            outcome = outcome.name,
            manifest_version = committed.manifest_version,
            files_in = committed.files_in.len(),
            files_out = committed.files_out.len(),
            rows_read = done.rows_read,
            rows_written = done.rows_written,
            bytes_written = done.bytes_written,
            took_ms,
            "compaction committed"
        ),
        Event::Accepted(_) | Event::Progress(_) => {}
    }
}

#[cfg(test)]
mod tests;
